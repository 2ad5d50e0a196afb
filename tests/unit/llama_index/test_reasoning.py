"""What a model thinks before it answers: ThinkingBlocks, apart from the text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from local_llms.errors import OptionError, UnsupportedFeature
from local_llms.llama_index import LocalLLM
from local_llms.llama_index.convert import to_messages

SAID = "<think>\nHm, é.\n</think>\n\nSo, ü."
TOKENS = len(SAID.encode().partition(b"\n\nSo")[0])
WHY = [ChatMessage(content="Why?")]
GREEDY = {"temperature": 0, "template": "qwen3"}


@pytest.fixture
def llm(scripted) -> LocalLLM:
    return LocalLLM(model=scripted(SAID).path, **GREEDY)


def check(response: ChatResponse) -> None:
    assert response.message.blocks == [
        ThinkingBlock(content="Hm, é.", num_tokens=TOKENS),
        TextBlock(text="So, ü."),
    ]
    assert response.message.content == "So, ü."
    assert response.raw["usage"]["reasoning_tokens"] == TOKENS
    assert response.raw["reasoning"] == "Hm, é."


def check_pieces(pieces: Sequence[ChatResponse]) -> None:
    check(pieces[-1])
    assert "".join(piece.delta for piece in pieces) == "So, ü."
    thoughts = [piece.additional_kwargs.get("thinking_delta", "") for piece in pieces]
    assert "".join(thoughts) == "Hm, é."
    grown = [block.content for piece in pieces for block in piece.message.blocks if isinstance(block, ThinkingBlock)]
    assert grown == sorted(grown, key=len)


def test_chat(llm):
    check(llm.chat(WHY))


async def test_achat(llm):
    check(await llm.achat(WHY))


def test_stream_chat(llm):
    check_pieces(list(llm.stream_chat(WHY)))


async def test_astream_chat(llm):
    check_pieces([piece async for piece in await llm.astream_chat(WHY)])


def test_texts_are_the_answer_alone(llm):
    response = llm.complete("Why?")
    assert (response.text, response.raw["reasoning"]) == ("So, ü.", "Hm, é.")
    pieces = list(llm.stream_complete("Why?"))
    assert pieces[-1].text == "".join(piece.delta for piece in pieces) == "So, ü."
    assert llm.predict(PromptTemplate("Why?")) == "So, ü."


def test_off_and_bounded(scripted):
    response = LocalLLM(model=scripted("So.").path, thinking=False, **GREEDY).chat(WHY)
    assert response.message.blocks == [TextBlock(text="So.")]
    assert "reasoning_tokens" not in response.raw["usage"]
    llm = LocalLLM(model=scripted("Hmmmm").path, temperature=0, template="deepseek-r1")
    response = llm.chat(WHY, max_thinking_tokens=2, max_tokens=40)
    assert response.message.blocks[0].content == "Hm"


def test_wrong_use(scripted):
    with pytest.raises(UnsupportedFeature, match="do not think"):
        LocalLLM(model=scripted(SAID).path, template="vicuna-v1.1", thinking=True).chat(WHY)
    with pytest.raises(OptionError, match="max_thinking_tokens=-1"):
        LocalLLM(model="x.gguf", max_thinking_tokens=-1)


def thinker(then: str):
    def script(tokens):
        written = bytes(token for token in tokens if token < 256).rpartition(b"assistant\n")[2]
        text = f"<think>\nHm.\n</think>\n\n{then}".encode()
        return text[len(written)] if text.startswith(written) and len(written) < len(text) else 257

    return script


class Answer(BaseModel):
    """An answer."""

    n: int


def test_an_object_is_what_follows_the_thought(scripted):
    llm = LocalLLM(model=scripted(None, script=thinker('{"n": 7}')).path, **GREEDY)
    assert llm.structured_predict(Answer, PromptTemplate("Why?")) == Answer(n=7)
    assert list(llm.stream_structured_predict(Answer, PromptTemplate("Why?")))[-1] == Answer(n=7)


def price(item: str) -> str:
    """A price."""
    return "3"


def test_a_tool_is_called_behind_the_thought(scripted):
    call = '<tool_call>\n{"name": "price", "arguments": {"item": "ham"}}\n</tool_call>'
    llm = LocalLLM(model=scripted(None, script=thinker(call)).path, **GREEDY)
    response = llm.chat_with_tools([FunctionTool.from_defaults(price)], user_msg="Why?", tool_required=True)
    assert [type(block) for block in response.message.blocks] == [ThinkingBlock, ToolCallBlock]
    assert llm.get_tool_calls_from_response(response)[0].tool_kwargs == {"item": "ham"}


def test_earlier_thoughts_are_read(llm):
    earlier = ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), TextBlock(text="b")])
    (message,) = to_messages([earlier])
    assert (message.content, message.reasoning) == ("b", "hm")
    again = to_messages([*WHY, llm.chat(WHY).message, ChatMessage(content="And?")])
    assert again[1].reasoning == "Hm, é."
    assert "Hm" not in llm.loaded().render(again)
