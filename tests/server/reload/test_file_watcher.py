"""Files that change, and what of a configuration only a restart changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from authproxy.net.control_channel import ControlChannel
from authproxy.reload.file_watcher import FileWatcher
from authproxy.reload.reload_settings import (
    deserialize_settings,
    error_lines,
    merge_settings,
    serialize_settings,
)
from authproxy.server_settings import Listener, TlsSettings
from authproxy_core.errors import FetchError, SettingsError
from support.configuration import problems, settings


def test_watch_waits_until_files_rest(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watch = FileWatcher([str(one), str(other)])
    assert not watch.has_stable_change()
    one.write_text("22")
    assert not watch.has_stable_change()  # changed since the last look
    other.write_text("new")
    assert not watch.has_stable_change()
    assert watch.has_stable_change()
    assert not watch.has_stable_change()
    other.unlink()
    assert not watch.has_stable_change()
    assert watch.has_stable_change()


def test_watch_follows_other_files(tmp_path: Path) -> None:
    """A file that is new to the watch is no change; the old ones are still known."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watch = FileWatcher([str(one)])
    other.write_text("1")
    watch.set_paths([str(one), str(other)])
    assert not watch.has_stable_change()
    other.write_text("22")
    assert [
        watch.has_stable_change(),
        watch.has_stable_change(),
        watch.has_stable_change(),
    ] == [False, True, False]
    watch.set_paths([str(one)])
    other.write_text("333")
    assert [watch.has_stable_change(), watch.has_stable_change()] == [False, False]


def test_names_that_are_no_files() -> None:
    watch = FileWatcher(["", "a\0b", "/nowhere"])
    assert not watch.has_stable_change()


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
                    sessions=replace(current.core.sessions, backend="store"),
                ),
            ),
            "session backend",
        ),
    ):
        found, notes = merge_settings(current, current, fresh)
        assert found == current
        [note] = notes
        assert word in note
    secure = replace(current, listeners=(Listener(host="a", tls=tls),))
    renewed = replace(
        secure, listeners=(Listener(host="a", tls=replace(tls, cert_file="c")),)
    )
    assert merge_settings(secure, secure, renewed) == (renewed, ())


def test_settings_travel() -> None:
    given = settings("--banner=" + "x" * 200_000)
    one, other = ControlChannel.pair()
    descriptor = serialize_settings(given)
    one.send("prepare", descriptor)
    os.close(descriptor)
    heard = other.receive()
    assert heard is not None
    word, passed = heard
    assert word == "prepare"
    assert passed is not None
    assert deserialize_settings(passed) == given
    assert other.receive() is None
    other.close()
    one.send("nobody hears this")
    one.close()


def test_what_travels_is_settings() -> None:
    with pytest.raises(TypeError, match="ServerSettings"):
        deserialize_settings(serialize_settings("something else"))  # type: ignore[arg-type]


def test_reasons() -> None:
    assert error_lines(SettingsError(("a", "b"))) == ("a", "b")
    assert error_lines(FetchError("c")) == ("c",)
    assert error_lines(RuntimeError("d")) == ("RuntimeError('d')",)
