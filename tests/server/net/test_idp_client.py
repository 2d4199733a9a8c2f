"""HTTP client for the identity provider, against scripted servers."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from authproxy.net.idp_client import HttpClient
from authproxy.net.tls import client_context
from authproxy.server_settings import ClientSettings
from authproxy_core.effects import Fetch
from authproxy_core.errors import FetchError, SettingsError
from authproxy_core.messages import Headers, Response, header_values
from support.certificates import Certificate, make_certificate
from support.scripted import LOOPS, Peer, Script, ScriptedServer, Seen, accept_nobody
from support.scripted import run as run_on

SECRET = "s3cr3t"


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder, "127.0.0.1", "idp.test")


def settings(**values: object) -> ClientSettings:
    return ClientSettings(**values)  # type: ignore[arg-type] # as given by each test


def fetch(
    port: int,
    method: str = "GET",
    *,
    scheme: str = "http",
    headers: Headers = (),
    body: bytes = b"",
    timeout: float = 20.0,
    max_body: int = 1000,
) -> Fetch:
    url = f"{scheme}://127.0.0.1:{port}/{SECRET}?code={SECRET}#{SECRET}"
    return Fetch(method, url, headers, body, timeout, max_body)


def exchange(
    loop: str,
    script: Script,
    *,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 20.0,
    max_body: int = 1000,
) -> Response:
    """Return the response to one fetch from a server that runs *script*."""

    async def main() -> Response:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            effect = fetch(
                server.port, method, body=body, timeout=timeout, max_body=max_body
            )
            try:
                return await client.fetch(effect)
            finally:
                await client.close()

    return run_on(main(), loop)


def refused(
    loop: str,
    script: Script,
    *,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 20.0,
) -> str:
    """Return the error of a failed fetch; check that it contains no secret."""
    with pytest.raises(FetchError) as caught:
        exchange(loop, script, method=method, body=body, timeout=timeout)
    text = str(caught.value)
    assert SECRET not in text
    assert "127.0.0.1:" in text
    return text


def sends(data: bytes) -> Script:
    """Return a script that reads a request, sends *data* and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return script


# Requests


def seen_by_server(loop: str, effect: Callable[[int], Fetch]) -> Seen:
    seen: list[Seen] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings(), version="1.2.3")
            await client.fetch(effect(server.port))
            await client.close()

    run_on(main(), loop)
    return seen[0]


def test_fetch_get_sends_minimal_fields(loop: str) -> None:
    ports: list[int] = []
    seen = seen_by_server(loop, lambda port: ports.append(port) or fetch(port))  # type: ignore[func-returns-value] # records the port
    assert (seen.method, seen.target) == (b"GET", f"/{SECRET}?code={SECRET}".encode())
    assert seen.headers == [
        (b"host", b"127.0.0.1:%d" % ports[0]),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"authproxy/1.2.3"),
    ]


def test_fetch_post_sends_body_and_headers(loop: str) -> None:
    headers = ((b"content-type", b"text/x"), (b"authorization", b"Basic abc"))
    seen = seen_by_server(
        loop, lambda port: fetch(port, "POST", headers=headers, body=b"a=b")
    )
    assert (seen.method, seen.body) == (b"POST", b"a=b")
    assert set(headers) < set(seen.headers)
    assert seen.values(b"content-length") == [b"3"]


def test_fetch_post_without_body_sends_content_length_0(loop: str) -> None:
    seen = seen_by_server(loop, lambda port: fetch(port, "POST"))
    assert seen.values(b"content-length") == [b"0"]


@pytest.mark.parametrize(
    "field",
    [
        (b"host", b"other"),
        (b"content-length", b"99"),
        (b"transfer-encoding", b"chunked"),
        (b"accept-encoding", b"gzip"),
        (b"expect", b"100-continue"),
        (b"connection", b"close"),
    ],
)
def test_fetch_client_controlled_field_of_caller_dropped(
    field: tuple[bytes, bytes],
) -> None:
    seen = seen_by_server(
        "asyncio", lambda port: fetch(port, "POST", headers=(field,), body=b"a=b")
    )
    assert field not in seen.headers
    assert seen.body == b"a=b"


def test_fetch_user_agent_of_caller_kept() -> None:
    field = (b"user-agent", b"other")
    seen = seen_by_server("asyncio", lambda port: fetch(port, headers=(field,)))
    assert seen.values(b"user-agent") == [b"other"]


