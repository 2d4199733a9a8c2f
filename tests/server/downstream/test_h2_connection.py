"""HTTP/2 end to end: same decisions as HTTP/1.1, limits, abuse."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from support.certificates import Certificate, make_certificate
from support.echo import EchoApp
from support.h2_client import H2Client
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.server import until

LARGE = 1_000_000  # bytes: more than all windows
FLOOD_FRAMES = 400  # canceled requests, more than the credit allows


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)


@pytest.fixture(scope="module")
def program(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Program]:
    """authproxy with TLS in front of an echo application."""
    folder = tmp_path_factory.mktemp("h2")
    with EchoApp() as app, tls_program(folder, certificate, app.port) as started:
        yield started.started()


def tls_program(folder: Path, certificate: Certificate, app: int) -> Program:
    return Program(
        folder,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        upstreams=[f"http://{LOOPBACK}:{app}/"],
    )


@pytest.fixture
def client(program: Program, certificate: Certificate) -> Iterator[H2Client]:
    with H2Client(program.port, certificate) as connected:
        yield connected


def crumbs() -> list[tuple[str, str]]:
    """Return the session cookies, one field per cookie, as browsers send them."""
    return [("cookie", one) for one in session_cookie().split("; ")]


def test_h2_decisions_equal_http_1_1(client: H2Client) -> None:
    """Concurrent requests: health, auth endpoint, page, login, query constraint."""
    numbers = [
        client.send("/ping"),
        client.send("/oauth2/auth"),
        client.send("/oauth2/auth", *crumbs()),
        client.send("/app", ("accept", "text/html")),
        client.send("/oauth2/start?rd=/x"),
        client.send("/oauth2/auth?allowed_groups=none", *crumbs()),
    ]
    responses = [client.answer(number) for number in numbers]
    assert [one.status for one in responses] == [200, 401, 202, 403, 302, 403]
    assert responses[0].body == b"OK"
    assert responses[2].headers["gap-auth"] == "alice@example.com"
    assert responses[2].headers["date"].endswith(" GMT")
    assert b"Sign in" in responses[3].body
    assert all("connection" not in one.headers for one in responses)
    assert client.ask("/ping", method="HEAD").body == b""


def test_h2_request_is_forwarded(client: H2Client) -> None:
    """One Cookie field without the session, Host from :authority."""
    response = client.ask("/deep?q=1", *crumbs(), ("cookie", "a=1"), ("cookie", "b=2"))
    received = json.loads(response.body)
    fields = dict(received["headers"])
    assert (received["method"], received["target"]) == ("GET", "/deep?q=1")
    assert fields["host"] == "a.example.com"
    assert fields["cookie"] == "a=1; b=2"
    assert fields["x-forwarded-proto"] == "https"
    assert fields["x-forwarded-email"] == "alice@example.com"
    assert "te" not in fields


@pytest.mark.parametrize("announced", [True, False])
def test_h2_large_bodies_in_both_directions(client: H2Client, announced: bool) -> None:
    length = [("content-length", str(LARGE))] if announced else []
    number = client.send("/up", *crumbs(), *length, method="POST", ends=False)
    client.send_body(number, b"x" * LARGE)
    response = client.answer(number)
    if announced:  # the application does not decode chunks
        assert json.loads(response.body)["body"] == "x" * LARGE
    assert response.status == 200
    assert client.ask().status == 200


def test_h2_form_is_read(client: H2Client) -> None:
    kind = ("content-type", "application/x-www-form-urlencoded")
    number = client.send("/oauth2/start", kind, method="POST", ends=False)
    client.send_body(number, b"rd=/deep")
    assert client.answer(number).status == 302


def test_h2_expect_100_continue(client: H2Client) -> None:
    fields = (("expect", "100-continue"), ("content-length", "7"))
    kind = ("content-type", "application/x-www-form-urlencoded")
    number = client.send("/oauth2/start", *fields, kind, method="POST", ends=False)
    while not client.answers[number].interim:
        client.receive()
    assert client.answers[number].interim == [100]
    client.send_body(number, b"rd=/dee")
    assert client.answer(number).status == 302


def test_h2_unread_bodies_do_not_block(client: H2Client) -> None:
    """The connection's window is extended by the discarded bytes."""
    client.ask()  # the SETTINGS frame has been received
    for _ in range(8):
        number = client.send("/app", method="POST", ends=False)
        for _ in range(6):
            client.connection.send_data(number, b"x" * 16_000)
        client.flush()
        response = client.answer(number)
        assert response.status in (401, 403)
    assert client.ask().status == 200


