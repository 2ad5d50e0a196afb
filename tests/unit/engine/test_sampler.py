"""The sampler against a plain one that sorts everything: the same candidates, probabilities and draws."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_llms.engine.logprobs import log_probability
from local_llms.engine.sampler import Sampler, distribution, sample
from local_llms.errors import OptionError
from local_llms.options import CallOptions
from local_llms.types import SamplingParams

SIZES = (260, 49_152)
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}


def row(seed: int, size: int, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def reference(logits: np.ndarray, params: SamplingParams) -> dict[int, float]:
    """Softmax, a full sort, and each cut as its paper writes it, in double precision."""
    scaled = logits.astype(np.float64) / params.temperature
    order = np.argsort(-scaled, kind="stable")
    if params.top_k:
        order = order[: params.top_k]

    def normalized(tokens: np.ndarray) -> np.ndarray:
        weights = np.exp(scaled[tokens] - scaled[tokens].max())
        return weights / weights.sum()

    if params.typical_p < 1.0:
        chances = normalized(order)
        surprise = -np.log(np.maximum(chances, 1e-300))
        near = np.argsort(np.abs(surprise - (chances * surprise).sum()), kind="stable")
        last = np.flatnonzero(np.cumsum(chances[near]) >= params.typical_p)
        order = order[np.sort(near[: last[0] + 1] if last.size else near)]
    if params.top_p < 1.0:
        last = np.flatnonzero(np.cumsum(normalized(order)) >= params.top_p)
        order = order[: last[0] + 1] if last.size else order
    chances = normalized(order)
    order = order[chances >= params.min_p * chances.max()]
    return dict(zip(order.tolist(), normalized(order).tolist(), strict=True))


def found(logits: np.ndarray, params: SamplingParams) -> dict[int, float]:
    ids, weights = distribution(logits, params)
    assert len(set(ids.tolist())) == len(ids)
    return dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))


def assert_same(logits: np.ndarray, params: SamplingParams) -> None:
    expected, actual = reference(logits, params), found(logits, params)
    # A token on the very edge of a cut may fall on either side by rounding; nothing else may differ.
    for token in expected.keys() ^ actual.keys():
        assert max(expected.get(token, 0.0), actual.get(token, 0.0)) < 1e-4, (token, params)
    assert len(expected.keys() ^ actual.keys()) <= 1 + len(expected) // 1000, params
    common = sorted(expected.keys() & actual.keys())
    left, right = [actual[token] for token in common], [expected[token] for token in common]
    np.testing.assert_allclose(left, right, rtol=2e-3, err_msg=str(params))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_every_combination_of_cuts_leaves_the_reference_candidates(size: int, spread: float) -> None:
    logits = row(1, size, spread)
    values = ([0, 1, 40, 200], [1.0, 0.9, 0.3], [0.0, 0.05, 1.0], [1.0, 0.5], [0.7])
    if size > 1000:
        values = ([0, 40, 2000], [1.0, 0.9], [0.0, 0.05], [1.0, 0.5], [0.7])
    for top_k, top_p, min_p, typical_p, temperature in itertools.product(*values):
        params = SamplingParams(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p, seed=0
        )
        assert_same(logits, params)


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
)
def test_any_small_row(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    values = np.array(logits, dtype=np.float32)
    expected, actual = reference(values, params), found(values, params)
    # Equal logits may be exchanged for one another where a cut goes through them.
    assert abs(len(expected) - len(actual)) <= 1
    for token in expected.keys() ^ actual.keys():
        chance = max(expected.get(token, 0.0), actual.get(token, 0.0))
        edge = min(min(expected.values()), min(actual.values()))
        assert chance == pytest.approx(edge, rel=1e-3)


def test_flat_distribution_keeps_the_whole_mass_in_sight_of_top_p() -> None:
    # Rare tokens are left out of the sort; their mass must still count, or top-p would keep too few.
    params = SamplingParams(temperature=1.0, **{**OFF, "top_p": 0.9})
    logits = np.zeros(1000, dtype=np.float32)
    logits[:10] = 1.0
    logits[500:] = -3.0
    assert len(found(logits, params)) == len(reference(logits, params))


@pytest.mark.parametrize("size", SIZES)
def test_draws_follow_the_distribution(size: int) -> None:
    params = SamplingParams(temperature=1.2, top_k=20, top_p=0.95, min_p=0.01, seed=7)
    logits, count = row(2, size), 8000
    sampler = Sampler(params, [])
    drawn = np.bincount([sampler.draw(logits) for _ in range(count)], minlength=size)
    expected = reference(logits, params)
    assert set(np.flatnonzero(drawn).tolist()) <= set(expected)
    chi = sum((drawn[token] - count * p) ** 2 / (count * p) for token, p in expected.items())
    assert chi < len(expected) + 6 * math.sqrt(2 * len(expected))


def test_without_cuts_every_token_can_come() -> None:
    sampler = Sampler(SamplingParams(temperature=1.0, seed=3, **OFF), [])
    logits = np.log(np.array([1, 2, 3, 4], dtype=np.float32))
    drawn = np.bincount([sampler.draw(logits) for _ in range(10_000)], minlength=4) / 10_000
    assert drawn == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)


def test_one_token_is_always_kept() -> None:
    for params in (
        SamplingParams(temperature=1.0, top_k=0, top_p=1e-9, min_p=0.0),
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=1.0),
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1e-9),
        SamplingParams(temperature=1.0, top_k=1),
        SamplingParams(temperature=1e-60, top_k=0),
        SamplingParams(temperature=1e-60, top_k=5),
    ):
        assert len(found(row(3, 260), params)) == 1, params


@pytest.mark.parametrize("temperature", [0.0, 1e-60])
def test_greedy_takes_the_first_largest(temperature: float) -> None:
    logits = row(4, 260)
    logits[[9, 77]] = 50.0
    if temperature:
        logits[77] = 49.9
    assert Sampler(SamplingParams(temperature=temperature), []).draw(logits) == 9


def test_equal_logits_at_the_edge_of_top_k_go_to_the_first() -> None:
    logits = np.zeros(49_152, dtype=np.float32)
    assert sorted(found(logits, SamplingParams(temperature=1.0, top_k=5, top_p=1.0, min_p=0.0))) == [0, 1, 2, 3, 4]


def test_bias_comes_first_and_can_forbid() -> None:
    logits = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    assert Sampler(SamplingParams(temperature=0.0, logit_bias={0: 5.0}), []).draw(logits) == 0
    assert Sampler(SamplingParams(temperature=0.0, logit_bias={2: -math.inf}), []).draw(logits) == 1
    assert logits.tolist() == [1.0, 2.0, 3.0], "the backend's row was changed"


def test_bias_comes_before_the_repetition_penalty() -> None:
    # (1 + 3) / 2 = 2 is less than 3; the other order would give 1 / 2 + 3 = 3.5.
    params = SamplingParams(temperature=0.0, logit_bias={0: 3.0}, repetition_penalty=2.0)
    assert Sampler(params, [0]).draw(np.array([1.0, 3.0], dtype=np.float32)) == 1


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_answer() -> None:
    sampler = Sampler(SamplingParams(temperature=0.0, repetition_penalty=2.0), [0, 0])
    logits = np.array([5.0, 3.0, 2.0], dtype=np.float32)
    assert [sampler.draw(logits) for _ in range(4)] == [1, 0, 0, 0]  # 2.5 3 2, then 2.5 1.5 2 for ever
    negative = np.array([-1.0, -1.5], dtype=np.float32)
    assert Sampler(SamplingParams(temperature=0.0, repetition_penalty=2.0), [0]).draw(negative) == 1


def test_frequency_and_presence_count_the_answer_only() -> None:
    logits = np.array([3.0, 2.0, 0.0], dtype=np.float32)
    frequent = Sampler(SamplingParams(temperature=0.0, frequency_penalty=0.6), [0, 0, 0, 0])
    # 3 → 2.4 → 1.8 < 2 → 1: 2 → 1.4; 0: 1.8 …
    assert [frequent.draw(logits) for _ in range(5)] == [0, 0, 1, 0, 1]
    present = Sampler(SamplingParams(temperature=0.0, presence_penalty=1.5), [0])
    assert [present.draw(logits) for _ in range(4)] == [0, 1, 0, 0]  # 1.5 and 0.5 left, once and for all


def test_penalty_decay_forgets() -> None:
    # The rule of RWKV's chat sampler: every count is multiplied, then the new token is counted.
    params = SamplingParams(temperature=0.0, frequency_penalty=1.0, penalty_decay=0.5)
    logits = np.array([1.2, 0.5, 0.3], dtype=np.float32)
    sampler, counts, expected = Sampler(params, []), np.zeros(3), []
    for _ in range(30):
        token = int((logits - counts).argmax())
        counts *= 0.5
        counts[token] += 1
        expected.append(token)
    drawn = [sampler.draw(logits) for _ in range(30)]
    assert drawn == expected
    forever = Sampler(SamplingParams(temperature=0.0, frequency_penalty=1.0), [])
    assert [forever.draw(logits) for _ in range(30)] != drawn


def test_penalties_apply_to_drawn_tokens_too() -> None:
    # With a penalty this large no token can come twice until all have come.
    sampler = Sampler(SamplingParams(temperature=1.0, frequency_penalty=100.0, seed=1, **OFF), [])
    logits = np.zeros(50, dtype=np.float32)
    assert sorted(sampler.draw(logits) for _ in range(50)) == list(range(50))


def test_a_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    logits = [row(seed, 260, 1.0) for seed in range(40)]

    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed), [])
        return [sampler.draw(one) for one in logits]

    assert tokens(11) == tokens(11)
    assert tokens(11) != tokens(12)
    assert tokens(None) != tokens(None)


def test_tokens_do_not_depend_on_who_shares_the_batch() -> None:
    rows = np.stack([row(seed, 260) for seed in range(6)])
    kinds = [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.0, seed=1),
        SamplingParams(temperature=0.0, frequency_penalty=0.5),
        SamplingParams(temperature=2.0, top_k=0, seed=2),
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.3, repetition_penalty=1.2, seed=3),
    ]
    together = [Sampler(params, [1, 2]) for params in kinds]
    alone = [Sampler(params, [1, 2]) for params in kinds]
    for _ in range(20):
        assert sample(rows, together) == [one.draw(line) for one, line in zip(alone, rows, strict=True)]
    greedy = [Sampler(SamplingParams(temperature=0.0), []) for _ in rows]
    assert sample(rows, greedy) == rows.argmax(axis=1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize("bad", [-math.inf, math.nan, math.inf])
def test_a_row_without_a_finite_maximum_gives_minus_one(temperature: float, penalty: float, bad: float) -> None:
    rows = np.stack([row(1, 260), np.full(260, bad, dtype=np.float32), row(2, 260)])
    params = SamplingParams(temperature=temperature, presence_penalty=penalty)
    tokens = sample(rows, [Sampler(params, []) for _ in rows])
    assert tokens[1] == -1
    assert tokens[0] >= 0
    assert tokens[2] >= 0


def test_one_nan_is_enough_to_distrust_a_row() -> None:
    logits = row(1, 260)
    logits[5] = math.nan
    assert Sampler(SamplingParams(temperature=0.0), []).draw(logits) == -1
    assert Sampler(SamplingParams(temperature=1.0), []).draw(logits) == -1


def test_forbidden_tokens_never_come() -> None:
    for value in (-math.inf, float(np.finfo(np.float32).min)):
        for kept in (3, 100):
            logits = np.full(49_152, value, dtype=np.float32)
            logits[:kept] = 1.0
            for options in (OFF, {**OFF, "top_k": 40}, {**OFF, "typical_p": 0.9}, {**OFF, "top_p": 0.9}):
                sampler = Sampler(SamplingParams(temperature=1.0, seed=1, **options), [])
                assert all(sampler.draw(logits) < kept for _ in range(30)), options


@pytest.mark.parametrize("size", SIZES)
def test_log_probability_is_that_of_the_softmax(size: int) -> None:
    logits = row(5, size)
    wide = logits.astype(np.float64)
    expected = wide - wide.max() - math.log(np.exp(wide - wide.max()).sum())
    for token in (0, 17, size - 1, int(logits.argmax())):
        assert log_probability(logits, token) == pytest.approx(expected[token], abs=1e-5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["temperature", "repetition_penalty", "frequency_penalty", "presence_penalty"])
def test_numbers_that_would_spoil_every_logit_do_not_get_here(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        CallOptions.parse("generate()", {name: value})


def test_speed_of_the_default_options() -> None:
    # 0.1 ms on a laptop; a sort of the whole vocabulary takes 4 ms.
    logits, sampler = row(6, 49_152), Sampler(SamplingParams(seed=1), [])
    sampler.draw(logits)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        sampler.draw(logits)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 2e-3
