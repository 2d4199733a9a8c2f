"""Compiled templates and their rendering."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from .autoescape import Compiler, Key
from .context import START
from .escapers import ESCAPERS
from .functions import FUNCTIONS
from .parser import parse
from .syntax import (
    MAX_DEPTH,
    Action,
    Body,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    If,
    Literal,
    Nil,
    Operand,
    Pipe,
    Range,
    TemplateError,
    Text,
    Variable,
    With,
)
from .values import ValueKindError, get_field, is_list, is_true, type_name

MISSING = object()


def compile_templates(
    sources: Mapping[str, str],
    fields: Collection[str] | None = None,
    pages: Collection[str] | None = None,
    *,
    plain: bool = False,
) -> TemplateSet:
    """Compile *sources* (file name → text) as one set: HTML, or *plain* text.

    *pages* are the names to render, by default the file names. If *fields* is given,
    any other field name is rejected. Raises `TemplateError`.
    """
    compiler = Compiler(parse(sources), fields, plain=plain)
    for name in sources if pages is None else pages:
        compiler.compile_page(name)
    return TemplateSet(compiler.bodies)


class TemplateSet:
    """A set of compiled templates."""

    def __init__(self, bodies: Mapping[Key, Body]) -> None:
        self._bodies = bodies

    def render(self, name: str, values: Mapping[str, object]) -> bytes:
        """Render the page *name* with *values* as UTF-8; raises `TemplateError`."""
        run = _Run(name, self._bodies)
        try:
            run.render_template((name, START), values)
        except ValueKindError as problem:
            raise run.error(problem) from None
        return "".join(run.out).encode("utf-8", "replace")


class _Run:
    """One rendering: the output so far, and the variables in scope."""

    def __init__(self, name: str, bodies: Mapping[Key, Body]) -> None:
        self.out: list[str] = []
        self._name = name
        self._bodies = bodies
        self._depth = 0
        self._variables: list[tuple[str, object]] = []
        self._line = 0

    def render_template(self, key: Key, dot: object) -> None:
        body = self._bodies.get(key)
        if body is None:
            raise TemplateError(self._name, self._line, f"no such template {key[0]!r}")
        if self._depth >= MAX_DEPTH:
            raise TemplateError(self._name, self._line, "templates call too deep")
        outer, self._variables = self._variables, [("$", dot)]
        self._depth += 1
        self._render_body(body, dot)
        self._depth -= 1
        self._variables = outer

    def _render_body(self, body: Body, dot: object) -> None:
        mark = len(self._variables)
        for node in body:
            match node:
                case Text():
                    self.out.append(node.text)
                case Action():
                    self._render_action(node, dot)
                case If():
                    value = self._evaluate_and_assign(node.pipe, dot)
                    self._render_body(
                        node.then if is_true(value) else node.otherwise, dot
                    )
                case With():
                    value = self._evaluate_and_assign(node.pipe, dot)
                    if is_true(value):
                        self._render_body(node.then, value)
                    else:
                        self._render_body(node.otherwise, dot)
                case Range():
                    self._render_range(node, dot)
                case _:  # a Call
                    inner = (
                        self._evaluate_and_assign(node.pipe, dot) if node.pipe else None
                    )
                    self._line = node.line
                    self.render_template(cast(Key, node.key), inner)
        del self._variables[mark:]

    def _render_action(self, node: Action, dot: object) -> None:
        value = self._evaluate_and_assign(node.pipe, dot)
        if node.pipe.variables:
            return
        for escaper in node.escapers:
            value = ESCAPERS[escaper](value)
        self.out.append(cast(str, value))

    def _render_range(self, node: Range, dot: object) -> None:
        pairs = self._items(self._evaluate(node.pipe, dot))
        if not pairs:
            self._render_body(node.otherwise, dot)
        names = node.pipe.variables
        for key, item in pairs:
            mark = len(self._variables)
            values = (key, item) if len(names) > 1 else (item,)
            self._variables += zip(names, values, strict=False)
            self._render_body(node.then, item)
            del self._variables[mark:]

    def _items(self, value: object) -> list[tuple[object, object]]:
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if is_list(value):
            return list(enumerate(cast(list[object], value)))
        if value is None:
            return []
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise ValueKindError(f"range can't iterate over {type_name(value)}")

    # Values.

    def _evaluate_and_assign(self, pipe: Pipe, dot: object) -> object:
        """Return the value of a pipeline after assigning it to its variables."""
        value = self._evaluate(pipe, dot)
        for name in pipe.variables:
            self._set_variable(name, value, assign=pipe.assign)
        return value

    def _evaluate(self, pipe: Pipe, dot: object) -> object:
        self._line = pipe.line
        value: object = MISSING
        for command in pipe.commands:
            value = self._evaluate_command(command, dot, value)
        return value

    def _set_variable(self, name: str, value: object, *, assign: bool) -> None:
        if not assign:
            self._variables.append((name, value))
            return
        # The parser has checked that it exists; the innermost one is assigned.
        found = [at for at, (other, _) in enumerate(self._variables) if other == name]
        self._variables[found[-1]] = (name, value)

    def _evaluate_command(self, command: Command, dot: object, piped: object) -> object:
        first, *rest = command.operands
        if not isinstance(first, Function):
            return self._evaluate_operand(first, dot)
        if first.name in ("and", "or"):
            return self._evaluate_and_or(first.name, rest, dot, piped)
        values = [self._evaluate_operand(operand, dot) for operand in rest]
        if piped is not MISSING:
            values.append(piped)
        return FUNCTIONS[first.name].call(*values)

    def _evaluate_and_or(
        self, name: str, operands: list[Operand], dot: object, piped: object
    ) -> object:
        """Evaluate the arguments of ``and`` or ``or`` up to the deciding one."""
        value: object = piped
        for operand in operands:
            value = self._evaluate_operand(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return piped if piped is not MISSING else value

    def _evaluate_operand(self, operand: Operand, dot: object) -> object:
        match operand:
            case Dot():
                return dot
            case Nil():
                return None
            case Literal():
                return operand.value
            case Field():
                return _get_fields(dot, operand.names)
            case Variable():
                return _get_fields(self._get_variable(operand.name), operand.names)
            case Chain():
                return _get_fields(
                    self._evaluate_operand(operand.base, dot), operand.names
                )
            case Function():
                return FUNCTIONS[operand.name].call()
            case _:  # a Pipe
                return self._evaluate(operand, dot)

    def _get_variable(self, name: str) -> object:
        for other, value in reversed(self._variables):
            if other == name:
                return value
        # Go's range declares its variables for {{else}} too, without a value.
        raise ValueKindError(f"undefined variable {name!r}")

    def error(self, problem: ValueKindError) -> TemplateError:
        """Return *problem* as a template error with the current line."""
        return TemplateError(self._name, self._line, str(problem))


def _get_fields(value: object, names: tuple[str, ...]) -> object:
    for name in names:
        value = get_field(value, name)
    return value
