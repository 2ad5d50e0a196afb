"""``adapter=``: on a handle, on the classes of both frameworks, and per call; one set of weights serves them all."""

import asyncio
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_llms import load_model
from local_llms.errors import AdapterError, OptionError, UnsupportedFeature
from local_llms.langchain import ChatLocal, LocalEmbeddings
from local_llms.langchain import LocalLLM as LangChainLLM
from local_llms.llama_index import LocalLLM as LlamaIndexLLM
from local_llms.testing.scripted import EOS, ScriptedBackend, write_adapter
from local_llms.testing.scripted_model import scripted_model
from tests.unit.engine.engine_help import wait_until


def tells_its_adapter(tokens) -> int:
    """A script that answers with a digit for its strength: 0 alone, 4 with adapter 4 at scale 1, 2 at scale 0.5."""
    digit = round(tokens[1] / 1000) if tokens[0] < 0 else 0
    return EOS if tokens[-1] in {*b"0123456789"} else ord(str(digit))


@pytest.fixture
def model():
    with scripted_model(lambda: ScriptedBackend(tells_its_adapter)) as model:
        yield model


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "four", 4)


@pytest.fixture
def six(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "six", 6)


def test_handles_with_and_without_share_the_weights(model, four, six) -> None:
    with load_model(model) as plain, load_model(model, adapter=four) as one, load_model(model, adapter=str(six)) as two:
        assert [handle.generate("Hi").text for handle in (plain, one, two)] == ["0", "4", "6"]
        assert len(model.backends) == 1
        assert model.backend.opened == [four, six]
        assert (plain.info.adapter, one.info.adapter, two.info.adapter) == (None, four, six)
        assert one.stats().finished == 3


def test_a_call_may_name_another_one(model, four, six) -> None:
    with load_model(model, adapter=four) as loaded:
        assert loaded.generate("Hi", adapter=six).text == "6"
        assert loaded.generate("Hi", adapter=six, adapter_scale=0.5).text == "3"
        assert loaded.generate("Hi", adapter_scale=0.5).text == "2"
        assert loaded.generate("Hi", adapter_scale=0).text == "0"
        assert loaded.generate("Hi").text == "4"
        texts = [answer.text for answer in loaded.generate_many(["a", "b"], adapter=six)]
        assert texts == ["6", "6"]
    assert len(model.backends) == 1


async def test_awaiting_with_an_adapter(model, four) -> None:
    with load_model(model) as loaded:
        assert (await loaded.agenerate("Hi", adapter=four)).text == "4"
        assert (await loaded.ascore("Hi", adapter=four)).token_logprobs != (await loaded.ascore("Hi")).token_logprobs


def test_a_handle_that_is_copied_keeps_its_adapter(model, four) -> None:
    with load_model(model, adapter=four) as loaded, pickle.loads(pickle.dumps(loaded)) as twin:
        assert twin.generate("Hi").text == "4"
        assert len(model.backends) == 1


def test_after_an_idle_unload_the_adapter_comes_back(model, four) -> None:
    with load_model(model, adapter=four, idle_unload=0.05) as loaded:
        assert loaded.generate("Hi").text == "4"
        first = model.backend
        wait_until(lambda: first.closed, "the weights are freed")
        assert loaded.generate("Hi").text == "4"
        assert len(model.backends) == 2


@pytest.mark.parametrize("wrong", ["missing", "damaged"])
def test_what_is_no_adapter_is_refused_at_once(model, tmp_path: Path, wrong) -> None:
    path = tmp_path / wrong
    if wrong == "damaged":
        path.write_bytes(b"?")
    with pytest.raises(AdapterError, match=wrong):
        load_model(model, adapter=path)
    with load_model(model) as loaded:
        with pytest.raises(AdapterError, match=wrong):
            loaded.generate("Hi", adapter=path)
        assert loaded.generate("Hi").text == "0"


class SlowToOpen(ScriptedBackend):
    """Opens no adapter before it is allowed to, and notes in which threads it was asked to."""

    def __init__(self) -> None:
        super().__init__(tells_its_adapter)
        self.allowed = threading.Event()
        self.asked_in: list[str] = []

    def open_adapter(self, path: Path) -> None:
        self.asked_in.append(threading.current_thread().name)
        assert self.allowed.wait(30)
        super().open_adapter(path)


@pytest.fixture
def slow():
    """A model whose adapters take long to be opened, and the backend that it is loaded with."""
    backend = SlowToOpen()
    with scripted_model(backend) as model:
        yield model, backend
        backend.allowed.set()


@pytest.mark.parametrize("way", ["a call", "a score", "a handle"])
def test_opening_an_adapter_holds_up_nobody(slow, four, six, way) -> None:
    """What takes long is done in the thread of whoever asks for it, once for all who ask at the same time."""
    model, backend = slow
    with load_model(model) as loaded, ThreadPoolExecutor(3) as threads:

        def ask() -> str:
            if way == "a score":
                loaded.score("Hi", adapter=four)
            elif way == "a handle":
                with load_model(model, adapter=four) as handle:
                    return handle.generate("Hi").text
            return loaded.generate("Hi", adapter=four).text

        asked = [threads.submit(ask) for _ in range(2)]
        wait_until(lambda: backend.asked_in, "the adapter is being opened")
        other = threads.submit(loaded.generate, "Hi", adapter=six)
        wait_until(lambda: len(backend.asked_in) == 2, "another one is being opened beside it")
        assert [loaded.generate("Hi").text for _ in range(3)] == ["0"] * 3
        assert not any(future.done() for future in (*asked, other))
        backend.allowed.set()
        assert [future.result(30) for future in asked] == ["4", "4"]
        assert other.result(30).text == "6"
        assert "local-llms-engine" not in backend.asked_in
        assert sorted(backend.opened) == sorted([four, six])
        assert loaded.stats().adapters == 2