def test_h2_slow_reader_blocks_only_its_stream(client: H2Client) -> None:
    """A client that does not read one response still gets others."""
    client.acknowledges = False
    number = client.send(
        "/up", *crumbs(), ("content-length", str(LARGE)), method="POST", ends=False
    )
    client.send_body(number, b"x" * LARGE)
    while len(client.answers[number].body) < 65_535:
        client.receive()
    window = client.connection.inbound_flow_control_window
    client.connection.increment_flow_control_window(100_000 - window)
    assert client.ask().status == 200
    assert not client.answers[number].ended


@pytest.mark.parametrize(
    ("path", "fields", "how", "status"),
    [
        ("no-slash", [], {}, 400),
        ("/a b", [], {}, 400),
        ("/a#b", [], {}, 400),
        ("/", [("host", "other.example.com")], {}, 400),
        ("/", [], {"authority": "a@b"}, 400),
        ("/", [("x", "a\x01b")], {}, 400),
        ("/", [("x y", "1")], {}, 400),
        ("/", [("expect", "magic")], {}, 417),
        ("/", [("content-length", "0"), ("content-length", "0")], {}, 400),
        ("/", [], {"method": "TRACE"}, 405),
        ("/", [], {"method": "get"}, 400),
        ("/" + "a" * 40_000, [], {}, 414),
        ("/", [(f"x-{n}", "1") for n in range(201)], {}, 431),
    ],
)
def test_h2_invalid_head_rejected(
    program: Program,
    certificate: Certificate,
    path: str,
    fields: list[tuple[str, str]],
    how: dict[str, str],
    status: int,
) -> None:
    """As for HTTP/1.1; other streams go on."""
    with H2Client(program.port, certificate, strict=False) as client:
        assert client.ask(path, *fields, **how).status == status
        assert client.ask().status == 200


@pytest.mark.parametrize(
    "field",
    [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x-line", "a\r\nx-user: root"),
        ("x-nul", "a\0b"),
    ],
)
def test_h2_forbidden_field_rejected(
    program: Program, certificate: Certificate, field: tuple[str, str]
) -> None:
    """HS20: they are never forwarded (RFC 9113 §8.2)."""
    with H2Client(program.port, certificate, strict=False) as client:
        response = client.ask("/app", *crumbs(), field)
        assert response.status == 400
        assert b'"target"' not in response.body


def test_h2_header_list_above_limit_rejected(client: H2Client) -> None:
    client.ask()  # the SETTINGS frame has been received
    # HPACK: a repeated field has one byte, and 4 kB when it is decoded.
    assert client.ask("/ping", *[("x-bomb", "b" * 4000)] * 100).status == 431
    assert client.ask().status == 200


@pytest.mark.parametrize("kind", ["reset", "ping", "settings", "empty"])
def test_h2_flood_closes_connection(
    program: Program, certificate: Certificate, kind: str
) -> None:
    """HT29: other connections are not affected."""
    before = program.log().count("frame flood")
    with H2Client(program.port, certificate) as client:
        number = client.send("/oauth2/start", method="POST", ends=False)
        for _ in range(8 * FLOOD_FRAMES):
            match kind:
                case "reset":
                    client.connection.reset_stream(client.send("/app"))
                case "ping":
                    client.connection.ping(b"12345678")
                case "settings":
                    client.connection.update_settings({})
                case "empty":
                    client.connection.send_data(number, b"")
            client.flush()
            if client.closed:
                break
        try:
            client.until_closed()
        except TimeoutError:
            pytest.fail("the connection was not closed")
    with H2Client(program.port, certificate) as client:
        assert client.ask().status == 200
    until(lambda: program.log().count("frame flood") == before + 1, "the log line")


def test_h2_streams_above_limit_refused(
    program: Program, certificate: Certificate
) -> None:
    """Requests that wait for a body count; the others go on."""
    with H2Client(program.port, certificate) as client:
        client.ask()  # the SETTINGS frame has been received
        assert client.connection.remote_settings.max_concurrent_streams == 100
        kind = ("content-type", "application/x-www-form-urlencoded")
        start = ("/oauth2/start", kind)
        numbers = [client.send(*start, method="POST", ends=False) for _ in range(100)]
        client.connection.remote_settings.update({3: 1000})
        client.connection.remote_settings.acknowledge()
        assert client.ask().reset == ErrorCodes.REFUSED_STREAM
        client.send_body(numbers[0], b"rd=/deep")
        assert client.answer(numbers[0]).status == 302
        assert client.ask().status == 200


def test_h2_malformed_frames_close(program: Program, certificate: Certificate) -> None:
    with H2Client(program.port, certificate) as client:
        client.ask()
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
        client.until_closed()
        assert client.goaway is not None


@pytest.mark.parametrize(
    ("field", "event"),
    [
        (("\x01" * 1000, "x"), "rejected request"),
        (("x", "\x01" * 15_000), "rare characters"),
    ],
)
def test_h2_illegal_long_field_writes_a_short_log_line(
    program: Program, certificate: Certificate, field: tuple[str, str], event: str
) -> None:
    before = len(program.log())
    with H2Client(program.port, certificate, strict=False) as client:
        client.send("/ping", field)
        wait_for(lambda: event in program.log()[before:], event)
    assert max(map(len, program.log()[before:].splitlines())) < 6000


