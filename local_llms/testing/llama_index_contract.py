"""What llama-index expects of an LLM, as tests: llama-index has no such suite.

::

    class TestMyLLM(LLMContract):
        @pytest.fixture
        def llm(self) -> LLM:
            return MyLLM(...)

    class TestMyCallingLLM(FunctionCallingContract):
        ...

A model without weights of quality passes: nothing depends on what it says, but on how it is told.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from itertools import pairwise
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

# ruff: noqa: S101 (these are tests)

QUESTION = "Name a colour."


class LLMContract:
    """Texts and conversations, whole and in pieces, sync and async."""

    same_in_batches: bool = True
    """Whether a greedy answer is the same to the letter whatever is computed beside it."""
    tells_usage: bool = True
    """Whether ``raw["usage"]`` of an answer counts its tokens."""

    @pytest.fixture
    def messages(self) -> list[ChatMessage]:
        """A conversation of several turns."""
        return [
            ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
            ChatMessage(role=MessageRole.USER, content="Hello."),
            ChatMessage(role=MessageRole.ASSISTANT, content="Hello!"),
            ChatMessage(role=MessageRole.USER, content=QUESTION),
        ]

    def test_metadata(self, llm: LLM) -> None:
        """Lengths are positive, and an answer of full length leaves room for a prompt."""
        facts = llm.metadata
        assert facts.context_window > 0
        assert 0 < facts.num_output < facts.context_window
        assert facts.model_name

    def test_complete(self, llm: LLM) -> None:
        """A text."""
        answer = llm.complete(QUESTION)
        assert isinstance(answer, CompletionResponse)
        assert answer.text
        self._check_usage(answer)

    def test_chat(self, llm: LLM, messages: list[ChatMessage]) -> None:
        """A message of the assistant; the conversation is as it was."""
        before = [message.model_dump() for message in messages]
        answer = llm.chat(messages)
        assert isinstance(answer, ChatResponse)
        assert answer.message.role is MessageRole.ASSISTANT
        assert answer.message.content
        assert [message.model_dump() for message in messages] == before
        self._check_usage(answer)

    async def test_async_gives_what_sync_gives(self, llm: LLM, messages: list[ChatMessage]) -> None:
        """Greedy answers are equal."""
        assert (await llm.acomplete(QUESTION)).text == llm.complete(QUESTION).text
        assert (await llm.achat(messages)).message.content == llm.chat(messages).message.content

    def test_pieces_of_a_text_grow_to_the_whole(self, llm: LLM) -> None:
        """``text`` is all there is so far, and the deltas joined are the last of them."""
        pieces = list(llm.stream_complete(QUESTION))
        self._check_pieces([piece.text for piece in pieces], [piece.delta for piece in pieces])
        assert pieces[-1].text == llm.complete(QUESTION).text

    def test_pieces_of_a_message_grow_to_the_whole(self, llm: LLM, messages: list[ChatMessage]) -> None:
        """As of a text."""
        pieces = list(llm.stream_chat(messages))
        self._check_pieces([piece.message.content or "" for piece in pieces], [piece.delta for piece in pieces])
        assert pieces[-1].message.content == llm.chat(messages).message.content

    async def test_pieces_come_in_async_too(self, llm: LLM, messages: list[ChatMessage]) -> None:
        """The same pieces."""
        texts = [piece.text async for piece in await llm.astream_complete(QUESTION)]
        assert texts == [piece.text for piece in llm.stream_complete(QUESTION)]
        said = [piece.message.content async for piece in await llm.astream_chat(messages)]
        assert said == [piece.message.content for piece in llm.stream_chat(messages)]

    async def test_many_at_once(self, llm: LLM) -> None:
        """Each gets its own answer."""
        questions = [f"{QUESTION} {number}" for number in range(8)]
        alone = [llm.complete(question).text for question in questions]
        together = await asyncio.gather(*(llm.acomplete(question) for question in questions))
        if self.same_in_batches:
            assert [answer.text for answer in together] == alone
        assert all(answer.text for answer in together)

    def test_a_stream_may_be_left(self, llm: LLM) -> None:
        """And the model goes on to answer others."""
        stream = llm.stream_complete(QUESTION)
        next(iter(stream))
        stream.close()
        assert llm.complete(QUESTION).text

    def test_predict(self, llm: LLM) -> None:
        """A filled-in template, whole and in pieces."""
        prompt = PromptTemplate("{question}")
        answer = llm.predict(prompt, question=QUESTION)
        assert answer
        assert "".join(llm.stream(prompt, question=QUESTION)) == answer

    def test_it_can_be_written_down(self, llm: LLM) -> None:
        """As JSON without weights; a pickle of it answers alike."""
        assert json.loads(llm.to_json())["class_name"] == llm.class_name()
        assert pickle.loads(pickle.dumps(llm)).complete(QUESTION).text == llm.complete(QUESTION).text

    def _check_usage(self, answer: ChatResponse | CompletionResponse) -> None:
        if self.tells_usage:
            raw: Any = answer.raw
            usage = raw["usage"]
            assert usage["prompt_tokens"] > 0
            assert usage["completion_tokens"] > 0
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @staticmethod
    def _check_pieces(texts: list[str], deltas: list[str | None]) -> None:
        assert texts
        assert "".join(delta or "" for delta in deltas) == texts[-1]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


class Colour(BaseModel):
    """A colour."""

    name: str = Field(max_length=20)
    bright: bool


class StructuredContract:
    """Answers as objects."""

    def prompt(self) -> PromptTemplate:
        """What is asked."""
        return PromptTemplate("{question}")

    async def test_structured_predictions(self, llm: LLM) -> None:
        """Instances of the schema, whatever the model says."""
        assert isinstance(llm.structured_predict(Colour, self.prompt(), question=QUESTION), Colour)
        assert isinstance(await llm.astructured_predict(Colour, self.prompt(), question=QUESTION), Colour)

    async def test_their_streams(self, llm: LLM) -> None:
        """The last object is whole."""
        assert isinstance(list(llm.stream_structured_predict(Colour, self.prompt(), question=QUESTION))[-1], Colour)
        stream = await llm.astream_structured_predict(Colour, self.prompt(), question=QUESTION)
        assert isinstance([one async for one in stream][-1], Colour)

    def test_a_structured_llm(self, llm: LLM) -> None:
        """``raw`` is the object."""
        assert isinstance(llm.as_structured_llm(Colour).complete(QUESTION).raw, Colour)


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


class FunctionCallingContract:
    """Calls of tools."""

    @pytest.fixture
    def tools(self) -> list[FunctionTool]:
        """One tool."""
        return [FunctionTool.from_defaults(add)]

    def test_metadata_says_so(self, llm: FunctionCallingLLM) -> None:
        """Agents ask for it."""
        assert llm.metadata.is_function_calling_model

    async def test_a_required_call(self, llm: FunctionCallingLLM, tools: list[FunctionTool]) -> None:
        """In all four ways: it names the tool, and its arguments are valid."""
        asked: dict[str, Any] = {"user_msg": "Add 2 and 5.", "tool_required": True}
        answers = [
            llm.chat_with_tools(tools, **asked),
            await llm.achat_with_tools(tools, **asked),
            list(llm.stream_chat_with_tools(tools, **asked))[-1],
            [one async for one in await llm.astream_chat_with_tools(tools, **asked)][-1],
        ]
        for answer in answers:
            (call,) = llm.get_tool_calls_from_response(answer)
            assert call.tool_name == "add"
            assert call.tool_id
            assert {type(value) for value in call.tool_kwargs.values()} == {int}
            assert set(call.tool_kwargs) == {"a", "b"}

    def test_an_answer_without_a_call(self, llm: FunctionCallingLLM, tools: list[FunctionTool]) -> None:
        """No calls, or an error where one is needed."""
        answer = llm.chat([ChatMessage(content=QUESTION)])
        assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []
        with pytest.raises(Exception, match=r"."):
            llm.get_tool_calls_from_response(answer, error_on_no_tool_call=True)

    def test_the_result_goes_back(self, llm: FunctionCallingLLM, tools: list[FunctionTool]) -> None:
        """A history with a call and its result can be answered."""
        first = llm.chat_with_tools(tools, user_msg="Add 2 and 5.", tool_required=True)
        (call,) = llm.get_tool_calls_from_response(first)
        result = ChatMessage(
            role=MessageRole.TOOL, content="7", additional_kwargs={"tool_call_id": call.tool_id, "name": "add"}
        )
        history = [ChatMessage(role=MessageRole.USER, content="Add 2 and 5."), first.message, result]
        assert llm.chat(history).message.role is MessageRole.ASSISTANT

    def test_predict_and_call(self, llm: FunctionCallingLLM, tools: list[FunctionTool]) -> None:
        """The tool runs."""
        assert int(str(llm.predict_and_call(tools, user_msg="Add 2 and 5.", tool_required=True))) is not None
