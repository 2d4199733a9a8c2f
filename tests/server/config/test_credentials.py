"""Options about bearer JWTs and the htpasswd file."""

from __future__ import annotations

from pathlib import Path

import bcrypt
import pytest

from authproxy.config.read.resolved import ConfigError
from authproxy_core.settings.credentials import JwtIssuer
from authproxy_core.settings.secret import Secret
from support.configuration import settings

ANN = bcrypt.hashpw(b"x", b"$2b$04$abcdefghijklmnopqrstuu").decode()  # in test ids
SAM = "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "htpasswd"


def problem(*flags: str) -> str:
    """What the one problem of *flags* says."""
    with pytest.raises(ConfigError) as caught:
        settings(*flags)
    [text] = caught.value.problems
    return text.partition(": ")[2]


def test_users_are_read(table: Path) -> None:
    table.write_text(f'# staff\n ann:{ANN}\n\n"sam":{SAM}\r\nsam:{SAM}\n')
    flags = (f"--htpasswd-file={table}", "--htpasswd-user-group=a,b")
    loaded = settings(*flags, "--prefer-email-to-user")
    given = loaded.core.credentials
    assert given.users == {"ann": Secret(ANN), "sam": Secret(SAM)}
    assert given.user_groups == ("a", "b")
    assert given.email_is_user
    assert given.display_form
    assert not settings(
        *flags, "--display-htpasswd-form=false"
    ).core.credentials.display_form
    assert str(table) in loaded.files  # its changes are followed
    [weak] = loaded.warnings
    assert "1 of the hashes are SHA-1 without a salt" in weak
    assert settings().core.credentials.users is None


def test_what_can_not_log_in_is_named(table: Path) -> None:
    costly = "$2b$17$" + "a" * 53
    table.write_text(f"old:$apr1$x$y\nann:{ANN}\nslow:{costly}\nplain:pw\n")
    others, slow = settings(f"--htpasswd-file={table}").warnings
    assert others.endswith("so they can't log in: 'old', 'plain'")
    assert "'slow'" in slow


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no user with a bcrypt or {SHA} hash"),
        ("# nobody\n", "has no user with a bcrypt or {SHA} hash"),
        ("ann:plain\n", "has no user with a bcrypt or {SHA} hash"),
        (f"ann:{ANN}\nsam\n", "has lines of another form than NAME:HASH"),
        (f"ann:{ANN}:staff\n", "has lines of another form than NAME:HASH"),
        (f'an"n:{ANN}\n', "is malformed: line 1: a quote inside an unquoted field"),
    ],
)
def test_a_bad_file_stops_the_start(table: Path, text: str, said: str) -> None:
    table.write_text(text)
    assert problem(f"--htpasswd-file={table}") == f"{table} {said}"


def test_an_absent_file_stops_the_start(table: Path) -> None:
    said = problem(f"--htpasswd-file={table}")
    assert said == f"can't read {table}: No such file or directory"


def test_a_file_is_enough_to_say_who_comes_in(table: Path) -> None:
    table.write_text(f"ann:{ANN}\n")
    env = {"OAUTH2_PROXY_EMAIL_DOMAINS": ""}
    assert not settings(f"--htpasswd-file={table}", env=env).core.email_domains


def test_bearers_are_read() -> None:
    given = settings(
        "--skip-jwt-bearer-tokens",
        "--bearer-token-login-fallback=false",
        "--extra-jwt-issuers=https://a.example=web,https://b.example/x=a=b",
        "--bearer-authorized-party=batch",
    ).core.credentials
    assert given.jwt_bearer_tokens
    assert not given.bearer_login_fallback
    assert given.jwt_issuers == (
        JwtIssuer("https://a.example", "web"),
        JwtIssuer("https://b.example/x", "a=b"),
    )
    assert given.jwt_authorized_parties == ("batch",)
    # As in oauth2-proxy they are only read with the switch.
    off = settings("--extra-jwt-issuers=nonsense").core.credentials
    assert (off.jwt_bearer_tokens, off.jwt_issuers) == (False, ())


@pytest.mark.parametrize("entry", ["x", "https://a.example", "https://a=", "a=b"])
def test_bad_issuers_stop_the_start(entry: str) -> None:
    said = problem("--skip-jwt-bearer-tokens", f"--extra-jwt-issuers={entry}")
    assert (
        said
        == f"got {entry!r}, expected ISSUER=AUDIENCE, such as https://HOST/path=web"
    )