async def test_opening_an_adapter_holds_no_event_loop_up(slow, four) -> None:
    model, backend = slow
    with load_model(model) as loaded:
        tuned = asyncio.create_task(loaded.agenerate("Hi", adapter=four))
        scored = asyncio.create_task(loaded.ascore("Hi", adapter=four))
        while not backend.asked_in:
            await asyncio.sleep(0)
        assert (await loaded.agenerate("Hi")).text == "0"
        assert not tuned.done()
        backend.allowed.set()
        assert (await tuned).text == "4"
        assert (await scored).token_ids
    assert backend.opened == [four]


async def test_weights_that_came_back_without_the_adapter(model, four) -> None:
    """Somebody else may have had them loaded again: then the adapter is opened in a thread, for its handle asks."""
    with load_model(model, idle_unload=0.05) as plain, load_model(model, adapter=four, idle_unload=0.05) as tuned:
        wait_until(lambda: model.backends[0].closed, "the weights are freed")
        assert plain.generate("Hi").text == "0"
        assert (await tuned.agenerate("Hi")).text == "4"


def test_a_failure_is_told_to_each_who_asks_and_may_pass(model, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"?")
    with load_model(model) as loaded:
        for _ in range(2):
            with pytest.raises(AdapterError, match="no scripted adapter"):
                loaded.generate("Hi", adapter=wrong)
        write_adapter(wrong, 7)
        assert loaded.generate("Hi", adapter=wrong).text == "7"
        assert loaded.stats().failed == 2


def test_a_scale_without_an_adapter(model) -> None:
    with load_model(model) as loaded, pytest.raises(OptionError, match="without an adapter"):
        loaded.generate("Hi", adapter_scale=0.5)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "strong"])
def test_a_scale_that_is_none(model, four, scale) -> None:
    with load_model(model, adapter=four) as loaded, pytest.raises(OptionError, match="adapter_scale"):
        loaded.generate("Hi", adapter_scale=scale)


def test_an_adapter_that_brings_a_vocabulary_is_loaded_with_the_model(model, tmp_path: Path, four) -> None:
    folder = tmp_path / "larger"
    folder.mkdir()
    config = {"peft_type": "LORA", "modules_to_save": ["embed_tokens", "lm_head"], "r": 8, "lora_alpha": 16}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with load_model(model) as plain, load_model(model, adapter=folder) as larger:
        assert len(model.backends) == 2
        assert model.options[-1].adapter == folder
        assert model.options[0].adapter is None
        assert larger.info.adapter == folder
        for options in ({"adapter": four}, {"adapter_scale": 0.5}):
            with pytest.raises(OptionError, match="vocabulary"):
                larger.generate("Hi", **options)
        assert plain.generate("Hi", adapter=four).text == "4"


def test_an_embedding_model_takes_none(four) -> None:
    def embedder() -> ScriptedBackend:
        backend = ScriptedBackend()
        backend.tell(can_generate=False)
        return backend

    with scripted_model(embedder) as model:
        with pytest.raises(UnsupportedFeature):
            load_model(model, adapter=four)
        with pytest.raises(UnsupportedFeature):
            LocalEmbeddings(model=model.path, adapter=str(four)).embed_query("Hi")


def ask_chat(llm, **options) -> str:
    return llm.invoke("Hi", **options).text


def ask_llm(llm, **options) -> str:
    return llm.invoke("Hi", **options)


def ask_llama_index(llm, **options) -> str:
    return llm.complete("Hi", **options).text


@pytest.mark.parametrize(
    ("kind", "ask"), [(ChatLocal, ask_chat), (LangChainLLM, ask_llm), (LlamaIndexLLM, ask_llama_index)]
)
def test_from_both_frameworks(model, four, six, kind, ask) -> None:
    plain, tuned = kind(model=model.path), kind(model=model.path, adapter=four, adapter_scale=0.5)
    assert (ask(plain), ask(tuned)) == ("0", "2")
    assert ask(plain, adapter=str(six)) == "6"
    assert ask(plain, adapter=six) == "6"
    assert ask(tuned, adapter=six) == "3"
    assert ask(tuned, adapter_scale=1.0) == "4"
    assert ask(tuned, adapter_scale=0) == "0"
    assert len(model.backends) == 1
    assert tuned.adapter == str(four)


def test_langchain_tells_the_adapter(model, four) -> None:
    llm = ChatLocal(model=model.path, adapter=four, adapter_scale=0.5)
    assert llm._identifying_params == {"model": model.path, "adapter": str(four), "adapter_scale": 0.5}
