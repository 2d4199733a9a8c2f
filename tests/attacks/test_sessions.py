"""Attacks on sessions over the network, with each session backend.

Two workers share the backend, and checks go to both. tests/core has the same rows
effect by effect.
"""

from __future__ import annotations

import contextlib
import re
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import workers
from support.processes import wait_for
from support.programs import find
from support.redis import RedisServer
from support.server import Answer, Wire

from .harness import (
    HOST,
    Harness,
    running_harness,
    set_cookies,
    store_cookies,
    target_of,
)

NAME = "_oauth2_proxy"
REVOCABLE = ("revocable", "redis", "sqlite")
BACKENDS = ("cookie", *REVOCABLE)


class Store:
    """Direct access to a session store. This one stands for no store."""

    def options(self) -> dict[str, Any]:
        """Return the options that select it."""
        return {}

    def keys(self) -> set[str]:
        """Return the keys of the stored sessions."""
        return set()

    def move(self, source: str, target: str) -> None:
        """Copy the value of key *source* to key *target*."""


class RevocationList(Store):
    """Cookie sessions with a list of revoked sessions."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "revoked.db")

    def options(self) -> dict[str, Any]:
        return {"session_revocation": True, "sqlite_path": self.path}


class RedisStore(Store):
    """Sessions in Redis."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def options(self) -> dict[str, Any]:
        return {"session_store_type": "redis", "redis_connection_url": self.server.url}

    def keys(self) -> set[str]:
        return set(self.server.ask("KEYS", f"{NAME}-{'[0-9a-f]' * 32}").split())

    def move(self, source: str, target: str) -> None:
        assert "1" in self.server.ask("COPY", source, target, "REPLACE")


