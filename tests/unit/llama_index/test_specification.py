"""An object is its options: lazily loaded, copied, pickled, written down, closed."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.schema import BaseComponent
from pydantic import BaseModel

from local_llms.callbacks import PrintCallback
from local_llms.errors import EngineClosed, LocalLLMError, ModelNotFound, OptionError, UnknownOption
from local_llms.llama_index import AlpacaLLM, LocalEmbedding, LocalLLM
from local_llms.options import LoadingOptions, SamplingOptions


def test_every_option_is_a_field():
    expected = {*LoadingOptions.model_fields, *SamplingOptions.model_fields, "model", "timeout", "token_callbacks"}
    assert expected <= set(LocalLLM.model_fields)
    assert {*LoadingOptions.model_fields, "model"} <= set(LocalEmbedding.model_fields)


def test_nothing_is_loaded_before_the_first_use(scripted):
    model = scripted()
    llm = LocalLLM(model=model.path, template="chatml")
    twins = [copy.copy(llm), copy.deepcopy(llm), llm.model_copy(), pickle.loads(pickle.dumps(llm))]
    LocalEmbedding(model=model.path)
    assert repr(llm)
    assert model.loaded == []
    assert llm.complete("Hi").text == "Hello there!"
    assert len(model.loaded) == 1
    assert all(twin.complete("Hi").text == "Hello there!" for twin in twins)
    assert len(model.loaded) == 1


@pytest.mark.parametrize("twice", [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))])
def test_copies_keep_the_options_and_not_the_weights(scripted, twice):
    model = scripted()
    llm = AlpacaLLM(model=model.path, temperature=0.3, stop=["x"], logit_bias={5: 1.0}, max_parallel=3, timeout=9)
    llm.complete("Hi")
    twin = twice(llm)
    assert type(twin) is AlpacaLLM
    assert twin.to_dict() == llm.to_dict()
    llm.close()
    assert model.backend._closed
    assert twin.complete("Hi").text == "Hello there!"
    assert len(model.loaded) == 2


def test_a_changed_copy_loads_what_it_says(scripted):
    first, second = scripted("One."), scripted("Two.")
    llm = LocalLLM(model=first.path, template="chatml")
    assert llm.complete("Hi").text == "One."
    assert llm.model_copy(update={"model": second.path}).complete("Hi").text == "Two."
    llm.model = second.path
    assert llm.complete("Hi").text == "Two."


def test_written_down_and_read_again():
    llm = AlpacaLLM(model=Path("folder/model.gguf"), temperature=0.3, logit_bias={5: 1.0}, system_prompt="Be brief.")
    for again in (AlpacaLLM.from_dict(llm.to_dict()), AlpacaLLM.from_json(llm.to_json())):
        assert again.to_dict() == llm.to_dict()
    written = llm.to_dict()
    assert written["class_name"] == "AlpacaLLM"
    assert written["model"] == "folder/model.gguf"
    assert "token_callbacks" not in AlpacaLLM(token_callbacks=[PrintCallback()]).to_dict()
    embedding = LocalEmbedding(device="cpu")
    assert LocalEmbedding.from_json(embedding.to_json()).to_dict() == embedding.to_dict()


def test_a_bare_file_name_is_a_path():
    assert LocalLLM(model=Path("smollm2-135m-instruct")).model == "./smollm2-135m-instruct"


def test_a_part_of_another_component():
    class Holder(BaseComponent):
        llm: LocalLLM

    holder = Holder(llm=LocalLLM(temperature=0.5))
    assert Holder.from_dict(holder.to_dict()).llm.temperature == 0.5

    class Plain(BaseModel):
        llm: LocalLLM

    with pytest.raises(UnknownOption):
        Plain(llm={"temprature": 0.5})


@pytest.mark.parametrize("kind", [LocalLLM, AlpacaLLM, LocalEmbedding])
def test_wrong_options_are_our_errors(kind):
    with pytest.raises(UnknownOption, match=rf"{kind.__name__} has no option 'contxt_length'.*'context_length'"):
        kind(contxt_length=64)
    with pytest.raises(OptionError, match="max_parallel=0"):
        kind(max_parallel=0)
    with pytest.raises(OptionError, match="device='tpu'"):
        kind(device="tpu")
    with pytest.raises(OptionError, match="model=7"):
        kind(model=7)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"temperature": -1}, "temperature=-1"), ({"max_tokens": 0}, "max_tokens=0"), ({"stop": [""]}, "stop"),
     ({"timeout": 0}, "timeout=0"), ({"token_callbacks": [print]}, "token_callbacks")],
)  # fmt: skip
def test_wrong_values_are_named(options, named):
    with pytest.raises(OptionError, match=named):
        LocalLLM(**options)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        LocalLLM(model="smolm2-135m-instruct").complete("Hi")
    with pytest.raises(LocalLLMError, match="no file"):
        LocalLLM(model="/nowhere/model.gguf").chat([ChatMessage(content="Hi")])


def test_close_frees_the_weights(scripted):
    model = scripted()
    with LocalLLM(model=model.path, template="chatml") as llm:
        other = LocalLLM(model=model.path, template="chatml")
        assert llm.complete("Hi").text == other.complete("Hi").text
    with pytest.raises(EngineClosed):
        llm.complete("Hi")
    with pytest.raises(EngineClosed):
        llm.stream_chat([ChatMessage(content="Hi")])
    assert other.complete("Hi").text == "Hello there!"
    assert not model.backend._closed
    other.close()
    other.close()
    assert model.backend._closed


async def test_closed_for_async_too(scripted):
    llm = LocalLLM(model=scripted().path, template="chatml")
    embedding = LocalEmbedding(model=llm.model)
    for thing in (llm, embedding):
        thing.close()
    with pytest.raises(EngineClosed):
        await llm.acomplete("Hi")
    with pytest.raises(EngineClosed):
        await embedding.aget_text_embedding("Hi")


def test_dropping_the_last_object_frees_the_weights(scripted):
    model = scripted()
    LocalLLM(model=model.path, template="chatml").complete("Hi")
    end = time.monotonic() + 20
    while not model.backend._closed:
        assert time.monotonic() < end, "the weights stay"
        time.sleep(0.005)
