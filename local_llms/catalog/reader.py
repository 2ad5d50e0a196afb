"""One catalog file, read and checked. A mistake becomes a CatalogError that names the file, the line and the key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from local_llms.catalog.schema import (
    AdapterCard,
    ClassNames,
    Family,
    FileSource,
    HubSource,
    ModelCard,
    PackageSource,
    Template,
)
from local_llms.errors import CatalogError, suggestion
from local_llms.hub.source import WheelMember
from local_llms.options import SamplingOptions

_TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "templates": (Template,),
    "models": (ModelCard,),
    "adapters": (AdapterCard,),
    "classes": (ClassNames,),
    "sampling": (SamplingOptions,),
    "members": (WheelMember,),
    "package": (PackageSource,),
    "file": (FileSource,),
    "hub": (HubSource,),
}
_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")

Place = tuple[str | int, ...]


def parse_family(text: str, file: str, folder: Path | None) -> Family:
    """The family that ``text``, the content of ``file``, describes. Paths in it count from ``folder``."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{file} is not valid TOML: {error}.") from None
    try:
        return Family.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        items = error.errors(include_url=False)
        # A table whose rows are wrong is also too short for pydantic: what is inside it says enough.
        inner = {item["loc"][:length] for item in items for length in range(len(item["loc"]))}
        problems = [_sentence(text, item) for item in items if item["loc"] not in inner]
        told = "; ".join(problems[:5])
        raise CatalogError(f"{file} has mistakes: {told}{'' if told.endswith('?') else '.'}") from None


def _sentence(text: str, item: ErrorDetails) -> str:
    place = tuple(part for index, part in enumerate(item["loc"]) if not _is_tag(item["loc"], index))
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    line = line_of(text, place)
    return f"{f'line {line}, ' if line else ''}{key or 'the file'}: {_what_is_wrong(item)}"


def _what_is_wrong(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such key." + suggestion(str(item["loc"][-1]), _known_keys(item["loc"])).rstrip(".")
    if item["type"] == "missing":
        return "this key is missing"
    message = item["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _is_tag(place: Place, index: int) -> bool:
    """Whether a part of pydantic's location is the kind of a source, which is no key of the file."""
    return index >= 2 and place[index] in ("package", "file", "hub") and place[index - 2] == "sources"


def _known_keys(place: Place) -> list[str]:
    table = next((part for part in reversed(place[:-1]) if isinstance(part, str)), None)
    kinds = _TABLES.get(table or "", (Family,))
    return [name for kind in kinds for name in kind.model_fields]


def line_of(text: str, place: Place) -> int | None:
    """The line, from 1, where a key stands in a TOML text, or else the table or inline value that holds it."""
    lines = _lines(text)
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return None


def _lines(text: str) -> dict[Place, int]:
    """Place → line of the tables and keys of a TOML text. Not a parser: it need not know every corner of TOML."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    quote: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if quote is None:
            if header := _HEADER.match(line):
                table = _enter(header[2].split("."), header[1] == "[[", counts)
                found.setdefault(table, number)
            elif key := _KEY.match(line):
                found.setdefault((*table, key[1]), number)
        for mark in re.findall("'''|\"\"\"", line):
            if quote is None:
                quote = mark
            elif quote == mark:
                quote = None
    return found


def _enter(names: list[str], is_array: bool, counts: dict[Place, int]) -> Place:
    place: Place = ()
    for depth, name in enumerate(names, start=1):
        place = (*place, name)
        if depth == len(names) and is_array:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place
