"""A conversation that is longer than the context: an error with both numbers, or without its oldest turns."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, trim_messages
from llama_index.core.base.llms.types import ChatMessage

from local_llms import load_model
from local_llms.errors import ContextOverflow, OptionError
from local_llms.langchain import ChatLocal
from local_llms.llama_index import LocalLLM
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.types import Message

LENGTH = 400


@pytest.fixture
def model():
    with scripted_model(lambda: ScriptedBackend(say("Yes."), context_length=LENGTH)) as model:
        yield model


def conversation(turns: int, size: int = 20) -> list[Message]:
    """A system message, that many turns with an answer, and a last question."""
    found = [Message("system", "Be brief.")]
    for number in range(turns):
        found += [
            Message("user", f"question {number} ".ljust(size, "?")),
            Message("assistant", f"answer {number} ".ljust(size, "!")),
        ]
    return [*found, Message("user", "the last question")]


def test_without_being_asked_it_is_an_error_with_both_numbers(model) -> None:
    with load_model(model) as loaded:
        messages = conversation(20)
        for options in ({}, {"context_overflow": "error"}):
            with pytest.raises(ContextOverflow, match="drop_oldest") as caught:
                loaded.generate(messages, **options)
            assert caught.value.prompt_tokens == loaded.count_tokens(messages)
            assert caught.value.context_length == LENGTH


def test_the_oldest_turns_are_dropped_and_told(model) -> None:
    with load_model(model) as loaded:
        messages = conversation(20)
        answer = loaded.generate(messages, context_overflow="drop_oldest")
        dropped = len(answer.dropped_messages)
        assert dropped % 2 == 0
        assert answer.dropped_messages == tuple(messages[1 : 1 + dropped])
        rest = [messages[0], *messages[1 + dropped :]]
        assert answer.usage.prompt_tokens == loaded.count_tokens(rest)
        # A quarter of the context is kept free for the answer, and no more than needed was dropped.
        assert answer.usage.prompt_tokens <= LENGTH * 3 // 4
        one_turn_more = [messages[0], *messages[1 + dropped - 2 :]]
        assert loaded.count_tokens(one_turn_more) > LENGTH * 3 // 4


def test_a_short_answer_needs_less_room(model) -> None:
    with load_model(model) as loaded:
        long = loaded.generate(conversation(20), context_overflow="drop_oldest")
        short = loaded.generate(conversation(20), context_overflow="drop_oldest", max_tokens=5)
        assert len(short.dropped_messages) < len(long.dropped_messages)
        assert short.usage.prompt_tokens <= LENGTH - 5


def test_what_fits_is_left_alone(model) -> None:
    with load_model(model) as loaded:
        answer = loaded.generate(conversation(2), context_overflow="drop_oldest")
        assert answer.dropped_messages == ()
        assert answer.usage.prompt_tokens == loaded.count_tokens(conversation(2))


def test_what_cannot_be_dropped_is_an_error(model) -> None:
    with load_model(model) as loaded:
        for messages in ("x" * LENGTH, [Message("system", "x" * LENGTH), Message("user", "Hi")]):
            with pytest.raises(ContextOverflow):
                loaded.generate(messages, context_overflow="drop_oldest")


def test_another_value_is_refused(model) -> None:
    with load_model(model) as loaded, pytest.raises(OptionError, match="context_overflow"):
        loaded.generate("Hi", context_overflow="drop_newest")


def to_langchain(messages: list[Message]) -> list:
    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    return [kinds[message.role](message.content) for message in messages]


def test_langchain_tells_what_was_dropped(model) -> None:
    messages = conversation(20)
    llm = ChatLocal(model=model.path, context_overflow="drop_oldest")
    answer = llm.invoke(to_langchain(messages))
    dropped = answer.response_metadata["dropped_messages"]
    assert dropped == [{"role": one.role, "content": one.content} for one in messages[1 : 1 + len(dropped)]]
    assert dropped
    *_, last = llm.stream(to_langchain(messages))
    assert last.response_metadata["dropped_messages"] == dropped
    assert "dropped_messages" not in llm.invoke("Hi").response_metadata
    with pytest.raises(ContextOverflow):
        llm.invoke(to_langchain(messages), context_overflow="error")


def test_llama_index_tells_what_was_dropped(model) -> None:
    messages = conversation(20)
    llm = LocalLLM(model=model.path)
    sent = [ChatMessage(role=one.role, content=one.content) for one in messages]
    with pytest.raises(ContextOverflow):
        llm.chat(sent)
    answer = llm.chat(sent, context_overflow="drop_oldest")
    dropped = answer.raw["dropped_messages"]
    assert dropped == [{"role": one.role, "content": one.content} for one in messages[1 : 1 + len(dropped)]]
    *_, last = llm.stream_chat(sent, context_overflow="drop_oldest")
    assert last.raw["dropped_messages"] == dropped
    assert "dropped_messages" not in llm.chat(sent[-1:]).raw


@pytest.mark.parametrize("counter", ["model", "method"])
def test_langchains_trimming_counts_with_the_model(model, counter) -> None:
    llm = ChatLocal(model=model.path)
    messages = to_langchain(conversation(20))
    most = LENGTH - 50
    trimmed = trim_messages(
        messages,
        max_tokens=most,
        strategy="last",
        token_counter=llm if counter == "model" else llm.get_num_tokens_from_messages,
        include_system=True,
        start_on="human",
    )
    count = llm.get_num_tokens_from_messages(trimmed)
    assert count <= most
    assert llm.invoke(trimmed).usage_metadata["input_tokens"] == count
    assert isinstance(trimmed[0], SystemMessage)
    assert isinstance(trimmed[1], HumanMessage)
    one_turn_more = [messages[0], *messages[-len(trimmed) - 1 :]]
    assert llm.get_num_tokens_from_messages(one_turn_more) > most