def test_h2_canceled_requests_do_not_block(client: H2Client) -> None:
    for _ in range(20):
        number = client.send("/up", *crumbs(), method="POST", ends=False)
        client.connection.send_data(number, b"x" * 1000)
        client.connection.reset_stream(number)
        client.flush()
    assert client.ask("/app", *crumbs()).status == 200


def test_h2_graceful_shutdown_sends_goaway(
    tmp_path: Path, certificate: Certificate
) -> None:
    """GOAWAY is sent, and the open request is answered."""
    kind = ("content-type", "application/x-www-form-urlencoded")
    with (
        tls_program(tmp_path, certificate, 9) as program,
        H2Client(program.port, certificate) as client,
    ):
        number = client.send("/oauth2/start", kind, method="POST", ends=False)
        assert client.ask().status == 200
        program.signal(signal.SIGTERM)
        while client.goaway is None:
            client.receive()
        assert client.goaway == ErrorCodes.NO_ERROR
        client.send_body(number, b"rd=/x")
        assert client.answer(number).status == 302
        client.until_closed()


def test_h2_disabled_by_option(tmp_path: Path, certificate: Certificate) -> None:
    with Program(
        tmp_path,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        http2=False,
    ) as program:
        context = ssl.create_default_context(cafile=certificate.cert_file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((LOOPBACK, program.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=LOOPBACK) as secure,
        ):
            assert secure.selected_alpn_protocol() == "http/1.1"


def test_h2_goaway_from_client_lets_streams_finish(client: H2Client) -> None:
    """GOAWAY concerns later streams only (RFC 9113 §6.8)."""
    kind = ("content-type", "application/x-www-form-urlencoded")
    number = client.send("/oauth2/start", kind, method="POST", ends=False)
    client.socket.sendall(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
    client.send_body(number, b"rd=/x")
    assert client.answer(number).status == 302
    client.until_closed()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_h2_curl_uploads_and_gets_response(
    program: Program, certificate: Certificate
) -> None:
    done = subprocess.run(
        [
            "curl",
            "--http2",
            "--silent",
            "--cacert",
            certificate.cert_file,
            "--cookie",
            session_cookie(),
            "--data-binary",
            "@-",
            "--write-out",
            "%{http_version} %{http_code}",
            f"https://{LOOPBACK}:{program.port}/up",
        ],
        input=b"y" * 300_000,
        capture_output=True,
        timeout=20,
    )
    assert done.stdout.endswith(b"2 200")
    assert b'"method": "POST"' in done.stdout


def test_h2_oversized_frames_close(program: Program, certificate: Certificate) -> None:
    """A frame above the limit, and a head in too many frames."""
    frame = (16_385).to_bytes(3) + bytes([0, 0]) + b"\0\0\0\1"
    continuation = (16_000).to_bytes(3) + bytes([9, 0]) + b"\0\0\0\1" + b"x" * 16_000
    head_frame = (1).to_bytes(3) + bytes([1, 0]) + b"\0\0\0\1x"
    for data, code in (
        (frame, ErrorCodes.FRAME_SIZE_ERROR),
        (head_frame + continuation * 5, ErrorCodes.ENHANCE_YOUR_CALM),
    ):
        with H2Client(program.port, certificate) as client:
            client.ask()
            client.socket.sendall(data)
            client.until_closed()
            assert client.goaway == code


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_h2_endless_head_closes(
    program: Program, certificate: Certificate, payload: bytes
) -> None:
    """HT29: the frames are small, or empty."""
    head_frame = (1).to_bytes(3) + bytes([1, 0]) + b"\0\0\0\1x"
    continuation = len(payload).to_bytes(3) + bytes([9, 0]) + b"\0\0\0\1" + payload
    with H2Client(program.port, certificate) as client:
        client.socket.sendall(head_frame + continuation * 1000)
        client.until_closed()
        assert client.goaway is not None
    with H2Client(program.port, certificate) as client:
        assert client.ask().status == 200


@pytest.mark.parametrize("body", [b"", b"abc", b"abcdefgh"])
def test_h2_content_length_mismatch_rejected(
    program: Program, certificate: Certificate, body: bytes
) -> None:
    """Over HTTP/1.1 the upstream would parse the rest as a request, or wait."""
    with H2Client(program.port, certificate, strict=False) as client:
        length = ("content-length", "5")
        fields = (*crumbs(), length)
        number = client.send("/app", *fields, method="POST", ends=not body)
        if body:
            client.send_body(number, body)
        response = client.answer(number)
        assert response.status in (0, 400)
        assert b'"target"' not in response.body
