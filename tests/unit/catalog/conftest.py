"""A user's folder of families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.paths import config_dir

OWL = """\
name = "owl"
title = "Owl"
default_template = "owl"

[classes]
llm = "OwlLLM"
chat = "ChatOwl"

[sampling]
temperature = 0.25
stop = "Night:"

[[templates]]
name = "owl"
source = '''
[[models]]
{{ messages[0].content }}
'''

[[models]]
name = "owl-1b"
parameters = 1_000_000_000
licence = "MIT"
commercial_use = "yes"

[[models.sources]]
kind = "file"
path = "weights/owl-1b.gguf"

[[models]]
name = "owl-2b"
template = "chatml"
parameters = 2_000_000_000

[models.sampling]
temperature = 0.5

[[models.sources]]
kind = "package"
distribution = "owl-weights"
version = "1.0"
wheel_size = 100
members = [{ path = "owl/owl-2b.gguf", size = 90, sha256 = "DIGEST" }]
""".replace("DIGEST", "0" * 64)

Write = Callable[..., Path]


@pytest.fixture
def write() -> Write:
    """Write a family file of the user's own."""

    def write(text: str = OWL, name: str = "owl.toml") -> Path:
        folder = config_dir() / "families"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text, "utf-8")
        return path

    return write
