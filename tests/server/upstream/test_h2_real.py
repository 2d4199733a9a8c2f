"""HTTP/2 on both sides with a Go upstream that speaks both versions without TLS."""

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

LARGE = 128 << 20  # bytes; as a number it has nine digits
GROWTH = 20 << 20  # bytes that the program may grow by
MESSAGE = b"\0\0\0\0\5hello"  # of gRPC: not compressed, its length, its bytes


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
def test_a_call_of_grpc(client: H2Client) -> None:
    fields = (
        ("cookie", session_cookie()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    number = client.send("/grpc", *fields, method="POST", ends=False)
    client.send_body(number, MESSAGE)
    answer = client.answer(number)
    assert (answer.status, answer.body) == (200, MESSAGE)
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.trailers == {
        "grpc-status": "0",
        "grpc-message": "HTTP/2.0 trailers",
    }


def test_an_answer_that_breaks_off_ends_its_stream_alone(
    program: Program, client: H2Client
) -> None:
    program.mark()
    answer = ask(client, "/reset")
    assert (answer.status, answer.ended) == (200, False)
    assert answer.reset is not None
    wait_for(lambda: "while receiving the response" in program.log_since_mark(), "why")
    assert ask(client, "/next").body == b"ok"


def test_an_upstream_that_never_answers(program: Program, client: H2Client) -> None:
    program.mark()
    answer = ask(client, "/never")
    assert (answer.status, answer.ended) == (504, True)
    wait_for(lambda: "upstream /: timeout" in program.log_since_mark(), "the reason")
    assert ask(client, "/next").body == b"ok"


def test_hints_and_bodies(client: H2Client) -> None:
    hinted = ask(client, "/hints")
    assert (hinted.interim, hinted.body) == ([103], b"hinted")
    assert len(ask(client, "/big?size=4194304").body) == 4 << 20


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_uploads(client: H2Client, size: int) -> None:
    fields = ("cookie", session_cookie())
    number = client.send("/count", fields, method="POST", ends=not size)
    if size:
        client.send_body(number, bytes(size))
    assert client.answer(number).body == b"%d" % size


def test_large_bodies_pass_in_a_fixed_window(
    tmp_path: Path, program: Program, certificate: Certificate
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGE)
    url = f"https://{LOOPBACK}:{program.port}"
    assert curl(certificate, f"{url}/big?size=65536") == "2 200 65536"
    before = program.peak()
    assert curl(certificate, f"{url}/big?size={LARGE}") == f"2 200 {LARGE}"
    # What curl leaves unread within its limit of the rate has to wait at the upstream.
    slow = curl(certificate, "--limit-rate", "4M", "-m", "1", f"{url}/big?size={LARGE}")
    assert slow.startswith("2 200 ")
    assert curl(certificate, "-T", str(large), f"{url}/count") == "2 200 9"
    assert program.peak() - before < GROWTH


def curl(certificate: Certificate, *arguments: str) -> str:
    """The version, the status and the size of the answer."""
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