class SqliteStore(Store):
    """Sessions in a SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sessions.db"

    def options(self) -> dict[str, Any]:
        return {"session_store_type": "sqlite", "sqlite_path": str(self.path)}

    def _execute(self, text: str, *values: str) -> list[tuple[str]]:
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            return database.execute(text, values).fetchall()

    def keys(self) -> set[str]:
        pattern = f"{NAME}-{'[0-9a-f]' * 32}"
        rows = self._execute("SELECT key FROM entry WHERE key GLOB ?", pattern)
        return {key for (key,) in rows}

    def move(self, source: str, target: str) -> None:
        self._execute(
            "INSERT OR REPLACE INTO entry SELECT ?, value, ends_at FROM entry "
            "WHERE key = ?",
            target,
            source,
        )


class Sessions:
    """A harness and its session store."""

    def __init__(self, kind: str, harness: Harness, store: Store) -> None:
        self.kind = kind
        self.harness = harness
        self.store = store

    def statuses(self, cookies: dict[str, str]) -> set[int]:
        """Return the statuses of auth checks with *cookies* at all workers."""
        return {response.status for response in self.check_each(cookies)}

    def check_each(self, cookies: dict[str, str]) -> list[Answer]:
        """Return the auth checks of all workers for *cookies*."""
        return self.harness.request_each("/oauth2/auth", cookies=cookies)

    def assert_rejected(self, cookies: dict[str, str]) -> None:
        """Assert that all workers reject *cookies* and forward nothing."""
        assert self.statuses(cookies) == {401}
        self.harness.assert_denied("/", cookies=cookies)


@contextlib.contextmanager
def running_sessions(folder: Path, kind: str, **changes: Any) -> Iterator[Sessions]:
    """A harness with the session backend *kind*."""
    with contextlib.ExitStack() as stack:
        store = Store()
        if kind == "revocable":
            store = RevocationList(folder)
        elif kind == "sqlite":
            store = SqliteStore(folder)
        elif kind == "redis":
            if find("redis-server") is None:
                pytest.skip("redis-server is not installed")
            store = RedisStore(stack.enter_context(RedisServer(folder)))
        harness = stack.enter_context(
            running_harness(folder, **store.options(), **changes)
        )
        yield Sessions(kind, harness, store)


@pytest.fixture(scope="module", params=BACKENDS)
def sessions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sessions]:
    """A harness with each session backend."""
    with running_sessions(tmp_path_factory.mktemp("sessions"), request.param) as made:
        yield made


def email_of(response: Answer) -> str:
    return response.headers.get("x-auth-request-email", "")


def test_ck01_ck02_forged_or_truncated_cookie_rejected(sessions: Sessions) -> None:
    jar = sessions.harness.log_in()
    value = jar[NAME]
    for position in range(0, len(value), max(1, len(value) // 12)):
        other = "A" if value[position] != "A" else "B"
        sessions.assert_rejected(
            {NAME: value[:position] + other + value[position + 1 :]}
        )
        sessions.assert_rejected({NAME: value[:position]})
    sessions.assert_rejected({NAME: value + "A"})
    sessions.assert_rejected({NAME: value + value})
    assert sessions.statuses(jar) == {202}


def test_ck04_lg07_cookie_of_another_purpose_rejected(sessions: Sessions) -> None:
    """A login state is not a session, and a session is not a login state."""
    harness = sessions.harness
    jar = harness.log_in()
    login_cookies: dict[str, str] = {}
    started = harness.request("/oauth2/start?rd=/")
    store_cookies(login_cookies, started)
    [(name, login)] = login_cookies.items()
    sessions.assert_rejected({NAME: login})
    before = harness.idp.count("token")
    callback = target_of(harness.idp.log_in(started.headers["location"], "alice"))
    assert harness.request(callback, cookies={name: jar[NAME]}).status == 403
    assert harness.idp.count("token") == before


def test_ck05_cookie_under_another_name_rejected(sessions: Sessions) -> None:
    value = sessions.harness.log_in()[NAME]
    for name in ("_other", NAME.upper(), NAME + "_csrf", NAME + "_1"):
        sessions.assert_rejected({name: value})


def test_ck14_st02_st05_mixed_or_swapped_sessions_rejected(sessions: Sessions) -> None:
    """Neither halves of two cookies nor stored sessions under swapped keys are valid."""
    jars: list[dict[str, str]] = []
    keys: list[str] = []
    for user in ("alice", "bob"):
        before = sessions.store.keys()
        jars.append(sessions.harness.log_in(user))
        keys += sessions.store.keys() - before
    one, two = (jar[NAME] for jar in jars)
    for position in (len(one) // 3, len(one) // 2, len(one) - 30):
        sessions.assert_rejected({NAME: one[:position] + two[position:]})
    assert [sessions.statuses(jar) for jar in jars] == [{202}, {202}]
    assert len(keys) == (2 if sessions.kind in ("redis", "sqlite") else 0)
    if keys:
        for source, target in ((keys[0], "x"), (keys[1], keys[0]), ("x", keys[1])):
            sessions.store.move(source, target)
        fresh = sessions.harness.log_in()  # evicts nothing, but passes the caches
        assert sessions.statuses(fresh) == {202}
        for jar in jars:
            for response in sessions.check_each(jar):
                user = ("alice", "bob")[jars.index(jar)]
                assert email_of(response) in ("", f"{user}@example.com")


def test_ck23_planted_session_replaced_by_login(sessions: Sessions) -> None:
    """Session fixation: a planted session does not become the victim's session."""
    harness = sessions.harness
    planted = harness.log_in("alice")
    jar = dict(planted)
    started = harness.request("/oauth2/start?rd=/", cookies=jar)
    store_cookies(jar, started)
    callback = target_of(harness.idp.log_in(started.headers["location"], "bob"))
    store_cookies(jar, harness.request(callback, cookies=jar))
    assert jar[NAME] != planted[NAME]
    for response in sessions.check_each(jar):
        assert email_of(response) == "bob@example.com"
    for response in sessions.check_each(planted):
        assert email_of(response) != "bob@example.com"
        if sessions.kind != "cookie":  # the replaced session is revoked
            assert response.status == 401


def test_ck25_lo08_copied_cookie_after_sign_out_rejected(sessions: Sessions) -> None:
    harness = sessions.harness
    jar = harness.log_in()
    assert sessions.statuses(jar) == {202}
    copy = dict(jar)
    response = harness.request("/oauth2/sign_out", cookies=jar)
    assert response.status == 302
    store_cookies(jar, response)
    assert NAME not in jar
    # As documented: without revocation, a copied cookie stays valid until it expires.
    expected = {202} if sessions.kind == "cookie" else {401}
    wait_for(lambda: sessions.statuses(copy) == expected, "the revocation")
    if sessions.kind != "cookie":
        sessions.assert_rejected(copy)


