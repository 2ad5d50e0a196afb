"""Names of repositories and files on the Hugging Face hub, checked before they become addresses and paths.

A checked name is made of plain parts: it can leave neither the hub's address nor the cache folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from local_llms.errors import OptionError

PREFIX = "hf:"
"""What a model's name begins with where it means a repository on the hub."""

DEFAULT_REVISION = "main"

_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_PART = re.compile(r"[^\\:\x00-\x1f\x7f-\x9f]{1,200}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,119}){0,4}")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MOST_FILES = 1000
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".pth", ".pt")
"""Endings of files that hold a model's weights."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository, and the file in it; None: the one model that is there, in a file or as a folder."""

    repository: str
    file: str | None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f":{self.file}" if self.file else "")


def parse_hub_name(text: str) -> HubName:
    """Understand ``hf:org/repo`` or ``hf:org/repo:file.gguf``. Raises OptionError for anything else."""
    repository, colon, file = text.removeprefix(PREFIX).partition(":")
    try:
        return HubName(check_repository(repository), check_file(file) if colon else None)
    except ValueError as error:
        raise OptionError(
            f"{text!r} is no name of a model on the hub: {error}. Write hf:organisation/repository or "
            "hf:organisation/repository:file.gguf."
        ) from None


def check_repository(value: str) -> str:
    """The value, if it is an organisation and a repository. Raises ValueError."""
    if not _REPOSITORY.fullmatch(value) or ".." in value or "--" in value or value.endswith((".git", ".", "-")):
        raise ValueError(f"the repository {value!r} must be organisation/repository, of letters, digits and . _ -")
    return value


def check_path(value: str) -> str:
    """The value, if it is a relative path of plain parts inside a repository. Raises ValueError."""
    parts = value.split("/")
    if len(value) > 400 or any(
        not _PART.fullmatch(part) or part.startswith(".") or part != part.strip() for part in parts
    ):
        raise ValueError(
            f"the file {value!r} must be a path inside the repository, with / between its parts, without a leading / "
            "and without a part that begins with a dot"
        )
    return value


def check_file(value: str) -> str:
    """The value, if it is a path that can name a model: its one file, or the first of several. Raises ValueError."""
    check_path(value)
    if not value.lower().endswith(_WEIGHTS):
        raise ValueError(f"the file {value!r} holds no weights: such a file ends in {', '.join(_WEIGHTS)}")
    split = _SPLIT.fullmatch(value)
    if split and (int(split["number"]) != 1 or not 1 <= int(split["count"]) <= _MOST_FILES):
        raise ValueError(f"the file {value!r} is one part of a model; name the first, which ends in -00001-of-…")
    return value


def check_revision(value: str) -> str:
    """The value, if it can be a branch, tag or commit. Raises ValueError."""
    if not _REVISION.fullmatch(value) or ".." in value:
        raise ValueError(f"the revision {value!r} must be a branch, a tag or a commit, of letters, digits and . _ - /")
    return value


def all_parts(file: str) -> tuple[str, ...]:
    """The files of a model that is stored in several, by the name of its first; else that name alone."""
    split = _SPLIT.fullmatch(file)
    if split is None:
        return (file,)
    count = int(split["count"])
    return tuple(f"{split['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))
