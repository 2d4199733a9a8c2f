"""Syntax tree of templates, and the error for invalid ones."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..errors import AuthProxyError

# Of parentheses, blocks and {{template}} calls; bounded by Python's stack.
MAX_DEPTH = 100


class TemplateError(AuthProxyError):
    """A template cannot be compiled or rendered; the text starts with ``name:line:``."""

    code = "template_invalid"

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(f"{name}:{line}: {message}")
        self.name = name
        self.line = line


class Dot(Struct, frozen=True):
    """``.``, the current value."""


class Nil(Struct, frozen=True):
    """``nil``; valid only as an argument."""


class Literal(Struct, frozen=True):
    """A string, an integer (including character literals) or a boolean."""

    value: str | int | bool


class Field(Struct, frozen=True):
    """``.A.B``, fields of the current value."""

    names: tuple[str, ...]


class Variable(Struct, frozen=True):
    """``$x.A.B``; *name* includes the dollar sign."""

    name: str
    names: tuple[str, ...] = ()


class Function(Struct, frozen=True):
    """The name of a function; the other operands of its command are its arguments."""

    name: str


class Chain(Struct, frozen=True):
    """``(pipeline).A.B``."""

    base: Operand
    names: tuple[str, ...]


class Command(Struct, frozen=True):
    """One stage of a pipeline: a function with arguments, or one operand."""

    operands: tuple[Operand, ...]


class Pipe(Struct, frozen=True):
    """``$x := a | b``; with *assign* ``$x = a | b``."""

    commands: tuple[Command, ...]
    line: int
    variables: tuple[str, ...] = ()
    assign: bool = False


Operand: TypeAlias = Dot | Nil | Literal | Field | Variable | Function | Chain | Pipe


class Text(Struct, frozen=True):
    """Text between actions; after compilation, the text to render."""

    text: str
    line: int


class Action(Struct, frozen=True):
    """``{{pipeline}}``; compilation sets *escapers*."""

    pipe: Pipe
    escapers: tuple[str, ...] = ()


class If(Struct, frozen=True):
    """``{{if}} … {{else}} … {{end}}``."""

    pipe: Pipe
    then: Body
    otherwise: Body


class With(Struct, frozen=True):
    """``{{with}}``: like `If`, but the value is dot in *then*."""

    pipe: Pipe
    then: Body
    otherwise: Body


class Range(Struct, frozen=True):
    """``{{range}}``: renders *then* once per element."""

    pipe: Pipe
    then: Body
    otherwise: Body


class Call(Struct, frozen=True):
    """``{{template "name" pipeline}}``; *key* identifies the compiled body."""

    name: str
    pipe: Pipe | None
    line: int
    key: object = None


Branch: TypeAlias = If | With | Range
Node: TypeAlias = Text | Action | If | With | Range | Call
Body: TypeAlias = tuple[Node, ...]


class Definition(Struct, frozen=True):
    """A named template: its body and its file."""

    file: str
    body: Body


def is_blank(body: Body) -> bool:
    """Return whether *body* is only white space; it then replaces no definition."""
    return all(isinstance(node, Text) and not node.text.strip() for node in body)
