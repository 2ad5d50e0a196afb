"""Expressions of Jinja's syntax tree, made into functions that compute them.

Only the tree is Jinja's. Computing it here, instead of in the Python code that Jinja would generate, bounds every
operation, keeps the spans of text, and leaves a template no Python object to take hold of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jinja2 import nodes

from local_llms.prompts.interpreter.budget import Failure
from local_llms.prompts.interpreter.conditions import condition
from local_llms.prompts.interpreter.list_filters import find_filter
from local_llms.prompts.interpreter.methods import attribute, item
from local_llms.prompts.interpreter.operators import BINARY, compare, negate, plus, slice_of, tilde
from local_llms.prompts.interpreter.scope import Scope
from local_llms.prompts.interpreter.text import structure
from local_llms.prompts.interpreter.values import (
    Callee,
    Undefined,
    Value,
    apply,
    defined,
    expect_key,
    expect_text,
    kind,
    list_cost,
    sequence,
    small,
)

Expression = Callable[[Scope], Value]
Arguments = Callable[[Scope], tuple[list[Value], dict[str, Value]]]

PIPED = "|"
"""Name under which a filter block finds its text; no template can use it."""


def compile_expression(node: nodes.Node) -> Expression:
    """The function that computes an expression. Raises Failure for a kind that is not offered."""
    compiler = _COMPILERS.get(type(node))
    if compiler is None:
        raise Failure(f"{type(node).__name__} is not offered", node.lineno)
    return compiler(node)


def compile_all(expressions: Sequence[nodes.Node]) -> list[Expression]:
    """The functions of several expressions."""
    return [compile_expression(node) for node in expressions]


def compile_call(node: nodes.Call) -> Callable[[Scope, dict[str, Value]], Value]:
    """The function that carries out a call with further named arguments."""
    callee = compile_expression(node.node)
    arguments = _compile_arguments(node)

    def run(scope: Scope, further: dict[str, Value]) -> Value:
        called = defined(callee(scope))
        if not isinstance(called, Callee):
            raise Failure(f"{kind(called)} cannot be called")
        given, named = arguments(scope)
        scope.budget.step()
        scope.budget.enter()
        try:
            return called.invoke(scope.budget, given, {**named, **further})
        finally:
            scope.budget.leave()

    return run


def _compile_arguments(node: nodes.Call | nodes.Filter | nodes.Test) -> Arguments:
    given = compile_all(node.args)
    named = [(str(pair.key), compile_expression(pair.value)) for pair in node.kwargs]
    if node.dyn_args is None and node.dyn_kwargs is None:
        if not named:
            return lambda scope: ([argument(scope) for argument in given], {})
        return lambda scope: ([argument(scope) for argument in given], {key: value(scope) for key, value in named})
    more_given = None if node.dyn_args is None else compile_expression(node.dyn_args)
    more_named = None if node.dyn_kwargs is None else compile_expression(node.dyn_kwargs)

    def run(scope: Scope) -> tuple[list[Value], dict[str, Value]]:
        values = [argument(scope) for argument in given]
        names = {key: value(scope) for key, value in named}
        if more_given is not None:
            further = sequence(scope.budget, more_given(scope))
            scope.budget.spend(list_cost(len(further)))
            values.extend(further)
        if more_named is not None:
            mapping = more_named(scope)
            if not isinstance(mapping, dict):
                raise Failure(f"** needs a dictionary, not {kind(mapping)}")
            scope.budget.spend(list_cost(len(mapping)))
            names.update({expect_text(key, "the name of an argument"): value for key, value in mapping.items()})
        return values, names

    return run


def _constant(node: nodes.Const) -> Expression:
    value: Value = node.value
    if isinstance(value, str):
        value = structure(value)
    elif isinstance(value, int):
        small(value)
    return lambda scope: value


def _name(node: nodes.Name) -> Expression:
    name = node.name
    return lambda scope: scope.look_up(name)


def _list(node: nodes.List) -> Expression:
    items = compile_all(node.items)

    def run(scope: Scope) -> Value:
        scope.budget.spend(list_cost(len(items)))
        return [part(scope) for part in items]

    return run


def _tuple(node: nodes.Tuple) -> Expression:
    items = compile_all(node.items)

    def run(scope: Scope) -> Value:
        scope.budget.spend(list_cost(len(items)))
        return tuple([part(scope) for part in items])

    return run


def _dictionary(node: nodes.Dict) -> Expression:
    pairs = [(compile_expression(pair.key), compile_expression(pair.value)) for pair in node.items]

    def run(scope: Scope) -> Value:
        scope.budget.spend(2 * list_cost(len(pairs)))
        return {expect_key(key(scope)): value(scope) for key, value in pairs}

    return run


def _choice(node: nodes.CondExpr) -> Expression:
    test = compile_expression(node.test)
    chosen = compile_expression(node.expr1)
    otherwise = None if node.expr2 is None else compile_expression(node.expr2)

    def run(scope: Scope) -> Value:
        if test(scope):
            return chosen(scope)
        return Undefined("a condition without else was false") if otherwise is None else otherwise(scope)

    return run


def _binary(node: nodes.BinExpr) -> Expression:
    operation = BINARY[node.operator]
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: operation(scope.budget, left(scope), right(scope))


def _and(node: nodes.And) -> Expression:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) and right(scope)


def _or(node: nodes.Or) -> Expression:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) or right(scope)


def _not(node: nodes.Not) -> Expression:
    inner = compile_expression(node.node)
    return lambda scope: not inner(scope)


def _unary(node: nodes.Neg | nodes.Pos) -> Expression:
    operation = negate if isinstance(node, nodes.Neg) else plus
    inner = compile_expression(node.node)
    return lambda scope: operation(scope.budget, inner(scope))


def _concatenation(node: nodes.Concat) -> Expression:
    parts = compile_all(node.nodes)
    return lambda scope: tilde(scope.budget, [part(scope) for part in parts])


def _comparison(node: nodes.Compare) -> Expression:
    first = compile_expression(node.expr)
    steps = [(operand.op, compile_expression(operand.expr)) for operand in node.ops]

    def run(scope: Scope) -> Value:
        left = first(scope)
        for operator, expression in steps:
            right = expression(scope)
            if not compare(scope.budget, operator, left, right):
                return False
            left = right
        return True

    return run


def _attribute(node: nodes.Getattr) -> Expression:
    owner, name = compile_expression(node.node), node.attr
    return lambda scope: attribute(scope.budget, owner(scope), name)


def _item(node: nodes.Getitem) -> Expression:
    owner = compile_expression(node.node)
    if isinstance(node.arg, nodes.Slice):
        start, stop, step = (
            _nothing if part is None else compile_expression(part)
            for part in (node.arg.start, node.arg.stop, node.arg.step)
        )
        return lambda scope: slice_of(scope.budget, owner(scope), start(scope), stop(scope), step(scope))
    key = compile_expression(node.arg)
    return lambda scope: item(scope.budget, owner(scope), key(scope))


def _nothing(scope: Scope) -> Value:
    return None


def _call(node: nodes.Call) -> Expression:
    call = compile_call(node)
    return lambda scope: call(scope, {})


def _filter(node: nodes.Filter) -> Expression:
    # Jinja's type says that there always is a node; inside a filter block there is none.
    inner: nodes.Expr | None = node.node
    source = compile_expression(nodes.Name(PIPED, "load") if inner is None else inner)
    return _apply(node, source, find_filter)


def _test(node: nodes.Test) -> Expression:
    return _apply(node, compile_expression(node.node), condition)


def _apply(
    node: nodes.Filter | nodes.Test, source: Expression, find: Callable[[str], Callable[..., Value]]
) -> Expression:
    name = node.name
    arguments = _compile_arguments(node)

    def run(scope: Scope) -> Value:
        # An unknown name is an error only where it is used: a template may ask first which version it runs on.
        function = find(name)
        value = source(scope)
        given, named = arguments(scope)
        scope.budget.step()
        return apply(name, function, (scope.budget, value, *given), named)

    return run


_COMPILERS: dict[type[nodes.Node], Callable[..., Expression]] = {
    nodes.Add: _binary,
    nodes.And: _and,
    nodes.Call: _call,
    nodes.Compare: _comparison,
    nodes.Concat: _concatenation,
    nodes.CondExpr: _choice,
    nodes.Const: _constant,
    nodes.Dict: _dictionary,
    nodes.Div: _binary,
    nodes.Filter: _filter,
    nodes.FloorDiv: _binary,
    nodes.Getattr: _attribute,
    nodes.Getitem: _item,
    nodes.List: _list,
    nodes.Mod: _binary,
    nodes.Mul: _binary,
    nodes.Name: _name,
    nodes.Neg: _unary,
    nodes.Not: _not,
    nodes.Or: _or,
    nodes.Pos: _unary,
    nodes.Pow: _binary,
    nodes.Sub: _binary,
    nodes.Test: _test,
    nodes.Tuple: _tuple,
}
