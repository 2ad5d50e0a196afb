"""Statements of Jinja's syntax tree, made into functions that carry them out.

Such a function appends to a list of strings and tells how it ended: normally, or by ``break`` or ``continue``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from jinja2 import nodes

from local_llms.prompts.interpreter.budget import Budget, Failure
from local_llms.prompts.interpreter.expressions import PIPED, compile_all, compile_call, compile_expression
from local_llms.prompts.interpreter.loops import Loop
from local_llms.prompts.interpreter.macros import Macro, Parameters
from local_llms.prompts.interpreter.operators import joined
from local_llms.prompts.interpreter.scope import Scope
from local_llms.prompts.interpreter.text import structure
from local_llms.prompts.interpreter.values import Namespace, Value, sequence, to_text


class End(Enum):
    """How a statement ended."""

    NORMAL = 0
    BREAK = 1
    CONTINUE = 2


Statement = Callable[[Scope, list[str]], End]
Target = Callable[[Scope, Value], None]


def compile_block(body: Sequence[nodes.Node]) -> Statement:
    """The function that carries out statements one after the other. Raises Failure for a kind that is not offered."""
    statements = [(node.lineno, _compile_statement(node)) for node in body]

    def run(scope: Scope, out: list[str]) -> End:
        for line, statement in statements:
            try:
                end = statement(scope, out)
            except Failure as failure:
                failure.line = failure.line or line
                raise
            if end is not End.NORMAL:
                return end
        return End.NORMAL

    return run


def render_block(block: Statement, scope: Scope) -> str:
    """The text that a block writes."""
    out: list[str] = []
    block(scope, out)
    return joined(scope.budget, out)


def _compile_statement(node: nodes.Node) -> Statement:
    compiler = _COMPILERS.get(type(node))
    if compiler is None:
        raise Failure(f"the tag for {type(node).__name__} is not offered", node.lineno)
    return compiler(node)


def _output(node: nodes.Output) -> Statement:
    parts = [
        (part.lineno, _data(part.data) if isinstance(part, nodes.TemplateData) else compile_expression(part))
        for part in node.nodes
    ]

    def run(scope: Scope, out: list[str]) -> End:
        line = node.lineno
        try:
            for line, part in parts:  # noqa: B007 - the handler below tells it
                out.append(to_text(scope.budget, part(scope)))
        except Failure as failure:
            failure.line = failure.line or line
            raise
        return End.NORMAL

    return run


def _data(text: str) -> Callable[[Scope], Value]:
    written = structure(text)
    return lambda scope: written


def _target(node: nodes.Node) -> Target:
    if isinstance(node, nodes.Name):
        return _name_target(node.name, node.lineno)
    if isinstance(node, nodes.NSRef):
        return _namespace_target(node.name, node.attr)
    if isinstance(node, nodes.Tuple):
        return _tuple_target([_target(part) for part in node.items])
    raise Failure(f"nothing can be assigned to {type(node).__name__}", node.lineno)


def _name_target(name: str, line: int) -> Target:
    if name == "loop":
        raise Failure("the name loop cannot be assigned", line)

    def assign(scope: Scope, value: Value) -> None:
        scope.names[name] = value

    return assign


def _namespace_target(name: str, attribute: str) -> Target:
    def assign(scope: Scope, value: Value) -> None:
        namespace = scope.look_up(name)
        if not isinstance(namespace, Namespace):
            raise Failure(f"{name!r} is not a namespace: its attributes cannot be set")
        namespace.attributes[attribute] = value

    return assign


def _tuple_target(targets: list[Target]) -> Target:
    def assign(scope: Scope, value: Value) -> None:
        values = sequence(scope.budget, value)
        if len(values) != len(targets):
            raise Failure(f"{len(values)} values cannot be assigned to {len(targets)} names")
        for target, part in zip(targets, values, strict=True):
            target(scope, part)

    return assign


def _assign(node: nodes.Assign) -> Statement:
    target, expression = _target(node.target), compile_expression(node.node)

    def run(scope: Scope, out: list[str]) -> End:
        target(scope, expression(scope))
        return End.NORMAL

    return run


def _assign_block(node: nodes.AssignBlock) -> Statement:
    target, block = _target(node.target), compile_block(node.body)
    piped = None if node.filter is None else compile_expression(node.filter)

    def run(scope: Scope, out: list[str]) -> End:
        inside = scope.inner()
        text: Value = render_block(block, inside)
        if piped is not None:
            inside.names[PIPED] = text
            text = piped(inside)
        target(scope, text)
        return End.NORMAL

    return run


def _filter_block(node: nodes.FilterBlock) -> Statement:
    block, piped = compile_block(node.body), compile_expression(node.filter)

    def run(scope: Scope, out: list[str]) -> End:
        inside = scope.inner()
        inside.names[PIPED] = render_block(block, inside)
        out.append(to_text(scope.budget, piped(inside)))
        return End.NORMAL

    return run


def _if(node: nodes.If) -> Statement:
    branches = [(compile_expression(branch.test), compile_block(branch.body)) for branch in (node, *node.elif_)]
    otherwise = compile_block(node.else_)

    def run(scope: Scope, out: list[str]) -> End:
        for test, block in branches:
            if test(scope):
                return block(scope, out)
        return otherwise(scope, out)

    return run


def _for(node: nodes.For) -> Statement:
    target, values = _target(node.target), compile_expression(node.iter)
    test = None if node.test is None else compile_expression(node.test)
    body, otherwise = compile_block(node.body), compile_block(node.else_)
    recursive = node.recursive

    def wanted(scope: Scope, found: Sequence[Value]) -> Sequence[Value]:
        if test is None:
            return found
        kept = []
        for value in found:
            scope.budget.step()
            inside = scope.inner()
            target(inside, value)
            if test(inside):
                kept.append(value)
        return kept

    def iterate(scope: Scope, found: Value, out: list[str], depth: int) -> End:
        items = wanted(scope, sequence(scope.budget, found))
        if not items:
            return otherwise(scope.inner(), out)

        def again(budget: Budget, deeper: Value) -> str:
            written: list[str] = []
            iterate(scope, deeper, written, depth + 1)
            return joined(budget, written)

        loop = Loop(items, depth, again if recursive else None)
        for place, value in enumerate(items):
            scope.budget.step()
            loop.place = place
            inside = scope.inner()
            inside.names["loop"] = loop
            target(inside, value)
            if body(inside, out) is End.BREAK:
                break
        return End.NORMAL

    return lambda scope, out: iterate(scope, values(scope), out, 0)


def _macro(node: nodes.Macro) -> Statement:
    make = _compile_macro(node, node.name)
    name = node.name

    def run(scope: Scope, out: list[str]) -> End:
        scope.names[name] = make(scope)
        return End.NORMAL

    return run


def _call_block(node: nodes.CallBlock) -> Statement:
    make = _compile_macro(node, "caller")
    call = compile_call(node.call)

    def run(scope: Scope, out: list[str]) -> End:
        out.append(to_text(scope.budget, call(scope, {"caller": make(scope)})))
        return End.NORMAL

    return run


def _compile_macro(node: nodes.Macro | nodes.CallBlock, name: str) -> Callable[[Scope], Macro]:
    body = compile_block(node.body)
    used = {name.name for statement in node.body for name in statement.find_all(nodes.Name)}
    parameters = Parameters(
        names=tuple(argument.name for argument in node.args),
        defaults=tuple(compile_all(node.defaults)),
        takes_more="varargs" in used,
        takes_names="kwargs" in used,
        takes_caller="caller" in used,
    )
    return lambda scope: Macro(name, parameters, lambda inside: render_block(body, inside), scope)


def _with(node: nodes.With) -> Statement:
    pairs = [
        (_target(target), compile_expression(value)) for target, value in zip(node.targets, node.values, strict=True)
    ]
    body = compile_block(node.body)

    def run(scope: Scope, out: list[str]) -> End:
        inside = scope.inner()
        for target, value in pairs:
            target(inside, value(scope))
        return body(inside, out)

    return run


def _scope(node: nodes.Scope) -> Statement:
    body = compile_block(node.body)
    return lambda scope, out: body(scope.inner(), out)


def _break(node: nodes.Break) -> Statement:
    return lambda scope, out: End.BREAK


def _continue(node: nodes.Continue) -> Statement:
    return lambda scope, out: End.CONTINUE


_COMPILERS: dict[type[nodes.Node], Callable[..., Statement]] = {
    nodes.Assign: _assign,
    nodes.AssignBlock: _assign_block,
    nodes.Break: _break,
    nodes.CallBlock: _call_block,
    nodes.Continue: _continue,
    nodes.FilterBlock: _filter_block,
    nodes.For: _for,
    nodes.If: _if,
    nodes.Macro: _macro,
    nodes.Output: _output,
    nodes.Scope: _scope,
    nodes.With: _with,
}
