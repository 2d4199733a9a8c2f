"""What types can't say about the code: layers, forbidden imports, the flows' habits."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "authproxy_core"
SERVER = ROOT / "server" / "authproxy"
MODULES = sorted(CORE.rglob("*.py"))

# Imports point down only, within a layer they may point anywhere.
LAYERS = (
    {"proxy"},
    {"signing"},
    {"flows"},
    {"driver_side"},
    {"providers", "session_stores", "upstreams"},
    {"upstream_heads", "upgrades"},
    {"health"},
    {"static"},
    {"rules"},
    {"front"},
    {"conditions"},
    {"gate"},
    {"oidc", "pages", "challenge", "access", "headers", "login_state", "login_loop"}
    | {"renewals", "revocations", "session_index", "binding"},
    {"htpasswd"},
    {
        "redirects",
        "claims",
        "forms",
        "recall",
        "rewriting",
        "session_formats",
        "authorization",
    },
    {
        "original",
        "session_codec",
        "jwt",
        "interop",
        "lifetimes",
        "logout_token",
        "watch",
    },
    {"session", "sealing", "cookies", "templates"},
    {"settings"},
    {"provider_settings", "gate_settings", "rule_settings", "credential_settings"},
    {"provider_types", "secret"},
    {"drive", "effects"},
    {"messages", "errors", "encoding", "patterns", "trace"},
)
PURE = frozenset(
    [
        "__future__",
        "base64",
        "binascii",
        "collections",
        "contextlib",
        "csv",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "http",
        "importlib",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "typing",
        "unicodedata",
        "urllib",
        "weakref",
        "zlib",
    ]
)
LIBRARIES = frozenset(
    {"bcrypt", "cryptography", "joserfc", "lz4", "msgspec", "orjson", "re2"}
)
FORBIDDEN_PARTS = frozenset({"http.client", "http.server", "urllib.request"})


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        if name in layer:
            return number
    raise AssertionError(f"{name} is in no layer")


def top_of(path: Path) -> str:
    relative = path.relative_to(CORE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def own_imports(path: Path) -> Iterator[str]:
    """The first-level modules of the core that *path* imports."""
    depth = len(path.relative_to(CORE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            if node.module:
                yield node.module.split(".")[0]
            else:
                yield from (alias.name for alias in node.names)


def foreign_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_imports_point_down(path: Path) -> None:
    if path == CORE / "__init__.py":
        return
    own = layer_of(top_of(path))
    for name in own_imports(path):
        if name != top_of(path):
            assert layer_of(name) >= own, f"{path.name} imports {name} from above"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_is_pure(path: Path) -> None:
    allowed = PURE | LIBRARIES
    if path == CORE / "proxy.py":
        allowed |= {"os", "time"}  # the defaults for clock and randomness
    for name in foreign_imports(path):
        assert name.split(".")[0] in allowed, f"{path.name} imports {name}"
        assert name not in FORBIDDEN_PARTS, f"{path.name} imports {name}"


def test_importing_the_core_brings_no_loop_and_no_socket() -> None:
    code = (
        "import sys, authproxy_core; "
        "print([m for m in ('asyncio', 'socket', 'ssl', 'threading', 'logging', "
        "'uvloop', 'authproxy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{CORE.parent}"},
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"asyncio", "ssl", "uvloop", "authproxy", "logging"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_flow(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns).startswith(
        "Flow["
    )


def flow_names() -> set[str]:
    return {
        function.name
        for path in MODULES
        for function in functions(ast.parse(path.read_text()))
        if is_flow(function)
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_no_bare_yield_in_flows(path: Path) -> None:
    if path.name == "effects.py":
        return
    for function in functions(ast.parse(path.read_text())):
        if is_flow(function):
            assert not any(isinstance(node, ast.Yield) for node in ast.walk(function))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_no_flow_is_called_and_dropped(path: Path) -> None:
    names = flow_names()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = getattr(called, "attr", getattr(called, "id", ""))
            assert name not in names, f"{path.name}:{node.lineno} drops {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_no_effect_in_finally(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Try):
            inside = [inner for last in node.finalbody for inner in ast.walk(last)]
            assert not any(isinstance(inner, ast.YieldFrom) for inner in inside)


def test_files_stay_small() -> None:
    for folder in (CORE, SERVER):
        for path in folder.rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 500, path
