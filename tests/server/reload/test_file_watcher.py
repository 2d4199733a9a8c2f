"""File watcher, and the settings of a reload: what may change, how they are sent."""

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


def test_watcher_reports_change_once_it_is_stable(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watcher = FileWatcher([str(one), str(other)])
    assert not watcher.has_stable_change()
    one.write_text("22")
    assert not watcher.has_stable_change()  # changed since the last poll
    other.write_text("new")
    assert not watcher.has_stable_change()
    assert watcher.has_stable_change()
    assert not watcher.has_stable_change()
    other.unlink()
    assert not watcher.has_stable_change()
    assert watcher.has_stable_change()


def test_watcher_added_path_counts_as_unchanged(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    watcher = FileWatcher([str(one)])
    other.write_text("1")
    watcher.set_paths([str(one), str(other)])
    assert not watcher.has_stable_change()
    other.write_text("22")
    assert [
        watcher.has_stable_change(),
        watcher.has_stable_change(),
        watcher.has_stable_change(),
    ] == [False, True, False]
    watcher.set_paths([str(one)])
    other.write_text("333")
    assert [watcher.has_stable_change(), watcher.has_stable_change()] == [False, False]


def test_watcher_ignores_invalid_paths() -> None:
    watcher = FileWatcher(["", "a\0b", "/nowhere"])
    assert not watcher.has_stable_change()


def test_settings_list_files_to_watch(tmp_path: Path) -> None:
    emails, config = tmp_path / "emails", tmp_path / "config"
    config.write_text(f'authenticated_emails_file = "{emails}"\n')
    emails.write_text("a@b.c\n")
    flags = (f"--custom-templates-dir={tmp_path}", "--provider-ca-file=")
    files = settings(*flags, file=config).files
    templates = [str(tmp_path / name) for name in ("error.html", "sign_in.html")]
    assert {str(emails), str(config), *templates} <= set(files)
    assert "" not in files
    emails.unlink()
    assert problems(*flags, file=config)


def test_merge_settings_keeps_settings_that_require_restart() -> None:
    current = settings()
    tls = TlsSettings(cert_file="a", key_file="b")
    sessions = replace(current.core.sessions, backend="store")
    for fresh, name in (
        (replace(current, workers=7), "workers"),
        (replace(current, listeners=(Listener(host="other"),)), "listeners"),
        (
            replace(current, listeners=(replace(current.listeners[0], tls=tls),)),
            "listeners",
        ),
        (
            replace(current, core=replace(current.core, sessions=sessions)),
            "session backend",
        ),
    ):
        merged, notes = merge_settings(current, current, fresh)
        assert merged == current
        [note] = notes
        assert name in note


def test_merge_settings_accepts_new_certificate() -> None:
    tls = TlsSettings(cert_file="a", key_file="b")
    secure = replace(settings(), listeners=(Listener(host="a", tls=tls),))
    renewed = replace(
        secure, listeners=(Listener(host="a", tls=replace(tls, cert_file="c")),)
    )
    assert merge_settings(secure, secure, renewed) == (renewed, ())


def test_serialized_settings_pass_control_channel() -> None:
    original = settings("--banner=" + "x" * 200_000)
    one, other = ControlChannel.pair()
    descriptor = serialize_settings(original)
    one.send("prepare", descriptor)
    os.close(descriptor)
    received = other.receive()
    assert received is not None
    message, passed = received
    assert message == "prepare"
    assert passed is not None
    assert deserialize_settings(passed) == original
    assert other.receive() is None
    other.close()
    one.send("to a closed channel")
    one.close()


def test_deserialize_settings_rejects_other_object() -> None:
    with pytest.raises(TypeError, match="ServerSettings"):
        deserialize_settings(serialize_settings("something else"))  # type: ignore[arg-type]


def test_error_lines_by_error_type() -> None:
    assert error_lines(SettingsError(("a", "b"))) == ("a", "b")
    assert error_lines(FetchError("c")) == ("c",)
    assert error_lines(RuntimeError("d")) == ("RuntimeError('d')",)
