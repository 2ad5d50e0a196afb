"""The door: names become models, equal models share one engine, handles are counted, prompts become requests."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.errors import (
    ContextOverflow,
    EmptyPrompt,
    EngineBusy,
    EngineClosed,
    ModelFileError,
    ModelNotFound,
    OptionError,
    TemplateError,
    UnknownOption,
)
from local_llms.models import load_model
from local_llms.pool import pool
from local_llms.testing.scripted import EOS, ScriptedBackend, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model
from local_llms.types import Message


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with scripted_model(lambda: ScriptedBackend(say("Good morning"), context_length=256)) as scripted:
        yield scripted


def held(model: ScriptedModel) -> int:
    """Engines of the model that the pool holds; other tests of the process may hold theirs."""
    folder = Path(model.path).resolve().parent
    return sum(1 for weights in list(pool._engines) if weights.path.resolve().parent == folder)


def test_a_string_is_one_user_message_in_the_template(model: ScriptedModel) -> None:
    with load_model(model) as loaded:
        assert loaded.render("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        answer = loaded.generate("Hi", temperature=0)
    assert (answer.text, answer.finish_reason) == ("Good morning", "stop")
    assert answer.token_ids[-1] == EOS


def test_plain_sends_the_text_as_it_is(model: ScriptedModel) -> None:
    with load_model(model) as loaded:
        counts = [loaded.generate("Hi", template=name).usage.prompt_tokens for name in ("plain", "chatml")]
        assert counts[0] == len("Hi") + 1
        assert counts[1] == loaded.count_tokens("Hi") > counts[0]
    with load_model(model, template="plain") as plain:
        assert plain.render([Message("user", "Hi")]) == "Hi"


def test_equal_options_share_one_engine_and_others_do_not(model: ScriptedModel) -> None:
    with load_model(model) as first, load_model(model) as second, load_model(model, template="plain"):
        assert len(model.backends) == 1
        first.generate("Hi")
        assert second.stats().finished == 1
        with load_model(model, context_length=64) as other:
            assert len(model.backends) == 2
            assert other.info.context_length == 64


def test_a_changed_file_is_another_model(model: ScriptedModel) -> None:
    with load_model(model):
        Path(model.path).write_bytes(b"scripted again")
        with load_model(model):
            assert len(model.backends) == 2


def test_many_threads_load_once(model: ScriptedModel) -> None:
    def make() -> ScriptedBackend:
        time.sleep(0.05)
        return ScriptedBackend()

    model.make = make
    handles = []
    threads = [threading.Thread(target=lambda: handles.append(load_model(model))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(handles), len(model.backends)) == (8, 1)
    for handle in handles:
        handle.close()


def test_the_last_handle_frees_the_weights(model: ScriptedModel) -> None:
    first, second = load_model(model), load_model(model)
    first.close()
    first.close()
    assert second.generate("Hi").text == "Good morning"
    with pytest.raises(EngineClosed, match="load_model"):
        first.generate("Hi")
    second.close()
    with pytest.raises(EngineClosed):
        model.backend.tokenize("x")


def test_a_dropped_handle_frees_the_weights(model: ScriptedModel) -> None:
    loaded = load_model(model)
    loaded.generate("Hi")
    # The garbage collector may come at any time, while the pool is at work too.
    with pool._lock:
        del loaded
        gc.collect()
    end = time.monotonic() + 20
    while not model.backend.closed and time.monotonic() < end:
        time.sleep(0.01)
    assert model.backend.closed
    assert held(model) == 0


def test_a_failed_load_leaves_nothing(model: ScriptedModel) -> None:
    def broken() -> ScriptedBackend:
        raise ModelFileError("broken")

    make, model.make = model.make, broken
    with pytest.raises(ModelFileError, match="broken"):
        load_model(model)
    assert held(model) == 0
    model.make = make
    with load_model(model) as loaded:
        assert loaded.generate("Hi").text == "Good morning"


def test_copies_and_pickles_carry_the_specification(model: ScriptedModel) -> None:
    with load_model(model, template="plain") as loaded:
        data = pickle.dumps(loaded)
        assert len(data) < 1000
        with pickle.loads(data) as again, copy.deepcopy(loaded) as twin:
            assert again.info == twin.info == loaded.info
            assert len(model.backends) == 1
            loaded.close()
            assert twin.generate("Hi").text == "Good morning"


def test_idle_weights_are_freed_and_come_back(model: ScriptedModel) -> None:
    with load_model(model, idle_unload=0.2) as loaded:
        loaded.generate("Hi")
        first, count = model.backend, len(model.backends)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                first.tokenize("x")
            except EngineClosed:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the weights were not freed")
        assert asyncio.run(loaded.agenerate("Hi")).text == "Good morning"
        assert len(model.backends) == count + 1


def test_a_running_request_keeps_idle_weights(model: ScriptedModel) -> None:
    model.make = lambda: ScriptedBackend(say("x" * 40), step_seconds=0.02)
    with load_model(model, idle_unload=0.1) as loaded:
        stream = loaded.submit("Hi")
        count = len(model.backends)
        assert stream.result().text == "x" * 40
        assert len(model.backends) == count


def test_generate_many_takes_more_than_the_queue(model: ScriptedModel) -> None:
    with load_model(model, max_parallel=2, max_queue=3) as loaded:
        prompts = [f"Question {number}" for number in range(40)]
        answers = loaded.generate_many(prompts, temperature=0)
        assert [answer.text for answer in answers] == ["Good morning"] * 40
        again = asyncio.run(loaded.agenerate_many(prompts, temperature=0))
        assert [answer.usage.prompt_tokens for answer in again] == [answer.usage.prompt_tokens for answer in answers]
        assert max(len(chunks) for chunks in model.backend.decodes) == 2


def test_generate_many_stops_at_the_first_error(model: ScriptedModel) -> None:
    with load_model(model, max_parallel=2) as loaded:
        with pytest.raises(ContextOverflow):
            loaded.generate_many(["Hi", "x" * 1000, "Hi"])
        assert loaded.generate("Hi").text == "Good morning"
        assert loaded.stats().running == 0


def test_a_full_queue_is_a_typed_error(model: ScriptedModel) -> None:
    model.make = lambda: ScriptedBackend(step_seconds=0.01)
    with load_model(model, max_parallel=1, max_queue=1) as loaded:
        streams = [loaded.submit("Hi")]
        with pytest.raises(EngineBusy, match="max_queue"):
            streams.extend(loaded.submit("Hi") for _ in range(20))
        for stream in streams:
            stream.cancel()
        assert loaded.generate("Hi", max_tokens=2).finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_tokens": 0}, OptionError, "max_tokens"),
        ({"max_tokens": -5}, OptionError, "max_tokens"),
        ({"temperature": -1}, OptionError, "temperature"),
        ({"top_p": 0}, OptionError, "top_p"),
        ({"stop": ["a", ""]}, OptionError, "stop"),
        ({"temprature": 0.5}, UnknownOption, "'temperature'"),
        ({"choise": ["a"]}, UnknownOption, "'choices'"),
        ({"template": "chat-ml"}, ModelNotFound, "'chatml'"),
    ],
)
def test_wrong_call_options(model: ScriptedModel, options: dict[str, object], error: type, words: str) -> None:
    with load_model(model) as loaded:
        with pytest.raises(error, match=words):
            loaded.generate("Hi", **options)
        assert loaded.generate("Hi").text == "Good morning"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"context_lenght": 64}, UnknownOption, "'context_length'"),
        ({"context_length": 0}, OptionError, "context_length"),
        ({"max_parallel": 0}, OptionError, "max_parallel"),
        ({"template": "vicuna-v1.2"}, ModelNotFound, "vicuna-v1.1"),
        ({"backend": "lama_cpp"}, OptionError, "llama_cpp"),
    ],
)
def test_wrong_loading_options(model: ScriptedModel, options: dict[str, object], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        load_model(model, **options)
    assert held(model) == 0


def test_empty_prompts(model: ScriptedModel) -> None:
    with load_model(model) as loaded:
        for prompt in ("", [], [Message("user", "")]):
            with pytest.raises(EmptyPrompt):
                loaded.generate(prompt)


def test_a_prompt_that_does_not_fit_gives_both_numbers(model: ScriptedModel) -> None:
    with load_model(model) as loaded:
        with pytest.raises(ContextOverflow, match="256") as caught:
            loaded.generate("x" * 400)
        assert (caught.value.prompt_tokens, caught.value.context_length) == (loaded.count_tokens("x" * 400), 256)


def test_a_file_without_a_template_says_so(model: ScriptedModel) -> None:
    model.template = None
    with load_model(model) as loaded:
        assert loaded.info.template is None
        with pytest.raises(TemplateError, match='template="plain"'):
            loaded.generate("Hi")
        assert loaded.generate("Hi", template="plain").text == "Good morning"


def test_which_template_is_taken_and_why(model: ScriptedModel) -> None:
    def chosen(**loading: object) -> tuple[str | None, str]:
        with load_model(model, **loading) as loaded:
            return loaded.info.template, loaded.info.template_reason

    assert chosen() == ("from-file", "the model file carries it")
    assert chosen(template="alpaca") == ("alpaca", "template='alpaca' was given")
    assert chosen(family="vicuna")[0] == "vicuna-v1.1"
    assert chosen(family="vicuna", template="alpaca")[0] == "alpaca"
    assert chosen(family="llama") == ("from-file", "the model file carries it")
    assert chosen(family="llama", template="plain")[0] == "plain"
    model.template = None
    assert chosen(family="llama", context_length=64)[0] == "plain"


def test_a_family_brings_its_sampling_and_stops(model: ScriptedModel) -> None:
    model.make = lambda: ScriptedBackend(say("Yes.\n### Instruction:\nMore"))
    with load_model(model, family="alpaca") as loaded:
        answer = loaded.generate("Hi", temperature=0)
    assert (answer.text, answer.stop_match) == ("Yes.\n", "### Instruction:")


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        load_model("smollm2-135m-instrct")
    with pytest.raises(ModelFileError, match="no-such"):
        load_model(tmp_path / "no-such.gguf")
    with pytest.raises(ModelNotFound, match="family"):
        load_model(family="alpacca")
    with pytest.raises(ModelNotFound, match="model="):
        load_model(family="alpaca")


def test_embeddings_through_the_door(model: ScriptedModel) -> None:
    with load_model(model) as loaded:
        texts = [f"text {number}" for number in range(50)]
        vectors = loaded.embed(texts)
        assert vectors == asyncio.run(loaded.aembed(texts))
        assert vectors[7] == loaded.embed([texts[7]])[0]
        assert all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in vectors)
        assert loaded.embed([]) == []