def test_fetch_header_with_line_break_rejected(loop: str) -> None:
    async def main() -> str:
        client = HttpClient(settings())
        async with ScriptedServer(sends(b"")) as server:
            bad = fetch(server.port, headers=((b"x", b"a\r\nb: c"),))
            with pytest.raises(FetchError) as caught:
                await client.fetch(bad)
        await client.close()
        return str(caught.value)

    assert run_on(main(), loop).startswith("malformed request to ")


# Responses


def test_fetch_returns_status_headers_and_body(loop: str) -> None:
    response = exchange(
        loop,
        sends(b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\n\r\nno"),
    )
    assert (response.status, response.body) == (400, b"no")
    assert header_values(response.headers, b"x-a") == [b"1", b"2"]


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nx: trailer\r\n\r\n",
            200,
            b"abc",
        ),
        (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 F\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 302, b""),
        (
            b"HTTP/1.1 103 E\r\nx: y\r\n\r\n" * 16
            + b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            200,
            b"x",
        ),
    ],
)
def test_fetch_response_framing_supported(
    loop: str, data: bytes, status: int, body: bytes
) -> None:
    response = exchange(loop, sends(data))
    assert (response.status, response.body) == (status, body)


def test_fetch_head_response_has_no_body(loop: str) -> None:
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n"
    response = exchange(loop, sends(data), method="HEAD")
    assert (response.status, response.body) == (200, b"")


def test_fetch_response_in_single_bytes(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc":
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)

    assert exchange(loop, script).body == b"abc"


