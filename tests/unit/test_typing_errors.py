"""Sixty names with typing errors: the error names the right one first."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from local_llms import list_models, load_model, render_prompt
from local_llms.adapter import GenerationFields
from local_llms.catalog import families
from local_llms.errors import LocalLLMError, suggestion
from local_llms.options import LoadingOptions, SamplingOptions

ENOUGH = 55

MODELS = {
    "smolm2-135m-instruct": "smollm2-135m-instruct",  # missing
    "smollm2-135m-instrcut": "smollm2-135m-instruct",  # swapped
    "SmolLM2-135M-Instruct": "smollm2-135m-instruct",  # case
    "smollm2_135m_instruct": "smollm2-135m-instruct",  # separators
    "smollm2 135m instruct": "smollm2-135m-instruct",
    "smollm2-135m": "smollm2-135m-instruct",  # cut short
    "smollm-135m-instruct": "smollm2-135m-instruct",
    "vicuna-7b-1.5": "vicuna-7b-v1.5",
    "vicuna-7bv1.5": "vicuna-7b-v1.5",
    "vicunna-13b-v1.5": "vicuna-13b-v1.5",  # doubled
    "vcuina-13b-v1.5": "vicuna-13b-v1.5",
    "dolly-v2-3bb": "dolly-v2-3b",
    "doly-v2-12b": "dolly-v2-12b",
    "dolly-2-12b": "dolly-v2-12b",
    "dollyv2-7b": "dolly-v2-7b",
    "llama2-7b-chat": "llama-2-7b-chat",
    "Llama-2-7B-Caht": "llama-2-7b-chat",
    "chinese-alpaca2-7b": "chinese-alpaca-2-7b",
}
TEMPLATES = {
    "alpca": "alpaca",
    "alapca-lora": "alpaca-lora",
    "ALPACA": "alpaca",
    "alpaca.cpp": "alpaca-cpp",
    "vicuna_v1.1": "vicuna-v1.1",
    "vicuna-v11": "vicuna-v1.1",
    "vicunav0": "vicuna-v0",
    "chatLM": "chatml",
    "chtaml": "chatml",
    "chatglm-3": "chatglm3",
    "ChatGLM2": "chatglm2",
    "llama3": "llama-3",
    "llama-2-": "llama-2",
    "rwkv-wrold": "rwkv-world",
    "rkwv-raven": "rwkv-raven",
    "mistral-v02": "mistral-v0.2",
}
FAMILIES = {
    "alpacca": "alpaca",
    "Vicuna": "vicuna",
    "vicnua": "vicuna",
    "guanacco": "guanaco",
    "gaunaco": "guanaco",
    "doly": "dolly",
    "chinese_alpaca": "chinese-alpaca",
    "chineese-vicuna": "chinese-vicuna",
    "phi3": "phi-3",
    "smolm2": "smollm2",
    "openasistant": "openassistant",
}
OPTIONS = {
    "contxt_length": "context_length",
    "context-length": "context_length",
    "contextLength": "context_length",
    "max_paralel": "max_parallel",
    "thread": "threads",
    "devcie": "device",
    "gpulayers": "gpu_layers",
    "tempreature": "temperature",
    "temprature": "temperature",
    "max_token": "max_tokens",
    "maxtokens": "max_tokens",
    "topp": "top_p",
    "top-k": "top_k",
    "repitition_penalty": "repetition_penalty",
    "frequency_penality": "frequency_penalty",
}


def model(name: str) -> None:
    load_model(name)


def template(name: str) -> None:
    render_prompt(name, [{"role": "user", "content": "Hi"}])


def option(name: str) -> None:
    GenerationFields(**{name: 1})


CASES: list[tuple[Callable[[str], object], str, str]] = [
    *((model, *pair) for pair in MODELS.items()),
    *((template, *pair) for pair in TEMPLATES.items()),
    *((list_models, *pair) for pair in FAMILIES.items()),
    *((option, *pair) for pair in OPTIONS.items()),
]


def proposed(text: str) -> str | None:
    found = re.search(r"Did you mean '([^']+)'", text)
    return found[1] if found else None


def test_the_error_names_the_right_one_first() -> None:
    assert len(CASES) == 60
    missed = []
    for call, wrong, right in CASES:
        with pytest.raises(LocalLLMError) as caught:
            call(wrong)
        if (said := proposed(str(caught.value))) != right:
            missed.append(f"{wrong!r} is {right!r}, not {said!r}")
    score = len(CASES) - len(missed)
    assert score >= ENOUGH, f"{score} of {len(CASES)} are right: " + "; ".join(missed)


ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
EDITS: dict[str, Callable[[str, int, random.Random], str]] = {
    "swapped": lambda name, at, _: name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
    "missing": lambda name, at, _: name[:at] + name[at + 1 :],
    "doubled": lambda name, at, _: name[:at] + name[at : at + 1] + name[at:],
    "wrong": lambda name, at, chance: name[:at] + chance.choice(ALPHABET) + name[at + 1 :],
    "case": lambda name, at, _: name[: at + 1].upper() + name[at + 1 :],
    "separator": lambda name, _, chance: re.sub("[-_.]", chance.choice(["-", "_", ".", " ", ""]), name),
}


def test_names_with_one_random_error() -> None:
    """So that the sixty are not only those that work."""
    known = {
        "model": [card.name for card in list_models()],
        "template": [each.name for family in families().values() for each in family.templates],
        "family": list(families()),
        "option": [*LoadingOptions.model_fields, *SamplingOptions.model_fields],
    }
    chance = random.Random(5)
    good = total = 0
    for names in known.values():
        for name in names:
            for edit in EDITS.values():
                wrong = edit(name, chance.randrange(len(name)), chance)
                # A name of one letter more or less may be another name's error just as well.
                if wrong not in names:
                    total += 1
                    good += proposed(suggestion(wrong, names)) == name
    assert good / total >= 0.93, f"{good} of {total}"


def test_names_that_are_equally_near_are_all_named() -> None:
    options = [*LoadingOptions.model_fields, *SamplingOptions.model_fields]
    assert suggestion("top", options) == " Did you mean 'top_k' or 'top_p'?"
    assert suggestion("temp", options) == " Did you mean 'template' or 'temperature'?"
    assert suggestion("minilm", ["all-minilm-l6-v2", "vicuna"]) == " Did you mean 'all-minilm-l6-v2'?"
    assert suggestion("abe", ["abc", "abd", "abf", "abg"]) == " Did you mean 'abc', 'abd' or 'abf'?"


def test_another_name_altogether_gets_a_list() -> None:
    assert suggestion("gpt-4", ["vicuna", "alpaca"]) == " Known: alpaca, vicuna."
    assert suggestion("", ["vicuna"]) == " Known: vicuna."
    assert suggestion("x" * 10_000_000, ["vicuna"]) == " Known: vicuna."
    assert suggestion("vicuna", []) == ""
    assert suggestion("?", [f"m{number:02}" for number in range(13)]).endswith("m11, ….")
