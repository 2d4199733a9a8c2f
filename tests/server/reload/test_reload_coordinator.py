"""A reload over several workers, step by step: all switch, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from authproxy.config.read.resolved import ConfigError
from authproxy.net.control_channel import ControlChannel
from authproxy.net.listeners import ListeningSocket, open_listener
from authproxy.process import reload_coordinator
from authproxy.process.reload_coordinator import ReloadCoordinator
from authproxy.reload.reload_settings import ConfigSource, deserialize_settings
from authproxy.server_settings import Listener, ServerSettings, TlsSettings
from support.certificates import make_certificate
from support.configuration import settings
from support.ports import LOOPBACK


class Follower:
    """The supervisor's end of a worker, and the worker's own."""

    made: ClassVar[list[Follower]] = []

    def __init__(self) -> None:
        self.channel, self.worker = ControlChannel.pair()
        self.made.append(self)

    def heard(self) -> list[str]:
        """All words so far; a passed descriptor must hold settings."""
        words = []
        while (found := self.worker.receive()) is not None:
            word, descriptor = found
            if descriptor is not None:
                assert isinstance(deserialize_settings(descriptor), ServerSettings)
            words.append(word)
        return words


class Fleet:
    """Two followers and what leads them; `fresh` is what the next reload reads."""

    def __init__(
        self, first: ServerSettings, sockets: tuple[ListeningSocket, ...] = ()
    ) -> None:
        first = first if sockets else replace(first, listeners=())
        self.first = self.fresh = first
        self.failure: Exception | None = None
        self.followers = {1: Follower(), 2: Follower()}
        source = ConfigSource(first, self.read)
        self.rollouts = ReloadCoordinator(first, sockets, self.followers, source)

    def read(self) -> ServerSettings:
        if self.failure is not None:
            raise self.failure
        return self.fresh

    def begin(self) -> None:
        """Ask for a reload of changed settings."""
        self.fresh = replace(self.first, request_id_header="x-other")
        self.rollouts.request()
        self.rollouts.advance()

    def heard(self) -> list[list[str]]:
        return [one.heard() for one in self.followers.values()]

    def say(self, word: str, *pids: int) -> None:
        for pid in pids or tuple(self.followers):
            self.rollouts.on_message(pid, word)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for follower in Follower.made:
        follower.channel.close()
        follower.worker.close()
    Follower.made.clear()


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(settings("--reload-on-change=false"))


def test_all_switch(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    assert fleet.rollouts.due is None
    fleet.begin()
    assert fleet.rollouts.in_progress
    assert fleet.rollouts.due is not None
    assert fleet.heard() == [["prepare"], ["prepare"]]
    fleet.say("prepared", 1)
    fleet.say("prepared", 1)
    fleet.say("committed", 2)  # not yet
    fleet.rollouts.advance()
    assert fleet.heard() == [[], []]
    fleet.say("prepared", 2)
    assert fleet.heard() == [["commit"], ["commit"]]
    assert fleet.rollouts.settings.request_id_header == "x-other"
    fleet.say("committed")
    assert not fleet.rollouts.in_progress
    assert fleet.heard() == [["count_reload success"], []]
    assert "configuration reloaded" in "".join(capfd.readouterr())


def test_one_that_fails_stops_all(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.begin()
    fleet.heard()
    fleet.say("prepared", 1)
    fleet.say("failed no certificate", 2)
    assert fleet.heard() == [["abort", "count_reload failure"], ["abort"]]
    assert fleet.rollouts.settings is fleet.first
    fleet.say("prepared", 2)  # too late to matter
    assert fleet.heard() == [[], []]
    assert "worker 2: no certificate" in capfd.readouterr().err


def test_one_that_is_late_stops_all(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload_coordinator, "PREPARE_TIMEOUT", 0.0)
    fleet.begin()
    fleet.heard()
    fleet.say("prepared", 1)
    fleet.rollouts.advance()
    assert fleet.heard() == [["abort", "count_reload failure"], ["abort"]]
    assert "worker 2: not prepared after 0 s" in capfd.readouterr().err


def test_one_that_switches_late_keeps_nobody_waiting(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload_coordinator, "PREPARE_TIMEOUT", 0.0)
    fleet.begin()
    fleet.say("prepared")
    fleet.say("committed", 1)
    fleet.rollouts.advance()
    assert not fleet.rollouts.in_progress
    assert fleet.rollouts.settings.request_id_header == "x-other"
    assert "worker 2 has not confirmed" in capfd.readouterr().err


def test_the_dead_are_not_waited_for(fleet: Fleet) -> None:
    fleet.begin()
    fleet.heard()
    fleet.say("prepared", 1)
    del fleet.followers[2]
    fleet.rollouts.on_worker_exit(2)
    assert fleet.heard() == [["commit"]]
    del fleet.followers[1]
    fleet.rollouts.on_worker_exit(1)
    assert not fleet.rollouts.in_progress
    fleet.begin()  # with nobody there
    assert fleet.rollouts.settings.request_id_header == "x-other"


def test_bad_configuration_reaches_nobody(
    fleet: Fleet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.failure = ConfigError(("a: bad", "b: worse"), (), (str(tmp_path),))
    fleet.begin()
    assert fleet.heard() == [["count_reload failure"], []]
    err = capfd.readouterr().err
    assert "a: bad" in err
    assert "b: worse" in err


def test_even_a_bug_leaves_the_old_one_in_force(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.failure = RuntimeError("a bug")
    fleet.begin()
    assert fleet.heard() == [["count_reload failure"], []]
    assert "RuntimeError('a bug')" in capfd.readouterr().err
    fleet.failure = None
    fleet.begin()
    assert fleet.heard() == [["prepare"], ["prepare"]]


def test_two_requests_one_after_the_other(fleet: Fleet) -> None:
    fleet.begin()
    fleet.rollouts.request()
    fleet.rollouts.advance()
    fleet.heard()
    fleet.say("prepared")
    fleet.say("committed")
    fleet.heard()
    fleet.rollouts.advance()
    assert fleet.heard() == [["prepare"], ["prepare"]]


def test_nothing_to_reload(capfd: pytest.CaptureFixture[str]) -> None:
    rollouts = ReloadCoordinator(settings(), (), {}, None)
    assert rollouts.due is None
    rollouts.request()
    rollouts.advance()
    assert "no configuration to reload" in capfd.readouterr().err


def test_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_coordinator, "WATCH_INTERVAL", 0.0)
    file = tmp_path / "emails"
    file.write_text("a@b.c\n")
    fleet = Fleet(settings(f"--authenticated-emails-file={file}"))
    assert fleet.rollouts.due is not None
    fleet.rollouts.advance()
    file.write_text("longer@b.c\n")
    for expected in ([], ["prepare"], []):
        fleet.rollouts.advance()
        assert fleet.heard() == [expected, expected]


def test_certificate_that_goes_between_the_steps(tmp_path: Path) -> None:
    """Future workers get the context from here; without one nobody switches."""
    certificate = make_certificate(tmp_path, LOOPBACK)
    tls = TlsSettings(cert_file=certificate.cert_file, key_file=certificate.key_file)
    listener = Listener(host=LOOPBACK, tls=tls)
    listening = open_listener(listener)
    fleet = Fleet(replace(settings(), listeners=(listener,)), (listening,))
    before = listening.context
    fleet.begin()
    fleet.heard()
    os.rename(certificate.key_file, certificate.key_file + ".away")
    fleet.say("prepared")
    assert fleet.heard() == [["abort", "count_reload failure"], ["abort"]]
    assert listening.context is before
    os.rename(certificate.key_file + ".away", certificate.key_file)
    fleet.begin()
    fleet.say("prepared")
    assert listening.context is not before
    listening.socket.close()
