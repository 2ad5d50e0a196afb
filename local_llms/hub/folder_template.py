"""The prompt template of a model's folder: the Jinja text beside its tokenizer, or what its kind means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_llms.errors import ModelFileError

_MOST = 1 << 24
"""Bytes of a template."""

_RANK = re.compile(rb"[A-Za-z0-9+/]+=* \d{1,9}\r?\n")
_CHATGLM = ("chatglm2", "chatglm3")
"""In a checkpoint's name, and our names of their templates: the two have the same files otherwise."""


def chat_template_of(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The Jinja template in a file of its own, or that of ``tokenizer_config.json``, of several the one named default.

    Raises ModelFileError where the file cannot be read.
    """
    own = folder / "chat_template.jinja"
    if own.is_file():
        return _read(own, _MOST).decode("utf-8", "replace")
    value = tokenizer_config.get("chat_template")
    if isinstance(value, list):
        named = (item for item in value if isinstance(item, Mapping) and item.get("name") == "default")
        value = next((item.get("template") for item in named), None)
    return value if isinstance(value, str) else None


def template_of_kind(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The catalog's name of the template that a checkpoint in ChatGLM's original layout was trained with.

    ``config``: its ``config.json``. None for any other, for a base model, and where nothing tells ChatGLM2 from 3.
    """
    if config.get("model_type") != "chatglm":
        return None
    if "padded_vocab_size" not in config:
        return "chatglm" if "inner_hidden_size" in config else None
    name = _name(folder, config)
    if name.endswith("-base"):
        return None
    if has_ranks(folder / "tokenizer.model"):
        return "glm4"
    return next((known for known in _CHATGLM if known in name), None)


def has_ranks(tokenizer: Path) -> bool:
    """Whether a ``tokenizer.model`` is a list of ranks, as GLM-4's, and no SentencePiece model."""
    return tokenizer.is_file() and _RANK.match(_read(tokenizer, 512, whole=False)) is not None


def _name(folder: Path, config: Mapping[str, Any]) -> str:
    """What a checkpoint calls itself, else what its folder is called; the last part, in small letters."""
    named = config.get("_name_or_path")
    known = isinstance(named, str) and any(text in named.lower() for text in (*_CHATGLM, "glm-4"))
    return (str(named) if known else folder.name).lower().rsplit("/", 1)[-1]


def _read(path: Path, most: int, *, whole: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1 if whole else most)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    if whole and len(data) > most:
        raise ModelFileError(f"{path} has more than {most} bytes, which no template has.")
    return data
