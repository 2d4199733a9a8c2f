#!/usr/bin/env python3
"""Create the test environment and run all checks, tests and coverage.

    python3 tests/run.py [--fast | --pythons] [--no-skips] [-- PYTEST ARGUMENTS]

The checks are format, lint, types and import rules. Requires Python 3.11+ with venv
and pip. The environment is ``.venv-test`` in the repository; it is rebuilt when
pyproject.toml changes. Tests of a program that is not installed (nginx, Keycloak, a
browser …) are skipped, and the summary names the program.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from support.pythons import SUPPORTED, interpreters

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-test"
STAMP = "made-from"  # in the environment
PYTHON = "bin/python"  # likewise
CODE = ("core", "server", "tests", "bench", "zipapp")
MIN_CORE_COVERAGE = 100  # percent of lines and branches
MIN_SERVER_COVERAGE = 94  # percent, in a run without skips
UNIT_ONLY = "not e2e and not peers"
PROCESSES = 4  # of pytest; most tests wait for other programs
# What a run takes on two idle cores.
DURATIONS = {"fast": "3 minutes", "full": "5 minutes, 10 with all programs installed"}


def main(arguments: Sequence[str]) -> int:
    """Run the checks and return the exit code."""
    options, pytest_arguments = parse(arguments)
    make_environment()
    if options.setup:
        return 0
    if options.pythons:
        return test_other_pythons()
    if pytest_arguments:
        code, closing_line = run_pytest(options, pytest_arguments)
        report(closing_line)
        return code
    report(f"expected duration: {DURATIONS['fast' if options.fast else 'full']}")
    failed = run_static_checks()
    code, closing_line = run_all_tests(options)
    if code:
        failed.append("tests")
    failed += check_coverage(complete=options.no_skips)
    if failed:
        report(f"failed: {', '.join(failed)}")
    report(closing_line)
    return 1 if failed else 0


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and the arguments after ``--``, which are pytest's."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="tests/run.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Arguments after -- are passed to pytest; then nothing else runs.",
    )
    parser.add_argument(
        "--fast", action="store_true", help="run only tests without other programs"
    )
    parser.add_argument(
        "--no-skips", action="store_true", help="report a skipped test as failed"
    )
    parser.add_argument(
        "--pythons",
        action="store_true",
        help="run only the core's tests, with the other supported Pythons found",
    )
    parser.add_argument(
        "--setup", action="store_true", help="create the environment and exit"
    )
    return parser.parse_args(given[:end]), given[end + 1 :]


def make_environment(environment: Path = ENVIRONMENT, python: str = "") -> None:
    """Create *environment* unless it was created from the current pyproject.toml.

    *python* is the path of another interpreter than this one.
    """
    project = (ROOT / "pyproject.toml").read_bytes()
    origin = project + (python or sys.version).encode() + bytes(ROOT)
    stamp, stamp_file = hashlib.sha256(origin).hexdigest(), environment / STAMP
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return
    report(f"creating {environment.name}")
    shutil.rmtree(environment, ignore_errors=True)
    if python:
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
    else:
        venv.create(environment, with_pip=True, symlinks=True)
    # The group is read here because pip supports dependency groups only since 25.1.
    group = tomllib.loads(project.decode())["dependency-groups"]["dev"]
    install = [str(environment / PYTHON), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--editable", f"{ROOT}[otlp]", *group], check=True)
    stamp_file.write_text(stamp)


def test_other_pythons() -> int:
    """Run the core's tests with each other supported Python; return the exit code."""
    this = ".".join(map(str, sys.version_info[:2]))
    failed = []
    for version, python in interpreters().items():
        if version not in SUPPORTED or version == this:
            continue
        environment = ENVIRONMENT.with_name(f"{ENVIRONMENT.name}-{version}")
        make_environment(environment, python)
        command = [str(environment / PYTHON), "-m", "pytest", "tests/core"]
        command += ["--numprocesses", str(os.cpu_count()), "--dist", "loadfile"]
        command += ["--quiet"]
        report(f"core tests with Python {version}")
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(version)
    if failed:
        report(f"failed: the core's tests with Python {', '.join(failed)}")
    return 1 if failed else 0


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
    command = [str(ENVIRONMENT / "bin" / program), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    report(f"{name}: {'passed' if done.returncode == 0 else 'FAILED'}")
    if done.returncode:
        report(done.stdout + done.stderr)
    return done.returncode == 0


def run_all_tests(options: argparse.Namespace) -> tuple[int, str]:
    """Run the tests on all cores with coverage; return exit code and closing line."""
    # Files stay together (loadfile, see tests/conftest.py), the longest first.
    arguments = ["--numprocesses", str(PROCESSES), "--dist", "loadfile", "--progress"]
    arguments += ["--cov", "--cov-branch", "--cov-report="]
    if options.fast:
        arguments += ["-m", UNIT_ONLY]
    return run_pytest(options, arguments)


def run_pytest(
    options: argparse.Namespace, arguments: Sequence[str]
) -> tuple[int, str]:
    """Run pytest and print its output except the last line, which is returned."""
    command = [str(ENVIRONMENT / PYTHON), "-m", "pytest", *arguments]
    if options.no_skips:
        command.append("--no-skips")
    last = ""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            if line.strip():
                if last:
                    report(last)
                last = line.rstrip("\n")
    return process.returncode, last.strip("= ")


def check_coverage(*, complete: bool) -> list[str]:
    """Report branch coverage and return what is below its minimum.

    The server's minimum applies only to a *complete* run, in which no test is skipped.
    """
    if not (ROOT / ".coverage").exists():
        return ["coverage"]
    failed = []
    if not _is_covered("authproxy_core", MIN_CORE_COVERAGE):
        failed.append("coverage of the core")
    if not _is_covered("authproxy", MIN_SERVER_COVERAGE if complete else 0):
        failed.append("coverage of the server")
    return failed


def _is_covered(package: str, minimum: int) -> bool:
    """Print the coverage of *package*; return whether it is *minimum* percent."""
    command = [
        str(ENVIRONMENT / PYTHON),
        "-m",
        "coverage",
        "report",
        f"--include=*/{package}/*",
    ]
    total = _output([*command, "--format=total", "--precision=1"]).strip()
    if not total.replace(".", "").isdigit():
        report(f"branch coverage of {package}: nothing measured")
        return minimum == 0
    report(f"branch coverage of {package}: {total} %")
    if float(total) >= minimum:
        return True
    report(_output(command))
    return False


def _output(command: list[str]) -> str:
    """Return the standard output of *command*, whatever its exit code."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def report(text: str) -> None:
    """Print *text* and flush, so that lines of several programs keep their order."""
    print(text, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        report(f"failed: {' '.join(map(str, error.cmd))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
