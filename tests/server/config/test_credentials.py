"""Options of bearer JWTs and the htpasswd file."""

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
def htpasswd(tmp_path: Path) -> Path:
    """Return the path of the htpasswd file."""
    return tmp_path / "htpasswd"


def problem(*flags: str) -> str:
    """Return the only problem of *flags*, without the option."""
    with pytest.raises(ConfigError) as caught:
        settings(*flags)
    [text] = caught.value.problems
    return text.partition(": ")[2]


def test_htpasswd_file_byte_order_mark_is_not_part_of_the_name(htpasswd: Path) -> None:
    htpasswd.write_text(f"\ufeffann:{ANN}\n")
    users = settings(f"--htpasswd-file={htpasswd}").core.credentials.users
    assert users == {"ann": Secret(ANN)}


def test_htpasswd_file_users_and_groups(htpasswd: Path) -> None:
    htpasswd.write_text(f'# staff\n ann:{ANN}\n\n"sam":{SAM}\r\nsam:{SAM}\n')
    flags = (f"--htpasswd-file={htpasswd}", "--htpasswd-user-group=a,b")
    loaded = settings(*flags, "--prefer-email-to-user")
    credentials = loaded.core.credentials
    assert credentials.users == {"ann": Secret(ANN), "sam": Secret(SAM)}
    assert credentials.user_groups == ("a", "b")
    assert credentials.email_is_user
    assert credentials.display_form
    assert not settings(
        *flags, "--display-htpasswd-form=false"
    ).core.credentials.display_form
    assert str(htpasswd) in loaded.files  # watched for a reload
    [weak] = loaded.warnings
    assert "1 of the hashes are unsalted SHA-1" in weak
    assert settings().core.credentials.users is None


def test_htpasswd_file_unusable_and_slow_hashes_warn(htpasswd: Path) -> None:
    """LG46: users with MD5 hashes or plain passwords cannot sign in."""
    costly = "$2b$17$" + "a" * 53
    htpasswd.write_text(f"old:$apr1$x$y\nann:{ANN}\nslow:{costly}\nplain:pw\n")
    others, slow = settings(f"--htpasswd-file={htpasswd}").warnings
    assert others.endswith("can't sign in: 'old', 'plain'")
    assert "'slow'" in slow


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no user with a bcrypt or {SHA} hash"),
        ("# empty\n", "has no user with a bcrypt or {SHA} hash"),
        ("ann:plain\n", "has no user with a bcrypt or {SHA} hash"),
        (f"ann:{ANN}\nsam\n", "has lines that are not NAME:HASH"),
        (f"ann:{ANN}:staff\n", "has lines that are not NAME:HASH"),
        (f'an"n:{ANN}\n', "is malformed: line 1: quote in an unquoted field"),
    ],
)
def test_htpasswd_file_malformed_rejected(
    htpasswd: Path, text: str, message: str
) -> None:
    htpasswd.write_text(text)
    assert problem(f"--htpasswd-file={htpasswd}") == f"{htpasswd} {message}"


def test_htpasswd_file_missing_rejected(htpasswd: Path) -> None:
    message = problem(f"--htpasswd-file={htpasswd}")
    assert message == f"can't read {htpasswd}: No such file or directory"


def test_htpasswd_file_suffices_without_email_domains(htpasswd: Path) -> None:
    htpasswd.write_text(f"ann:{ANN}\n")
    env = {"OAUTH2_PROXY_EMAIL_DOMAINS": ""}
    assert not settings(f"--htpasswd-file={htpasswd}", env=env).core.email_domains


def test_bearer_options_are_set() -> None:
    credentials = settings(
        "--skip-jwt-bearer-tokens",
        "--bearer-token-login-fallback=false",
        "--extra-jwt-issuers=https://a.example=web,https://b.example/x=a=b",
        "--bearer-authorized-party=batch",
    ).core.credentials
    assert credentials.jwt_bearer_tokens
    assert not credentials.bearer_login_fallback
    assert credentials.jwt_issuers == (
        JwtIssuer("https://a.example", "web"),
        JwtIssuer("https://b.example/x", "a=b"),
    )
    assert credentials.jwt_authorized_parties == ("batch",)
    # As in oauth2-proxy, issuers are only parsed with skip_jwt_bearer_tokens.
    off = settings("--extra-jwt-issuers=nonsense").core.credentials
    assert (off.jwt_bearer_tokens, off.jwt_issuers) == (False, ())


@pytest.mark.parametrize("entry", ["x", "https://a.example", "https://a=", "a=b"])
def test_extra_jwt_issuers_invalid_rejected(entry: str) -> None:
    message = problem("--skip-jwt-bearer-tokens", f"--extra-jwt-issuers={entry}")
    assert (
        message
        == f"got {entry!r}, expected ISSUER=AUDIENCE, such as https://HOST/path=web"
    )
