"""HTTP/2 clients with a Go upstream that supports HTTP/1.1 and h2c."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.app_servers import AppServer
from support.certificates import Certificate, make_certificate
from support.h2_client import Answer, H2Client
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.programs import find

LARGE = 128 << 20  # bytes; the number has nine digits
MAX_GROWTH = 20 << 20  # bytes of resident memory
MESSAGE = b"\0\0\0\0\5hello"  # of gRPC: compression flag, length, bytes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)


@pytest.fixture(scope="module", params=["h2c", "http"])
def program(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificate: Certificate,
) -> Iterator[Program]:
    if find("go") is None:
        pytest.skip("go is not installed")
    folder = tmp_path_factory.mktemp("go")
    with (
        AppServer("go", folder / "app") as app,
        Program(
            folder,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
            upstreams=[f"{request.param}://{LOOPBACK}:{app.port}/"],
            upstream_timeout="1s",
        ) as started,
    ):
        yield started.started()


@pytest.fixture
def client(program: Program, certificate: Certificate) -> Iterator[H2Client]:
    with H2Client(program.port, certificate) as connected:
        yield connected


only_h2c = pytest.mark.parametrize("program", ["h2c"], indirect=True, scope="module")


def ask(client: H2Client, path: str) -> Answer:
    return client.ask(path, ("cookie", session_cookie()))


@only_h2c
def test_h2_real_grpc_call(client: H2Client) -> None:
    fields = (
        ("cookie", session_cookie()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    number = client.send("/grpc", *fields, method="POST", ends=False)
    client.send_body(number, MESSAGE)
    response = client.answer(number)
    assert (response.status, response.body) == (200, MESSAGE)
    assert response.headers["content-type"] == "application/grpc"
    assert response.trailers == {
        "grpc-status": "0",
        "grpc-message": "HTTP/2.0 trailers",
    }


def test_h2_real_incomplete_response_resets_stream_only(
    program: Program, client: H2Client
) -> None:
    program.mark()
    response = ask(client, "/reset")
    assert (response.status, response.ended) == (200, False)
    assert response.reset is not None
    wait_for(
        lambda: "while receiving the response" in program.log_since_mark(),
        "the log line",
    )
    assert ask(client, "/next").body == b"ok"


def test_h2_real_no_response_gets_504(program: Program, client: H2Client) -> None:
    program.mark()
    response = ask(client, "/never")
    assert (response.status, response.ended) == (504, True)
    wait_for(lambda: "upstream /: timeout" in program.log_since_mark(), "the reason")
    assert ask(client, "/next").body == b"ok"


def test_h2_real_early_hints_and_body(client: H2Client) -> None:
    hinted = ask(client, "/hints")
    assert (hinted.interim, hinted.body) == ([103], b"hinted")
    assert len(ask(client, "/big?size=4194304").body) == 4 << 20


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_h2_real_upload(client: H2Client, size: int) -> None:
    fields = ("cookie", session_cookie())
    number = client.send("/count", fields, method="POST", ends=not size)
    if size:
        client.send_body(number, bytes(size))
    assert client.answer(number).body == b"%d" % size


def test_h2_real_large_bodies_memory_bounded(
    tmp_path: Path, program: Program, certificate: Certificate
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGE)
    url = f"https://{LOOPBACK}:{program.port}"
    assert curl(certificate, f"{url}/big?size=65536") == "2 200 65536"
    before = program.peak()
    assert curl(certificate, f"{url}/big?size={LARGE}") == f"2 200 {LARGE}"
    # The rate limit of curl must pause the upstream.
    slow = curl(certificate, "--limit-rate", "4M", "-m", "1", f"{url}/big?size={LARGE}")
    assert slow.startswith("2 200 ")
    assert curl(certificate, "-T", str(large), f"{url}/count") == "2 200 9"
    assert program.peak() - before < MAX_GROWTH


def curl(certificate: Certificate, *arguments: str) -> str:
    """Return the version, the status and the size of the response."""
    program = find("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [
        str(program), "-s", "--http2", "--cacert", certificate.cert_file,
        "-H", f"Cookie: {session_cookie()}", "-o", "/dev/null",
        "-w", "%{http_version} %{http_code} %{size_download}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout
