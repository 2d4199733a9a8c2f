"""YAML as oauth2-proxy reads it: YAML 1.2 scalars, no duplicate keys.

PyYAML implements YAML 1.1, in which ``no`` is a boolean and ``1:30`` a number; here
both are strings. Old octals (``0660``) are numbers in both. PyYAML is imported on first
use, because most deployments have no alpha configuration.
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
    """Parse *text*; raises ValueError with the line of a syntax error.

    The message quotes nothing of the document, because it may contain secrets.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"{where}{_without_quotes(error.problem)}") from None
    except yaml.YAMLError:
        raise ValueError("invalid characters for YAML") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _without_quotes(problem: str | None) -> str:
    """Return *problem* without the parser's quotes from the document."""
    text = problem or "malformed"
    if text.startswith("duplicate key"):
        return text
    return re.sub(r"'[^']{4,}'|\".*\"", "…", text)


class SingleQuoted(str):
    """A string that `write_yaml` writes in single quotes."""

    __slots__ = ()


def write_yaml(document: Any) -> str:
    """Format *document* as YAML: keys in their order, indented by four spaces."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        SingleQuoted,
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
    """Return a loader with YAML 1.2 scalars that rejects duplicate keys."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key_node, _ in getattr(node, "value", ()):
                if key_node.tag == f"{PREFIX}merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str | int | float | None):
                    raise _node_error("key is not a scalar", key_node)
                if key in seen:
                    raise _node_error(f"duplicate key {key!r}", key_node)
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
    Loader.add_constructor(f"{PREFIX}int", _construct_int)
    return Loader


def _node_error(problem: str, node: Any) -> Exception:
    import yaml

    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _construct_int(loader: Any, node: Any) -> int | str:
    """Parse an integer as Go does; one that is out of range becomes a string."""
    text: str = loader.construct_scalar(node)
    try:
        return parse_int(text.replace("_", ""))
    except ValueError:
        return text
