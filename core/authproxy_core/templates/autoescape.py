"""Contextual autoescaping: select the escapers of every action.

A template that is called in two contexts is compiled for each. Branches that end in
different contexts, and actions where no value is safe, are rejected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec.structs import replace

from .context import (
    COMMENTS,
    START,
    Context,
    ContextError,
    Delim,
    Slash,
    State,
    UrlPart,
    enter_action,
    join_contexts,
)
from .steps import follow_text
from .syntax import (
    Action,
    Body,
    Branch,
    Call,
    Chain,
    Command,
    Definition,
    Field,
    Function,
    Node,
    Operand,
    Pipe,
    Range,
    TemplateError,
    Text,
    Variable,
)

Key = tuple[str, Context]

URL_STATES = frozenset(
    {
        State.URL,
        State.META_CONTENT_URL,
        State.CSS_DQ,
        State.CSS_SQ,
        State.CSS_DQ_URL,
        State.CSS_SQ_URL,
        State.CSS_URL,
    }
)
ESCAPERS_BY_STATE = {
    State.TEXT: "html_text",
    State.RCDATA: "rcdata",
    State.ATTR_NAME: "attr_name",
    State.SRCSET: "srcset",
    State.JS: "js_value",
    State.JS_DQ: "js_string",
    State.JS_SQ: "js_string",
    State.JS_TEMPLATE: "js_template",
    State.JS_REGEXP: "js_regexp",
    State.CSS: "css_value",
}
# Escapers that html or urlquery at the end of a pipeline replaces.
EQUIVALENT = {
    "html": frozenset({"attr", "html_text", "rcdata"}),
    "urlquery": frozenset({"url_part", "url_normal"}),
}


class Compiler:
    """Compiles named templates for the contexts in which they are called.

    With *plain*, the output is plain text, and values are not escaped.
    """

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        fields: Collection[str] | None,
        *,
        plain: bool = False,
    ) -> None:
        self._plain = plain
        self._definitions = definitions
        self._fields = fields
        self._ends: dict[Key, Context] = {}
        self._open: set[Key] = set()
        self._reentered: set[Key] = set()
        self.bodies: dict[Key, Body] = {}

    def compile_page(self, name: str) -> None:
        """Compile the template *name* as a whole page."""
        end = self.compile_template(name, START, name, 1)
        if end.state is not State.TEXT:
            raise TemplateError(name, 1, f"ends inside {end.state.value}")

    def compile_template(
        self, name: str, c: Context, caller: str, line: int
    ) -> Context:
        """Compile *name* for the context *c*; return the context after it.

        *caller* and *line* locate the call in error texts.
        """
        key = (name, c)
        if key in self._open:
            self._reentered.add(key)
        if key in self._ends:
            return self._ends[key]
        definition = self._definitions.get(name)
        if definition is None:
            raise TemplateError(caller, line, f"no such template {name!r}")
        # A recursive template is assumed to end in the context in which it started;
        # the assumption is checked below.
        self._ends[key] = c
        self._open.add(key)
        body, end = self._compile_body(definition, definition.body, c)
        self._open.discard(key)
        if end != c and key in self._reentered:
            raise TemplateError(
                definition.file, 1, f"template {name!r} calls itself in two contexts"
            )
        self._ends[key] = end
        self.bodies[key] = body
        return end

    def _compile_body(
        self, where: Definition, body: Body, c: Context
    ) -> tuple[Body, Context]:
        nodes: list[Node] = []
        for node in body:
            compiled, c = self._compile_node(where, node, c)
            nodes.append(compiled)
        return tuple(nodes), c

    def _compile_node(
        self, where: Definition, node: Node, c: Context
    ) -> tuple[Node, Context]:
        match node:
            case Text() if self._plain:
                return node, c
            case Text():
                try:
                    after, text = follow_text(c, node.text)
                except ContextError as problem:
                    raise TemplateError(where.file, node.line, str(problem)) from None
                return replace(node, text=text), after
            case Action():
                self._check_fields(where, node.pipe)
                return self._compile_action(where, node, c)
            case Call():
                if node.pipe is not None:
                    self._check_fields(where, node.pipe)
                end = self.compile_template(node.name, c, where.file, node.line)
                return replace(node, key=(node.name, c)), end
            case _:
                self._check_fields(where, node.pipe)
                return self._compile_branch(where, node, c)

    def _compile_action(
        self, where: Definition, node: Action, c: Context
    ) -> tuple[Node, Context]:
        pipe = node.pipe
        if pipe.variables:
            return node, c  # a declaration renders nothing
        if self._plain:
            return Action(pipe, ("plain",)), c
        c = enter_action(c)
        try:
            escapers = list(_escapers(c))
        except ContextError as problem:
            raise TemplateError(where.file, pipe.line, str(problem)) from None
        pipe = self._merge_escaper(where, pipe, c, escapers)
        if c.state is State.JS:
            c = replace(c, slash=Slash.DIVISION)
        return Action(pipe, tuple(escapers)), c

    def _merge_escaper(
        self, where: Definition, pipe: Pipe, c: Context, escapers: list[str]
    ) -> Pipe:
        """Replace the equivalent of *escapers* by the escaper that ends the pipeline.

        It takes the position of its equivalent, so preceding escapers run before it.
        """
        *before, last = pipe.commands
        escaper = _named_escaper(last.operands)
        misplaced = [
            name for command in before if (name := _named_escaper(command.operands))
        ]
        # html does not escape spaces, which end an unquoted attribute value.
        if escaper == "html" and c.state is State.ATTR and "attr_unquoted" in escapers:
            misplaced.append(escaper)
        if misplaced:
            raise TemplateError(
                where.file, pipe.line, f"{misplaced[0]!r} is not allowed here"
            )
        replaced = EQUIVALENT.get(escaper, frozenset()) & frozenset(escapers)
        if not replaced:
            return pipe
        escapers[:] = [escaper if name in replaced else name for name in escapers]
        if not before:
            before = [Command((Function("print"), *last.operands[1:]))]
        return replace(pipe, commands=tuple(before))

    def _compile_branch(
        self, where: Definition, node: Branch, c: Context
    ) -> tuple[Node, Context]:
        then, end = self._compile_body(where, node.then, c)
        if isinstance(node, Range):
            joined = join_contexts(c, end)
            if joined is None:
                raise _ambiguous_end_error(where, node)
            # The second iteration starts in the context after the first.
            then, end = self._compile_body(where, node.then, joined)
        otherwise, other_end = self._compile_body(where, node.otherwise, c)
        after = join_contexts(end, other_end)
        if after is None:
            raise _ambiguous_end_error(where, node)
        kind: type[Branch] = type(node)
        return kind(node.pipe, then, otherwise), after

    def _check_fields(self, where: Definition, pipe: Pipe) -> None:
        if self._fields is None:
            return
        for operand in _operands(pipe):
            if isinstance(operand, Field) and operand.names[0] not in self._fields:
                raise TemplateError(
                    where.file, pipe.line, f"no such field .{operand.names[0]}"
                )
            if (
                isinstance(operand, Variable)
                and operand.name == "$"
                and operand.names
                and operand.names[0] not in self._fields
            ):
                raise TemplateError(
                    where.file, pipe.line, f"no such field $.{operand.names[0]}"
                )


def _ambiguous_end_error(where: Definition, node: Branch) -> TemplateError:
    return TemplateError(
        where.file, node.pipe.line, "the branches end in different contexts"
    )


def _escapers(c: Context) -> Iterator[str]:
    """Yield the names of the escapers for a value at *c*, in order."""
    if c.state in COMMENTS:
        yield "comment"
    elif c.state in URL_STATES:
        yield from _url_escapers(c)
    elif c.state in ESCAPERS_BY_STATE:
        yield ESCAPERS_BY_STATE[c.state]
    if c.delim is Delim.SPACE_OR_TAG_END:
        yield "attr_unquoted"
    elif c.delim is not Delim.NONE:
        yield "attr"


def _url_escapers(c: Context) -> Iterator[str]:
    if c.url_part is UrlPart.UNKNOWN:
        raise ContextError("a value in an ambiguous part of a URL")
    if c.url_part is UrlPart.QUERY_OR_FRAGMENT:
        yield "url_part"
        return
    if c.url_part is UrlPart.NONE:
        yield "url_filter"
    if c.state is State.META_CONTENT_URL:
        return
    yield "css_string" if c.state in (State.CSS_DQ, State.CSS_SQ) else "url_normal"


def _named_escaper(operands: tuple[Operand, ...]) -> str:
    first = operands[0]
    if isinstance(first, Function) and first.name in EQUIVALENT:
        return first.name
    return ""


def _operands(pipe: Pipe) -> Iterator[Operand]:
    for command in pipe.commands:
        for operand in command.operands:
            yield from _nested_operands(operand)


def _nested_operands(operand: Operand) -> Iterator[Operand]:
    if isinstance(operand, Pipe):
        yield from _operands(operand)
    elif isinstance(operand, Chain):
        yield from _nested_operands(operand.base)
    else:
        yield operand
