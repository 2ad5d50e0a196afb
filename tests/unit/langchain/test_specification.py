"""Objects share weights, and carry a specification and no weights wherever they are copied to."""

from __future__ import annotations

import copy
import pickle

import pytest
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.prompts import PromptTemplate

from local_llms.callbacks import PrintCallback
from local_llms.langchain import AlpacaLLM, ChatAlpaca, ChatLocal, LocalEmbeddings, LocalLLM
from tests.unit.langchain.conftest import ANSWER, text


def test_twenty_objects_share_one_engine(scripted, kind):
    model = scripted()
    objects = [kind(model=model, temperature=0, seed=number) for number in range(20)]
    assert {text(llm.invoke("Hi")) for llm in objects} == {ANSWER}
    assert len(model.backends) == 1


def test_all_classes_share_one_engine(scripted):
    model = scripted()
    objects = [ChatLocal(model=model), LocalLLM(model=model), ChatAlpaca(model=model), AlpacaLLM(model=model)]
    for llm in objects:
        llm.invoke("Hi")
    LocalEmbeddings(model=model).embed_query("Hi")
    assert len(model.backends) == 1


def test_other_loading_options_load_again(scripted, kind):
    model = scripted()
    first, second = kind(model=model), kind(model=model, context_length=512)
    first.invoke("Hi")
    second.invoke("Hi")
    assert len(model.backends) == 2


def copies(llm):
    return [
        copy.copy(llm),
        copy.deepcopy(llm),
        llm.model_copy(),
        llm.model_copy(update={"max_tokens": 5}),
        llm.model_copy(deep=True),
        pickle.loads(pickle.dumps(llm)),
    ]


@pytest.mark.parametrize("cls", [ChatLocal, LocalLLM, ChatAlpaca, AlpacaLLM])
def test_copies_carry_the_specification(scripted, cls):
    model = scripted()
    llm = cls(model=model, temperature=0, stop=["x"], threads=2)
    llm.invoke("Hi")
    twins = copies(llm)
    assert len(model.backends) == 1, "copying loads nothing"
    llm.close()
    for twin in twins:
        assert type(twin) is cls
        assert (twin.temperature, twin.stop, twin.threads) == (0, ["x"], 2)
        assert text(twin.invoke("Hi")).startswith("Hello")
        assert twin.max_tokens in (None, 5)


def test_a_copy_is_closed_on_its_own(scripted, kind):
    llm = kind(model=scripted())
    llm.invoke("Hi")
    with llm.model_copy() as twin:
        twin.invoke("Hi")
    assert text(llm.invoke("Hi")) == ANSWER


def test_embeddings_carry_the_specification(scripted):
    embeddings = LocalEmbeddings(model=scripted(), threads=2)
    vector = embeddings.embed_query("Hi")
    for twin in copies(embeddings.model_copy())[:3]:
        assert twin.embed_query("Hi") == vector
    twin = pickle.loads(pickle.dumps(embeddings))
    assert (twin.threads, twin.embed_query("Hi")) == (2, vector)


def test_a_chain_is_pickled(scripted, kind):
    chain = PromptTemplate.from_template("{x}") | kind(model=scripted())
    chain.invoke({"x": "Hi"})
    assert text(pickle.loads(pickle.dumps(chain)).invoke({"x": "Hi"})) == ANSWER


@pytest.mark.filterwarnings("ignore:The function `load")
@pytest.mark.parametrize("cls", [ChatLocal, LocalLLM, ChatAlpaca, AlpacaLLM])
def test_langchain_writes_the_specification_down(scripted, cls):
    model = scripted()
    llm = cls(
        model=model,
        temperature=0,
        stop="x",
        logit_bias={104: 1.5},
        threads=2,
        api_key="secret",
        token_callbacks=[PrintCallback()],
    )
    llm.invoke("Hi")
    written = dumpd(llm)
    assert written["kwargs"] == {
        "model": model.path,
        "temperature": 0,
        "stop": ["x"],
        "logit_bias": {104: 1.5},
        "threads": 2,
    }
    assert "secret" not in dumps(llm)
    read = loads(dumps(llm), allowed_objects=[cls], valid_namespaces=["local_llms"])
    assert type(read) is cls
    assert read.asdict() == llm.asdict()
    assert load(written, allowed_objects=[cls], valid_namespaces=["local_llms"]).asdict() == llm.asdict()


def test_fields_as_a_dictionary(kind):
    llm = kind(model="m", temperature=0, threads=2)
    assert kind(**llm.model_dump(exclude_unset=True)).asdict() == llm.asdict()
    assert kind(**llm.model_dump()).asdict() == llm.asdict()
