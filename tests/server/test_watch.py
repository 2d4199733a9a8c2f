"""Files that change, and what of a configuration only a restart changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from authproxy.channel import Channel
from authproxy.reload import merged, packed, reasons, unpacked
from authproxy.server_settings import Listener, TlsSettings
from authproxy.watch import Watch
from authproxy_core.errors import FetchError, SettingsError
from support.configuration import problems, settings


def test_watch_waits_until_files_rest(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watch = Watch([str(one), str(other)])
    assert not watch.settled()
    one.write_text("22")
    assert not watch.settled()  # changed since the last look
    other.write_text("new")
    assert not watch.settled()
    assert watch.settled()
    assert not watch.settled()
    other.unlink()
    assert not watch.settled()
    assert watch.settled()


def test_watch_follows_other_files(tmp_path: Path) -> None:
    """A file that is new to the watch is no change; the old ones are still known."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watch = Watch([str(one)])
    other.write_text("1")
    watch.follow([str(one), str(other)])
    assert not watch.settled()
    other.write_text("22")
    assert [watch.settled(), watch.settled(), watch.settled()] == [False, True, False]
    watch.follow([str(one)])
    other.write_text("333")
    assert [watch.settled(), watch.settled()] == [False, False]


def test_names_that_are_no_files() -> None:
    watch = Watch(["", "a\0b", "/nowhere"])
    assert not watch.settled()


def test_files_of_a_configuration(tmp_path: Path) -> None:
    emails, config = tmp_path / "emails", tmp_path / "config"
    config.write_text(f'authenticated_emails_file = "{emails}"\n')
    emails.write_text("a@b.c\n")
    flags = (f"--custom-templates-dir={tmp_path}", "--provider-ca-file=")
    found = settings(*flags, file=config).files
    templates = [str(tmp_path / name) for name in ("error.html", "sign_in.html")]
    assert {str(emails), str(config), *templates} <= set(found)
    assert "" not in found
    emails.unlink()
    assert problems(*flags, file=config)


def test_restart_keeps_its_own() -> None:
    current = settings()
    tls = TlsSettings(cert_file="a", key_file="b")
    for fresh, word in (
        (replace(current, workers=7), "workers"),
        (replace(current, listeners=(Listener(host="other"),)), "listeners"),
        (
            replace(current, listeners=(replace(current.listeners[0], tls=tls),)),
            "listeners",
        ),
        (
            replace(
                current,
                core=replace(
                    current.core,
                    sessions=replace(current.core.sessions, kept_in="store"),
                ),
            ),
            "sessions are kept",
        ),
    ):
        found, notes = merged(current, current, fresh)
        assert found == current
        [note] = notes
        assert word in note
    secure = replace(current, listeners=(Listener(host="a", tls=tls),))
    renewed = replace(
        secure, listeners=(Listener(host="a", tls=replace(tls, cert_file="c")),)
    )
    assert merged(secure, secure, renewed) == (renewed, ())


def test_settings_travel() -> None:
    given = settings("--banner=" + "x" * 200_000)
    one, other = Channel.pair()
    descriptor = packed(given)
    one.say("prepare", descriptor)
    os.close(descriptor)
    heard = other.heard()
    assert heard is not None
    word, passed = heard
    assert word == "prepare"
    assert passed is not None
    assert unpacked(passed) == given
    assert other.heard() is None
    other.close()
    one.say("nobody hears this")
    one.close()


def test_what_travels_is_settings() -> None:
    with pytest.raises(TypeError, match="settings"):
        unpacked(packed("something else"))  # type: ignore[arg-type]


def test_reasons() -> None:
    assert reasons(SettingsError(("a", "b"))) == ("a", "b")
    assert reasons(FetchError("c")) == ("c",)
    assert reasons(RuntimeError("d")) == ("RuntimeError('d')",)
