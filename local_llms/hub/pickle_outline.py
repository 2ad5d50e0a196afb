"""Names, shapes and number types of the tensors in a PyTorch checkpoint, without torch, and without unpickling it.

A pickle is a program for a small machine with a stack. This one carries out what the description of a state dictionary
consists of, by noting it down: no name that stands in a pickle is looked up, and nothing is called. A program with any
other instruction is one that nothing is known of.

Instructions: Python's Lib/pickletools.py. How torch describes a tensor: ``_rebuild_tensor_v2`` of a storage, an offset
and a shape (pytorch: torch/_utils.py, torch/serialization.py).
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from local_llms.hub.pickles import WRAPPERS, peek

_STORAGES = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ShortStorage": "I16",
    "torch CharStorage": "I8",
    "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}
_PICKLES_BEFORE = 3
"""In front of the tensors in files of before torch 1.6: a magic number, a version, and the system it was written on."""


class Outline(NamedTuple):
    """A tensor's number type, as safetensors names it, and its shape."""

    type: str
    shape: tuple[int, ...]


def outline_of_pickle(path: Path) -> Mapping[str, Outline]:
    """The tensors of a checkpoint by name; none where it is damaged, or holds more than tensors and plain values."""
    start = peek(path)
    if not start:
        return {}
    try:
        content = _content(io.BytesIO(start))
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content, _Table) and isinstance(content.items.get(wrapper), _Table):
            content = content.items[wrapper]
    if not isinstance(content, _Table):
        return {}
    return {name: value for name, value in content.items.items() if isinstance(value, Outline)}


class _Name(NamedTuple):
    """A class or function that a pickle names."""

    text: str


class _Storage(NamedTuple):
    """A tensor's storage, of which only the number type is noted."""

    type: str


class _Mark(NamedTuple):
    """Where a list of operands begins on the stack."""


@dataclass(slots=True)
class _Table:
    """A dictionary; entries whose name is no text are left out."""

    items: dict[str, Any] = field(default_factory=dict)

    def put(self, pairs: list[Any]) -> None:
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(name, str):
                self.items[name] = value


def _content(file: io.BytesIO) -> Any:
    found = _run(pickletools.genops(file))
    if isinstance(found, int):
        for _ in range(_PICKLES_BEFORE):
            found = _run(pickletools.genops(file))
    return found


def _run(program: Iterator[tuple[Any, Any, int | None]]) -> Any:
    """What a program leaves on the stack. Raises ValueError and LookupError for one that is not understood."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, argument, _ in program:
        name = operation.name
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CHANGES:
            _CHANGES[name](stack)
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the instruction {name} is not understood")
    raise ValueError("it does not end")


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _Mark()}
_VALUES = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
)


def _take(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("the stack has too little")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next((place for place in range(len(stack) - 1, -1, -1) if isinstance(stack[place], _Mark)), None)
    if place is None:
        raise ValueError("there is no mark")
    taken = stack[place + 1 :]
    del stack[place:]
    return taken


def _put(stack: list[Any], pairs: list[Any]) -> None:
    if isinstance(stack[-1], _Table):
        stack[-1].put(pairs)


def _named(stack: list[Any]) -> None:
    module, name = _take(stack, 2)
    stack.append(_Name(f"{module} {name}"))


def _stored(stack: list[Any]) -> None:
    """A persistent id: ("storage", class, key, device, number of values)."""
    found = stack.pop()
    kind = found[1] if isinstance(found, tuple) and len(found) > 1 else None
    stack.append(_Storage(_STORAGES[kind.text] if isinstance(kind, _Name) else ""))


def _called(stack: list[Any]) -> None:
    """A call: of the few that make tensors and dictionaries, what they would give."""
    function, arguments = _take(stack, 2)
    text = function.text if isinstance(function, _Name) else ""
    if text == "torch._utils _rebuild_tensor_v2" and isinstance(arguments[0], _Storage) and _is_shape(arguments[2]):
        stack.append(Outline(arguments[0].type, arguments[2]))
    elif text == "torch._utils _rebuild_parameter":
        stack.append(arguments[0])
    else:
        stack.append(_Table() if text == "collections OrderedDict" else None)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 8 and all(type(size) is int and size >= 0 for size in value)


_CHANGES: dict[str, Callable[[list[Any]], object]] = {
    "EMPTY_DICT": lambda stack: stack.append(_Table()),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_SET": lambda stack: stack.append([]),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_take(stack, 3))),
    "SETITEM": lambda stack: _put(stack, _take(stack, 2)),
    "SETITEMS": lambda stack: _put(stack, _since_mark(stack)),
    # Of lists, sets and the state of objects nothing is noted.
    "APPEND": lambda stack: _take(stack, 1),
    "APPENDS": _since_mark,
    "ADDITEMS": _since_mark,
    "BUILD": lambda stack: _take(stack, 1),
    "BINPERSID": _stored,
    "STACK_GLOBAL": _named,
    "REDUCE": _called,
}
