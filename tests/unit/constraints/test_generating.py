"""Constrained requests in the engine: beside free ones, preempted, failing, cut, and ended."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from local_llms.constraints import Compiled, Compiler, Constraint, matching
from local_llms.engine import Engine, Request
from local_llms.errors import AnswerCut, ConstraintError, DecodeError, OptionError
from local_llms.models import load_model
from local_llms.testing.scripted import BOS, EOS, ScriptedBackend, echo_script, say
from local_llms.testing.scripted_model import scripted_model
from local_llms.types import SamplingParams
from tests.unit.constraints.conftest import noise
from tests.unit.engine.engine_help import at_once
from tests.unit.meeting import Heart

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


def loaded(script=noise, **options):
    return scripted_model(lambda: ScriptedBackend(script, context_length=2048, **options), template="plain")


def test_each_way_to_say_it():
    with loaded() as path, load_model(path) as model:
        for seed in range(20):
            person = json.loads(model.generate("x", schema=PERSON, seed=seed).text)
            assert set(person) == {"name", "age"}
            assert re.fullmatch(r"[a-c]{2}/\d{3}", model.generate("x", regex=r"[a-c]{2}/\d{3}", seed=seed).text)
            assert model.generate("x", choices=["yes", "no", "yes, but"], seed=seed).text in {"yes", "no", "yes, but"}
            answer = model.generate("x", grammar='start: "<" inner ">"\ninner: "a" | "(" inner ")"', seed=seed)
            assert re.fullmatch(r"<\(*a\)*>", answer.text)
            assert answer.finish_reason == "stop"


def test_one_of_them_at_a_time():
    with loaded() as path, load_model(path) as model, pytest.raises(OptionError, match=r"schema= and regex="):
        model.generate("x", schema=PERSON, regex="a")


def test_the_mask_chooses_among_what_the_model_wants():
    """Of the allowed tokens the most probable comes, and the end where the model ends."""
    with loaded(say("yes, but no")) as path, load_model(path) as model:
        assert model.generate("x", choices=["no", "yes", "yes, but"], temperature=0).text == "yes, but"
        assert model.generate("x", regex="[a-z, ]{1,20}", temperature=0).text == "yes, but no"


def test_free_requests_in_the_batch_are_as_alone():
    """And every constrained one is held to its own constraint."""
    with loaded(echo_script) as path, load_model(path) as model:
        free = [model.generate(f"question {n}", temperature=0, max_tokens=40).text for n in range(6)]
        held = [model.generate(f"question {n}", regex=f"[{n}x]{{30}}", temperature=0).text for n in range(6)]
        streams = [
            stream
            for n in range(6)
            for stream in (
                model.submit(f"question {n}", temperature=0, max_tokens=40),
                model.submit(f"question {n}", regex=f"[{n}x]{{30}}", temperature=0),
            )
        ]
        texts = [stream.result().text for stream in streams]
        assert texts[0::2] == free
        assert texts[1::2] == held
        assert max(len(chunks) for chunks in path.backend.decodes) > 8


def test_a_seed_repeats_itself():
    with loaded() as path, load_model(path) as model:
        first = model.generate("x", schema=PERSON, seed=5, temperature=1.0).text
        assert model.generate("x", schema=PERSON, seed=5, temperature=1.0).text == first
        assert model.generate("x", schema=PERSON, seed=6, temperature=1.0).text != first


def test_nothing_is_computed_after_the_end():
    with loaded() as path, load_model(path) as model:
        answer = model.generate("x", regex="ab")
        assert answer.text == "ab"
        assert answer.token_ids == tuple(b"ab")
        assert len(path.backend.decodes) == 2


def test_cut_by_max_tokens():
    with loaded() as path, load_model(path) as model:
        with pytest.raises(AnswerCut, match="after 10 tokens") as caught:
            model.generate("x", schema=PERSON, max_tokens=10)
        assert caught.value.completion.finish_reason == "length"
        assert caught.value.completion.text.strip().startswith('{"name"')
        stream = model.submit("x", schema=PERSON, max_tokens=10)
        with pytest.raises(AnswerCut):
            "".join(event.text for event in stream)
        # An answer that may end where it is cut is whole.
        assert len(model.generate("x", regex="[a-z]+", max_tokens=10, logit_bias={EOS: -1e9, 259: -1e9}).text) == 10


def test_cut_by_the_context():
    with loaded() as path, load_model(path, context_length=32) as model, pytest.raises(AnswerCut):
        model.generate("x" * 20, schema=PERSON, max_tokens=None)


def test_a_refusal_comes_before_anything_is_computed():
    with loaded() as path, load_model(path) as model:
        for constraint in ({"schema": {"not": {}}}, {"regex": "(?=a)"}, {"grammar": "start: x"}, {"choices": []}):
            with pytest.raises(ConstraintError):
                model.submit("x", **constraint)
        assert path.backend.decodes == []


def test_one_that_gets_stuck_harms_no_other():
    """A vocabulary without the letter that is asked for."""

    class NoQ(ScriptedBackend):
        def token_bytes(self, token_id: int) -> bytes:
            return b"" if token_id == ord("q") else super().token_bytes(token_id)

        def tokenize(self, text: str) -> list[int]:
            return [token for token in super().tokenize(text) if token != ord("q")]

    with scripted_model(lambda: NoQ(echo_script), template="plain") as path, load_model(path) as model:
        free = model.submit("hello", max_tokens=50, temperature=0)
        stuck = model.submit("hello", regex="aaq")
        with pytest.raises(ConstraintError, match="no token for it"):
            stuck.result()
        assert free.result().usage.completion_tokens == 50
        assert model.generate("hello", regex="aaa").text == "aaa"


def test_one_that_becomes_too_complex_harms_no_other():
    """An expression whose automaton would have 2 to the power of 3000 states."""
    with loaded(echo_script) as path, load_model(path) as model:
        free = model.submit("hello", max_tokens=50, temperature=0)
        try:
            answer = model.generate("hello", regex="([a-z]*a)?([a-z]{0,3000}a){0,3000}[a-z]{3000}", max_tokens=400)
        except (ConstraintError, AnswerCut):
            answer = None
        assert answer is None
        assert len(free.result().text) == 50


def test_a_bias_against_all_that_may_come():
    with loaded() as path, load_model(path) as model, pytest.raises(DecodeError, match="logit_bias forbids"):
        model.generate("x", regex="ab", logit_bias={ord("a"): float("-inf")})


def test_stop_strings_do_not_cut_what_is_held():
    """Those of the template may stand in a text; one that the caller gives is a contradiction."""
    text = 'say "### Instruction:" now'
    with loaded(say(json.dumps(text))) as path, load_model(path, template="alpaca") as model:
        assert json.loads(model.generate("x", schema={"type": "string"}, temperature=0).text) == text
        with pytest.raises(OptionError, match="stop= cannot be combined"):
            model.generate("x", schema={"type": "string"}, stop="now")


@pytest.mark.parametrize("can_cut", [True, False])
def test_a_preempted_request_goes_on_where_it_was(can_cut):
    """The cache holds two of six at a time, so every one is sent back and computed again."""

    def requests(engine: Engine) -> list[Request]:
        return [
            Request(
                prompt_ids=(BOS, *f"question {n}".encode()),
                params=SamplingParams(temperature=0.0, max_tokens=60),
                end_ids=frozenset({EOS}),
                constraint=engine.constraints.compile(matching(f"([a-z{n}][0-9]){{25}}")),
            )
            for n in range(6)
        ]

    def serve(cells: int) -> tuple[list[str], int]:
        backend = ScriptedBackend(echo_script, context_length=128, cache_tokens=cells, can_cut=can_cut)
        engine = Engine(backend, max_parallel=6)
        try:
            asked = requests(engine)
            with at_once(engine):
                streams = [engine.submit(one) for one in asked]
            return [stream.result().text for stream in streams], engine.stats().preemptions
        finally:
            engine.close()

    roomy, none = serve(4096)
    tight, preempted = serve(150)
    assert none == 0
    assert preempted > 0
    assert tight == roomy
    assert all(re.fullmatch(r"([a-z0-9][0-9]){25}", text) for text in tight)


def test_a_step_that_fails_is_tried_again_from_the_same_state():
    """One decode in five fails for the whole batch."""
    count = 0

    def fails(chunks: Sequence[object]) -> bool:
        nonlocal count
        count += 1
        return len(chunks) > 1 and count % 5 == 0

    with loaded(echo_script, fail_on=fails) as path, load_model(path) as model:
        streams = [model.submit(f"question {n}", regex="([a-f][0-9]){20}", temperature=0) for n in range(4)]
        assert all(re.fullmatch("([a-f][0-9]){20}", stream.result().text) for stream in streams)


async def test_the_event_loop_goes_on_while_a_schema_is_compiled(monkeypatch):
    """A large one takes a moment, in a thread."""
    large = {"type": "object", "properties": {f"property {n}": {"type": "integer"} for n in range(300)}}
    with loaded() as path, load_model(path) as model:
        compile_it, compiled = Compiler.compile, []

        def compile_slowly(compiler: Compiler, constraint: Constraint) -> Compiled:
            compiled.append(heart.goes_on())
            return compile_it(compiler, constraint)

        monkeypatch.setattr(Compiler, "compile", compile_slowly)
        async with Heart() as heart:
            answer = await model.agenerate("x", schema={**large, "required": ["property 3"]}, max_tokens=2000)
        assert "property 3" in json.loads(answer.text)
        assert compiled


def test_logprobs_are_those_of_the_model():
    """Not of the mask: what it forces may be improbable."""
    with loaded(say("yes")) as path, load_model(path) as model:
        answer = model.generate("x", choices=["no"], logprobs=True, temperature=0)
        assert answer.text == "no"
        assert all(number < -3 for number in answer.token_logprobs)
