"""Conventions that types and import contracts cannot express: flows, file sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "authproxy_core"
PACKAGES = (CORE, *sorted((ROOT / "server").glob("authproxy*")))
MODULES = sorted(CORE.rglob("*.py"))
MAX_LINES = 500  # of a file
MAX_MODULES = 15  # of a folder, without __init__.py

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(CORE))
)


def test_core_import_loads_no_event_loop_and_no_tls() -> None:
    code = (
        "import sys, authproxy_core; print([m for m in "
        "('asyncio', 'ssl', 'uvloop', 'authproxy', 'logging') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{CORE.parent}"},
    )
    assert ast.literal_eval(done.stdout) == []


@each_module
def test_flow_effects_performed_with_yield_from(path: Path) -> None:
    if path.name == "effects.py":
        return
    for function in functions(parse(path)):
        if is_flow(function):
            assert not any(isinstance(node, ast.Yield) for node in ast.walk(function))


@each_module
def test_flow_call_result_is_used(path: Path) -> None:
    names = flow_names()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = getattr(called, "attr", getattr(called, "id", ""))
            assert name not in names, f"{path.name}:{node.lineno} drops {name}"


@each_module
def test_finally_performs_no_effect(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Try):
            inside = [inner for last in node.finalbody for inner in ast.walk(last)]
            assert not any(isinstance(inner, ast.YieldFrom) for inner in inside)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_files_have_at_most_500_lines(package: Path) -> None:
    lines = {path: len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    assert {path: n for path, n in lines.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_folders_have_at_most_15_modules(package: Path) -> None:
    folders = {path.parent for path in package.rglob("*.py")}
    modules = {folder: len([*folder.glob("[!_]*.py")]) for folder in folders}
    assert {folder: n for folder, n in modules.items() if n > MAX_MODULES} == {}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def flow_names() -> set[str]:
    """Return the names of all functions of the core that return a flow."""
    return {
        function.name
        for path in MODULES
        for function in functions(parse(path))
        if is_flow(function)
    }


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_flow(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns).startswith(
        "Flow["
    )
