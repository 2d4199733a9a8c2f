"""Redis options: URLs as in oauth2-proxy, and the options that override them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authproxy.server_settings import RedisAddress, RedisSettings
from authproxy_core.settings.root import Secret
from support.certificates import make_certificate
from support.configuration import problem, problems, settings
from support.ports import LOOPBACK

TYPE = "--session-store-type=redis"


def redis(*flags: str) -> RedisSettings:
    """Return the Redis settings of *flags*."""
    loaded = settings(TYPE, *flags)
    assert loaded.store.kind == "redis"
    return loaded.store.redis


def single(url: str, *flags: str) -> RedisSettings:
    """Return the Redis settings of one URL and *flags*."""
    return redis(f"--redis-connection-url={url}", *flags)


def at(host: str, port: int) -> tuple[RedisAddress, ...]:
    """Return one TCP address."""
    return (RedisAddress(host=host, port=port),)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"addresses": at("localhost", 6379)}),
        ("redis://r", {"addresses": at("r", 6379)}),
        ("redis://[::1]:7000/", {"addresses": at("::1", 7000)}),
        ("redis://r:1/5", {"addresses": at("r", 1), "db": 5}),
        ("redis://r?db=7", {"addresses": at("r", 6379), "db": 7}),
        (
            "redis://u:p%40%20w@r",
            {
                "addresses": at("r", 6379),
                "username": "u",
                "password": Secret("p@ w"),
            },
        ),
        (
            "redis://:p@r",
            {"addresses": at("r", 6379), "password": Secret("p")},
        ),
        ("rediss://r", {"addresses": at("r", 6379), "tls": True}),
        (
            "rediss://r?skip_verify=true",
            {"addresses": at("r", 6379), "tls": True, "verify": False},
        ),
        (
            "unix://u:p@/run/r.sock?db=2",
            {
                "addresses": (RedisAddress(path="/run/r.sock"),),
                "db": 2,
                "username": "u",
                "password": Secret("p"),
            },
        ),
        (
            "redis://r?client_name=x&dial_timeout=3&read_timeout=500ms&idle_timeout=1m",
            {
                "addresses": at("r", 6379),
                "client_name": "x",
                "connect_timeout": 3.0,
                "response_timeout": 0.5,
                "idle_timeout": 60.0,
            },
        ),
        ("redis://r?read_timeout=-1", {"addresses": at("r", 6379)}),
    ],
)
def test_redis_url_forms(url: str, expected: dict[str, object]) -> None:
    assert single(url) == RedisSettings(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://hidden@r", "got the scheme 'http'"),
        ("r:6379", "got the scheme 'r'"),
        ("redis://hidden:hidden@r:port", "malformed URL"),
        ("redis://r/x", "got the database 'x', expected a number"),
        ("redis://r/1/2", "got the database '1/2'"),
        ("redis://r?db=-1", "got the database '-1'"),
        ("redis://r?no_such=1", "got the unknown URL option 'no_such'"),
        ("redis://r?skip_verify=1", "got the unknown URL option 'skip_verify'"),
        ("redis://r?read_timeout=soon", "got read_timeout='soon'"),
        ("unix://", "no path after unix://"),
    ],
)
def test_redis_url_invalid_rejected_without_password(url: str, text: str) -> None:
    found = problem(TYPE, f"--redis-connection-url={url}")
    assert found.startswith("redis_connection_url (--redis-connection-url): ")
    assert text in found
    assert "hidden" not in found


@given(st.text(max_size=60))
@hypothesis_settings(deadline=None)
def test_redis_url_any_text_accepted_or_rejected(text: str) -> None:
    for url in (text, f"redis://{text}", f"unix://{text}", f"redis://h?{text}"):
        env = {"OAUTH2_PROXY_SESSION_STORE_TYPE": "redis"}
        for line in problems(f"--redis-connection-url={url}", env=env):
            assert line.startswith("redis_connection_url")


def test_redis_options_override_url(tmp_path: Path) -> None:
    """``redis_ca_path`` also enables TLS."""
    ca_file_path = make_certificate(tmp_path, LOOPBACK).cert_file
    assert single(
        "redis://u:p@r",
        "--redis-username=other",
        "--redis-password=secret",
        "--redis-connection-idle-timeout=30",
        f"--redis-ca-path={ca_file_path}",
    ) == RedisSettings(
        addresses=at("r", 6379),
        username="other",
        password=Secret("secret"),
        idle_timeout=30.0,
        tls=True,
        ca_file=ca_file_path,
    )


def test_redis_insecure_skip_tls_verify_enables_tls_and_warns() -> None:
    loaded = settings(
        TYPE,
        "--redis-connection-url=redis://r",
        "--redis-insecure-skip-tls-verify",
    )
    assert (loaded.store.redis.tls, loaded.store.redis.verify) == (True, False)
    assert "not verified" in loaded.warnings[0]


def test_redis_url_pool_options_ignored_with_warning() -> None:
    loaded = settings(
        TYPE, "--redis-connection-url=redis://r?pool_size=5&max_retries=1"
    )
    assert loaded.store.redis == RedisSettings(addresses=at("r", 6379))
    assert [text.rpartition(": ")[2] for text in loaded.warnings] == [
        "the URL option pool_size has no effect",
        "the URL option max_retries has no effect",
    ]


def test_redis_sentinel_urls_credentials_of_last_url() -> None:
    """The database of a sentinel URL is ignored."""
    assert redis(
        "--redis-use-sentinel",
        "--redis-sentinel-master-name=m",
        "--redis-sentinel-password=s",
        "--redis-sentinel-connection-urls=redis://a:1,rediss://u:p@b:2/3",
    ) == RedisSettings(
        mode="sentinel",
        addresses=(*at("a", 1), *at("b", 2)),
        username="u",
        password=Secret("p"),
        master_name="m",
        sentinel_password=Secret("s"),
        tls=True,
    )


def test_redis_cluster_urls_credentials_of_last_url() -> None:
    assert redis(
        "--redis-use-cluster",
        "--redis-cluster-connection-urls=rediss://:no@a:1,redis://:p@b:2",
    ) == RedisSettings(
        mode="cluster",
        addresses=(*at("a", 1), *at("b", 2)),
        password=Secret("p"),
        tls=False,
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "redis_connection_url: missing"),
        (
            ("--redis-use-sentinel", "--redis-sentinel-master-name=m"),
            "redis_sentinel_connection_urls: missing",
        ),
        (
            ("--redis-use-sentinel", "--redis-sentinel-connection-urls=redis://a"),
            "redis_sentinel_master_name: missing",
        ),
        (("--redis-use-cluster",), "redis_cluster_connection_urls: missing"),
        (
            ("--redis-use-cluster", "--redis-cluster-connection-urls=unix:///s"),
            "unix sockets are not supported",
        ),
        (
            (
                "--redis-use-cluster",
                "--redis-use-sentinel",
                "--redis-sentinel-master-name=m",
                "--redis-sentinel-connection-urls=redis://a",
            ),
            "can't be used with redis_use_sentinel",
        ),
        (
            ("--redis-connection-url=redis://r", "--redis-ca-path=/no/such"),
            "can't read /no/such",
        ),
        (
            ("--redis-connection-url=redis://r", f"--redis-ca-path={__file__}"),
            "contains no PEM certificate",
        ),
    ],
)
def test_redis_options_missing_or_conflicting_rejected(
    flags: tuple[str, ...], text: str
) -> None:
    assert text in problem(TYPE, *flags)


def test_shared_state_redis_with_cookie_sessions() -> None:
    loaded = settings(
        "--shared-state=redis", "--redis-connection-url=redis://r", "--workers=1"
    )
    assert loaded.store.kind == "redis"
    assert (loaded.core.sessions.backend, loaded.core.sessions.shared) == (
        "cookie",
        True,
    )
