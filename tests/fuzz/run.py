"""Fuzz one target with atheris, which follows the coverage of authproxy's code.

    .venv-test/bin/python -m pip install atheris
    .venv-test/bin/python tests/fuzz/run.py request_head --minutes 10

Crashes do not end the run. Each cause is written to the folder ``--crashes`` once, and
printed as bytes for a test. Inputs that reach new code are kept in ``--corpus``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

if TYPE_CHECKING:
    from fuzz.target import Target

INSTALL = f"atheris is missing; install it: {sys.executable} -m pip install atheris"
INPUT_TIMEOUT = 10  # seconds for one input
MAX_MEMORY = 1024  # MiB
MAX_INPUT_BYTES = 4096


def fuzz(name: str, arguments: list[str], crashes: Path) -> None:
    """Fuzz the target *name* in this process; never returns."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["authproxy", "authproxy_core"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    for seed in target.seeds:
        seed_file(arguments[-1], seed)
    seen: set[str] = set()

    def test(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            report(error, data, seen, crashes)

    atheris.Setup([sys.argv[0], *arguments], test)
    atheris.Fuzz()


def seed_file(corpus: str, seed: bytes) -> None:
    """Write *seed* to the folder *corpus*, named by its hash."""
    (Path(corpus) / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def report(error: Exception, data: bytes, seen: set[str], crashes: Path) -> None:
    """Write and print a crash, once for each line of code that raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    cause = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
    if cause in seen:
        return
    seen.add(cause)
    file = crashes / f"crash-{hashlib.sha1(cause.encode()).hexdigest()[:12]}"
    file.write_bytes(data)
    traceback.print_exception(error)
    print(f"CRASH {cause}\n{data!r}", flush=True)


def choose(name: str, targets: dict[str, Target]) -> Target:
    """Return the target *name*; ends the program for an unknown one."""
    if name not in targets:
        sys.exit(f"unknown target {name!r}; --list names all")
    return targets[name]


def main() -> int:
    """Run a child with libFuzzer's options; return 1 if there were crashes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="?", default="")
    parser.add_argument("--list", action="store_true", help="print all targets")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--crashes", type=Path, help="folder for crashes")
    parser.add_argument("--corpus", type=Path, help="folder for inputs, kept")
    parser.add_argument("--replay", type=Path, help="run one input without atheris")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        fuzz(given.target, given.child, given.crashes)
    if given.list or given.replay:
        from fuzz.targets import TARGETS

        if given.list:
            print("\n".join(TARGETS))
        else:
            choose(given.target, TARGETS).check(given.replay.read_bytes())
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        sys.exit(INSTALL)
    with tempfile.TemporaryDirectory(prefix="authproxy-fuzz-") as directory:
        corpus = given.corpus or Path(directory)
        crashes = given.crashes or Path(tempfile.mkdtemp(prefix="authproxy-crashes-"))
        for folder in (corpus, crashes):
            folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, __file__, given.target, "--crashes", crashes, "--child",
            f"-max_total_time={round(given.minutes * 60)}",
            f"-timeout={INPUT_TIMEOUT}", f"-rss_limit_mb={MAX_MEMORY}",
            f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={crashes}/",
            "-print_final_stats=1", corpus,
        ]  # fmt: skip
        status = subprocess.run(command, check=False).returncode
    found = sorted(crashes.iterdir())
    print(f"{len(found)} crashes in {crashes}")
    return 1 if found or status else 0


if __name__ == "__main__":
    sys.exit(main())
