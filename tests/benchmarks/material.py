"""What the benchmarks ask: questions, contexts that come with CPython, and other quantizations of one model."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from pydoc_data.topics import topics

import llama_cpp.llama_cpp as lib

from tests.benchmarks.bare_loop import silence

QUESTIONS = [
    "Name three primary colours and say where each is seen in nature.",
    "How does a bicycle stay upright?",
    "Write a short letter that thanks a neighbour for feeding the cat.",
    "What is the difference between a lake and a sea?",
    "Explain to a child why the sky is blue.",
    "Give me a recipe for pancakes.",
    "What should I pack for a week in the mountains?",
    "Why do leaves change their colour in autumn?",
    "Summarize the story of the tortoise and the hare.",
    "How can I learn a language in half an hour a day?",
    "What does a librarian do all day?",
    "Describe the smell of rain.",
    "How is bread made?",
    "List five uses of an old newspaper.",
    "What makes a good friend?",
    "Why is the sea salty?",
]
"""Sixteen short questions that share nothing but the template."""

CONTEXT_NAMES = ["assignment", "comparisons", "try", "typesmapping"]
CONTEXT_CHARACTERS = 4000

ASPECTS = [
    "the first rule it gives",
    "an exception to a rule",
    "the most important term",
    "an example it shows",
    "what raises an error",
    "what is evaluated first",
    "what changed between versions",
    "what a beginner gets wrong",
    "the part about names",
    "the part about types",
    "the part about order",
    "the shortest sentence",
    "the advice it gives",
    "what is not allowed",
    "what happens at the end",
    "the purpose of the text",
]


def contexts() -> list[str]:
    """Four texts of 4,000 characters each, from CPython's own documentation."""
    return [topics[name][:CONTEXT_CHARACTERS] for name in CONTEXT_NAMES]


def context_questions(part: int, count: int = 32) -> list[str]:
    """Prompts of a context and a question each, in turn over the contexts; ``part`` 0 and 1 share no question."""
    texts = contexts()
    pairs = itertools.product(ASPECTS[8 * part : 8 * part + 8], texts)
    return [f"{text}\n\nQuestion: what is {aspect} in this text?" for aspect, text in itertools.islice(pairs, count)]


def long_prompt(words: int) -> str:
    """A prompt of about ``words`` tokens."""
    text = topics["specialnames"]
    return text[: words * 4]


FILE_TYPES = {"F32": 0, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
"""llama.cpp's numbers for whole-file quantizations (``llama_ftype`` in llama.h)."""


def requantized(source: Path, name: str, folder: Path) -> Path:
    """The same weights in another quantization, written once by llama.cpp itself."""
    if name in source.name:
        return source
    silence()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}.{name}.gguf"
    if not target.exists():
        params = lib.llama_model_quantize_default_params()
        params.ftype = FILE_TYPES[name]
        params.allow_requantize = True
        unfinished = target.with_suffix(".part")
        code = lib.llama_model_quantize(os.fsencode(source), os.fsencode(unfinished), params)
        if code != 0:
            raise RuntimeError(f"llama_model_quantize gave {code}")
        unfinished.rename(target)
    return target
