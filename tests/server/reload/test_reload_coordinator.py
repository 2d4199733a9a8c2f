"""Reload coordinator, step by step: all workers commit, or none."""

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

ABORTED = [["abort 1", "count_reload failure"], ["abort 1"]]


class Target:
    """A reload target, with both ends of its control channel."""

    created: ClassVar[list[Target]] = []

    def __init__(self) -> None:
        self.channel, self.worker_channel = ControlChannel.pair()
        self.created.append(self)

    def received(self) -> list[str]:
        """Return the messages so far; a passed descriptor must contain settings."""
        messages = []
        while (received := self.worker_channel.receive()) is not None:
            message, descriptor = received
            if descriptor is not None:
                assert isinstance(deserialize_settings(descriptor), ServerSettings)
            messages.append(message)
        return messages


class Fleet:
    """A coordinator with two targets; `fresh` is what the next reload reads."""

    def __init__(
        self, first: ServerSettings, sockets: tuple[ListeningSocket, ...] = ()
    ) -> None:
        first = first if sockets else replace(first, listeners=())
        self.first = self.fresh = first
        self.failure: Exception | None = None
        self.targets = {1: Target(), 2: Target()}
        source = ConfigSource(first, self.read)
        self.reloads = ReloadCoordinator(first, sockets, self.targets, source)

    def read(self) -> ServerSettings:
        if self.failure is not None:
            raise self.failure
        return self.fresh

    def start(self) -> None:
        """Request a reload of changed settings."""
        self.fresh = replace(self.first, request_id_header="x-other")
        self.reloads.request()
        self.reloads.advance()

    def received(self) -> list[list[str]]:
        return [one.received() for one in self.targets.values()]

    def reply(self, message: str, *pids: int, number: int = 1) -> None:
        """Let workers send *message* about the reload *number*."""
        kind, _, reason = message.partition(" ")
        for pid in pids or tuple(self.targets):
            self.reloads.on_message(pid, f"{kind} {number} {reason}".rstrip())


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for target in Target.created:
        target.channel.close()
        target.worker_channel.close()
    Target.created.clear()


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(settings("--reload-on-change=false"))