def test_fetch_early_response_read_while_body_is_unsent(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too large", status=b"413 Too Large")
        await peer.gone()

    response = exchange(loop, script, method="POST", body=bytes(8 << 20))
    assert (response.status, response.body) == (413, b"too large")


# Limits


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_fetch_body_at_limit_accepted(loop: str, size: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(bytes(size))

    assert exchange(loop, script, max_body=1000).body == bytes(size)


def test_fetch_content_length_above_limit_rejected_unread(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
        await peer.gone()  # rejected before the body

    assert "response exceeds 1000 bytes" in refused(loop, script)


@pytest.mark.parametrize(
    "head",
    [b"\r\n", b"transfer-encoding: chunked\r\n\r\n7D0\r\n"],
    ids=["until-close", "chunked"],
)
def test_fetch_endless_body_rejected_at_limit(loop: str, head: bytes) -> None:
    """LG16, JW28, JW35: of whatever endpoint."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head)
        while not peer.writer.transport.is_closing():
            await peer.send(bytes(2000))
            await asyncio.sleep(0)

    assert "response exceeds 1000 bytes" in refused(loop, script)


@pytest.mark.parametrize(
    "data",
    [b"x: y\r\n", b"x", b"HTTP/1.1 100 C\r\n\r\n"],
    ids=["fields", "one-line", "informational"],
)
def test_fetch_endless_head_rejected(loop: str, data: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" if b"HTTP" not in data else b"")
        while not peer.writer.transport.is_closing():
            await peer.send(data * 1000)
            await asyncio.sleep(0)

    text = refused(loop, script)
    assert "malformed" in text or "more than 16 informational responses" in text


# Errors


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switch\r\nupgrade: x\r\n\r\n",
    ],
)
def test_fetch_malformed_response_rejected(loop: str, data: bytes) -> None:
    assert refused(loop, sends(data)).startswith("malformed response from 127.0.0.1:")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
def test_fetch_incomplete_response_rejected(loop: str, data: bytes) -> None:
    text = refused(loop, sends(data))
    assert text.startswith("connection closed before the response was complete: ")


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n\r\nuntil the"])
def test_fetch_reset_does_not_complete_a_response(loop: str, data: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        peer.reset()

    assert refused(loop, script).startswith("connection closed by 127.0.0.1:")


def test_fetch_connection_refused(loop: str) -> None:
    async def main() -> str:
        held, port = await accept_nobody()
        client = HttpClient(settings())
        with held, pytest.raises(FetchError) as caught:
            await client.fetch(fetch(port))
        await client.close()
        return str(caught.value).replace(str(port), "PORT")

    assert run_on(main(), loop) == "connection refused by 127.0.0.1:PORT"


def test_fetch_no_response_times_out(loop: str) -> None:
    text = refused(loop, Peer.gone, timeout=0.05)
    assert text.startswith("timed out after 0.05 s: 127.0.0.1:")


def test_fetch_timeout_covers_the_whole_exchange(loop: str) -> None:
    """LG16: a response in slow drips ends at the timeout."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not peer.writer.transport.is_closing():
            await peer.send(b".")
            await asyncio.sleep(0.005)

    assert refused(loop, script, timeout=0.1).startswith("timed out after 0.1 s: ")


def test_fetch_timeout_closes_the_connection(loop: str) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.gone()
        left.set()

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            with pytest.raises(FetchError):
                await client.fetch(fetch(server.port, timeout=0.05))
            await left.wait()
            await client.close()

    run_on(main(), loop)


# TLS


def over_tls(
    loop: str, certificate: Certificate, client_settings: ClientSettings, host: str
) -> Response:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"over tls")

    async def main() -> Response:
        tls = certificate.server_context()
        async with ScriptedServer(script, tls=tls) as server:
            client = HttpClient(client_settings)
            try:
                url = f"https://{host}:{server.port}/"
                return await client.fetch(Fetch("GET", url))
            finally:
                await client.close()

    return run_on(main(), loop)


def test_fetch_certificate_of_configured_ca_accepted(
    loop: str, certificate: Certificate
) -> None:
    trusting = settings(ca_files=(certificate.cert_file,))
    assert over_tls(loop, certificate, trusting, "127.0.0.1").body == b"over tls"


def test_fetch_certificate_of_unknown_ca_rejected(
    loop: str, certificate: Certificate
) -> None:
    with pytest.raises(FetchError, match=r"^certificate not trusted: 127\.0\.0\.1:"):
        over_tls(loop, certificate, settings(), "127.0.0.1")


def test_fetch_certificate_for_another_host_rejected(
    loop: str, certificate: Certificate
) -> None:
    trusting = settings(ca_files=(certificate.cert_file,))
    with pytest.raises(FetchError, match=r"^certificate not trusted: .*mismatch"):
        over_tls(loop, certificate, trusting, "localhost")


def test_fetch_insecure_skip_verify_accepts_any_certificate(
    loop: str, certificate: Certificate
) -> None:
    careless = settings(insecure_skip_verify=True)
    assert over_tls(loop, certificate, careless, "localhost").body == b"over tls"


def test_client_context_system_store_added_on_request_only(
    certificate: Certificate,
) -> None:
    files = (certificate.cert_file,)
    own = client_context(settings(ca_files=files))
    assert own.cert_store_stats()["x509"] == 1
    both = client_context(settings(ca_files=files, use_system_trust_store=True))
    bare = ssl.create_default_context()
    assert (
        both.cert_store_stats()["x509"] == bare.cert_store_stats()["x509"] + 1
        or not bare.cert_store_stats()[
            "x509"
        ]  # the system may have only a directory of certificates
    )
    assert own.minimum_version is ssl.TLSVersion.TLSv1_2


def test_client_context_several_ca_files_loaded(
    tmp_path: Path, certificate: Certificate
) -> None:
    other = make_certificate(tmp_path, "other.test")
    files = (certificate.cert_file, other.cert_file)
    stats = client_context(settings(ca_files=files)).cert_store_stats()
    assert stats["x509"] == 2


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_client_context_invalid_ca_file_named(
    tmp_path: Path, certificate: Certificate, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    for files in ((str(path),), (certificate.cert_file, str(path))):
        with pytest.raises(SettingsError, match=r"ca\.pem"):
            HttpClient(settings(ca_files=files))


def test_fetch_https_from_plain_http_server_fails(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async def main() -> str:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            with pytest.raises(FetchError) as caught:
                await client.fetch(fetch(server.port, scheme="https"))
            await client.close()
            return str(caught.value)

    assert run_on(main(), loop).startswith("tls with 127.0.0.1:")


def test_fetch_connect_timeout(loop: str) -> None:
    async def main() -> str:
        async with ScriptedServer(
            Peer.gone
        ) as server:  # never completes the TLS handshake
            client = HttpClient(settings(connect_timeout=0.05))
            with pytest.raises(FetchError) as caught:
                await client.fetch(fetch(server.port, scheme="https"))
            await client.close()
            return str(caught.value)

    assert run_on(main(), loop).startswith("connecting timed out after 0.05 s: 127.")


# Connection pool


class CountingScript:
    """Script that responds to all requests and records the connection of each."""

    def __init__(self, respond: Callable[[Peer, int], Awaitable[None]]) -> None:
        self.seen: list[tuple[int, bytes]] = []  # connection number, method
        self.closed = asyncio.Queue[int]()
        self._connections = 0
        self._respond = respond

    async def __call__(self, peer: Peer) -> None:
        self._connections += 1
        number = self._connections
        try:
            while True:
                self.seen.append((number, (await peer.request()).method))
                await self._respond(peer, len(self.seen))
        finally:
            self.closed.put_nowait(number)


async def plain_answer(peer: Peer, _: int) -> None:
    await peer.answer(b"x")


def methods_seen(
    loop: str,
    script: CountingScript,
    *methods: str,
    client_settings: ClientSettings | None = None,
    step: float = 0.0,
) -> list[tuple[int, bytes]]:
    """Fetch sequentially; the client's clock advances by *step* seconds after each."""
    now = 1.0

    async def main() -> None:
        nonlocal now
        async with ScriptedServer(script) as server:
            client = HttpClient(client_settings or settings(), clock=lambda: now)
            for method in methods:
                await client.fetch(fetch(server.port, method))
                now += step
            await client.close()

    run_on(main(), loop)
    return script.seen


def test_fetch_reuses_the_connection(loop: str) -> None:
    seen = methods_seen(loop, CountingScript(plain_answer), "GET", "POST", "GET")
    assert seen == [(1, b"GET"), (1, b"POST"), (1, b"GET")]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
    ids=["close", "http/1.0", "more-than-asked"],
)
def test_fetch_closing_or_surplus_response_connection_not_reused(
    loop: str, data: bytes
) -> None:
    async def respond(peer: Peer, _: int) -> None:
        await peer.send(data)

    assert methods_seen(loop, CountingScript(respond), "GET", "GET") == [
        (1, b"GET"),
        (2, b"GET"),
    ]


def test_fetch_post_does_not_use_a_long_idle_connection(loop: str) -> None:
    seen = methods_seen(
        loop, CountingScript(plain_answer), "GET", "GET", "POST", step=3.0
    )
    assert seen == [(1, b"GET"), (1, b"GET"), (2, b"POST")]


def test_fetch_does_not_use_a_connection_after_idle_timeout(loop: str) -> None:
    seen = methods_seen(loop, CountingScript(plain_answer), "GET", "GET", step=61.0)
    assert seen == [(1, b"GET"), (2, b"GET")]


def test_fetch_idle_connection_closed_after_idle_timeout(loop: str) -> None:
    script = CountingScript(plain_answer)

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings(), idle_timeout=0.01)
            await client.fetch(fetch(server.port))
            assert await script.closed.get() == 1
            await client.close()

    run_on(main(), loop)


async def dies_on_second(peer: Peer, count: int) -> None:
    """Respond to the first request, and close at the second."""
    if count == 2:
        raise ConnectionResetError
    await peer.answer(b"x")


def test_fetch_get_on_stale_connection_retried(loop: str) -> None:
    seen = methods_seen(loop, CountingScript(dies_on_second), "GET", "GET")
    assert seen == [(1, b"GET"), (1, b"GET"), (2, b"GET")]


def test_fetch_get_retried_only_once(loop: str) -> None:
    async def dies(peer: Peer, count: int) -> None:
        if count > 1:
            raise ConnectionResetError
        await peer.answer(b"x")

    script = CountingScript(dies)
    with pytest.raises(FetchError, match="before the response was complete"):
        methods_seen(loop, script, "GET", "GET")
    assert len(script.seen) == 3


def test_fetch_post_never_retried(loop: str) -> None:
    script = CountingScript(dies_on_second)
    with pytest.raises(FetchError, match=r"^connection closed by 127\.0\.0\.1:"):
        methods_seen(loop, script, "GET", "POST")
    assert script.seen == [(1, b"GET"), (1, b"POST")]


def test_fetch_get_with_partial_response_not_retried(loop: str) -> None:
    async def breaks(peer: Peer, count: int) -> None:
        if count == 2:
            await peer.send(b"H")
            raise ConnectionResetError
        await peer.answer(b"x")

    script = CountingScript(breaks)
    with pytest.raises(FetchError, match="before the response was complete"):
        methods_seen(loop, script, "GET", "GET")
    assert len(script.seen) == 2


def test_fetch_reset_of_idle_connection_retried(loop: str) -> None:
    async def resets(peer: Peer, count: int) -> None:
        if count == 2:
            peer.reset()
            raise ConnectionResetError
        await peer.answer(b"x")

    seen = methods_seen(loop, CountingScript(resets), "GET", "GET")
    assert seen == [(1, b"GET"), (1, b"GET"), (2, b"GET")]


def test_fetch_post_after_server_close_uses_a_new_connection(loop: str) -> None:
    closed = asyncio.Event()

    async def closes(peer: Peer, count: int) -> None:
        await peer.answer(b"x")
        if count == 1:
            peer.writer.write_eof()
            await peer.gone()  # the client has noticed the EOF and closed
            closed.set()

    script = CountingScript(closes)

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            await client.fetch(fetch(server.port))
            await closed.wait()
            await client.fetch(fetch(server.port, "POST"))
            await client.close()

    run_on(main(), loop)
    assert script.seen == [(1, b"GET"), (2, b"POST")]


def test_fetch_parallel_requests_respect_pool_size(loop: str) -> None:
    open_now = most = 0

    async def script(peer: Peer) -> None:
        nonlocal open_now, most
        await peer.request()
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)  # let other requests arrive
        open_now -= 1
        await peer.answer(b"x", head=b"connection: close\r\n")

    async def main() -> list[Response]:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings(pool_size=2))
            every = [client.fetch(fetch(server.port)) for _ in range(8)]
            responses = await asyncio.gather(*every)
            await client.close()
            return responses

    assert [response.body for response in run_on(main(), loop)] == [b"x"] * 8
    assert 1 <= most <= 2


