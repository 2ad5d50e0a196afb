"""The documents that ``local-llms demo`` asks about: a folder of the user's, or a part of Python's own manual."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from local_llms.errors import OptionError

TOPICS = (
    "assert",
    "async",
    "booleans",
    "break",
    "class",
    "context-managers",
    "continue",
    "del",
    "dynamic-features",
    "exceptions",
    "for",
    "global",
    "identifiers",
    "import",
    "lambda",
    "lists",
    "nonlocal",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
)
LARGEST_FILE = 4_000_000
"""Bytes; a larger file is hardly a text to read."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A document: its name within the folder, and its text."""

    name: str
    text: str


def write_manual(folder: Path) -> None:
    """Write some topics of Python's manual, which every CPython carries, as text files.

    Raises OptionError where this Python has been shipped without them.
    """
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:
        raise OptionError(
            "This Python comes without its manual (pydoc_data). Name a folder of text files: local-llms demo FOLDER"
        ) from None
    for name in TOPICS:
        if name in topics:
            (folder / f"{name}.txt").write_text(topics[name], "utf-8")


def read_folder(folder: Path) -> list[TextFile]:
    """Every UTF-8 text file in a folder and below; hidden, large and binary files are left out.

    Raises OptionError where there is none.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        text = _text(path)
        if text:
            found.append(TextFile(str(name), text))
    if not found:
        raise OptionError(f"The folder {folder} holds no text files. Name one with .txt, .md or other UTF-8 files.")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            return ""
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text.strip()