def test_commit_sent_once_all_workers_are_prepared(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fleet.reloads.due is None
    fleet.start()
    assert fleet.reloads.in_progress
    assert fleet.reloads.due is not None
    assert fleet.received() == [["prepare 1"], ["prepare 1"]]
    fleet.reply("prepared", 1)
    fleet.reply("prepared", 1)
    fleet.reply("committed", 2)  # too early
    fleet.reloads.advance()
    assert fleet.received() == [[], []]
    fleet.reply("prepared", 2)
    assert fleet.received() == [["commit 1"], ["commit 1"]]
    assert fleet.reloads.settings.request_id_header == "x-other"
    fleet.reply("committed")
    assert not fleet.reloads.in_progress
    assert fleet.received() == [["count_reload success"], []]
    assert "configuration reloaded" in "".join(capfd.readouterr())


def test_failed_worker_aborts_reload(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.start()
    fleet.received()
    fleet.reply("prepared", 1)
    fleet.reply("failed no certificate", 2)
    assert fleet.received() == ABORTED
    assert fleet.reloads.settings is fleet.first
    fleet.reply("prepared", 2)  # too late
    assert fleet.received() == [[], []]
    assert "worker 2: no certificate" in capfd.readouterr().err


def test_prepare_timeout_aborts_reload(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload_coordinator, "PREPARE_TIMEOUT", 0.0)
    fleet.start()
    fleet.received()
    fleet.reply("prepared", 1)
    fleet.reloads.advance()
    assert fleet.received() == ABORTED
    assert "worker 2: not prepared after 0 s" in capfd.readouterr().err


def test_commit_timeout_finishes_reload(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload_coordinator, "PREPARE_TIMEOUT", 0.0)
    fleet.start()
    fleet.reply("prepared")
    fleet.reply("committed", 1)
    fleet.reloads.advance()
    assert not fleet.reloads.in_progress
    assert fleet.reloads.settings.request_id_header == "x-other"
    assert "worker 2 has not confirmed the reload" in capfd.readouterr().err


@pytest.mark.parametrize("late", ["prepared", "failed no certificate"])
def test_late_message_of_aborted_reload_does_not_count(fleet: Fleet, late: str) -> None:
    fleet.start()
    fleet.reply("failed busy", 1)
    fleet.start()
    fleet.received()
    fleet.reply("prepared", 1, number=2)
    fleet.reply(late, 2)
    assert fleet.received() == [[], []]
    fleet.reply("prepared", 2, number=2)
    assert fleet.received() == [["commit 2"], ["commit 2"]]


def test_late_committed_does_not_count_for_next_reload(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start()
    fleet.reply("prepared")
    with monkeypatch.context() as patch:
        patch.setattr(fleet.reloads, "_deadline", 0.0)
        fleet.reloads.advance()
    assert not fleet.reloads.in_progress
    fleet.start()
    fleet.reply("prepared", number=2)
    fleet.reply("committed")  # of the first reload
    assert fleet.reloads.in_progress
    for malformed in ("committed", "committed 2x", ""):
        fleet.reloads.on_message(1, malformed)
    assert fleet.reloads.in_progress
    fleet.reply("committed", number=2)
    assert not fleet.reloads.in_progress


def test_exited_worker_not_waited_for(fleet: Fleet) -> None:
    fleet.start()
    fleet.received()
    fleet.reply("prepared", 1)
    del fleet.targets[2]
    fleet.reloads.on_worker_exit(2)
    assert fleet.received() == [["commit 1"]]
    del fleet.targets[1]
    fleet.reloads.on_worker_exit(1)
    assert not fleet.reloads.in_progress
    fleet.start()  # without workers
    assert fleet.reloads.settings.request_id_header == "x-other"


def test_invalid_configuration_not_sent_to_workers(
    fleet: Fleet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.failure = ConfigError(("a: bad", "b: worse"), (), (str(tmp_path),))
    fleet.start()
    assert fleet.received() == [["count_reload failure"], []]
    err = capfd.readouterr().err
    assert "a: bad" in err
    assert "b: worse" in err


def test_unexpected_error_keeps_old_settings(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.failure = RuntimeError("a bug")
    fleet.start()
    assert fleet.received() == [["count_reload failure"], []]
    assert "RuntimeError('a bug')" in capfd.readouterr().err
    fleet.failure = None
    fleet.start()
    assert fleet.received() == [["prepare 1"], ["prepare 1"]]


def test_request_during_reload_starts_another_afterwards(fleet: Fleet) -> None:
    fleet.start()
    fleet.reloads.request()
    fleet.reloads.advance()
    fleet.received()
    fleet.reply("prepared")
    fleet.reply("committed")
    fleet.received()
    fleet.reloads.advance()
    assert fleet.received() == [["prepare 2"], ["prepare 2"]]


def test_request_without_source_logged(capfd: pytest.CaptureFixture[str]) -> None:
    reloads = ReloadCoordinator(settings(), (), {}, None)
    assert reloads.due is None
    reloads.request()
    reloads.advance()
    assert "no configuration to reload" in capfd.readouterr().err


def test_changed_file_starts_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_coordinator, "WATCH_INTERVAL", 0.0)
    file = tmp_path / "emails"
    file.write_text("a@b.c\n")
    fleet = Fleet(settings(f"--authenticated-emails-file={file}"))
    assert fleet.reloads.due is not None
    fleet.reloads.advance()
    file.write_text("longer@b.c\n")
    for expected in ([], ["prepare 1"], []):
        fleet.reloads.advance()
        assert fleet.received() == [expected, expected]


def test_certificate_missing_at_commit_aborts_reload(tmp_path: Path) -> None:
    """The supervisor needs the TLS context, because later workers inherit it."""
    certificate = make_certificate(tmp_path, LOOPBACK)
    tls = TlsSettings(cert_file=certificate.cert_file, key_file=certificate.key_file)
    listener = Listener(host=LOOPBACK, tls=tls)
    listening = open_listener(listener)
    fleet = Fleet(replace(settings(), listeners=(listener,)), (listening,))
    assert listening.context
    before = listening.context.chain
    fleet.start()
    fleet.received()
    os.rename(certificate.key_file, certificate.key_file + ".moved")
    fleet.reply("prepared")
    assert fleet.received() == ABORTED
    assert listening.context.chain == before
    make_certificate(tmp_path, LOOPBACK)
    fleet.start()
    fleet.reply("prepared", number=2)
    assert listening.context.chain != before
    listening.socket.close()
