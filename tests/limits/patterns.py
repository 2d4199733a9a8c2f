"""The regular expressions of all modules, and inputs that make slow ones slow.

An input repeats what a loop of the pattern matches, behind what precedes the loop, and
ends with a byte that no pattern expects: a pattern whose loops overlap tries all ways to
divide it. ``python -m limits.patterns`` in ``tests/`` tries all patterns; it prints the
name of each one first, and exceeds its CPU limit at a slow one.
"""

from __future__ import annotations

import ast
import importlib
import re
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core/authproxy_core", "server/authproxy")
INPUT_SIZE = 100_000  # more than a head
MAX_CPU = 2  # seconds for all inputs of a pattern; a fast one needs a hundredth
MANY = 1000  # repetitions of a loop that an input can use
MAX_MEMBERS = 6  # of a character class that are tried
END = "\0"
SEARCHES = frozenset({"search", "sub", "subn", "split", "findall", "finditer"})
CATEGORIES = {
    codes.CATEGORY_DIGIT: "0",
    codes.CATEGORY_SPACE: " ",
    codes.CATEGORY_WORD: "a",
}


class Named(NamedTuple):
    """A pattern, where it is, and whether it is searched for in a text."""

    where: str
    pattern: re.Pattern[Any]
    is_searched: bool


def all_patterns() -> list[Named]:
    """Return the compiled patterns of modules and the literal ones in functions."""
    searched = searched_names()
    found: dict[tuple[Any, int], Named] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT / package).with_suffix("")
            name = ".".join((Path(package).name, *relative.parts))
            if relative.name in ("__main__", "__init__"):
                continue
            for where, pattern in patterns_of(name, path):
                key = pattern.pattern, pattern.flags
                is_searched = where.rpartition(".")[2] in searched
                if key not in found or is_searched:
                    found[key] = Named(where, pattern, is_searched)
    return list(found.values())


def patterns_of(name: str, path: Path) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the patterns of a module with their names."""
    for variable, value in vars(importlib.import_module(name)).items():
        for one in members(value):
            # Which method is called on a member of a container is unknown.
            suffix = "" if one is value else ".search"
            yield f"{name}.{variable}{suffix}", one
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            pattern = re.compile(node.args[0].value)
            if node.func.attr != "compile":
                where = f"{name}:{node.lineno}"
                yield f"{where}.{node.func.attr}", pattern


def members(value: object) -> Iterable[re.Pattern[Any]]:
    """Return the patterns that *value* is or contains."""
    if isinstance(value, dict):
        value = [*value.values(), *value]
    if isinstance(value, list | tuple | set | frozenset):
        return [one for item in value for one in members(item)]
    return [value] if isinstance(value, re.Pattern) else []


def searched_names() -> set[str]:
    """Return the names of the variables on which a searching method is called."""
    names = set(SEARCHES)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in SEARCHES:
                    names.add(
                        getattr(node.value, "id", getattr(node.value, "attr", ""))
                    )
    return names


def inputs_for(pattern: re.Pattern[Any]) -> set[str]:
    """Return the inputs for a pattern."""
    text = pattern.pattern
    parsed = _parser.parse(text, pattern.flags & ~re.DEBUG)
    return {
        prefix + body * (INPUT_SIZE // len(body)) + END
        for prefix, body in loops("", parsed)
        if body
    }


def loops(prefix: str, nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield for each loop what precedes it and what it matches once, in some ways."""
    for code, argument in nodes:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            _, most, body = argument
            if most >= MANY:
                yield from ((prefix, one) for one in samples(body))
            yield from loops(prefix, body)
        elif code == codes.SUBPATTERN:
            yield from loops(prefix, argument[-1])
        elif code == codes.ATOMIC_GROUP:
            yield from loops(prefix, argument)
        elif code == codes.BRANCH:
            for branch in argument[1]:
                yield from loops(prefix, branch)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from loops(prefix, argument[1])
        prefix += next(iter(samples([(code, argument)])), "")


def samples(nodes: Iterable[Any]) -> list[str]:
    """Return texts that *nodes* match, one for each member of a single class."""
    texts = [""]
    for code, argument in nodes:
        choices = sample(code, argument)
        texts = [text + one for text in texts for one in choices][:MAX_MEMBERS]
    return texts


def sample(code: Any, argument: Any) -> list[str]:
    """Return some texts that a node matches."""
    match code:
        case codes.LITERAL:
            return [chr(argument)]
        case codes.NOT_LITERAL:
            return [one for one in "a x" if ord(one) != argument]
        case codes.ANY:
            return ["a", "."]
        case codes.IN:
            return class_members(argument)
        case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
            least, _, body = argument
            return [one * max(least, 1) for one in samples(body)]
        case codes.SUBPATTERN:
            return samples(argument[-1])
        case codes.ATOMIC_GROUP:
            return samples(argument)
        case codes.BRANCH:
            return [one for branch in argument[1] for one in samples(branch)]
    return [""]  # an assertion or a reference


def class_members(items: list[Any]) -> list[str]:
    """Return members of a character class."""
    if items[0][0] == codes.NEGATE:
        pattern_items = items[1:]
        return [one for one in "a .-/,;\"'=\\" if not contains(pattern_items, one)][
            :MAX_MEMBERS
        ]
    found: list[str] = []
    for code, argument in items:
        if code == codes.LITERAL:
            found.append(chr(argument))
        elif code == codes.RANGE:
            found.append(chr(argument[0]))
        elif code == codes.CATEGORY:
            found.append(CATEGORIES.get(argument, "a"))
    return found[:MAX_MEMBERS]


def contains(items: list[Any], one: str) -> bool:
    """Return whether a class without negation has *one* as a member."""
    for code, argument in items:
        if code == codes.LITERAL and ord(one) == argument:
            return True
        if code == codes.RANGE and argument[0] <= ord(one) <= argument[1]:
            return True
        if code == codes.CATEGORY and CATEGORIES.get(argument) == one:
            return True
    return False


def attempt(named: Named) -> None:
    """Apply a pattern to all of its inputs."""
    pattern = named.pattern
    for text in inputs_for(pattern):
        value: Any = text
        if isinstance(pattern.pattern, bytes):
            value = text.encode("latin-1", "replace")
        pattern.match(value)
        pattern.fullmatch(value)
        if named.is_searched:
            pattern.search(value)


def main() -> None:
    """Apply the patterns, each with its own CPU limit."""
    for named in all_patterns():
        print(named.where, flush=True)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime) + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (used + MAX_CPU, hard))
        attempt(named)


if __name__ == "__main__":
    main()