def test_fetch_at_pool_limit_reuses_the_released_connection(loop: str) -> None:
    script = CountingScript(plain_answer)

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings(pool_size=1))
            await asyncio.gather(*[client.fetch(fetch(server.port)) for _ in range(4)])
            await client.close()

    run_on(main(), loop)
    assert script.seen == [(1, b"GET")] * 4


def test_reconfigure_closes_idle_connections(loop: str) -> None:
    script = CountingScript(plain_answer)

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            await client.fetch(fetch(server.port))
            client.reconfigure(settings(), client_context(settings()))
            assert await script.closed.get() == 1
            await client.fetch(fetch(server.port))
            await client.close()

    run_on(main(), loop)
    assert script.seen == [(1, b"GET"), (2, b"GET")]


def test_fetch_timeout_covers_the_wait_for_a_connection(loop: str) -> None:
    async def main() -> None:
        async with ScriptedServer(Peer.gone) as server:
            client = HttpClient(settings(pool_size=1))
            first = asyncio.create_task(client.fetch(fetch(server.port)))
            with pytest.raises(FetchError, match=r"timed out after 0.05 s"):
                await client.fetch(fetch(server.port, timeout=0.05))
            await client.close()
            with pytest.raises(FetchError):
                await first

    run_on(main(), loop)


