"""Compiled templates: what can be rendered, and rendering it."""

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
) -> TemplateSet:
    """Compile all of *sources* (file name → text), as one set.

    *pages* are the names that will be rendered (the files' names by default). With
    *fields* a name of another field is refused. Raises `TemplateError`.
    """
    compiler = Compiler(parse(sources), fields)
    for name in sources if pages is None else pages:
        compiler.compile_page(name)
    return TemplateSet(compiler.bodies)


class TemplateSet:
    """Templates that can be rendered."""

    def __init__(self, bodies: Mapping[Key, Body]) -> None:
        self._bodies = bodies

    def render(self, name: str, values: Mapping[str, object]) -> bytes:
        """The page *name* for *values*; raises `TemplateError`."""
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
                    value = self._value(node.pipe, dot)
                    self._render_body(
                        node.then if is_true(value) else node.otherwise, dot
                    )
                case With():
                    value = self._value(node.pipe, dot)
                    if is_true(value):
                        self._render_body(node.then, value)
                    else:
                        self._render_body(node.otherwise, dot)
                case Range():
                    self._render_range(node, dot)
                case _:  # a Call
                    inner = self._value(node.pipe, dot) if node.pipe else None
                    self._line = node.line
                    self.render_template(cast(Key, node.key), inner)
        del self._variables[mark:]

    def _render_action(self, node: Action, dot: object) -> None:
        value = self._value(node.pipe, dot)
        if node.pipe.variables:
            return
        for escaper in node.escapers:
            value = ESCAPERS[escaper](value)
        self.out.append(cast(str, value))

    def _render_range(self, node: Range, dot: object) -> None:
        pairs = self._items(self._evaluated(node.pipe, dot))
        if not pairs:
            self._render_body(node.otherwise, dot)
        names = node.pipe.variables
        for key, item in pairs:
            mark = len(self._variables)
            given = (key, item) if len(names) > 1 else (item,)
            self._variables += zip(names, given, strict=False)
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

    def _value(self, pipe: Pipe, dot: object) -> object:
        """The value of a pipeline; its variable, if it has one, is set."""
        value = self._evaluated(pipe, dot)
        for name in pipe.variables:
            self._set(name, value, assign=pipe.assign)
        return value

    def _evaluated(self, pipe: Pipe, dot: object) -> object:
        self._line = pipe.line
        value: object = MISSING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        return value

    def _set(self, name: str, value: object, *, assign: bool) -> None:
        if not assign:
            self._variables.append((name, value))
            return
        # The parser has seen to it that it exists; the innermost one is meant.
        places = [at for at, (known, _) in enumerate(self._variables) if known == name]
        self._variables[places[-1]] = (name, value)

    def _command(self, command: Command, dot: object, piped: object) -> object:
        first, *rest = command.words
        if not isinstance(first, Function):
            return self._operand(first, dot)
        if first.name in ("and", "or"):
            return self._shortcut(first.name, rest, dot, piped)
        values = [self._operand(word, dot) for word in rest]
        if piped is not MISSING:
            values.append(piped)
        return FUNCTIONS[first.name].call(*values)

    def _shortcut(
        self, name: str, words: list[Operand], dot: object, piped: object
    ) -> object:
        """``and`` and ``or`` stop at the first value that decides."""
        value: object = piped
        for word in words:
            value = self._operand(word, dot)
            if is_true(value) == (name == "or"):
                return value
        return piped if piped is not MISSING else value

    def _operand(self, word: Operand, dot: object) -> object:
        match word:
            case Dot():
                return dot
            case Nil():
                return None
            case Literal():
                return word.value
            case Field():
                return _fields(dot, word.names)
            case Variable():
                return _fields(self._variable(word.name), word.names)
            case Chain():
                return _fields(self._operand(word.base, dot), word.names)
            case Function():
                return FUNCTIONS[word.name].call()
            case _:  # a Pipe
                return self._evaluated(word, dot)

    def _variable(self, name: str) -> object:
        return next(
            value for known, value in reversed(self._variables) if known == name
        )

    def error(self, problem: ValueKindError) -> TemplateError:
        """What went wrong, with the line that it went wrong in."""
        return TemplateError(self._name, self._line, str(problem))


def _fields(value: object, names: tuple[str, ...]) -> object:
    for name in names:
        value = get_field(value, name)
    return value
