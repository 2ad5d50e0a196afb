"""Schemas on every backend and kind of vocabulary: what comes of random logits is valid, always.

The mask lies above the backends, so it is the vocabularies that could spoil it: byte pairs, SentencePiece with byte
fallback, ranks, the words of RWKV World, single bytes. Each is held to all 200 schemas; and through the engine, with
the backend computing, to one schema of each kind, beside answers that are free.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from local_llms.backends import available
from local_llms.backends.base import Backend, LoadOptions
from local_llms.constraints import Compiler, json_document
from local_llms.models import load_model
from tests import ggml_files
from tests.chatglm_files import random_first
from tests.glm_stories import write_original
from tests.unit.constraints.schemas import schemas

FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
Prepare = Callable[[Path, Path], Path]


def there(name: str) -> Prepare:
    return lambda data, folder: data / "models" / name


def chatglm(name: str) -> Prepare:
    return lambda data, folder: write_original(data / "models/glm-stories", folder, name=name)


def world(data: Path, folder: Path) -> Path:
    """RWKV-7 with random weights and all words of the World vocabulary."""
    pytest.importorskip("rwkv", reason="the rwkv package, which ships the vocabulary, is not installed")
    from tests.unit.backends.rwkv.checkpoints import make, write_pth

    return write_pth(folder / "world.pth", make("7", vocabulary=65536, layers=1))


def pile(data: Path, folder: Path) -> Path:
    """RWKV-4 with random weights and a tokenizer like GPT-NeoX-20B's beside it."""
    from tests.unit.backends.rwkv.checkpoints import make, write_pth

    shutil.copy(data / "models/neox-stories/tokenizer.json", folder / "20B_tokenizer.json")
    return write_pth(folder / "raven.pth", make("4", vocabulary=1100))


MODELS: dict[str, tuple[str, Prepare]] = {
    "llama_cpp, SentencePiece": ("llama_cpp", there("stories260K/stories260K-F32.gguf")),
    "llama_cpp, byte pairs": ("llama_cpp", there("neox-stories/neox-stories-F32.gguf")),
    "llama_cpp, GLM": ("llama_cpp", there("glm-stories/glm-stories-F32.gguf")),
    "transformers, SentencePiece": ("transformers", there("stories260K/hf")),
    "transformers, byte pairs": ("transformers", there("neox-stories")),
    "transformers, ChatGLM-6B": ("transformers", lambda data, folder: random_first(folder)),
    "transformers, ChatGLM3": ("transformers", chatglm("chatglm3")),
    "transformers, GLM-4": ("transformers", chatglm("glm-4")),
    "rwkv, bytes": ("rwkv", there("rwkv/tiny-rwkv-7v0-834K-FP32.bin")),
    "rwkv, World": ("rwkv", world),
    "rwkv, 20B": ("rwkv", pile),
    "ctransformers, SentencePiece": (
        "ctransformers",
        lambda data, folder: ggml_files.write_stories(data, folder / "stories.bin"),
    ),
    "ctransformers, lossy byte pairs": (
        "ctransformers",
        lambda data, folder: ggml_files.write_neox(data, folder / "neox.bin"),
    ),
}
NEEDS = {
    "transformers": ("torch", "transformers", "sentencepiece"),
    "rwkv": ("torch",),
    "ctransformers": ("ctransformers",),
    "llama_cpp": ("llama_cpp",),
}

TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 9},
        "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
    },
    "required": ["value", "next"],
    "additionalProperties": False,
}
KINDS: dict[str, dict[str, Any]] = {
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"enum": [[1], {"c": "é"}]}}, "required": ["b"]}},
        "required": ["a"],
    },
    "enum": {"enum": ["red", 'say "hi"', "日本", 2.5, None]},
    "bounded integer": {"type": "integer", "minimum": -7, "exclusiveMaximum": 1200, "multipleOf": 3},
    "bounded number": {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}\d{3}-(red|grün)$"},
    "format": {"type": "string", "format": "date"},
    "text": {"type": "string", "minLength": 2, "maxLength": 6},
    "union": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "null"}, "maxItems": 2}]},
    "recursion": {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    "optional": {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]}, "b": {}},
        "additionalProperties": False,
    },
}
KINDS["optional"]["properties"]["b"] = {"type": "string", "maxLength": 3}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A backend's name, and a model's path."""
    name, prepare = MODELS[request.param]
    for library in NEEDS[name]:
        pytest.importorskip(library, reason=f"{library} is not installed")
    return name, prepare(data, tmp_path_factory.mktemp("model"))


@pytest.fixture
def backend(model: tuple[str, Path]) -> Iterator[Backend]:
    name, path = model
    loaded = available()[name].load(path, LoadOptions(threads=1, max_parallel=2, device="cpu"))
    yield loaded
    loaded.close()


def validate(schema: dict[str, Any], text: str) -> None:
    value = json.loads(text, parse_constant=pytest.fail)
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(value)


def test_200_schemas_on_random_logits(backend: Backend) -> None:
    """Of the allowed tokens, the one of the highest random logit; what closes something is a little likelier."""
    compiler, chance = Compiler(backend), np.random.default_rng(7)
    ends, size = backend.info.end_ids, backend.info.vocabulary_size
    pieces = [backend.token_bytes(token) for token in range(size)]
    closes = np.array([any(one in data for one in b'"}]') for data in pieces], dtype=np.float32)
    for schema in schemas(200):
        matcher = compiler.compile(json_document(schema)).matcher(ends)
        written = b""
        for _ in range(8000):
            if matcher.finished:
                break
            logits = chance.random(size, dtype=np.float32) + closes * chance.integers(2)
            token = int(np.where(matcher.allowed(), logits, -1.0).argmax())
            if token in ends:
                break
            matcher.accept(token)
            written += pieces[token]
        validate(schema, written.decode())


def test_each_kind_through_the_engine(model: tuple[str, Path]) -> None:
    """At a temperature that makes all tokens equally probable, and beside free answers in the same batch."""
    name, path = model
    with load_model(path, backend=name, template="plain", threads=1, max_parallel=6, device="cpu") as loaded:
        random = {"temperature": 1000.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 220}
        free = [loaded.submit("Once", temperature=0, max_tokens=20) for _ in range(2)]
        held = {kind: loaded.submit("Once", schema=KINDS[kind], seed=11, **random) for kind in KINDS}
        for kind, stream in held.items():
            validate(KINDS[kind], stream.result().text)
        assert free[0].result().text == free[1].result().text