def test_close_closes_idle_connections(loop: str) -> None:
    script = CountingScript(plain_answer)

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            await client.fetch(fetch(server.port))
            await client.close()
            assert await script.closed.get() == 1
            with pytest.raises(FetchError, match="the client is closed"):
                await client.fetch(fetch(server.port))

    run_on(main(), loop)


def test_close_fails_exchanges_in_progress(loop: str) -> None:
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        begun.set()
        await peer.gone()

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            task = asyncio.create_task(client.fetch(fetch(server.port)))
            await begun.wait()
            await client.close()
            with pytest.raises(FetchError):
                await task

    run_on(main(), loop)


def test_close_fails_fetch_that_is_connecting(
    loop: str, certificate: Certificate
) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = HttpClient(settings(ca_files=(certificate.cert_file,)))
            effect = fetch(listener.getsockname()[1], scheme="https")
            task = asyncio.create_task(client.fetch(effect))
            accepted, _ = await running.sock_accept(listener)
            await client.close()
            handshake = running.connect_accepted_socket(
                asyncio.Protocol, accepted, ssl=certificate.server_context()
            )
            serving = asyncio.create_task(handshake)
            with pytest.raises(FetchError, match="the client is closed"):
                await task
            serving.cancel()
            await asyncio.wait([serving])

    run_on(main(), loop)


def test_fetch_canceled_closes_the_connection(loop: str) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        begun.set()
        await peer.gone()
        left.set()

    async def main() -> None:
        async with ScriptedServer(script) as server:
            client = HttpClient(settings())
            task = asyncio.create_task(client.fetch(fetch(server.port)))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()
            await client.close()

    run_on(main(), loop)


