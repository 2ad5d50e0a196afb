"""Damaged folders of ChatGLM: typed errors, or a model that still computes; never anything else."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

from local_llms.backends import transformers
from local_llms.backends.base import Adapter, Chunk, LoadOptions
from local_llms.errors import AdapterError, DecodeError, ModelFileError, OptionError, UnsupportedFeature
from tests.chatglm_files import random_first, random_prefix
from tests.glm_stories import write_original

OPTIONS = LoadOptions(context_length=32, cache_tokens=64, max_parallel=1, device="cpu", dtype="float32", threads=1)
REFUSALS = (ModelFileError, UnsupportedFeature, OptionError)
STRANGE: tuple[Any, ...] = (None, -1, 0, 1 << 62, 1.5, "text", [], {}, True, [[[]]], float("1e308"))


def damage(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    kind = chance.randrange(4)
    if kind == 0:
        data = data[: chance.randrange(len(data))]
    elif kind == 1:
        place = chance.randrange(min(len(data), 3000))
        data = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
    elif kind == 2:
        data = bytes(chance.randrange(256) for _ in range(chance.randint(0, 500)))
    else:
        data = data + data[: chance.randint(1, 200)]
    path.write_bytes(data)


def change_config(path: Path, chance: random.Random) -> None:
    config = json.loads(path.read_text())
    config[chance.choice(list(config))] = chance.choice(STRANGE)
    path.write_text(json.dumps(config))


def try_it(folder: Path) -> None:
    try:
        backend = transformers.load(folder, OPTIONS)
    except REFUSALS:
        return
    try:
        backend.decode([Chunk(0, 0, backend.tokenize("Lily had")[:5] or [0])])
    except (DecodeError, ValueError):
        pass
    finally:
        backend.close()


@pytest.mark.parametrize("name", ["chatglm-6b", "chatglm3", "glm-4"])
def test_seventy_damaged_folders_each(data: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    if name == "chatglm-6b":
        random_first(source)
    else:
        write_original(data / "models" / "glm-stories", source, name=name)
    chance = random.Random(name)
    for number in range(70):
        folder = Path(shutil.copytree(source, tmp_path / f"damaged-{number}"))
        if number % 2:
            change_config(folder / "config.json", chance)
        else:
            damage(chance.choice(sorted(folder.iterdir())), chance)
        try_it(folder)
        shutil.rmtree(folder)


def test_damaged_prefixes(tmp_path: Path) -> None:
    source = random_prefix(tmp_path / "source", layers=2, heads=8, size=4)
    backend = transformers.load(random_first(tmp_path / "model"), OPTIONS)
    chance = random.Random(6)
    for number in range(60):
        folder = Path(shutil.copytree(source, tmp_path / f"damaged-{number}"))
        damage(folder / chance.choice(("model.safetensors", "model.safetensors", "config.json")), chance)
        try:
            backend.open_adapter(folder)
            backend.decode([Chunk(0, 0, [20, 21, 1, 2])], Adapter(folder))
            backend.free(0)
        except (AdapterError, ModelFileError):
            continue
    assert backend.decode([Chunk(0, 0, [20, 21, 1, 2])]).shape == (1, 600)
    backend.close()
