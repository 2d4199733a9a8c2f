"""Parser: tokens to definitions; rejects all errors that need no values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .functions import FUNCTIONS
from .lexer import Token, tokenize
from .syntax import (
    MAX_DEPTH,
    Action,
    Body,
    Branch,
    Call,
    Chain,
    Command,
    Definition,
    Dot,
    Field,
    Function,
    If,
    Literal,
    Nil,
    Node,
    Operand,
    Pipe,
    Range,
    TemplateError,
    Text,
    Variable,
    With,
    is_blank,
)

BRANCHES: dict[str, type[Branch]] = {"if": If, "with": With, "range": Range}
UNSUPPORTED = ("break", "continue", "call")
INTEGER = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*"
    r"|[1-9](?:_?[0-9])*)"
)
ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))",
    re.DOTALL,
)
SIMPLE_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\",
}  # fmt: skip


def parse(sources: Mapping[str, str]) -> dict[str, Definition]:
    """Return all named templates of *sources* (file name → text).

    A file must not define a name twice. A definition in a later file replaces an
    earlier one unless it is only white space. Raises `TemplateError`.
    """
    definitions: dict[str, Definition] = {}
    for file, source in sources.items():
        for name, definition in _Parser(file, source).parse_file().items():
            if name not in definitions or not is_blank(definition.body):
                definitions[name] = definition
    return definitions


class _Parser:
    """Recursive-descent parser of one file."""

    def __init__(self, file: str, source: str) -> None:
        self.file_name = file
        self.tokens = list(tokenize(file, source))
        self.at = 0
        self.depth = 0
        self.variables = ["$"]
        self.definitions: dict[str, Definition] = {}

    # --- tokens ---

    @property
    def next(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def skip_space(self) -> Token:
        """Skip a space and return the next token."""
        if self.next.kind == "space":
            self.at += 1
        return self.next

    def expect(self, kind: str, where: str) -> Token:
        self.skip_space()
        token = self.take()
        if token.kind != kind:
            raise self.unexpected(token, where)
        return token

    def error(self, message: str, line: int | None = None) -> TemplateError:
        return TemplateError(
            self.file_name, self.next.line if line is None else line, message
        )

    def unexpected(self, token: Token, where: str) -> TemplateError:
        shown = "end of file" if token.kind == "end" else repr(token.text)
        return self.error(f"unexpected {shown} in {where}", token.line)

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep")

    # --- definitions and bodies ---

    def parse_file(self) -> dict[str, Definition]:
        """Return all definitions of the file, including the file itself."""
        nodes: list[Node] = []
        while self.next.kind != "end":
            if self.keyword() == "define":
                self.at += 2
                self.parse_define()
            else:
                nodes.append(self.parse_node("template"))
        self.add(self.file_name, tuple(nodes))
        return self.definitions

    def parse_define(self) -> None:
        name = self.parse_template_name("define")
        self.expect("close", "define")
        self.add(name, self.parse_definition())

    def parse_definition(self) -> Body:
        """Parse the body of a definition, in which no outer variables are visible."""
        outer, self.variables = self.variables, ["$"]
        body, ending = self.parse_body("define")
        if ending != "end":
            raise self.error(f"unexpected {{{{{ending}}}}} in define")
        self.close("end")
        self.variables = outer
        return body

    def add(self, name: str, body: Body) -> None:
        """Define *name*; of two definitions in a file, one must be white space."""
        present = self.definitions.get(name)
        if present is None or is_blank(present.body):
            self.definitions[name] = Definition(self.file_name, body)
        elif not is_blank(body):
            raise self.error(f"multiple definition of template {name!r}")

    def keyword(self) -> str:
        """Return the name that starts the next action; "" if there is none."""
        if self.next.kind != "open":
            return ""
        token = self.tokens[self.at + 1]
        return token.text if token.kind == "name" else ""

    def parse_body(self, where: str) -> tuple[Body, str]:
        """Return the nodes up to ``{{end}}`` or ``{{else``, and that keyword."""
        nodes: list[Node] = []
        while self.next.kind != "end":
            keyword = self.keyword()
            if keyword in ("end", "else"):
                self.at += 2
                return tuple(nodes), keyword
            nodes.append(self.parse_node(where))
        raise self.error(f"unexpected end of file in {where}")

    def parse_node(self, where: str) -> Node:
        keyword = self.keyword()
        token = self.take()
        if token.kind == "text":
            return Text(token.text, token.line)
        if keyword in BRANCHES:
            self.at += 1
            return self.parse_branch(keyword)
        if keyword in ("template", "block"):
            self.at += 1
            return self.parse_call(keyword)
        if keyword in ("end", "else", "define"):
            raise self.error(f"unexpected {{{{{keyword}}}}} in {where}")
        return Action(self.parse_pipeline("command"))

    def close(self, where: str) -> None:
        self.expect("close", where)

    def parse_branch(self, keyword: str) -> Branch:
        """Parse an if, with or range after its keyword, up to its end."""
        self.enter()
        mark = len(self.variables)
        pipe = self.parse_pipeline(keyword)
        then, ending = self.parse_body(keyword)
        otherwise: Body = ()
        if ending == "end":
            self.close("end")
        elif keyword != "range" and self.skip_space().text == keyword:
            self.at += 1
            otherwise = (self.parse_branch(keyword),)
        else:
            self.close("else")
            otherwise, ending = self.parse_body("else")
            if ending != "end":
                raise self.error("expected {{end}}, found {{else}}")
            self.close("end")
        del self.variables[mark:]
        self.depth -= 1
        return BRANCHES[keyword](pipe, then, otherwise)

    def parse_call(self, keyword: str) -> Call:
        """Parse a template call; a block is a definition and a call."""
        line = self.next.line
        name = self.parse_template_name(keyword)
        if keyword == "template" and self.skip_space().kind == "close":
            self.at += 1
            return Call(name, None, line)
        pipe = self.parse_pipeline(keyword)
        if keyword == "block":
            self.enter()
            self.add(name, self.parse_definition())
            self.depth -= 1
        return Call(name, pipe, line)

    def parse_template_name(self, where: str) -> str:
        self.skip_space()
        token = self.take()
        if token.kind not in ("string", "raw"):
            raise self.unexpected(token, where)
        return self.unquote(token)

    # --- pipelines ---

    def parse_pipeline(self, where: str, end: str = "close") -> Pipe:
        """Parse a pipeline with its declarations, up to and including token *end*."""
        line = self.skip_space().line
        variables, assign = self.parse_declarations(where)
        commands: list[Command] = []
        while self.skip_space().kind != end:
            commands.append(self.parse_command(end, piped=bool(commands)))
        self.at += 1
        if not commands:
            raise self.error(f"missing value for {where}", line)
        return Pipe(tuple(commands), line, variables, assign)

    def parse_declarations(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Return the variables before ``:=`` or ``=``, and whether it is ``=``."""
        start = self.at
        names: list[str] = []
        while self.next.kind == "variable" and len(names) < 2:
            names.append(self.take().text)
            kind = self.skip_space().kind
            if kind in ("declare", "assign"):
                return self.declare(tuple(names), kind == "assign")
            if kind != "comma" or where != "range":
                break
            self.at += 1
            self.skip_space()
        self.at = start
        return (), False

    def declare(
        self, names: tuple[str, ...], assign: bool
    ) -> tuple[tuple[str, ...], bool]:
        self.at += 1
        for name in names:
            if assign:
                self.check_variable(name)
        self.variables += names
        return names, assign

    def check_variable(self, name: str) -> None:
        if name not in self.variables:
            raise self.error(f"undefined variable {name!r}")

    def parse_command(self, end: str, *, piped: bool) -> Command:
        """Parse one command and the pipe sign after it, which must not be last."""
        line = self.next.line
        operands: list[Operand] = []
        while True:
            operands.append(self.parse_operand())
            token = self.next
            if token.kind == "space":
                token = self.skip_space()
                if token.kind not in ("pipe", end):
                    continue
            if token.kind == "pipe":
                self.at += 1
                if self.skip_space().kind == end:
                    raise self.error("missing command after |", line)
            elif token.kind != end:
                raise self.unexpected(token, "operand")
            self.check_call(operands, line, piped=piped)
            return Command(tuple(operands))

    def check_call(self, operands: list[Operand], line: int, *, piped: bool) -> None:
        """Check that only functions have arguments, and as many as they take."""
        head, count = operands[0], len(operands) - 1 + piped
        if isinstance(head, Nil):
            raise self.error("nil is not a command", line)
        if isinstance(head, Function):
            self.check_count(head.name, count, line)
        elif count:
            raise self.error("can't give argument to non-function", line)
        for operand in operands[1:]:
            if isinstance(operand, Function):
                self.check_count(operand.name, 0, line)

    def check_count(self, name: str, count: int, line: int) -> None:
        least, most = FUNCTIONS[name].arity
        if not least <= count <= most:
            raise self.error(f"wrong number of arguments for {name}: {count}", line)

    def parse_operand(self) -> Operand:
        """Parse a term and the fields directly after it."""
        token = self.next
        term = self.parse_term()
        names: list[str] = []
        while self.next.kind == "field":
            names.append(self.take().text[1:])
        if not names:
            return term
        if isinstance(term, Field):
            return Field(term.names + tuple(names))
        if isinstance(term, Variable):
            return Variable(term.name, tuple(names))
        if isinstance(term, (Literal, Nil, Dot)):
            raise self.error(f"unexpected . after {token.text!r}", token.line)
        return Chain(term, tuple(names))

    def parse_term(self) -> Operand:
        token = self.take()
        match token.kind:
            case "dot":
                return Dot()
            case "field":
                return Field((token.text[1:],))
            case "variable":
                self.check_variable(token.text)
                return Variable(token.text)
            case "string" | "raw":
                return Literal(self.unquote(token))
            case "char":
                return Literal(self.parse_character(token))
            case "number":
                return Literal(self.parse_integer(token))
            case "name":
                return self.parse_identifier(token)
            case "left":
                self.enter()
                pipe = self.parse_pipeline("parentheses", "right")
                self.depth -= 1
                return pipe
        raise self.unexpected(token, "operand")

    def parse_identifier(self, token: Token) -> Operand:
        if token.text in ("true", "false"):
            return Literal(token.text == "true")
        if token.text == "nil":
            return Nil()
        if token.text in UNSUPPORTED:
            raise self.error(f"{token.text} is not supported", token.line)
        if token.text not in FUNCTIONS:
            raise self.error(f"function {token.text!r} not defined", token.line)
        return Function(token.text)

    # --- literals ---

    def parse_integer(self, token: Token) -> int:
        """Parse Go's integer literals: 0x, 0o, 0b, a leading zero for octal, _."""
        text = token.text
        if not INTEGER.fullmatch(text):
            raise self.error(f"expected an integer, got {text!r}", token.line)
        digits = text.lstrip("+-").replace("_", "")
        octal = digits[0] == "0" and digits.isdigit()
        value = int(digits, 8 if octal else 0)
        value = -value if text[0] == "-" else value
        if not -(1 << 63) <= value < 1 << 63:
            raise self.error(f"{text} overflows int", token.line)
        return value

    def parse_character(self, token: Token) -> int:
        text = self.unescape(token, "'")
        if len(text) != 1:
            raise self.error(f"malformed character {token.text}", token.line)
        return ord(text)

    def unquote(self, token: Token) -> str:
        if token.kind == "raw":
            return token.text[1:-1].replace("\r", "")
        return self.unescape(token, '"')

    def unescape(self, token: Token, quote: str) -> str:
        """Return the text of a quoted literal with Go's escapes decoded."""

        def replacement(match: re.Match[str]) -> str:
            byte, short, long, octal, simple = match.groups()
            if simple is not None:
                found = quote if simple == quote else SIMPLE_ESCAPES.get(simple)
                if found is None:
                    raise self.error(f"unknown escape {match[0]!r}", token.line)
                return found
            code = int(octal, 8) if octal else int(byte or short or long, 16)
            lone_byte = (octal or byte) and code > 0x7F
            if lone_byte or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise self.error(f"no character: {match[0]!r}", token.line)
            return chr(code)

        return ESCAPE.sub(replacement, token.text[1:-1])
