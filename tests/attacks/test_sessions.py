"""Attacks on sessions, over the wire, in each place where they are kept.

Two workers share it; every look is a connection of its own, so that both are asked. The
same rows are played effect by effect in tests/core.
"""

from __future__ import annotations

import contextlib
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_for
from support.programs import find
from support.redis import RedisServer
from support.server import Answer, Wire

from .scene import HOST, Scene, keep, opened, set_cookies, target_of

NAME = "_oauth2_proxy"
ENDED_FROM_OUTSIDE = ("revocable", "redis", "sqlite")
PLACES = ("cookie", *ENDED_FROM_OUTSIDE)
LOOKS = 8  # connections; the kernel spreads them over the workers


class Store:
    """What somebody can do who gets at a store: by default there is none."""

    def options(self) -> dict[str, Any]:
        """What the configuration says of it."""
        return {}

    def keys(self) -> set[str]:
        """The keys of sessions."""
        return set()

    def move(self, source: str, target: str) -> None:
        """Put what is under one key under another."""


class Listed(Store):
    """Sessions in cookies, and a list of those that have ended."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "ended.db")

    def options(self) -> dict[str, Any]:
        return {"session_revocation": True, "sqlite_path": self.path}


class InRedis(Store):
    """Sessions in Redis."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def options(self) -> dict[str, Any]:
        return {"session_store_type": "redis", "redis_connection_url": self.server.url}

    def keys(self) -> set[str]:
        return set(self.server.ask("KEYS", f"{NAME}-*").split())

    def move(self, source: str, target: str) -> None:
        assert "1" in self.server.ask("COPY", source, target, "REPLACE")


class InFile(Store):
    """Sessions in SQLite."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sessions.db"

    def options(self) -> dict[str, Any]:
        return {"session_store_type": "sqlite", "sqlite_path": str(self.path)}

    def _do(self, text: str, *values: str) -> list[tuple[str]]:
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            return database.execute(text, values).fetchall()

    def keys(self) -> set[str]:
        rows = self._do(f"SELECT key FROM entry WHERE key LIKE '{NAME}-%'")
        return {key for (key,) in rows}

    def move(self, source: str, target: str) -> None:
        self._do(
            "INSERT OR REPLACE INTO entry SELECT ?, value, ends_at FROM entry "
            "WHERE key = ?",
            target,
            source,
        )


class Place:
    """A scene, and its store."""

    def __init__(self, kind: str, scene: Scene, store: Store) -> None:
        self.kind = kind
        self.scene = scene
        self.store = store

    def statuses(self, cookies: dict[str, str]) -> set[int]:
        """What auth checks with these cookies come to in all workers."""
        return {
            self.scene.ask("/oauth2/auth", cookies=cookies).status for _ in range(LOOKS)
        }

    def refused(self, cookies: dict[str, str]) -> None:
        """They let nobody in, neither here nor to the application."""
        assert self.statuses(cookies) == {401}
        self.scene.denied("/", cookies=cookies)


@contextlib.contextmanager
def placed(folder: Path, kind: str, **changes: Any) -> Iterator[Place]:
    """A scene with sessions of a kind."""
    with contextlib.ExitStack() as stack:
        store = Store()
        if kind == "revocable":
            store = Listed(folder)
        elif kind == "sqlite":
            store = InFile(folder)
        elif kind == "redis":
            if find("redis-server") is None:
                pytest.skip("redis-server isn't installed")
            store = InRedis(stack.enter_context(RedisServer(folder)))
        scene = stack.enter_context(opened(folder, **store.options(), **changes))
        yield Place(kind, scene, store)


@pytest.fixture(scope="module", params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Each of them."""
    with placed(tmp_path_factory.mktemp("sessions"), request.param) as made:
        yield made


def email_of(answer: Answer) -> str:
    return answer.headers.get("x-auth-request-email", "")


