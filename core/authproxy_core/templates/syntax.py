"""What a template is made of after parsing, and the error for what is none."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..errors import AuthProxyError

# Nested parentheses, blocks and {{template}} calls; Python's stack sets the bound.
MAX_DEPTH = 100


class TemplateError(AuthProxyError):
    """A template can't be compiled or rendered; the text starts with ``name:line:``."""

    code = "template_invalid"

    def __init__(self, name: str, line: int, message: str) -> None:
        super().__init__(f"{name}:{line}: {message}")
        self.name = name
        self.line = line


class Dot(Struct, frozen=True):
    """``.``, the current value."""


class Nil(Struct, frozen=True):
    """``nil``, only as an argument."""


class Literal(Struct, frozen=True):
    """A string, an integer (a character counts as one) or a boolean."""

    value: str | int | bool


class Field(Struct, frozen=True):
    """``.A.B``, looked up in the current value."""

    names: tuple[str, ...]


class Variable(Struct, frozen=True):
    """``$x.A.B``; *name* includes the dollar sign."""

    name: str
    names: tuple[str, ...] = ()


class Function(Struct, frozen=True):
    """The name of a function; the other words of its command are the arguments."""

    name: str


class Chain(Struct, frozen=True):
    """``(pipeline).A.B``."""

    base: Operand
    names: tuple[str, ...]


class Command(Struct, frozen=True):
    """One stage of a pipeline: a function with arguments, or one operand."""

    words: tuple[Operand, ...]


class Pipe(Struct, frozen=True):
    """``$x := a | b``; *assign* says that the variables exist already."""

    commands: tuple[Command, ...]
    line: int
    variables: tuple[str, ...] = ()
    assign: bool = False


Operand: TypeAlias = Dot | Nil | Literal | Field | Variable | Function | Chain | Pipe


class Text(Struct, frozen=True):
    """Text between actions; after compiling it is what the page shows."""

    text: str
    line: int


class Action(Struct, frozen=True):
    """``{{pipeline}}``; *escapers* are filled in by compiling."""

    pipe: Pipe
    escapers: tuple[str, ...] = ()


class If(Struct, frozen=True):
    """``{{if}} … {{else}} … {{end}}``."""

    pipe: Pipe
    then: Body
    otherwise: Body


class With(Struct, frozen=True):
    """``{{with}}``: as `If`, and the value is dot inside."""

    pipe: Pipe
    then: Body
    otherwise: Body


class Range(Struct, frozen=True):
    """``{{range}}``: *then* once for every element."""

    pipe: Pipe
    then: Body
    otherwise: Body


class Call(Struct, frozen=True):
    """``{{template "name" pipeline}}``; *key* is the compiled body to run."""

    name: str
    pipe: Pipe | None
    line: int
    key: object = None


Branch: TypeAlias = If | With | Range
Node: TypeAlias = Text | Action | If | With | Range | Call
Body: TypeAlias = tuple[Node, ...]


class Definition(Struct, frozen=True):
    """A named template: its body and the file it stands in."""

    file: str
    body: Body


def is_empty(body: Body) -> bool:
    """Whether *body* is only white space; such a definition replaces no other."""
    return all(isinstance(node, Text) and not node.text.strip() for node in body)
