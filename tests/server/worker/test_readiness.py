"""`/ready` of several workers: the same answer from each, about all of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support import workers
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program

READY = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def provider() -> DevProvider:
    """A provider whose discovery fails until `recover`."""
    config = ProviderConfig(users=example_users("secret"))
    config.failing["discovery"] = 500
    return DevProvider(config)


def recover(provider: DevProvider) -> None:
    del provider.config.failing["discovery"]


@pytest.fixture
def program(tmp_path: Path, provider: DevProvider) -> Iterator[Program]:
    """Two workers, before the provider is available."""
    with (
        serve(provider) as idp,
        Program(
            tmp_path,
            workers=2,
            oidc_issuer_url=idp.url,
            skip_oidc_discovery=None,
            login_url=None,
            redeem_url=None,
            oidc_jwks_url=None,
            metrics_address=f"{LOOPBACK}:0",
        ) as program,
    ):
        program.wait_until(lambda: len(program.workers) == 2)
        yield program


def get(port: int, target: str) -> tuple[int, str]:
    """Return the status and body from the worker that accepts the connection."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def ready(program: Program) -> int:
    """Return the status of /ready."""
    return get(program.port, "/ready")[0]


def accepting(program: Program) -> int:
    """Return the number of workers that accept connections."""
    match = re.search(r"metrics on http://\S+:(\d+)", program.log())
    assert match
    _, text = get(int(match[1]), "/metrics")
    found = re.search(r"(?m)^authproxy_workers (\d+)$", text)
    assert found
    return int(found[1])


def statuses(program: Program) -> set[int]:
    """Return the statuses of /ready from all workers."""
    answers = workers.send_to_each(program, program.port, READY)
    return {answer.status for answer in answers}


def test_ready_waits_for_every_worker(program: Program, provider: DevProvider) -> None:
    assert statuses(program) == {503}
    with workers.connections(program, program.port) as wires:
        slow, _ = program.workers
        os.kill(slow, signal.SIGSTOP)
        try:
            recover(provider)
            pids = workers.worker_pids(program)
            [other] = [wire for wire in wires if workers.owner(pids, wire) != slow]

            def answer() -> bytes:
                other.send(READY)
                got = other.answer()
                assert got.status == 503
                return got.body

            wait_for(lambda: answer() == b"another worker is not ready\n", "a worker")
        finally:
            os.kill(slow, signal.SIGCONT)
        wait_for(lambda: ready(program) == 200, "both workers")
        for _ in range(3):
            for wire in wires:
                wire.send(READY)
                assert wire.answer().status == 200


def test_ready_stays_while_crashed_worker_is_replaced(
    program: Program, provider: DevProvider
) -> None:
    """The successor accepts no connection before it is ready."""
    recover(provider)
    wait_for(lambda: ready(program) == 200, "both workers")
    victim = min(program.workers)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: f"worker {victim} exited" in program.log(), "the exit")
    seen = set()

    def has_successor() -> bool:
        seen.add(ready(program))
        return accepting(program) == 2

    wait_for(has_successor, "a new worker")
    assert seen | statuses(program) == {200}


def test_ready_after_outage_of_provider_keeps_until_a_worker_restarts(
    program: Program, provider: DevProvider
) -> None:
    """Metadata and keys stay valid; only a new worker would need the provider."""
    recover(provider)
    wait_for(lambda: ready(program) == 200, "both workers")
    provider.config.failing["discovery"] = 500
    assert statuses(program) == {200}
    victim = min(program.workers)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: accepting(program) == 1, "the exit")
    assert ready(program) == 200  # the other worker serves alone
    wait_for(lambda: accepting(program) == 2, "a new worker")
    assert statuses(program) == {503}  # one of them cannot finish a login
    recover(provider)
    wait_for(lambda: ready(program) == 200, "the recovery")
    assert statuses(program) == {200}