def test_ck01_ck02_forged_and_truncated(place: Place) -> None:
    jar = place.scene.log_in()
    value = jar[NAME]
    for at in range(0, len(value), max(1, len(value) // 12)):
        other = "A" if value[at] != "A" else "B"
        place.refused({NAME: value[:at] + other + value[at + 1 :]})
        place.refused({NAME: value[:at]})
    place.refused({NAME: value + "A"})
    place.refused({NAME: value + value})
    assert place.statuses(jar) == {202}


def test_ck04_lg07_of_another_purpose(place: Place) -> None:
    """A login's cookie is no session, and a session is no login."""
    scene = place.scene
    jar = scene.log_in()
    waiting: dict[str, str] = {}
    begun = scene.ask("/oauth2/start?rd=/")
    keep(waiting, begun)
    [(name, login)] = waiting.items()
    place.refused({NAME: login})
    before = scene.idp.count("token")
    callback = target_of(scene.idp.log_in(begun.headers["location"], "alice"))
    assert scene.ask(callback, cookies={name: jar[NAME]}).status == 403
    assert scene.idp.count("token") == before


def test_ck05_under_another_name(place: Place) -> None:
    value = place.scene.log_in()[NAME]
    for name in ("_other", NAME.upper(), NAME + "_csrf", NAME + "_1"):
        place.refused({name: value})


def test_ck14_st02_st05_swapped(place: Place) -> None:
    """Halves of two users' cookies are nobody's, nor are sessions that changed places."""
    jars: list[dict[str, str]] = []
    keys: list[str] = []
    for user in ("alice", "bob"):
        before = place.store.keys()
        jars.append(place.scene.log_in(user))
        keys += place.store.keys() - before
    one, two = (jar[NAME] for jar in jars)
    for at in (len(one) // 3, len(one) // 2, len(one) - 30):
        place.refused({NAME: one[:at] + two[at:]})
    assert [place.statuses(jar) for jar in jars] == [{202}, {202}]
    assert len(keys) == (2 if place.kind in ("redis", "sqlite") else 0)
    if keys:
        for source, target in ((keys[0], "x"), (keys[1], keys[0]), ("x", keys[1])):
            place.store.move(source, target)
        fresh = place.scene.log_in()  # whatever a cache may hold of before
        assert place.statuses(fresh) == {202}
        for jar in jars:
            for _ in range(LOOKS):
                answer = place.scene.ask("/oauth2/auth", cookies=jar)
                user = ("alice", "bob")[jars.index(jar)]
                assert email_of(answer) in ("", f"{user}@example.com")


def test_ck23_planted_before_a_login(place: Place) -> None:
    """Who gave a browser a session of theirs is not in the one that it gets."""
    scene = place.scene
    planted = scene.log_in("alice")
    jar = dict(planted)
    begun = scene.ask("/oauth2/start?rd=/", cookies=jar)
    keep(jar, begun)
    callback = target_of(scene.idp.log_in(begun.headers["location"], "bob"))
    keep(jar, scene.ask(callback, cookies=jar))
    assert jar[NAME] != planted[NAME]
    for _ in range(LOOKS):
        answer = scene.ask("/oauth2/auth", cookies=jar)
        assert email_of(answer) == "bob@example.com"
        answer = scene.ask("/oauth2/auth", cookies=planted)
        assert email_of(answer) != "bob@example.com"
        if place.kind != "cookie":  # the session that was replaced has ended
            assert answer.status == 401


def test_ck25_lo08_kept_after_signing_out(place: Place) -> None:
    scene = place.scene
    jar = scene.log_in()
    assert place.statuses(jar) == {202}
    copy = dict(jar)
    answer = scene.ask("/oauth2/sign_out", cookies=jar)
    assert answer.status == 302
    keep(jar, answer)
    assert NAME not in jar
    # As documented: copies of a cookie that nothing revokes live to their end.
    expected = {202} if place.kind == "cookie" else {401}
    wait_for(lambda: place.statuses(copy) == expected, "the end")
    if place.kind != "cookie":
        place.refused(copy)


def test_ck26_a_broken_one_is_cleared(place: Place) -> None:
    for target in ("/oauth2/sign_in", "/", "/oauth2/auth"):
        jar = {NAME: place.scene.log_in()[NAME][:-4]}
        keep(jar, place.scene.ask(target, cookies=jar))
        assert jar == {}


def test_lo07_signing_out_with_nothing(place: Place) -> None:
    for jar in ({}, {NAME: "garbage"}, {NAME: place.scene.log_in()[NAME][:-1]}):
        answer = place.scene.ask("/oauth2/sign_out", cookies=jar)
        assert answer.status == 302
        assert any(line.startswith(f"{NAME}=;") for line in set_cookies(answer))


@pytest.mark.parametrize("kind", ENDED_FROM_OUTSIDE)
def test_lo11_lo17_a_logout_token_ends_it_once(tmp_path: Path, kind: str) -> None:
    """Every session of the user is over in all workers; the token can't come again."""
    with placed(tmp_path, kind, backchannel_logout=True) as own:
        alice, bob = own.scene.log_in("alice"), own.scene.log_in("bob")
        assert own.statuses(alice) == own.statuses(bob) == {202}
        token = own.scene.idp.logout_token("alice")
        body = f"logout_token={token}".encode()
        posted: dict[str, Any] = {
            "method": "POST",
            "body": body,
            "content_type": "application/x-www-form-urlencoded",
        }
        target = "/oauth2/backchannel-logout"
        forged = {**posted, "body": body[:-6] + b"AAAAAA"}
        assert own.scene.ask(target, **forged).status == 400
        assert own.statuses(alice) == {202}
        assert own.scene.ask(target, **posted).status == 200
        wait_for(lambda: own.statuses(alice) == {401}, "the end")
        assert own.statuses(bob) == {202}
        assert {own.scene.ask(target, **posted).status for _ in range(LOOKS)} == {400}


def test_az29_nobody_gets_the_answer_of_somebody_else(place: Place) -> None:
    """Two users in turn on the same connections: each is who they are."""
    scene = place.scene
    users = {user: scene.log_in(user) for user in ("alice", "bob")}
    for _ in range(LOOKS):
        with Wire(scene.program.port) as wire:
            for user, jar in [*users.items()] * 3:
                wire.send(
                    f"GET /oauth2/auth HTTP/1.1\r\nHost: {HOST}\r\n"
                    f"Cookie: {NAME}={jar[NAME]}\r\n\r\n"
                    f"GET /oauth2/auth HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
                )
                answer, stranger = wire.answer(), wire.answer()
                assert email_of(answer) == f"{user}@example.com"
                assert (stranger.status, email_of(stranger)) == (401, "")


@pytest.mark.parametrize("kind", ENDED_FROM_OUTSIDE)
def test_lo26_an_open_websocket_ends_with_its_session(
    tmp_path: Path, kind: str
) -> None:
    """Signed out while it is open: it ends within the interval."""
    with sockets() as port:
        changes = {
            "upstreams": [f"http://127.0.0.1:{port}/"],
            "upgrade_check_interval": "200ms",
        }
        with placed(tmp_path, kind, **changes) as own:
            jar = own.scene.log_in()
            with Wire(own.scene.program.port) as wire:
                wire.send(
                    f"GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\n"
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    f"Cookie: {NAME}={jar[NAME]}\r\n\r\n".encode()
                )
                assert wire.answer().status == 101
                wire.send(b"ping")
                assert wire.take(4) == b"ping"
                assert own.scene.ask("/oauth2/sign_out", cookies=jar).status == 302
                assert wire.rest() == b""


class _Echo(socketserver.BaseRequestHandler):
    """Switches protocols and sends back whatever comes."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(4096)
            if not data:
                return
            head += data
        self.request.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        while data := self.request.recv(4096):
            self.request.sendall(data)


@contextlib.contextmanager
def sockets() -> Iterator[int]:
    """The port of an application with WebSockets."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
