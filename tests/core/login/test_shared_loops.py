"""Login loops across processes: each request of the browser may reach another one."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authproxy_core import Load, Respond, Save, SessionSettings
from authproxy_core.login.loop_guard import (
    LOOP_THRESHOLD,
    REPEAT_WINDOW,
    SIGNED_IN_THRESHOLD,
    SIGNED_IN_WINDOW,
)
from support.fleet import Fleet
from support.harness import header, settings, target_of

PAGE = (
    (b"accept", b"text/html"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
)
KINDS = {
    "cookie": SessionSettings(shared=True),
    "revocable": SessionSettings(shared=True, revocable=True),
    "ticket": SessionSettings(shared=True, backend="store"),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))
SIZE = 4  # processes


class Scene:
    """A browser whose requests reach the processes in turn."""

    def __init__(self, kind: str = "cookie", **changes: Any) -> None:
        self.fleet = Fleet(settings(sessions=KINDS[kind], **changes), size=SIZE)
        self.jar: dict[bytes, bytes] = {}
        self.requests = 0

    def get(
        self, target: str, *fields: Any, jar: dict[bytes, bytes] | None = None
    ) -> Respond:
        process = self.fleet[self.requests % SIZE]
        self.requests += 1
        return process.get(target, *fields, jar=self.jar if jar is None else jar)

    def start(self) -> str:
        """Start a login and log in at the provider; return the callback's target."""
        response = self.get("/oauth2/start?rd=/deep")
        assert response.status == 302, response
        location = header(response, b"location").decode()
        return target_of(self.fleet.idp.log_in(location, "bob"))

    def later(self, seconds: float) -> None:
        self.fleet.clock.now += seconds


def denied_statuses(scene: Scene, count: int, pause: float = 1.0) -> list[int]:
    """Return the statuses of *count* callbacks; the gateway drops their cookies."""
    statuses = []
    for _ in range(count):
        target = scene.start()
        statuses.append(scene.get(target, *PAGE, jar=dict(scene.jar)).status)
        scene.later(pause)
    return statuses


@kinds
def test_denied_login_loop_ends_at_threshold_whatever_process_responds(
    kind: str,
) -> None:
    scene = Scene(kind, email_domains=("other.example",))
    expected = [403] * (LOOP_THRESHOLD - 1) + [429] * 3
    assert denied_statuses(scene, LOOP_THRESHOLD + 2) == expected
    scene.later(REPEAT_WINDOW)
    assert denied_statuses(scene, 1) == [403]


def test_denied_logins_that_are_rare_are_no_loop() -> None:
    scene = Scene(email_domains=("other.example",))
    assert set(denied_statuses(scene, 6, REPEAT_WINDOW + 1)) == {403}


def test_lost_login_loop_ends_at_threshold_whatever_process_responds() -> None:
    scene = Scene()
    statuses = []
    for _ in range(LOOP_THRESHOLD):
        target = scene.start()
        [state] = parse_qs(urlsplit(target).query)["state"]
        target = target.replace(state, f"{state}.again")
        statuses.append(scene.get(target, *PAGE, jar={}).status)
    assert statuses == [403] * (LOOP_THRESHOLD - 1) + [429]


def test_flood_of_lost_logins_causes_few_store_operations() -> None:
    scene = Scene()
    [state] = parse_qs(urlsplit(scene.start()).query)["state"]
    scene.fleet.store.seen.clear()
    for _ in range(100):
        target = f"/oauth2/callback?code=x&state={state}.again"
        assert scene.get(target, *PAGE, jar={}).status in (403, 429)
    assert scene.fleet.store.count(Save) <= SIZE * LOOP_THRESHOLD
    assert scene.fleet.store.count(Load) <= SIZE * LOOP_THRESHOLD


@kinds
def test_login_loop_without_session_ends_at_threshold_whatever_process_responds(
    kind: str,
) -> None:
    scene = Scene(kind)
    logins = 0
    while (response := scene.get("/oauth2/start?rd=/deep")).status == 302:
        location = header(response, b"location").decode()
        back = scene.get(target_of(scene.fleet.idp.log_in(location, "bob")), *PAGE)
        assert back.status == 302
        for name in [*scene.jar]:
            if name.startswith(b"_oauth2_proxy") and not name.endswith(b"_csrf"):
                del scene.jar[name]
        scene.later(1)
        logins += 1
        assert logins <= LOOP_THRESHOLD
    assert (response.status, logins) == (429, LOOP_THRESHOLD)


@kinds
def test_signed_in_loop_ends_at_threshold_whatever_process_responds(kind: str) -> None:
    """A constraint of the auth check denies the session that each login creates."""
    scene = Scene(kind)
    assert scene.get(scene.start(), *PAGE).status == 302
    logins = 1
    while (response := scene.get("/oauth2/start?rd=/deep")).status == 302:
        location = header(response, b"location").decode()
        target = target_of(scene.fleet.idp.log_in(location, "bob"))
        assert scene.get(target, *PAGE).status == 302
        assert scene.get("/oauth2/auth?allowed_groups=admins").status == 403
        scene.later(0.1)
        logins += 1
        assert logins <= SIGNED_IN_THRESHOLD
    assert (response.status, logins) == (429, SIGNED_IN_THRESHOLD)
    assert [event.reason for event in response.events] == ["login_loop"]
    scene.later(SIGNED_IN_WINDOW + 1)
    assert scene.get("/oauth2/start?rd=/deep").status == 302


@kinds
def test_starts_with_older_session_are_no_loop(kind: str) -> None:
    scene = Scene(kind)
    assert scene.get(scene.start(), *PAGE).status == 302
    scene.later(REPEAT_WINDOW + 1)
    for _ in range(3 * SIGNED_IN_THRESHOLD):
        assert scene.get("/oauth2/start?rd=/deep").status == 302


@pytest.mark.parametrize("kind", ["cookie", "revocable"])
def test_loop_while_store_is_unavailable_ends_per_process(kind: str) -> None:
    scene = Scene(kind, email_domains=("other.example",))
    scene.fleet.store.failing = lambda effect: "-loop:" in getattr(effect, "key", "")
    statuses = denied_statuses(scene, SIZE * LOOP_THRESHOLD)
    assert statuses[0] == 403
    assert statuses[-1] == 429
    scene = Scene(kind)
    scene.fleet.store.failing = lambda effect: "-loop:" in getattr(effect, "key", "")
    assert scene.get(scene.start(), *PAGE).status == 302
    assert b"_oauth2_proxy_loop_csrf" not in scene.jar


def test_start_with_ticket_while_store_is_unavailable_starts_login() -> None:
    scene = Scene("ticket")
    assert scene.get(scene.start(), *PAGE).status == 302
    other = scene.fleet.join(settings(sessions=KINDS["ticket"]))
    scene.fleet.store.away = True
    assert other.get("/oauth2/start?rd=/", jar=scene.jar).status == 302


@pytest.mark.parametrize("value", [b"", b"x", b"12", b"99999", b"\xff"])
def test_count_in_store_of_other_form_starts_again(value: bytes) -> None:
    scene = Scene(email_domains=("other.example",))
    assert denied_statuses(scene, 1) == [403]
    [key] = scene.fleet.store.held("-loop:")
    scene.fleet.store.put(key, value, 60.0)
    assert denied_statuses(scene, 1) == [403]
    assert scene.fleet.store.get(key) in (b"1", b"2")
