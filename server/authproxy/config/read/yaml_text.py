"""YAML as oauth2-proxy reads it: plain scalars of YAML 1.2, each key once.

PyYAML follows YAML 1.1, where ``no`` is a boolean and ``1:30`` a number; both are texts
here. Old octals (``0660``) are numbers in both. PyYAML is imported on use only, for most
deployments have no alpha configuration.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .values import parse_int

if TYPE_CHECKING:
    import yaml

NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
INT = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|0[0-7_]*|[1-9][0-9_]*)\Z"
)
FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
MERGE = re.compile(r"<<\Z")
PREFIX = "tag:yaml.org,2002:"


def read_yaml(text: str) -> Any:
    """The document of *text*; raises ValueError saying where it is malformed.

    The message quotes nothing of the document, which may hold secrets.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"{where}{_plain(error.problem)}") from None
    except yaml.YAMLError:
        raise ValueError("it has characters that YAML does not allow") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(problem: str | None) -> str:
    """A problem without what the parser quotes from the document."""
    text = problem or "malformed"
    return (
        text if text.startswith("the key") else re.sub(r"'[^']{4,}'|\".*\"", "…", text)
    )


class Quoted(str):
    """A text to be written in single quotes, whatever is in it."""

    __slots__ = ()


def write_yaml(document: Any) -> str:
    """*document* as YAML, keys in the order they are in, indented by four spaces."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        Quoted,
        lambda dumper, text: dumper.represent_scalar(f"{PREFIX}str", text, style="'"),
    )
    return yaml.dump(
        document,
        Dumper=Dumper,
        sort_keys=False,
        indent=4,
        width=1 << 16,
    )


def _loader() -> type[yaml.SafeLoader]:
    """A loader with the scalars of YAML 1.2 that refuses repeated keys."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key_node, _ in getattr(node, "value", ()):
                if key_node.tag == f"{PREFIX}merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str | int | float | None):
                    raise _refused("the key is no text", key_node)
                if key in seen:
                    raise _refused(f"the key {key!r} is there twice", key_node)
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = {}
    for tag, pattern in (
        ("null", NULL),
        ("bool", BOOL),
        ("int", INT),
        ("float", FLOAT),
        ("merge", MERGE),
    ):
        Loader.add_implicit_resolver(f"{PREFIX}{tag}", pattern, None)
    Loader.add_constructor(f"{PREFIX}int", _integer)
    return Loader


def _refused(problem: str, node: Any) -> Exception:
    import yaml

    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _integer(loader: Any, node: Any) -> int | str:
    """Whole numbers as in Go; one that does not fit is a text, as there."""
    text: str = loader.construct_scalar(node)
    try:
        return parse_int(text.replace("_", ""))
    except ValueError:
        return text
