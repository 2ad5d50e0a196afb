"""The two adapters are mirror images: the same options with the same meaning, and the same text to the model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.llms import LLM

import local_llms.langchain as langchain
import local_llms.llama_index as llama_index
from local_llms.catalog import class_names
from local_llms.errors import OptionError, UnknownOption
from local_llms.langchain.messages import to_messages as from_langchain
from local_llms.llama_index.convert import to_messages as from_llama_index
from local_llms.options import LoadingOptions, SamplingOptions
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

LANGCHAINS_OWN = {"api_key", "max_retries", "stream_usage", "streaming"}
"""Standard parameters of LangChain's models, which llama-index does not know."""


def fields(kind: Any, base: Any) -> dict[str, tuple[Any, Any, str | None]]:
    """What a class takes besides what its framework's base takes: type, default and description of each."""
    theirs = getattr(base, "model_fields", {})
    return {
        name: (field.annotation, field.get_default(call_default_factory=True), field.description)
        for name, field in kind.model_fields.items()
        if name not in theirs and name not in LANGCHAINS_OWN
    }


@pytest.mark.parametrize(
    ("kind", "base"), [(langchain.ChatLocal, BaseChatModel), (langchain.LocalLLM, BaseLLM)], ids=["chat", "llm"]
)
def test_models_take_the_same_options(kind, base):
    ours = fields(kind, base)
    assert ours == fields(llama_index.LocalLLM, LLM)
    assert set(ours) == {
        *LoadingOptions.model_fields,
        *SamplingOptions.model_fields,
        *("model", "timeout", "input_text", "adapter_scale", "thinking", "context_overflow"),
        *("logprobs", "top_logprobs", "token_callbacks"),
    }


def test_embedding_models_take_the_same_options():
    ours = fields(langchain.LocalEmbeddings, Embeddings)
    assert ours == fields(llama_index.LocalEmbedding, BaseEmbedding)
    assert set(ours) == {*LoadingOptions.model_fields, "model"}


def test_calls_take_the_same_options():
    def suggested(call: Any) -> str:
        with pytest.raises(UnknownOption) as caught:
            call()
        return str(caught.value).partition(" has no option")[2]

    with scripted_model(lambda: ScriptedBackend(say("Hi"))) as model:
        for name in ("temprature", "zzz", "context_length"):
            theirs = suggested(lambda name=name: langchain.ChatLocal(model=model.path).invoke("Hi", **{name: 1}))
            ours = suggested(lambda name=name: llama_index.LocalLLM(model=model.path).complete("Hi", **{name: 1}))
            assert ours == theirs


def test_every_family_is_in_both():
    for name, (_, kind) in class_names().items():
        theirs = getattr(langchain, name)
        assert theirs.family is not None
        if kind == "llm":
            assert getattr(llama_index, name).family == theirs.family


WITH_INPUT = {"input_text": "Guten Tag", "template": "alpaca"}


@pytest.mark.parametrize("family", ["", "Alpaca", "Vicuna"])
@pytest.mark.parametrize(
    "options", [{}, {"system": True}, {"template": "plain"}, {"template": "alpaca", "input_text": "Guten Tag"}]
)
def test_the_model_is_sent_the_same_tokens(family, options):
    options = dict(options)
    system = options.pop("system", False)
    heard: list[tuple[int, ...]] = []

    def script(tokens: Any) -> int:
        heard.append(tuple(tokens))
        return 257  # the end

    with scripted_model(lambda: ScriptedBackend(script, context_length=2048)) as model:
        theirs = getattr(langchain, f"Chat{family or 'Local'}" if system else f"{family or 'Local'}LLM")
        one = theirs(model=model.path, **options)
        two = getattr(llama_index, f"{family or 'Local'}LLM")(model=model.path, **options)
        if system:
            one.invoke([SystemMessage("Be brief."), HumanMessage("Hello?")])
            two.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello?")])
        else:
            one.invoke("Hello?")
            two.complete("Hello?")
        assert len(model.backends) == 1
    assert len(heard) == 2
    assert heard[0] == heard[1]


def test_a_template_without_a_place_for_an_input_says_so():
    with scripted_model(lambda: ScriptedBackend(say("Hi"))) as model:
        with pytest.raises(OptionError, match="no place for a separate input"):
            langchain.LocalLLM(model=model.path).invoke("Hello?", input_text="Guten Tag")
        with pytest.raises(OptionError, match="no place for a separate input"):
            llama_index.LocalLLM(model=model.path, input_text="Guten Tag").complete("Hello?")


def test_tools_in_the_history_become_the_same_text():
    theirs = [
        HumanMessage("Compute."),
        AIMessage("I look.", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "1"}]),
        ToolMessage("3", tool_call_id="1"),
        AIMessage("Done."),
    ]
    ours = [
        ChatMessage(role="user", content="Compute."),
        ChatMessage(
            role="assistant",
            blocks=[TextBlock(text="I look."), ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1})],
        ),
        ChatMessage(role="tool", content="3", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage(role="assistant", content="Done."),
    ]
    assert from_langchain(theirs) == from_llama_index(ours)


def test_both_share_the_weights():
    with scripted_model(lambda: ScriptedBackend(say("Hi"))) as model:
        one = langchain.ChatLocal(model=model.path, temperature=0.1)
        two = langchain.LocalLLM(model=model.path)
        three = llama_index.LocalLLM(model=model.path, max_tokens=9)
        four = llama_index.LocalEmbedding(model=model.path)
        assert one.invoke("Hello?").content == two.invoke("Hello?") == three.complete("Hello?").text == "Hi"
        assert langchain.LocalEmbeddings(model=model.path).embed_query("Hi") == four.get_query_embedding("Hi")
        assert len(model.backends) == 1
