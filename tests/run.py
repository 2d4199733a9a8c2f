#!/usr/bin/env python3
"""Make the test environment and run every check: format, lint, types, tests, coverage.

    python3 tests/run.py [--fast] [--no-skips] [-- ARGUMENTS FOR PYTEST]

Needs Python 3.11+ with venv and pip, nothing else. The environment is ``.venv-test`` in
the repository; it is made anew when pyproject.toml changes. A test whose program
(nginx, Keycloak, a browser …) isn't installed is skipped by name.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
import venv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-test"
STAMP = ENVIRONMENT / "made-from"
PYTHON = ENVIRONMENT / "bin" / "python"
CODE = ("core", "server", "tests", "bench", "zipapp")
SERVER_FLOOR = 94  # percent of the server's branches, in a run without skips
TIME_LIMIT = 18 * 60.0  # seconds for all tests together
UNIT_ONLY = "not e2e and not peers"
# Two runs side by side, for each waits a lot or keeps one processor busy: the tests in
# these folders, and all others.
UNITS = ("core", "server")
GROUPS = ("units", "programs")


def main(arguments: Sequence[str]) -> int:
    """Run the checks; returns the exit code."""
    options, pytest_arguments = parse(arguments)
    make_environment()
    if options.setup:
        return 0
    failed = [] if pytest_arguments else run_static_checks()
    code, closing_line = run_tests(options, pytest_arguments)
    if code:
        failed.append("tests")
    if not pytest_arguments:
        failed += judge_coverage(strict=options.no_skips)
    if failed:
        say(f"failed: {', '.join(failed)}")
    say(closing_line)
    return 1 if failed else 0


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The switches, and what stands after ``--``."""
    ours, _, theirs = _partition(list(arguments), "--")
    parser = argparse.ArgumentParser(
        prog="tests/run.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--fast", action="store_true", help="only tests that need no other program"
    )
    parser.add_argument(
        "--no-skips", action="store_true", help="a test that is skipped has failed"
    )
    parser.add_argument(
        "--setup", action="store_true", help="only make the environment"
    )
    return parser.parse_args(ours), theirs


def _partition(items: list[str], mark: str) -> tuple[list[str], list[str], list[str]]:
    """What stands before *mark*, the mark, and what stands after it."""
    if mark not in items:
        return items, [], []
    place = items.index(mark)
    return items[:place], [mark], items[place + 1 :]


def make_environment() -> None:
    """Make ``.venv-test`` unless it was made from this very pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_bytes()
    mark = hashlib.sha256(project + sys.version.encode() + bytes(ROOT)).hexdigest()
    if STAMP.exists() and STAMP.read_text() == mark:
        return
    say("making .venv-test")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, with_pip=True, symlinks=True)
    # Read here: pips before 25.1 know no dependency groups.
    group = tomllib.loads(project.decode())["dependency-groups"]["dev"]
    install = [str(PYTHON), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--editable", str(ROOT), *group], check=True)
    STAMP.write_text(mark)


def run_static_checks() -> list[str]:
    """Check format, lint, types and imports; return the names of failed checks."""
    checks = {
        "format": ["ruff", "format", "--check", "--quiet", *CODE],
        "lint": ["ruff", "check", "--quiet", *CODE],
        "types": ["mypy", "--no-error-summary"],
        "imports": ["lint-imports", "--no-cache", "--no-logo"],
    }
    return [name for name, check in checks.items() if not _passes(name, check)]


def _passes(name: str, check: list[str]) -> bool:
    """Run one check; print its output if it fails. Return whether it passes."""
    program, *arguments = check
    command = [str(PYTHON.with_name(program)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    say(f"{name}: {'passed' if done.returncode == 0 else 'FAILED'}")
    if done.returncode:
        say(done.stdout + done.stderr)
    return done.returncode == 0


def run_tests(options: argparse.Namespace, arguments: list[str]) -> tuple[int, str]:
    """Run pytest; returns its exit code and its closing line, which isn't shown yet."""
    command = [str(PYTHON), "-m", "pytest"]
    if options.no_skips:
        command.append("--no-skips")
    if options.fast:
        command += ["-m", UNIT_ONLY]
    if arguments:
        return _run_holding_last_line([*command, *arguments], say)
    command += ["--cov", "--cov-branch", "--cov-report="]
    with ThreadPoolExecutor(len(GROUPS)) as pool:
        results = list(pool.map(lambda name: _run_group(name, command), GROUPS))
    _combine_coverage()
    return max(code for code, _ in results), "; ".join(line for _, line in results)


def _run_group(name: str, command: list[str]) -> tuple[int, str]:
    """Run the tests of one group; its output is shown in one piece when it is done."""
    tests = ROOT / "tests"
    units = [str(tests / folder) for folder in UNITS]
    others = [str(tests), *(f"--ignore={folder}" for folder in units)]
    lines: list[str] = []
    code, last = _run_holding_last_line(
        [*command, *(units if name == "units" else others)],
        lines.append,
        COVERAGE_FILE=str(_data_file(name)),
    )
    say("\n".join([f"-- {name}", *lines, last]))
    return code, last.strip("= ")


def _data_file(name: str) -> Path:
    return ROOT / f".coverage-{name}"


def _combine_coverage() -> None:
    """Put what the groups measured together."""
    (ROOT / ".coverage").unlink(missing_ok=True)
    files = [str(_data_file(name)) for name in GROUPS]
    command = [str(PYTHON), "-m", "coverage", "combine", "--keep", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode or done.stdout.count("Combined data file") < len(files):
        say(done.stdout + done.stderr)


def _run_holding_last_line(
    command: list[str], show: Callable[[str], object], **environment: str
) -> tuple[int, str]:
    """Run *command*, showing its output as it comes, all but the last line."""
    last = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        # As by Ctrl-C, so that fixtures still end the programs they have started.
        guard = threading.Timer(TIME_LIMIT, process.send_signal, [signal.SIGINT])
        guard.start()
        try:
            for line in process.stdout or ():
                if line.strip():
                    if last:
                        show(last)
                    last = line.rstrip("\n")
        finally:
            guard.cancel()
    return process.returncode, last


def judge_coverage(*, strict: bool) -> list[str]:
    """Report branch coverage; the core's must be 100 %. Returns what failed.

    *strict* also demands the server's floor, which only a run of all tests can reach.
    """
    if not (ROOT / ".coverage").exists():
        return ["coverage"]
    failed = []
    if not _coverage_of("authproxy_core", 100):
        failed.append("coverage of the core")
    if not _coverage_of("authproxy", SERVER_FLOOR if strict else 0):
        failed.append("coverage of the server")
    return failed


def _coverage_of(package: str, floor: int) -> bool:
    """Show the figure of one package; whether it reaches *floor* percent."""
    command = [str(PYTHON), "-m", "coverage", "report", f"--include=*/{package}/*"]
    total = _output([*command, "--format=total", "--precision=1"]).strip()
    if not total.replace(".", "").isdigit():
        say(f"branch coverage of {package}: nothing measured")
        return floor == 0
    say(f"branch coverage of {package}: {total} %")
    if float(total) >= floor:
        return True
    say(_output(command))
    return False


def _output(command: list[str]) -> str:
    """The standard output of *command*, whatever its exit code."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def say(text: str) -> None:
    """Print at once, so that lines of several programs keep their order."""
    print(text, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        say(f"failed: {' '.join(map(str, error.cmd))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