# Proxies of the environment


def through_proxy(
    loop: str,
    script: Script,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    **values: object,
) -> Response:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    async def main() -> Response:
        async with ScriptedServer(script) as server:
            proxy = f"http://user:p%40ss@127.0.0.1:{server.port}"
            monkeypatch.setenv("HTTP_PROXY", proxy)
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            client = HttpClient(settings(**values))
            try:
                return await client.fetch(Fetch("GET", url))
            finally:
                await client.close()

    return run_on(main(), loop)


CREDENTIALS = (b"proxy-authorization", b"Basic dXNlcjpwQHNz")


def test_fetch_http_through_proxy_sends_absolute_form(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Seen] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer(b"proxied")

    response = through_proxy(loop, script, "http://idp.test/a?b", monkeypatch)
    assert response.body == b"proxied"
    assert seen[0].target == b"http://idp.test/a?b"
    assert seen[0].values(b"host") == [b"idp.test"]
    assert CREDENTIALS in seen[0].headers


def test_fetch_https_through_proxy_uses_connect(
    loop: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects: list[Seen] = []
    seen: list[Seen] = []

    async def script(peer: Peer) -> None:
        connects.append(await peer.head())
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        await peer.writer.start_tls(certificate.server_context())
        seen.append(await peer.request())
        await peer.answer(b"tunnelled")

    response = through_proxy(
        loop,
        script,
        "https://idp.test/a?b",
        monkeypatch,
        ca_files=(certificate.cert_file,),
    )
    assert response.body == b"tunnelled"
    assert (connects[0].method, connects[0].target) == (b"CONNECT", b"idp.test:443")
    assert connects[0].headers == [(b"host", b"idp.test:443"), CREDENTIALS]
    assert seen[0].target == b"/a?b"
    assert CREDENTIALS not in seen[0].headers


def test_fetch_https_through_proxy_verifies_the_certificate(
    loop: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await peer.writer.start_tls(certificate.server_context())

    with pytest.raises(FetchError, match=r"certificate not trusted: idp.test:443"):
        through_proxy(loop, script, "https://idp.test/", monkeypatch)


def test_fetch_at_pool_limit_timeout_through_proxy_frees_the_slot(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        await peer.gone()

    async def main() -> list[BaseException | Response]:
        async with ScriptedServer(script) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
            client = HttpClient(settings(pool_size=1, connect_timeout=0.1))
            effect = Fetch("GET", "https://idp.test/", timeout=5.0)
            fetches = [client.fetch(effect) for _ in range(3)]
            results = await asyncio.gather(*fetches, return_exceptions=True)
            await client.close()
            return results

    for result in run_on(main(), loop):
        assert "connecting timed out after 0.1 s" in str(result)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 407 Who\r\n\r\n", "refused to connect: status 407"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200", "malformed response from proxy"),
        (b"nonsense\r\n\r\n", "malformed response from proxy"),
        (b"", "closed before the response was complete"),
    ],
)
def test_fetch_proxy_rejects_connect_fails(
    loop: str, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    with pytest.raises(FetchError, match=message) as caught:
        through_proxy(loop, sends(data), "https://idp.test/", monkeypatch)
    assert "idp.test:443" in str(caught.value)
    assert "p@ss" not in str(caught.value)


def test_fetch_proxy_resets_fails(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    with pytest.raises(FetchError, match=r"closed by proxy 127.*: idp\.test:443$"):
        through_proxy(loop, script, "https://idp.test/", monkeypatch)


def test_fetch_proxy_unreachable_fails(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        held, port = await accept_nobody()
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{port}")
        client = HttpClient(settings())
        with held, pytest.raises(FetchError) as caught:
            await client.fetch(Fetch("GET", "http://idp.test/"))
        await client.close()
        return str(caught.value).replace(str(port), "PORT")

    text = run_on(main(), loop)
    assert text == "connection refused by proxy 127.0.0.1:PORT: idp.test:80"


@pytest.mark.parametrize(
    "url",
    ["ftp://idp.test/", "http://", "http://u:p@idp.test/", "/path", "http://a b/"],
)
def test_fetch_invalid_url_rejected(url: str) -> None:
    with pytest.raises(FetchError, match=r"^not an http or https URL with a host$"):
        run_on(HttpClient(settings()).fetch(Fetch("GET", url)))
