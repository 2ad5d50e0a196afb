"""The values that a template can hold: a closed set, so no attribute of a Python object is ever looked up.

Text (``str``, see ``text.py``), numbers, True, False, None, lists, tuples, dictionaries, ranges, ``Undefined``,
``Namespace`` and ``Callee``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature

from local_llms.prompts.interpreter.budget import INTEGER_BITS, Budget, Failure
from local_llms.prompts.interpreter.text import cut

Value = object

CONTAINERS = (list, tuple, dict)


class Undefined:
    """What a name, an attribute or an item gives that does not exist. Shown as nothing; it is false and empty."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Undefined)

    def __hash__(self) -> int:
        return hash(Undefined)

    def __str__(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "Undefined"


class Namespace:
    """What ``namespace()`` gives: attributes that an inner scope may set."""

    __slots__ = ("attributes",)

    def __init__(self, attributes: dict[str, Value]) -> None:
        self.attributes = attributes

    def __repr__(self) -> str:
        return "<Namespace>"


class Callee:
    """Something that a template can call."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def invoke(self, budget: Budget, arguments: Sequence[Value], named: Mapping[str, Value]) -> Value:
        """Call it. Raises Failure where the arguments do not fit."""
        raise Failure(f"{self.name} cannot be called")

    def attribute(self, name: str) -> Value:
        """``callee.name``; Undefined where it has none."""
        return Undefined(f"{self.name} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Function(Callee):
    """A function of ours: it takes the budget, then ``bound`` (for a method: its object), then what was given."""

    __slots__ = ("_bound", "_function")

    def __init__(self, name: str, function: Callable[..., Value], *bound: Value) -> None:
        super().__init__(name)
        self._function = function
        self._bound = bound

    def invoke(self, budget: Budget, arguments: Sequence[Value], named: Mapping[str, Value]) -> Value:
        """Call it. Raises Failure where the arguments do not fit."""
        return apply(self.name, self._function, (budget, *self._bound, *arguments), named)


def apply(name: str, function: Callable[..., Value], arguments: Sequence[object], named: Mapping[str, Value]) -> Value:
    """Call one of our functions. Raises Failure where its signature has no place for the arguments."""
    try:
        return function(*arguments, **named)
    except TypeError:
        # Which of the two was it: arguments that do not fit, or a mistake of ours? Only the first is the template's.
        try:
            signature(function).bind(*arguments, **named)
        except TypeError as mismatch:
            raise Failure(f"{name}: {mismatch}") from None
        raise


def kind(value: Value) -> str:
    """What a value is called in a message."""
    names = {"NoneType": "None", "Text": "str", "Undefined": "undefined"}
    name = type(value).__name__
    return names.get(name, name)


def defined(value: Value) -> Value:
    """The value itself. Raises Failure where it is undefined."""
    if isinstance(value, Undefined):
        raise Failure(value.message)
    return value


def expect_text(value: Value, what: str) -> str:
    """The value as a string. Raises Failure where it is none; ``what`` names it."""
    if isinstance(value, str):
        return value
    raise Failure(f"{what} must be text, not {kind(defined(value))}")


def expect_integer(value: Value, what: str) -> int:
    """The value as an integer. Raises Failure where it is none; ``what`` names it."""
    if isinstance(value, int):
        return value
    raise Failure(f"{what} must be an integer, not {kind(defined(value))}")


def expect_key(value: Value) -> Value:
    """The value as a key of a dictionary: text, a number, True, False or None. Raises Failure for others."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise Failure(f"a key must be text or a number, not {kind(defined(value))}")


def small(value: int) -> int:
    """The integer. Raises Failure where it has too many digits to go on with."""
    if value.bit_length() > INTEGER_BITS:
        raise Failure("a number becomes too large")
    return value


def to_text(budget: Budget, value: Value) -> str:
    """A value as it is printed. Only text keeps its spans."""
    if isinstance(value, str):
        return value
    if isinstance(value, CONTAINERS):
        size = weigh(budget, value)
        budget.spend(4 * size.characters + 4 * size.nodes)
        return repr(value)
    return str(value)


def sequence(budget: Budget, value: Value) -> Sequence[Value]:
    """The values over which a loop runs. Raises Failure where there is nothing to run over."""
    if isinstance(value, (list, tuple, range)):
        return value
    if isinstance(value, dict):
        budget.spend(list_cost(len(value)))
        return list(value)
    if isinstance(value, str):
        budget.spend(list_cost(len(value)) + 64 * len(value))
        return [cut(value, place, place + 1) for place in range(len(value))]
    if isinstance(value, Undefined):
        return ()
    raise Failure(f"{kind(value)} is nothing to loop over")


_END = object()


class Size:
    """How large a value is with all that it holds, parts that occur twice counted twice."""

    __slots__ = ("characters", "depth", "nodes")

    def __init__(self) -> None:
        self.characters = 0
        self.nodes = 0
        self.depth = 0


def weigh(budget: Budget, value: Value) -> Size:
    """Measure before something walks through the whole of a value: a few lists of lists can be 2**30 items."""
    size = Size()
    inside: list[Iterator[Value]] = [iter((value,))]
    while inside:
        item = next(inside[-1], _END)
        if item is _END:
            inside.pop()
            continue
        budget.step()
        size.nodes += 1
        size.depth = max(size.depth, len(inside))
        if isinstance(item, str):
            size.characters += len(item)
            budget.step(len(item) >> 10)
        elif isinstance(item, (list, tuple)):
            inside.append(iter(item))
        elif isinstance(item, dict):
            inside.append(part for pair in item.items() for part in pair)
        elif isinstance(item, int):
            size.characters += 1 + item.bit_length() // 3
        else:
            size.characters += 24
    return size


def equal(budget: Budget, left: Value, right: Value) -> bool:
    """Whether two values are equal."""
    if isinstance(left, str) and isinstance(right, str):
        if len(left) != len(right):
            return False
        budget.step(len(left) >> 12)
    elif isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS):
        weigh(budget, left)
        weigh(budget, right)
    return left == right


def contains(budget: Budget, container: Value, value: Value) -> bool:
    """Whether ``value in container``. Raises Failure where the container cannot hold it."""
    if isinstance(container, str):
        return expect_text(value, "what is looked for in a text") in container
    if isinstance(container, dict):
        return expect_key(value) in container
    if isinstance(container, (list, tuple)):
        for item in container:
            budget.step()
            if item is value or equal(budget, item, value):
                return True
        return False
    if isinstance(container, range):
        return isinstance(value, (int, float)) and value in container
    if isinstance(container, Undefined):
        return False
    raise Failure(f"{kind(container)} holds nothing to look for")


def adopt(budget: Budget, value: object, depth: int = 0) -> Value:
    """A copy of what a caller gives, as values of templates. All text in it is content.

    Raises Failure for anything but what JSON can hold.
    """
    budget.step()
    if depth > 64:
        raise Failure("what is given to it nests too deeply")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        budget.allow(len(value))
        return "".join([value])
    if isinstance(value, Mapping):
        return {expect_text(adopt(budget, key), "a key"): adopt(budget, item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [adopt(budget, item, depth + 1) for item in value]
    raise Failure(f"it can be given text, numbers, lists and dictionaries, but not {type(value).__name__}")


def list_cost(count: int) -> int:
    """How much memory a list of that many items takes, in characters."""
    return 32 + 8 * count
