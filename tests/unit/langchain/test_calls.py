"""Options of the object and of one call: all are heeded, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.runnables import ConfigurableField

from local_llms.errors import DeadlineExceeded, ModelNotFound, OptionError, TemplateError, UnknownOption
from local_llms.langchain import ChatLocal, LocalEmbeddings, LocalLLM
from local_llms.options import CallOptions, LoadingOptions, SamplingOptions
from local_llms.testing.scripted import echo_script
from tests.unit.langchain.conftest import ANSWER, text


async def every_way(llm, **call) -> list[str]:
    """The answer by each of the ways to ask."""
    return [
        text(llm.invoke("Hi", **call)),
        text(await llm.ainvoke("Hi", **call)),
        "".join(text(piece) for piece in llm.stream("Hi", **call)),
        "".join([text(piece) async for piece in llm.astream("Hi", **call)]),
        *(text(answer) for answer in llm.batch(["Hi", "Hi"], **call)),
        *(text(answer) for answer in await llm.abatch(["Hi", "Hi"], **call)),
        text(llm.bind(**call).invoke("Hi")),
    ]


async def test_stop_of_a_call(scripted, kind):
    assert set(await every_way(kind(model=scripted()), stop=["world"])) == {"Hello, "}


async def test_stop_of_the_object(scripted, kind):
    assert set(await every_way(kind(model=scripted(), stop=["world"]))) == {"Hello, "}
    assert set(await every_way(kind(model=scripted(), stop="world"))) == {"Hello, "}


async def test_stop_of_a_call_comes_before_the_objects(scripted, kind):
    llm = kind(model=scripted(), stop=["world"])
    assert set(await every_way(llm, stop=["Good"])) == {"Hello, world. "}
    assert set(await every_way(llm, stop=[])) == {ANSWER}
    assert set(await every_way(llm)) == {"Hello, "}


def test_a_stop_string_never_shows_in_part(scripted, kind):
    pieces = [text(piece) for piece in kind(model=scripted()).stream("Hi", stop=["world. Good"])]
    assert "".join(pieces) == "Hello, "


async def test_max_tokens(scripted, kind):
    assert set(await every_way(kind(model=scripted()), max_tokens=4)) == {"Hell"}
    assert set(await every_way(kind(model=scripted(), max_tokens=9), max_tokens=None)) == {"Hello, wo"}


def test_sampling_of_a_call_is_not_kept(scripted, kind):
    llm = kind(model=scripted(None, script=echo_script), temperature=0, max_tokens=20)
    greedy = text(llm.invoke("Hi"))
    hot = {"temperature": 50.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
    random = text(llm.invoke("Hi", **hot))
    assert random != greedy
    assert text(llm.invoke("Hi", **hot)) == random
    assert text(llm.invoke("Hi", **{**hot, "seed": 8})) != random
    assert text(llm.invoke("Hi")) == greedy


def test_dictionaries_of_a_caller_stay_as_they_are(scripted, kind):
    bias, stop, callbacks = {104: 1.0}, ["x"], []
    llm = kind(model=scripted(), logit_bias=bias, stop=stop, token_callbacks=callbacks)
    llm.invoke("Hi", logit_bias=bias, stop=stop, token_callbacks=callbacks)
    assert (bias, stop, callbacks) == ({104: 1.0}, ["x"], [])


def test_another_template_for_a_call(scripted, kind):
    llm = kind(model=scripted(None, script=echo_script), temperature=0, max_tokens=12)
    own = text(llm.invoke("Hi"))
    assert text(llm.invoke("Hi", template="plain")) != own
    assert text(llm.invoke("Hi", template="chatml")) == own


async def test_another_model_for_a_call(scripted, kind):
    first, second = scripted("one", name="one"), scripted("two", name="two")
    llm = kind(model=first)
    assert set(await every_way(llm, model=second.path)) == {"two"}
    assert text(llm.invoke("Hi", model=Path(second))) == "two"
    assert text(llm.invoke("Hi")) == "one"
    assert len(first.backends) == len(second.backends) == 1


def test_the_other_model_is_named_in_the_answer(scripted):
    first, second = scripted("one", name="one"), scripted("two", name="two")
    llm = ChatLocal(model=first)
    assert llm.invoke("Hi", model=second.path).response_metadata["model_name"] == second.path
    assert llm._get_ls_params(model=second.path)["ls_model_name"] == second.path
    chunks = list(llm.stream("Hi", model=second.path))
    assert sum(chunks[1:], chunks[0]).response_metadata["model_name"] == second.path


def test_input_and_logprobs_are_fields_too(scripted, kind):
    fields = set(kind.model_fields)
    assert fields > {*LoadingOptions.model_fields, *SamplingOptions.model_fields, *CallOptions.model_fields}
    assert fields > {"model", "input_text", "logprobs", "token_callbacks", "max_retries", "api_key"}


@pytest.mark.parametrize("cls", [ChatLocal, LocalLLM, LocalEmbeddings])
def test_unknown_options(cls):
    with pytest.raises(UnknownOption, match=f"{cls.__name__} has no option 'context_lenght'.*'context_length'"):
        cls(context_lenght=100)
    with pytest.raises(UnknownOption, match="'model'"):
        cls(model_name="x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"max_tokens": 0},
        {"max_tokens": -5},
        {"top_p": 0},
        {"seed": -1},
        {"timeout": 0},
        {"stop": [""]},
        {"temperature": "hot"},
        {"logit_bias": {"a": 1}},
    ],
    ids=str,
)
async def test_wrong_values(scripted, kind, wrong):
    (name,) = wrong
    with pytest.raises(OptionError, match=f"{kind.__name__} was given {name}"):
        kind(**wrong)
    llm = kind(model=scripted())
    for ask in (lambda: llm.invoke("Hi", **wrong), lambda: list(llm.stream("Hi", **wrong))):
        with pytest.raises(OptionError, match=name):
            ask()
    with pytest.raises(OptionError, match=name):
        await llm.ainvoke("Hi", **wrong)
    assert text(llm.invoke("Hi")) == ANSWER


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"device": "tpu"}, {"max_retries": -1}, {"context_length": 0}])
def test_wrong_values_for_loading(kind, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        kind(**wrong)


async def test_unknown_options_of_a_call(scripted, kind):
    llm = kind(model=scripted())
    for ask in (lambda: llm.invoke("Hi", temprature=0), lambda: list(llm.stream("Hi", temprature=0))):
        with pytest.raises(UnknownOption, match=f"{kind.__name__} has no option 'temprature'.*'temperature'"):
            ask()
    with pytest.raises(UnknownOption):
        await llm.ainvoke("Hi", temprature=0)
    with pytest.raises(UnknownOption):
        llm.batch(["Hi", "Hi"], temprature=0)


def test_a_call_that_is_wrong_loads_nothing(scripted, kind):
    model = scripted()
    with pytest.raises(UnknownOption):
        kind(model=model).invoke("Hi", temprature=0)
    assert not model.backends


def test_constructing_loads_nothing(scripted, kind):
    model = scripted()
    llm = kind(model=model, temperature=0)
    llm._get_ls_params()
    llm.asdict()
    assert not model.backends
    kind(model="no-such-model")


def test_models_that_are_not_there(scripted, kind, tmp_path):
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        kind(model="smollm2-135m-instuct").invoke("Hi")
    with pytest.raises(ModelNotFound):
        kind(model=scripted()).invoke("Hi", model="no-such-model")
    with pytest.raises(ModelNotFound, match="template"):
        kind(model=scripted(), template="alpacca").invoke("Hi")


def test_a_model_without_a_template(scripted, kind):
    with pytest.raises(TemplateError, match="template="):
        kind(model=scripted(template=None)).invoke("Hi")
    assert text(kind(model=scripted(template=None), template="alpaca").invoke("Hi")) == ANSWER


def test_a_timeout(scripted, kind):
    llm = kind(model=scripted(step_seconds=0.02), timeout=0.1)
    with pytest.raises(DeadlineExceeded):
        llm.invoke("Hi")
    with pytest.raises(TimeoutError):
        list(llm.stream("Hi"))
    assert text(llm.invoke("Hi", timeout=60)) == ANSWER


async def test_a_timeout_async(scripted, kind):
    llm = kind(model=scripted(step_seconds=0.02), timeout=0.1)
    with pytest.raises(DeadlineExceeded):
        await llm.ainvoke("Hi")
    with pytest.raises(DeadlineExceeded):
        [piece async for piece in llm.astream("Hi")]


def test_standard_parameters_are_taken(scripted, kind):
    llm = kind(model=scripted(), timeout=60, max_retries=2, api_key="secret", stop=[], temperature=0, max_tokens=100)
    assert text(llm.invoke("Hi")) == ANSWER
    assert "secret" not in repr(llm) + str(llm.asdict())


def test_configurable_fields(scripted, kind):
    llm = kind(model=scripted()).configurable_fields(max_tokens=ConfigurableField(id="length"))
    assert text(llm.invoke("Hi", config={"configurable": {"length": 3}})) == ANSWER[:3]
    assert text(llm.invoke("Hi")) == ANSWER


def test_parameters_for_traces(scripted, kind):
    llm = kind(model="m", temperature=0.5, max_tokens=9, stop=["x"])
    params = llm._get_ls_params()
    assert params == {
        "ls_provider": "local_llms",
        "ls_model_name": "m",
        "ls_model_type": "chat" if kind is ChatLocal else "llm",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["x"],
    }
    params = llm._get_ls_params(stop=["y"], temperature=0, max_tokens=1, model="n")
    assert (params["ls_temperature"], params["ls_max_tokens"]) == (0, 1)
    assert (params["ls_model_name"], params["ls_stop"]) == ("n", ["y"])
    assert kind()._get_ls_params()["ls_model_name"] == "smollm2-135m-instruct"
    assert set(llm.metadata["lc_versions"]) >= {"langchain-core", "local-llms"}


def test_what_tells_a_model_from_others():
    told = ChatLocal(model="m", temperature=0.5, threads=2, stop=["x"]).asdict()
    assert told == {
        "model": "m",
        "temperature": 0.5,
        "threads": 2,
        "stop": ["x"],
        "_type": "local-llms-chat",
    }


def test_profile(scripted):
    llm = ChatLocal(model=scripted(context_length=1024))
    assert llm.profile["tool_calling"] is llm.profile["structured_output"] is True
    assert "max_input_tokens" not in llm.profile
    llm.invoke("Hi")
    assert llm.profile["max_input_tokens"] == 1024
    assert ChatLocal().profile["max_input_tokens"] == 8192
    assert ChatLocal(context_length=512).profile["max_input_tokens"] == 512
    assert ChatLocal(cache_tokens=4096).profile["max_input_tokens"] == 4096


def test_a_profile_of_the_users_own(scripted):
    llm = ChatLocal(model=scripted(), profile={"max_input_tokens": 7})
    llm.invoke("Hi")
    assert llm.profile == {"max_input_tokens": 7}