def test_ou17_rejected_sessions_get_equal_responses(sessions: Sessions) -> None:
    """Forged, truncated, foreign and ended sessions cannot be told apart."""
    harness = sessions.harness
    jar = harness.log_in()
    value, ended = jar[NAME], dict(jar)
    rejected = [{NAME: "A" * len(value)}, {NAME: value[:-5]}, {NAME: value[::-1]}]
    if sessions.kind != "cookie":
        assert harness.request("/oauth2/sign_out", cookies=jar).status == 302
        wait_for(lambda: sessions.statuses(ended) == {401}, "the revocation")
        rejected.append(ended)
    responses = {
        re.sub(
            rb"(?im)^(date|x-request-id): .*\r\n", b"", response.head + response.body
        )
        for cookies in rejected
        for response in sessions.check_each(cookies)
    }
    assert len(responses) == 1, responses


def test_ck26_invalid_cookie_cleared(sessions: Sessions) -> None:
    for target in ("/oauth2/sign_in", "/", "/oauth2/auth"):
        jar = {NAME: sessions.harness.log_in()[NAME][:-4]}
        store_cookies(jar, sessions.harness.request(target, cookies=jar))
        assert jar == {}


def test_lo07_sign_out_without_session_clears_cookies(sessions: Sessions) -> None:
    for jar in ({}, {NAME: "garbage"}, {NAME: sessions.harness.log_in()[NAME][:-1]}):
        response = sessions.harness.request("/oauth2/sign_out", cookies=jar)
        assert response.status == 302
        assert any(line.startswith(f"{NAME}=;") for line in set_cookies(response))


@pytest.mark.parametrize("kind", REVOCABLE)
def test_lo11_lo17_logout_token_revokes_sessions_once(
    tmp_path: Path, kind: str
) -> None:
    """All workers revoke the user's sessions; a replayed token is rejected."""
    with running_sessions(tmp_path, kind, backchannel_logout=True) as running:
        alice, bob = running.harness.log_in("alice"), running.harness.log_in("bob")
        assert running.statuses(alice) == running.statuses(bob) == {202}
        token = running.harness.idp.logout_token("alice")
        body = f"logout_token={token}".encode()
        posted: dict[str, Any] = {
            "method": "POST",
            "body": body,
            "content_type": "application/x-www-form-urlencoded",
        }
        target = "/oauth2/backchannel-logout"
        forged = {**posted, "body": body[:-6] + b"AAAAAA"}
        assert running.harness.request(target, **forged).status == 400
        assert running.statuses(alice) == {202}
        assert running.harness.request(target, **posted).status == 200
        wait_for(lambda: running.statuses(alice) == {401}, "the revocation")
        assert running.statuses(bob) == {202}
        replays = running.harness.request_each(target, **posted)
        assert {response.status for response in replays} == {400}


def test_az29_responses_on_one_connection_belong_to_their_sessions(
    sessions: Sessions,
) -> None:
    """Two users and an unauthenticated client take turns on one connection."""
    harness = sessions.harness
    users = {user: harness.log_in(user) for user in ("alice", "bob")}
    with workers.connections(harness.program, harness.program.port) as wires:
        for wire in wires:
            for user, jar in [*users.items()] * 3:
                wire.send(
                    f"GET /oauth2/auth HTTP/1.1\r\nHost: {HOST}\r\n"
                    f"Cookie: {NAME}={jar[NAME]}\r\n\r\n"
                    f"GET /oauth2/auth HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
                )
                response, anonymous = wire.answer(), wire.answer()
                assert email_of(response) == f"{user}@example.com"
                assert (anonymous.status, email_of(anonymous)) == (401, "")


@pytest.mark.parametrize("kind", REVOCABLE)
def test_lo26_sign_out_closes_an_open_websocket(tmp_path: Path, kind: str) -> None:
    """The next session check of the WebSocket closes it."""
    with websocket_app() as port:
        changes = {
            "upstreams": [f"http://127.0.0.1:{port}/"],
            "upgrade_check_interval": "200ms",
        }
        with running_sessions(tmp_path, kind, **changes) as running:
            jar = running.harness.log_in()
            with Wire(running.harness.program.port) as wire:
                wire.send(
                    f"GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\n"
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    f"Cookie: {NAME}={jar[NAME]}\r\n\r\n".encode()
                )
                assert wire.answer().status == 101
                wire.send(b"ping")
                assert wire.take(4) == b"ping"
                assert (
                    running.harness.request("/oauth2/sign_out", cookies=jar).status
                    == 302
                )
                assert wire.rest() == b""


class _Echo(socketserver.BaseRequestHandler):
    """Switch protocols, then echo all bytes."""

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
def websocket_app() -> Iterator[int]:
    """The port of an application that accepts WebSockets."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
