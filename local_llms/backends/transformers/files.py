"""Reading the small files of a checkpoint's folder, with bounds and typed errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_llms.errors import ModelFileError

CONFIG_BYTES = 1 << 24
"""The most bytes of a configuration file."""

TOKENIZER_BYTES = 1 << 28
"""The most bytes of a tokenizer file."""


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises ModelFileError where it is missing, empty, too large or cannot be read."""
    try:
        size = path.stat().st_size
        if size > most:
            raise ModelFileError(f"{path} has {size} bytes, and at most {most} are read. It is not what it should be.")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"There is no file {path}: the model's folder is incomplete. Fetch it again.") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
    if not data:
        raise ModelFileError(f"{path} is empty. Fetch it again.")
    return data


def read_json(path: Path, most: int = CONFIG_BYTES) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelFileError."""
    data = read_bytes(path, most)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: it is no JSON ({error}). Fetch it again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} is damaged: it holds no object. Fetch it again.")
    return value


def read_json_if_there(path: Path, most: int = CONFIG_BYTES) -> dict[str, Any]:
    """The same; an empty one where there is no such file."""
    return read_json(path, most) if path.is_file() else {}


def number(config: Mapping[str, Any], key: str, path: Path, *, least: int = 1, most: int = 1 << 24) -> int:
    """A whole number of a configuration. Raises ModelFileError where it is missing, none, or out of bounds."""
    value = config.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ModelFileError(f"{path} is damaged: {key} is {value!r}, not a whole number from {least} to {most}.")
    return value


def text_of(value: Any) -> str | None:
    """A token's text, which these files write as a string or as an object with ``content``."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def ids_of(value: Any) -> frozenset[int]:
    """Token ids, which these files write as one number, a list of them, or nothing."""
    values = value if isinstance(value, list) else [value]
    return frozenset(item for item in values if type(item) is int and item >= 0)
