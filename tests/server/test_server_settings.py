"""Server settings of an embedding program: each struct validates itself."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import fields, replace

from authproxy import server_settings
from authproxy.server_settings import (
    Limits,
    Listener,
    LogSettings,
    RedisAddress,
    RedisSettings,
    ServerSettings,
    StoreSettings,
    TlsSettings,
    check_server,
)
from authproxy.worker.worker import Worker
from authproxy_core import SettingsError
from authproxy_core.settings import SessionSettings
from authproxy_core.settings.validation import ValidatedStruct
from support.configuration import settings

STRUCTS = [
    one
    for one in vars(server_settings).values()
    if isinstance(one, type)
    and issubclass(one, Struct)
    and one.__module__ == server_settings.__name__
]
FIELDS = [
    pytest.param(cls, field.name, id=f"{cls.__name__}.{field.name}")
    for cls in STRUCTS
    for field in fields(cls)
]
REQUIRED: dict[type, dict[str, Any]] = {
    TlsSettings: {"cert_file": "c", "key_file": "k"},
    server_settings.LogFileSettings: {"path": "p"},
    ServerSettings: {"core": settings().core, "listeners": ()},
}


@pytest.mark.parametrize(("cls", "name"), FIELDS)
def test_field_of_wrong_type_rejected(cls: type[Struct], name: str) -> None:
    assert issubclass(cls, ValidatedStruct)
    required = REQUIRED.get(cls, {})
    assert cls(**required)
    for wrong in (object(), [name]):
        with pytest.raises(SettingsError, match=rf"^{cls.__name__}\.{name}: got"):
            cls(**{**required, name: wrong})


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (ServerSettings, {"workers": 0}),
        (ServerSettings, {"proxy_protocol_from": "10.0.0.0/8"}),  # not its characters
        (Limits, {"connections": 0}),
        (Limits, {"head_timeout": -1.0}),
        (Limits, {"head_bytes": True}),
        (Listener, {"port": 65536}),
        (Listener, {"mode": 0o1777}),
        (Listener, {"descriptor": 2}),
        (LogSettings, {"exclude_paths": "/ping"}),
        (LogSettings, {"format": "JSON"}),
        (TlsSettings, {"min_version": "TLS1.0"}),
        (TlsSettings, {"pem": b"not a Secret"}),
        (RedisSettings, {"verify": "false"}),
        (RedisSettings, {"password": "not a Secret"}),
        (StoreSettings, {"kind": "Redis"}),
    ],
)
def test_value_that_would_fail_open_or_later_rejected(
    cls: type[Struct], values: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as caught:
        cls(**{**REQUIRED.get(cls, {}), **values})
    assert "not a Secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"request_id_header": "x\r\nset-cookie"}, "request_id_header: expected"),
        ({"proxy_protocol_from": ("10.0.0.1/8",)}, "proxy_protocol_from: got"),
        ({"store": StoreSettings(kind="redis")}, "store.redis.addresses: missing"),
        (
            {
                "store": StoreSettings(
                    kind="redis",
                    redis=RedisSettings(
                        mode="sentinel", addresses=(RedisAddress(host="a"),)
                    ),
                )
            },
            "store.redis.master_name: missing",
        ),
    ],
)
def test_contradiction_ends_the_worker(changes: dict[str, Any], problem: str) -> None:
    wrong = replace(settings(), **changes)
    with pytest.raises(SettingsError, match=problem):
        Worker(wrong, ())


def test_sessions_in_store_require_a_store() -> None:
    valid = settings()
    check_server(replace(valid, proxy_protocol_from=("unix", "10.0.0.0/8", "::1")))
    core = replace(valid.core, sessions=SessionSettings(backend="store", shared=True))
    with pytest.raises(SettingsError, match="store: missing"):
        check_server(replace(valid, core=core, store=StoreSettings()))
