"""Connection pool: limit, idle connections, reload, TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from authproxy.net.tls import upstream_context
from authproxy.server_settings import ForwardSettings
from authproxy.upstream.forwarder import Forwarder
from authproxy.upstream.pool import UpstreamPool
from authproxy_core.effects import Outcome
from authproxy_core.errors import SettingsError
from authproxy_core.messages import Forward, Request, Upstream
from support.certificates import make_certificate
from support.scripted import Peer, ScriptedServer, run
from support.server import Server, Wire, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


async def respond_all(peer: Peer) -> None:
    """Respond to all requests."""
    while True:
        await peer.request()
        await peer.answer(b"ok")


def upstream(port: int, **changes: object) -> Upstream:
    plain = Upstream("app", "http", "127.0.0.1", port, "", 5.0)
    return replace(plain, **changes)


def run_with_pool(
    work: Callable[[UpstreamPool], Awaitable[None]],
    settings: ForwardSettings,
    **changes: object,
) -> int:
    """Run *work* with a pool; return the number of connections made."""

    async def main() -> int:
        async with ScriptedServer(respond_all) as played:
            pool = UpstreamPool(upstream(played.port, **changes), None, settings)
            try:
                await work(pool)
            finally:
                pool.retire()
                for stream in list(pool.streams):
                    stream.abort()
                    await stream.closed.wait()
            return played.connections

    return run(main())


def test_pool_at_limit_queues_connect() -> None:
    async def work(pool: UpstreamPool) -> None:
        first, second = await pool.connect(), await pool.connect()
        assert pool.is_full
        waiting = [asyncio.ensure_future(pool.connect()) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        first.abort()  # its end frees a slot
        await waiting[0]
        pool.release(second)  # closed, because the waiters want new connections
        await waiting[1]
        assert second.transport.is_closing()

    run_with_pool(work, ForwardSettings(connections=2))


def test_pool_waiter_gets_released_connection() -> None:
    async def work(pool: UpstreamPool) -> None:
        stream = await pool.connect()
        for _ in range(20):
            waiting = asyncio.ensure_future(pool.connect(retryable=True))
            await asyncio.sleep(0)
            pool.release(stream)
            assert await waiting is stream
            assert stream.idle_since > 0.0
        stream.abort()

    run_with_pool(work, ForwardSettings(connections=1))


def test_pool_canceled_waiter_wakes_next() -> None:
    async def work(pool: UpstreamPool) -> None:
        only = await pool.connect()
        first, second = (asyncio.ensure_future(pool.connect()) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        only.abort()
        await second

    run_with_pool(work, ForwardSettings(connections=1))


def test_pool_failed_connect_frees_slot() -> None:
    async def work(pool: UpstreamPool) -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="No such file"):
                await pool.connect()
        assert not pool.is_full

    run_with_pool(work, ForwardSettings(connections=1), unix="/nowhere")


def test_pool_idle_connections_are_limited_and_time_out() -> None:
    async def work(pool: UpstreamPool) -> None:
        one, two, three = [await pool.connect() for _ in range(3)]
        for stream in (one, two, three):
            pool.release(stream)
        assert three.transport.is_closing()
        assert pool.acquire(retryable=True) is two
        assert pool.acquire(retryable=True) is one
        pool.release(one)
        await asyncio.sleep(0.3)
        assert one.transport.is_closing()
        assert pool.acquire(retryable=True) is None

    run_with_pool(work, ForwardSettings(idle_connections=2, idle_timeout=0.1))


def test_pool_keep_alive_disabled() -> None:
    def handle(request: Request) -> Outcome:
        return Forward(app, request.method, request.target, tuple(request.headers))

    async def main() -> int:
        nonlocal app
        async with ScriptedServer(respond_all) as played:
            app = upstream(played.port, keep_alive=False)
            await asyncio.to_thread(talk)
            return played.connections

    def talk() -> None:
        with Server(handle) as server, Wire(server.port) as wire:
            for _ in range(3):
                wire.send(GET)
                assert wire.answer().body == b"ok"

    app = upstream(1)
    assert run(main()) == 3


def test_pool_full_gets_busy() -> None:
    arrived: list[Peer] = []

    async def silent(peer: Peer) -> None:
        arrived.append(peer)
        await peer.gone()

    def handle(request: Request) -> Outcome:
        return Forward(app, request.method, request.target, tuple(request.headers))

    def talk() -> None:
        settings = ForwardSettings(connections=1, connect_timeout=0.1)
        with Server(handle) as server, Wire(server.port) as one:
            forwarder = Forwarder(settings)
            server.context.forwarder = forwarder
            one.send(GET)
            until(lambda: arrived, "the first request")
            with Wire(server.port) as two:
                two.send(GET)
                assert two.answer().body == b"busy"
            server.logged("no free connection after 0.1 s")

    async def main() -> None:
        nonlocal app
        async with ScriptedServer(silent) as played:
            app = upstream(played.port)
            await asyncio.to_thread(talk)

    app = upstream(1)
    run(main())


def test_pool_reload_uses_new_connections() -> None:
    def handle(request: Request) -> Outcome:
        return Forward(app, request.method, request.target, tuple(request.headers))

    def talk(wire: Wire) -> None:
        wire.send(GET)
        assert wire.answer().body == b"ok"

    async def main() -> None:
        nonlocal app
        async with ScriptedServer(respond_all) as played:
            app = upstream(played.port)
            await asyncio.to_thread(reload, played)

    def reload(played: ScriptedServer) -> None:
        nonlocal app
        with Server(handle) as server, Wire(server.port) as wire:
            talk(wire)
            app = replace(app)  # equal: the connection is reused
            talk(wire)
            talk(wire)
            old = app
            for timeout in (6.0, 7.0):
                app = replace(app, timeout=timeout)
                talk(wire)
            assert played.connections == 3
            # A request from before the reloads uses the pool of its upstream.
            new, app = app, old
            talk(wire)
            assert played.connections == 4
            app = new
            talk(wire)
            assert played.connections == 4
            app = replace(old)  # changed back: its pool is in use again
            talk(wire)
            talk(wire)
            assert played.connections == 4

    app = upstream(1)
    run(main())


# TLS


def over_tls(folder: Path, name: str, **changes: object) -> int:
    """Return the status of a request to an upstream with a certificate for *name*."""
    certificate = make_certificate(folder, name)

    def handle(request: Request) -> Outcome:
        return Forward(app, request.method, request.target, tuple(request.headers))

    def talk() -> int:
        with Server(handle) as server, Wire(server.port) as wire:
            wire.send(GET)
            return wire.answer().status

    async def main() -> int:
        nonlocal app
        context = certificate.server_context()
        async with ScriptedServer(respond_all, tls=context) as played:
            app = upstream(played.port, scheme="https", host="localhost")
            ca_pem = Path(certificate.cert_file).read_text()
            changed = {"ca_pem": ca_pem, "trust_system": False, **changes}
            app = replace(app, **changed)
            return await asyncio.to_thread(talk)

    app = upstream(1)
    return run(main())


def test_pool_tls_trusted_certificate_accepted(tmp_path: Path) -> None:
    assert over_tls(tmp_path, "localhost") == 200
    assert over_tls(tmp_path, "app.internal", server_name="app.internal") == 200


def test_pool_tls_untrusted_certificate_rejected(tmp_path: Path) -> None:
    assert over_tls(tmp_path, "app.internal") == 502
    assert over_tls(tmp_path, "localhost", server_name="app.internal") == 502
    for system in (False, True):
        other = make_certificate(tmp_path, "other").cert_file
        pem = Path(other).read_text()
        assert over_tls(tmp_path, "localhost", ca_pem=pem, trust_system=system) == 502
    assert over_tls(tmp_path, "localhost", ca_pem="", trust_system=True) == 502
    assert over_tls(tmp_path, "localhost", ca_pem="", verify=False) == 200


def test_upstream_context_invalid_ca_raises() -> None:
    with pytest.raises(SettingsError, match="'app': its CA certificates are not PEM"):
        upstream_context(upstream(1, ca_pem="nothing"))
