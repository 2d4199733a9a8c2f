"""The start of a worker: what its event loop does not wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import wait_for
from support.program import Program

WRAPPER = """
import asyncio, runpy, ssl

load = ssl.SSLContext.load_default_certs


def observed(context, *arguments):
    running = asyncio._get_running_loop() is not None
    print("CA certificates loaded", "on" if running else "off", "the loop", flush=True)
    load(context, *arguments)


ssl.SSLContext.load_default_certs = observed
runpy.run_module("authproxy", run_name="__main__")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_loads_system_cas_for_https_off_the_event_loop(
    tmp_path: Path, workers: int
) -> None:
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(WRAPPER)
    with Program(
        tmp_path,
        wrapper=(str(wrapper),),
        workers=workers,
        skip_oidc_discovery=False,
        oidc_issuer_url="https://127.0.0.1:9",
    ) as program:
        program.started()
        wait_for(
            lambda: program.log().count("CA certificates loaded") >= workers,
            "the CA certificates",
        )
        assert "loaded on the loop" not in program.log()
