"""What a model thinks before it answers: reasoning blocks of messages and of their chunks, apart from the text."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from local_llms.errors import OptionError, UnsupportedFeature
from local_llms.langchain import RWKVLLM, ChatLocal, ChatRWKV, LocalLLM
from local_llms.langchain.messages import to_messages

SAID = "<think>\nHm, é.\n</think>\n\nSo, ü."
BLOCKS = [{"type": "reasoning", "reasoning": "Hm, é."}, {"type": "text", "text": "So, ü."}]
GREEDY = {"temperature": 0, "template": "qwen3"}


@pytest.fixture
def chat(scripted) -> ChatLocal:
    return ChatLocal(model=scripted(SAID, template=None).path, **GREEDY)


def told(message: AIMessage) -> list[dict[str, object]]:
    return [{key: block[key] for key in block if key != "index"} for block in message.content_blocks]


def check(message: AIMessage) -> None:
    assert told(message) == BLOCKS
    assert message.text == "So, ü."
    details = message.usage_metadata["output_token_details"]
    assert details["reasoning"] == len(SAID.encode().partition(b"\n\nSo")[0])
    assert message.usage_metadata["output_tokens"] == len(SAID.encode()) + 1


def test_invoke(chat):
    message = chat.invoke("Why?")
    check(message)
    assert message.content == "So, ü."
    assert message.additional_kwargs["reasoning_content"] == "Hm, é."


async def test_ainvoke(chat):
    check(await chat.ainvoke("Why?"))


def test_chunks_add_up(chat):
    chunks = list(chat.stream("Why?"))
    check(reduce(add, chunks))
    thoughts = [
        block["reasoning"] for chunk in chunks for block in chunk.content_blocks if block["type"] == "reasoning"
    ]
    assert "".join(thoughts) == "Hm, é."
    assert len(thoughts) > 3, "they come as they are thought"


async def test_chunks_add_up_async(chat):
    chunks = [chunk async for chunk in chat.astream("Why?")]
    check(reduce(add, chunks))


def test_blocks_as_content(chat):
    chat = chat.model_copy(update={"output_version": "v1"})
    message = chat.invoke("Why?")
    assert message.content == BLOCKS
    whole = reduce(add, chat.stream("Why?"))
    assert isinstance(whole, AIMessageChunk)
    assert told(whole) == BLOCKS


def test_a_parser_sees_the_answer(chat):
    assert (chat | StrOutputParser()).invoke("Why?") == "So, ü."
    assert "".join((chat | StrOutputParser()).stream("Why?")) == "So, ü."


def test_streams_of_events(chat):
    events = list(chat.stream_events("Why?", version="v3"))
    assert events
    deltas = [event["delta"] for event in events if event.get("event") == "content-block-delta"]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm, é."
    assert "".join(delta.get("text", "") for delta in deltas) == "So, ü."


def test_off_and_bounded(scripted):
    model = scripted("So.", template=None).path
    message = ChatLocal(model=model, thinking=False, **GREEDY).invoke("Why?")
    assert told(message) == [{"type": "text", "text": "So."}]
    assert "output_token_details" not in message.usage_metadata
    message = ChatLocal(model=scripted("Hmmmm", template=None).path, temperature=0, template="deepseek-r1").invoke(
        "Why?", max_thinking_tokens=2, max_tokens=40
    )
    assert message.content_blocks[0] == {"type": "reasoning", "reasoning": "Hm"}


def test_wrong_use(scripted):
    model = scripted(SAID, template="vicuna-v1.1").path
    with pytest.raises(UnsupportedFeature, match="do not think"):
        ChatLocal(model=model, thinking=True).invoke("Why?")
    with pytest.raises(OptionError, match="max_thinking_tokens=-1"):
        ChatLocal(model=model, max_thinking_tokens=-1)


def test_texts_are_the_answer_alone(scripted):
    llm = LocalLLM(model=scripted(SAID, template=None).path, **GREEDY)
    assert llm.invoke("Why?") == "So, ü."
    assert "".join(llm.stream("Why?")) == "So, ü."
    (generation,) = llm.generate(["Why?"]).generations[0]
    assert (generation.text, generation.generation_info["reasoning"]) == ("So, ü.", "Hm, é.")


def test_a_family_class_is_switched(scripted):
    model = scripted(">\nHm.\n</think>\nSo.", template=None).path
    options = {"model": model, "template": "rwkv-g1", "thinking": True, "temperature": 0}
    assert told(ChatRWKV(**options).invoke("Why?"))[0] == {"type": "reasoning", "reasoning": "Hm."}
    assert RWKVLLM(**options).invoke("Why?") == "So."


def test_log_probabilities_are_of_every_token(chat):
    message = chat.invoke("Why?", logprobs=True)
    assert len(message.response_metadata["logprobs"]["content"]) == message.usage_metadata["output_tokens"]
    whole = reduce(add, chat.stream("Why?", logprobs=True))
    assert len(whole.response_metadata["logprobs"]["content"]) == message.usage_metadata["output_tokens"]


class Answer(BaseModel):
    """An answer."""

    n: int


def thinker(then: str):
    """Thinks, and then writes something, whoever closes the thought."""

    def script(tokens):
        written = bytes(token for token in tokens if token < 256).rpartition(b"assistant\n")[2]
        for text in (f"<think>\nHm.\n</think>\n\n{then}".encode(),):
            if text.startswith(written) and len(written) < len(text):
                return text[len(written)]
        return 257

    return script


def test_an_object_is_what_follows_the_thought(scripted):
    model = scripted(None, script=thinker('{"n": 7}'), template=None).path
    chat = ChatLocal(model=model, **GREEDY)
    assert chat.with_structured_output(Answer).invoke("Why?") == Answer(n=7)
    raw = chat.with_structured_output(Answer, include_raw=True).invoke("Why?")
    assert raw["parsed"] == Answer(n=7)
    assert told(raw["raw"])[0] == {"type": "reasoning", "reasoning": "Hm."}
    assert list(chat.with_structured_output(Answer).stream("Why?"))[-1] == Answer(n=7)


def test_a_tool_is_called_behind_the_thought(scripted):
    call = '<tool_call>\n{"name": "price", "arguments": {"item": "ham"}}\n</tool_call>'
    chat = ChatLocal(model=scripted(None, script=thinker(call), template=None).path, **GREEDY)
    schema = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    tool = {"type": "function", "function": {"name": "price", "description": "A price.", "parameters": schema}}
    for choice in ("auto", "any"):
        bound = chat.bind_tools([tool], tool_choice=choice)
        for message in (bound.invoke("Why?"), reduce(add, bound.stream("Why?"))):
            assert [(one["name"], one["args"]) for one in message.tool_calls] == [("price", {"item": "ham"})]
            assert [block["type"] for block in message.content_blocks] == ["reasoning", "tool_call"]
            assert message.text == ""


def test_earlier_thoughts_are_read():
    thoughts = [
        AIMessage("b", additional_kwargs={"reasoning_content": "hm"}),
        AIMessage(content=[{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "b"}]),
        AIMessage(content=[{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "b"}]),
    ]
    for thought in thoughts:
        (message,) = to_messages([thought])
        assert (message.content, message.reasoning) == ("b", "hm")
    (message,) = to_messages([AIMessage(content=[{"type": "redacted_thinking", "data": "x"}, "b"])])
    assert (message.content, message.reasoning) == ("b", "")


def test_a_conversation_goes_on_without_earlier_thoughts(chat):
    first = chat.invoke("Why?")
    handle = chat.loaded()
    again = to_messages([HumanMessage("Why?"), first, HumanMessage("And?")])
    assert again[1].reasoning == "Hm, é."
    assert "Hm" not in handle.render(again)
    calls = [{"name": "price", "args": {}, "id": "1"}]
    asked = AIMessage("", tool_calls=calls, additional_kwargs={"reasoning_content": "I ask."})
    assert "<think>\nI ask.\n</think>" in handle.render(
        to_messages([HumanMessage("Why?"), asked, ToolMessage("3", tool_call_id="1")])
    )


def test_prompts_are_counted_as_they_are_sent(scripted):
    model = scripted("So.", template=None).path
    for thinking in (None, False):
        chat = ChatLocal(model=model, thinking=thinking, **GREEDY)
        counted = chat.get_num_tokens_from_messages([HumanMessage("Why?")])
        assert counted == chat.invoke("Why?").usage_metadata["input_tokens"]


def test_the_profile_tells(scripted):
    assert not ChatLocal().profile["reasoning_output"]
    assert ChatLocal(model="qwen3-0.6b").profile["reasoning_output"]
    assert not ChatLocal(model="qwen3-0.6b", thinking=False).profile["reasoning_output"]
    assert ChatLocal(model="rwkv-7-g1-0.1b").profile["reasoning_output"]
    assert ChatLocal(model="nowhere.gguf", template="deepseek-r1").profile["reasoning_output"]
    assert ChatRWKV(model="rwkv-7-g1-0.1b").profile["reasoning_output"]
    assert not ChatRWKV(model="nowhere.gguf").profile["reasoning_output"]
    unknown = ChatLocal(model=scripted(SAID, template="qwen3").path)
    assert not unknown.profile["reasoning_output"]
    unknown.loaded()
    assert unknown.profile["reasoning_output"]


def test_a_cache_tells_thinking_from_not(scripted):
    model = scripted(SAID, template=None).path
    keys = {json.dumps(ChatLocal(model=model, thinking=one)._identifying_params) for one in (None, True, False)}
    assert len(keys) == 3
