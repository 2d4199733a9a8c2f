"""A start that cannot succeed ends once, with one line and an exit code."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from authproxy.process.supervisor import Supervisor
from support.certificates import make_certificate
from support.configuration import settings
from support.ports import LOOPBACK
from support.program import Program

SCRIPT = """
import sys
from authproxy.process.launcher import run
from authproxy.server_settings import *
from authproxy_core.settings import *
core = Settings(
    cookie=CookieSettings(secrets=(Secret(b"0123456789abcdef"),)),
    providers=(ProviderSettings(id="p", client_id="c", client_secret=Secret(b"s"),
        skip_discovery=True, issuer="http://127.0.0.1:9",
        login_url="http://127.0.0.1:9/a", redeem_url="http://127.0.0.1:9/t",
        jwks_url="http://127.0.0.1:9/k"),),
    email_domains=("*",),
)
base = dict(core=core, listeners=(Listener(host="127.0.0.1"),), workers=WORKERS)
sys.exit(run(ServerSettings(**base | dict(CHANGES))))
"""
REDIS = "RedisSettings(addresses=(RedisAddress(host='a'),), tls=True, ca_file='/none')"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ("core=Settings()", "cookie_secret: missing"),
        (f"store=StoreSettings(kind='redis', redis={REDIS})", "No such file"),
        ("client=ClientSettings(ca_files=('/none',))", "/none"),
        (
            "listeners=(Listener(host='127.0.0.1', tls=TlsSettings("
            "cert_file='/none', key_file='/none')),)",
            "can't listen",
        ),
    ],
)
def test_settings_that_no_worker_can_use_end_the_start(
    tmp_path: Path, workers: int, changes: str, text: str
) -> None:
    """As given by an embedding program: no check of the configuration has seen them."""
    script = SCRIPT.replace("WORKERS", str(workers)).replace("CHANGES", changes)
    with Program(tmp_path, wrapper=("-c", script)) as program:
        assert program.wait() == 1
        log = program.log()
    assert "Traceback" not in log
    failures = [one for one in log.splitlines() if re.search("failed|can't", one)]
    [line] = failures
    assert text in line
    assert "stopped" not in log


def test_port_in_use_ends_the_start_of_several_workers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        with Program(tmp_path, http_address=address, workers=3) as program:
            assert program.wait() == 1
            [line] = program.log().splitlines()
    assert f"can't listen on {address}" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"tls_cert_file": "KEY", "tls_key_file": "KEY", "https_address": "127.0.0.1:0"},
        {"authenticated_emails_file": "/none"},
        {"client_secret": None, "client_secret_file": "/none"},
        {"logging_filename": "/none/log"},
        {"upstreams": ["https://a/"], "upstream_ca_files": ["/none"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_unusable_file_ends_the_start_of_several_workers(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    key = make_certificate(tmp_path, LOOPBACK).key_file
    given = {name: key if value == "KEY" else value for name, value in changes.items()}
    with Program(tmp_path, workers=3, **given) as program:
        assert program.wait() == 1
        header, line = program.log().splitlines()
    assert header == "invalid configuration:"
    assert re.search(r"/none|key", line)


def test_failed_fork_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other workers would be lost with the supervisor."""

    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    supervisor = Supervisor(settings("--workers=2"), (), None)
    monkeypatch.setattr("os.fork", fail)
    supervisor._restarts_due = [0.0]
    supervisor._restart_due_workers()
    assert len(supervisor._restarts_due) == 1
    for end in (supervisor._wake_in, supervisor._wake_out):
        end.close()
    for descriptor in supervisor._alive:
        os.close(descriptor)
    assert "cannot start a worker: [Errno 11]" in capfd.readouterr().err
