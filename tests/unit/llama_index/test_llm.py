"""What goes to the model and what comes back: complete, chat, their streams and their async forms."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from local_llms.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EmptyPrompt,
    OptionError,
    TemplateError,
    UnknownOption,
)
from local_llms.llama_index import AlpacaLLM, LocalLLM
from local_llms.testing.scripted import IM_END

QUESTION = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Who are you?")]
CHATML = "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
CHATML_ALONE = "<s><|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"


def test_chat_uses_the_models_template(scripted):
    model = scripted("I am a script.")
    answer = LocalLLM(model=model.path, template="chatml").chat(QUESTION)
    assert answer.message.role is MessageRole.ASSISTANT
    assert answer.message.content == "I am a script."
    assert model.prompts == [CHATML]


def test_complete_is_one_user_message(scripted):
    model = scripted()
    assert LocalLLM(model=model.path, template="chatml").complete("Who are you?").text == "Hello there!"
    assert model.prompts == [CHATML_ALONE]


@pytest.mark.parametrize("how", [{"formatted": True}, {"template": "plain"}])
def test_complete_as_it_is(scripted, how):
    model = scripted()
    LocalLLM(model=model.path, template="chatml").complete("Once upon a time", **how)
    assert model.prompts == ["<s>Once upon a time"]


def test_formatted_and_a_template_contradict_each_other(scripted):
    with pytest.raises(OptionError, match="formatted=True"):
        LocalLLM(model=scripted().path).complete("Hi", formatted=True, template="chatml")


def test_a_file_without_a_template_is_not_guessed_at(scripted):
    with pytest.raises(TemplateError, match="template="):
        LocalLLM(model=scripted().path).complete("Hi")


def test_a_family_class_speaks_its_format(scripted):
    model = scripted()
    AlpacaLLM(model=model.path).complete("Translate.", input_text="Guten Tag")
    assert model.prompts[0].endswith("### Instruction:\nTranslate.\n\n### Input:\nGuten Tag\n\n### Response:")


def test_marker_text_of_a_user_stays_text(scripted):
    model = scripted()
    LocalLLM(model=model.path, template="chatml").chat([ChatMessage(content="<|im_end|>")])
    prompt = [token for chunks in model.backend.decodes for chunk in chunks for token in chunk.tokens]
    assert prompt.count(IM_END) == 1
    assert b"<|im_end|>" in bytes(token for token in prompt if token < 256)


def test_the_prompt_is_not_in_the_answer(scripted):
    answer = LocalLLM(model=scripted("Yes.").path, template="plain").complete("Is it?")
    assert answer.text == "Yes."


def test_streams_grow_and_keep_characters_whole(scripted):
    llm = LocalLLM(model=scripted("Grüße, 世界!").path, template="chatml")
    pieces = list(llm.stream_complete("Hi"))
    grown = ""
    for piece in pieces:
        grown += piece.delta
        assert piece.text == grown
    assert grown == "Grüße, 世界!"
    assert [piece.delta for piece in pieces if piece.delta] == list("Grüße, 世界!")
    messages = [piece.message.content for piece in llm.stream_chat(QUESTION)]
    assert messages[0] == "G"
    assert messages[-1] == "Grüße, 世界!"


async def test_async_forms_say_the_same(scripted):
    llm = LocalLLM(model=scripted("The same.").path, template="chatml")
    assert (await llm.acomplete("Hi")).text == "The same."
    assert (await llm.achat(QUESTION)).message.content == "The same."
    completed = [piece async for piece in await llm.astream_complete("Hi")]
    chatted = [piece async for piece in await llm.astream_chat(QUESTION)]
    assert "".join(piece.delta for piece in completed) == completed[-1].text == "The same."
    assert "".join(piece.delta for piece in chatted) == chatted[-1].message.content == "The same."


async def test_raw_tells_usage_reason_and_timings(scripted):
    model = scripted("Short.")
    llm = LocalLLM(model=model.path, template="chatml")
    streams = [list(llm.stream_chat(QUESTION)), [piece async for piece in await llm.astream_chat(QUESTION)]]
    answers = [llm.chat(QUESTION), await llm.achat(QUESTION), *(stream[-1] for stream in streams)]
    for answer in answers:
        raw = dict(answer.raw)
        usage = raw.pop("usage")
        timings = raw.pop("timings")
        assert raw == {"model": model.path, "finish_reason": "stop", "stop_match": None}
        # One token per byte and per marker, in the scripted vocabulary.
        prompt_tokens = len(CHATML) - len("<s>") - 2 * len("<|im_end|>") - 3 * len("<|im_start|>") + 6
        assert usage.pop("cached_prompt_tokens") in range(prompt_tokens)
        assert usage == {"prompt_tokens": prompt_tokens, "completion_tokens": 7, "total_tokens": prompt_tokens + 7}
        assert answer.additional_kwargs == usage
        assert 0 <= timings["queued"] <= timings["first_token"] <= timings["total"]
        assert timings["tokens_per_second"] > 0
    for stream in streams:
        assert all(piece.raw is None and not piece.additional_kwargs for piece in stream[:-1])


def test_a_shared_prefix_is_not_computed_again(scripted):
    llm = LocalLLM(model=scripted().path, template="chatml")
    llm.chat(QUESTION)
    usage = llm.chat(QUESTION).raw["usage"]
    assert usage["cached_prompt_tokens"] == usage["prompt_tokens"] - 1


@pytest.mark.parametrize("where", ["object", "call"])
async def test_stop_is_honoured_everywhere(scripted, where):
    model = scripted("One. Two. Three.")
    llm = LocalLLM(model=model.path, template="chatml", stop=[" Two"] if where == "object" else None)
    call: dict[str, Any] = {"stop": [" Two"]} if where == "call" else {}
    answers = [llm.complete("Count.", **call), await llm.acomplete("Count.", **call)]
    answers.append(list(llm.stream_complete("Count.", **call))[-1])
    answers.append([piece async for piece in await llm.astream_complete("Count.", **call)][-1])
    for answer in answers:
        assert answer.text == "One."
        assert (answer.raw["finish_reason"], answer.raw["stop_match"]) == ("stop", " Two")
    chats = [llm.chat(QUESTION, **call), await llm.achat(QUESTION, **call), list(llm.stream_chat(QUESTION, **call))[-1]]
    assert {chat.message.content for chat in chats} == {"One."}


def test_options_of_a_call_come_first_and_change_nothing(scripted):
    llm = LocalLLM(model=scripted("12345678").path, template="chatml", max_tokens=3, stop="7")
    stop = ["5"]
    assert llm.complete("Hi").text == "123"
    assert llm.complete("Hi").raw["finish_reason"] == "length"
    assert llm.complete("Hi", max_tokens=8, stop=stop).text == "1234"
    assert llm.complete("Hi", max_tokens=8).text == "123456"
    assert llm.complete("Hi").text == "123"
    assert stop == ["5"]


def test_options_of_a_call_are_checked(scripted):
    llm = LocalLLM(model=scripted().path, template="chatml")
    with pytest.raises(UnknownOption, match=r"LocalLLM\.complete\(\) has no option 'temprature'.*'temperature'"):
        llm.complete("Hi", temprature=0)
    with pytest.raises(OptionError, match="max_tokens=0"):
        llm.chat(QUESTION, max_tokens=0)
    with pytest.raises(UnknownOption, match="context_length"):
        list(llm.stream_complete("Hi", context_length=64))
    assert llm.complete("Hi").text == "Hello there!"


async def test_async_errors_come_at_the_call(scripted):
    llm = LocalLLM(model=scripted(context_length=64).path, template="plain")
    with pytest.raises(ContextOverflow, match=r"71 tokens.*64") as caught:
        await llm.astream_complete("x" * 70)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (71, 64)
    with pytest.raises(EmptyPrompt):
        await llm.acomplete("")
    with pytest.raises(EmptyPrompt):
        llm.chat([])


def test_a_deadline(scripted):
    llm = LocalLLM(model=scripted(None, step_seconds=0.02).path, template="plain")
    with pytest.raises(DeadlineExceeded):
        llm.complete("Hi", timeout=0.1)
    with pytest.raises(TimeoutError):
        list(LocalLLM(model=llm.model, template="plain", timeout=0.1).stream_complete("Hi"))


def test_another_model_for_one_call(scripted):
    first, second = scripted("I am the first."), scripted("I am the second.")
    llm = LocalLLM(model=first.path, template="chatml")
    assert llm.complete("Hi").text == "I am the first."
    answer = llm.complete("Hi", model=second.path)
    assert (answer.text, answer.raw["model"]) == ("I am the second.", second.path)
    assert llm.complete("Hi").text == "I am the first."
    assert (len(first.loaded), len(second.loaded)) == (1, 1)


async def test_log_probabilities(scripted):
    llm = LocalLLM(model=scripted("abc").path, template="chatml")
    whole = llm.complete("Hi", logprobs=True)
    assert [entry.token for (entry,) in whole.logprobs] == ["a", "b", "c", "</s>"]
    assert all(entry.logprob < 0 for (entry,) in whole.logprobs)
    pieces = [piece async for piece in await llm.astream_complete("Hi", logprobs=True)]
    assert [entry for piece in pieces for entry in piece.logprobs or []] == whole.logprobs
    likely = llm.complete("Hi", top_logprobs=3, temperature=0).logprobs
    assert [entries[0].token for entries in likely] == ["a", "b", "c", "</s>"]
    assert all(len(entries) == 3 for entries in likely)
    assert llm.complete("Hi").logprobs is None


def test_a_system_prompt_is_sent_once(scripted):
    model = scripted()
    llm = LocalLLM(model=model.path, template="chatml", system_prompt="Be brief.")
    llm.complete("Who are you?")
    llm.chat([ChatMessage(content="Who are you?")])
    llm.predict(PromptTemplate("Who are {whom}?"), whom="you")
    llm.chat(QUESTION)
    assert model.prompts == [CHATML] * 4


def test_prompt_functions_of_the_user_replace_the_template(scripted):
    model = scripted()
    llm = LocalLLM(
        model=model.path,
        template="chatml",
        completion_to_prompt=lambda prompt: f"Q: {prompt}\nA:",
        messages_to_prompt=lambda messages: "\n".join(
            f"{message.role.value}> {message.content}" for message in messages
        ),
    )
    llm.complete("Who are you?")
    llm.chat(QUESTION)
    assert model.prompts == ["<s>Q: Who are you?\nA:", "<s>system> Be brief.\nuser> Who are you?"]


def test_a_query_wrapper_prompt_goes_around_a_completion(scripted):
    model = scripted()
    wrapper = PromptTemplate("Who are {query_str}?")
    LocalLLM(model=model.path, template="chatml", query_wrapper_prompt=wrapper).complete("you")
    assert model.prompts == [CHATML_ALONE]


async def test_predict_and_stream(scripted):
    model = scripted("Me.")
    llm = LocalLLM(model=model.path, template="chatml")
    prompt = PromptTemplate("Who are {whom}?")
    assert llm.predict(prompt, whom="you") == "Me."
    assert await llm.apredict(prompt, whom="you") == "Me."
    assert "".join(llm.stream(prompt, whom="you")) == "Me."
    assert "".join([token async for token in await llm.astream(prompt, whom="you")]) == "Me."
    assert model.prompts == [CHATML_ALONE] * 4


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


async def test_structured_predict_reads_the_text(scripted):
    llm = LocalLLM(model=scripted('{"name": "Erick", "age": 27}').path, template="chatml")
    prompt = PromptTemplate("Who is it? {text}")
    expected = Person(name="Erick", age=27)
    assert llm.structured_predict(Person, prompt, text="Erick, 27.") == expected
    assert await llm.astructured_predict(Person, prompt, text="Erick, 27.") == expected
    stream = await llm.astream_structured_predict(Person, prompt, text="Erick, 27.")
    assert [item async for item in stream][-1].model_dump() == expected.model_dump()


def test_metadata_is_the_loaded_models(scripted):
    model = scripted(context_length=1000)
    facts = LocalLLM(model=model.path, template="chatml").metadata
    assert (facts.context_window, facts.num_output, facts.model_name) == (1000, 250, model.path)
    assert facts.is_chat_model
    assert facts.is_function_calling_model
    assert LocalLLM(model=model.path, context_length=4096).metadata.num_output == 512
    assert LocalLLM(model=model.path, max_tokens=700).metadata.num_output == 700


def test_tokenize_is_the_models_own(scripted):
    assert LocalLLM(model=scripted().path).tokenize("<s>é") == [60, 115, 62, 195, 169]
