"""Fast path: requests over an idle connection, without a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Headers, Request, Upstream
from support.scripted import Peer, ScriptedServer, Seen, run
from support.server import Answer, Server, Wire, until

Act = Callable[[Peer, Seen], Awaitable[None]]
COOKIE: Headers = ((b"set-cookie", b"renewed=1"),)
NAMED: Headers = ((b"gap-auth", b"alice"),)
IDENTITY: Headers = ((b"x-forwarded-user", b"alice"), (b"proxy-authorization", b"x"))
OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"\r\nConnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture(params=["new", "reused", "reused cookies"], autouse=True)
def added(request: pytest.FixtureRequest) -> str:
    """The fields that authproxy adds: new ones, or a tuple that the core reuses."""
    Scene.added = request.param
    return Scene.added


class Scene:
    """An upstream that runs *act* for the second request."""

    added = "new"

    def __init__(self, act: Act) -> None:
        self.act = act
        self.seen: list[tuple[int, Seen]] = []
        self._connections = 0

    async def __call__(self, peer: Peer) -> None:
        self._connections += 1
        number = self._connections
        while True:
            seen = await peer.request()
            self.seen.append((number, seen))
            if len(self.seen) == 2:
                await self.act(peer, seen)
            else:
                await peer.answer(b"plain")


def with_idle_connection(
    act: Act, talk: Callable[[Server, Wire], None], *, timeout: float = 10.0
) -> Scene:
    """Run *talk* when one connection to the upstream is idle."""
    scene = Scene(act)

    async def main() -> None:
        async with ScriptedServer(scene) as played:
            upstream = Upstream("app", "http", "127.0.0.1", played.port, "", timeout)
            await asyncio.to_thread(talking, upstream)

    def talking(upstream: Upstream) -> None:
        def handle(request: Request) -> Outcome:
            host = [field for field in request.headers if field[0] == b"host"]
            return Forward(
                upstream,
                request.method,
                request.target,
                (*host, *IDENTITY),
                NAMED if Scene.added == "reused" else COOKIE,
                identity=IDENTITY,
                reusable=Scene.added != "new",
            )

        with Server(handle) as server, Wire(server.port) as wire:
            wire.send(GET)
            assert wire.answer().body == b"plain"
            talk(server, wire)

    run(main())
    return scene


def second_response(act: Act, data: bytes = GET, *, timeout: float = 10.0) -> Answer:
    """Return the response to *data* from an upstream that runs *act*."""
    responses: list[Answer] = []

    def talk(server: Server, wire: Wire) -> None:
        wire.send(data)
        responses.append(wire.answer(head_only=data.startswith(b"HEAD")))
        if responses[0].headers.get("connection") == "close":
            assert wire.ended
            return
        wire.send(GET)
        assert wire.answer().body == b"plain"
        until(lambda: not server.context.tasks, "the end of all tasks")

    scene = with_idle_connection(act, talk, timeout=timeout)
    assert scene.seen[1][0] == 1  # the same connection
    return responses[0]


def responds(*pieces: bytes) -> Act:
    """Return an act that sends *pieces* in separate packets."""

    async def act(peer: Peer, seen: Seen) -> None:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.02)
            await peer.send(piece)

    return act


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b"content-length: 3\r\n\r\nabc"], b"abc"),
        ([b"content-length: 0\r\n\r\n"], b""),
        ([b"content-length: 3\r\n\r\n", b"ab", b"c"], b"abc"),
        ([b"content-le", b"ngth: 3\r\n\r\nabc"], b"abc"),
        ([b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"], b"abc"),
        ([b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"], b""),
        ([b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"], b"abc"),
        ([b"content-length: 200000\r\n\r\n" + b"x" * 200_000], b"x" * 200_000),
    ],
)  # fmt: skip
def test_fast_path_response_framings(
    pieces: list[bytes], body: bytes, added: str
) -> None:
    response = second_response(responds(OK + pieces[0], *pieces[1:]))
    assert (response.status, response.body) == (200, body)
    name, value = (
        ("gap-auth", "alice") if added == "reused" else ("set-cookie", "renewed=1")
    )
    assert response.headers[name] == value
    assert "connection" not in response.headers


@pytest.mark.parametrize("field", [b"x: a\r\n", b"date: yesterday\r\n"])
def test_fast_path_upstream_date_kept(field: bytes) -> None:
    response = second_response(responds(OK + field + b"content-length: 0\r\n\r\n"))
    assert (response.headers["date"] == "yesterday") == (b"date" in field)


def test_fast_path_added_cookies_last_and_added_fields_first(added: str) -> None:
    from_upstream = b"gap-auth: mallory\r\nset-cookie: renewed=upstream\r\n"

    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET.replace(b"\r\n\r\n", CLOSE))
        text = wire.rest()
        cookie, name = text.rfind(b"Set-Cookie:"), text.find(b"Gap-Auth:")
        if added == "reused":
            assert text[name:].startswith(b"Gap-Auth: alice\r\n")
        else:
            assert text[cookie:].startswith(b"Set-Cookie: renewed=1\r\n")

    with_idle_connection(
        responds(OK + from_upstream + b"content-length: 0\r\n\r\n"), talk
    )


def test_fast_path_response_trailers() -> None:
    data = OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert second_response(responds(data)).trailers == {"x-sum": "1"}


def test_fast_path_informational_relayed() -> None:
    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET)
        assert wire.answer().status == 103
        assert wire.answer().body == b"x"

    early = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"
    with_idle_connection(responds(early + OK + b"content-length: 1\r\n\r\nx"), talk)


def test_fast_path_head_request() -> None:
    data = OK + b"content-length: 3\r\n\r\n"
    response = second_response(responds(data), b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert response.headers["content-length"] == "3"


@pytest.mark.parametrize("status", [b"204 No", b"304 Not"])
def test_fast_path_response_without_body(status: bytes) -> None:
    response = second_response(responds(b"HTTP/1.1 " + status + b"\r\n\r\n"))
    assert response.body == b""


@pytest.mark.parametrize(
    "data",
    [
        OK + b"connection: close\r\ncontent-length: 1\r\n\r\nx",
        OK + b"content-length: 1\r\n\r\nxHTTP/1.1 500 No\r\n\r\n",
    ],
)
def test_fast_path_connection_not_reused(data: bytes) -> None:
    def talk(server: Server, wire: Wire) -> None:
        for _ in range(2):
            wire.send(GET)
            assert wire.answer().status == 200

    scene = with_idle_connection(responds(data), talk)
    scene_numbers = [number for number, _ in scene.seen]
    assert scene_numbers == [1, 1, 2]


def test_fast_path_small_body_sent() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        assert (seen.method, seen.body) == (b"POST", b"abc")
        assert seen.values(b"content-length") == [b"3"]
        assert seen.values(b"x-forwarded-user") == [b"alice"]
        assert seen.values(b"proxy-authorization") == []
        await peer.answer(b"done")

    assert second_response(act, POST).body == b"done"


def test_fast_path_incomplete_body_uses_task() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        await peer.answer(seen.body)

    def talk(server: Server, wire: Wire) -> None:
        wire.send(POST[:-1])
        until(lambda: server.context.tasks, "a task")
        wire.send(POST[-1:])
        assert wire.answer().body == b"abc"

    with_idle_connection(act, talk)


def test_fast_path_http_1_0_client() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")

    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET.replace(b"1.1", b"1.0"))
        assert wire.rest().endswith(b"\r\n\r\nx")

    with_idle_connection(act, talk)


async def closes(peer: Peer, seen: Seen) -> None:
    """Close the connection instead of responding."""
    peer.writer.close()
    await peer.gone()


async def resets(peer: Peer, seen: Seen) -> None:
    """Reset the connection instead of responding."""
    peer.reset()
    await peer.gone()


@pytest.mark.parametrize("act", [closes, resets])
def test_fast_path_stale_connection_is_retried(act: Act) -> None:
    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET)
        assert wire.answer().body == b"plain"
        wire.send(GET)
        assert wire.answer().body == b"plain"

    scene = with_idle_connection(act, talk)
    assert [number for number, _ in scene.seen] == [1, 1, 2, 2]


def test_fast_path_post_is_not_retried() -> None:
    response = second_response(closes, POST)
    assert (response.status, response.body) == (502, b"closed_early")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-x\r\n", b"malformed_answer"),
        (OK + b"content-length: x\r\n\r\n", b"malformed_answer"),
        (
            b"HTTP/1.1 101 Go\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            b"malformed_",
        ),
        (OK + b"x: " + b"y" * 300_000 + b"\r\n\r\n", b"head_too_large"),
    ],
)
def test_fast_path_malformed_response_gets_502(data: bytes, reason: bytes) -> None:
    response = second_response(responds(data))
    assert response.status == 502
    assert response.body.startswith(reason)


def test_fast_path_incomplete_response_aborts_client() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        await peer.send(OK + b"content-length: 5\r\n\r\nab")
        peer.writer.close()
        await peer.gone()

    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET)
        assert wire.rest().endswith(b"\r\n\r\nab")
        server.logged("closed_early while receiving the response")

    with_idle_connection(act, talk)


def test_fast_path_no_response_gets_504() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        await peer.gone()

    response = second_response(act, timeout=1.0)
    assert (response.status, response.body) == (504, b"timeout")


@pytest.mark.parametrize("how", ["close", "half-close"])
def test_fast_path_disconnect_closes_upstream(how: str) -> None:
    arrived, gone = threading.Event(), threading.Event()

    async def act(peer: Peer, seen: Seen) -> None:
        arrived.set()
        await peer.gone()
        gone.set()

    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET)
        assert arrived.wait(5)
        if how == "close":
            wire.socket.close()
        else:
            wire.socket.shutdown(1)
        assert gone.wait(5)
        until(lambda: not server.context.connections, "the end of the connection")

    with_idle_connection(act, talk)


def test_fast_path_pipelined_requests_in_order() -> None:
    async def act(peer: Peer, seen: Seen) -> None:
        await peer.answer(b"slow")

    def talk(server: Server, wire: Wire) -> None:
        wire.send(GET * 3)
        assert [wire.answer().body for _ in range(3)] == [b"slow", b"plain", b"plain"]

    with_idle_connection(act, talk)
