"""``authproxy init``: questions on a terminal and a pipe, flags, the written file."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.commands.init import GATEWAYS, PROVIDERS
from authproxy.config.load import load_settings
from authproxy.server_settings import ServerSettings
from support.certificates import make_certificate
from support.programs import ROOT

COMMAND = [sys.executable, "-m", "authproxy", "init"]
HOME = {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'server'}", "TERM": "dumb"}
SECRET = {"OAUTH2_PROXY_CLIENT_SECRET": "hidden"}
BASE = {
    "issuer": "https://idp.example.com/realms/r",
    "client-id": "web",
    "host": "app.example.com",
}


GROUP_OPTIONS = {  # and their provider type
    "github_org": "github",
    "google_groups": "google",
    "bitbucket_workspace": "bitbucket",
}


def flags(answers: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in answers.items()]


def configure(
    capsys: pytest.CaptureFixture[str], answers: Mapping[str, str]
) -> tuple[str, str]:
    """Return the printed configuration and the messages."""
    assert main(["init", "--stdout", "--no-questions", *flags(answers)]) == 0
    out, err = capsys.readouterr()
    return out, err


def load(text: str, folder: Path) -> ServerSettings:
    file = folder / "authproxy.cfg"
    file.write_text(text)
    secret = {} if "client_secret_file" in text else SECRET
    return load_settings(["--config", str(file)], secret)


def run(
    arguments: Sequence[str], lines: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input="\n".join([*lines, ""]),
        env=HOME,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_init_reads_answers_from_pipe_and_does_not_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "authproxy.cfg"
    answers = [
        "keycloack",  # rejected, and asked again
        "keycloak-oidc",
        "https://idp.example.com/realms/r",
        "web",
        "",
        "client-secret",
        "example.com, example.org",
        "app.example.com",
        "nginx",
        "10.0.0.0/8,unix",
        "",
        "redis",
        "redis://redis:6379/1",
    ]
    done = run([str(file)], answers)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "got 'keycloack', expected one of oidc, keycloak-oidc" in done.stderr
    assert "https://app.example.com/oauth2/callback" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600

    settings = load_settings(["--config", str(file)], {})
    [provider] = settings.core.providers
    assert (provider.type, provider.client_id) == ("keycloak-oidc", "web")
    assert provider.client_secret.value == b"client-secret"
    assert settings.core.email_domains == ("example.com", "example.org")
    assert settings.core.trusted_proxies == ("10.0.0.0/8", "unix")
    assert settings.core.reverse_proxy
    assert settings.store.kind == "redis"

    written = file.read_text()
    again = run([str(file)], answers)
    assert again.returncode == 2
    assert "exists, and is not overwritten" in again.stderr
    assert file.read_text() == written


def test_init_asks_on_terminal_and_hides_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "authproxy.cfg"
    leader, terminal = pty.openpty()
    given = flags({**BASE, "provider": "oidc", "client-secret-file": ""})
    process = subprocess.Popen(
        [*COMMAND, str(file), *given],
        env=HOME,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = ""
    for prompt, answer in [
        ("client secret (", "typed-secret"),
        ("email domains", ""),
        ("gateway in front", "none"),
        ("URL of the application", ""),
        ("certificate", ""),
        ("address to listen on", ""),
        ("session store", "sqlite"),
        ("SQLite", str(tmp_path / "sessions.db")),
    ]:
        start = len(shown)
        while not re.search(rf"{re.escape(prompt)}.*: $", shown[start:], re.S):
            shown += os.read(leader, 1024).decode()
        os.write(leader, f"{answer}\n".encode())
    try:
        while chunk := os.read(leader, 1024):
            shown += chunk.decode()
    except OSError:  # the process has closed the terminal
        pass
    os.close(leader)
    assert process.wait(60) == 0, shown
    assert "typed-secret" not in shown
    settings = load_settings(["--config", str(file)], {})
    assert settings.core.providers[0].client_secret.value == b"typed-secret"
    assert settings.store.kind == "sqlite"
    assert settings.core.redirect_url == "http://app.example.com/oauth2/callback"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_init_configuration_of_each_provider_is_valid(
    provider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {**BASE, "provider": provider, "email-domains": "example.com"}
    try:
        text, _ = configure(capsys, answers)
    except AssertionError:
        assert "--issuer: has no effect" in capsys.readouterr().err
        del answers["issuer"]
        text, _ = configure(capsys, answers)
    assert load(text, tmp_path).core.providers[0].type == provider
    for key, owner in GROUP_OPTIONS.items():
        assert (f"\n# {key} = " in text) == (provider == owner)


PUBLIC = [
    *({"provider": name} for name in ("google", "github", "bitbucket", "facebook")),
    {"provider": "gitlab", "issuer": "https://gitlab.com"},
    {"provider": "oidc", "issuer": "https://Accounts.Google.com/"},
    {
        "provider": "entra-id",
        "issuer": "https://login.microsoftonline.com/common/v2.0",
    },
]


@pytest.mark.parametrize("provider", PUBLIC)
def test_init_public_provider_requires_email_domains(
    provider: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"client-id": "web", "host": "app.example.com", **provider}
    assert main(["init", "--stdout", "--no-questions", *flags(given)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--email-domains: missing; expected allowed email domains" in err


@pytest.mark.parametrize(
    ("answers", "is_open"),
    [
        ({"provider": "github", "email-domains": "example.com, *"}, True),
        ({"provider": "github", "email-domains": "example.com"}, False),
        ({**BASE, "email-domains": "*"}, False),
        ({**BASE, "provider": "gitlab", "issuer": "https://gitlab.company.com"}, False),
    ],
)
def test_init_says_that_every_account_of_public_provider_can_sign_in(
    answers: Mapping[str, str], is_open: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"client-id": "web", "host": "app.example.com", **answers}
    _, messages = configure(capsys, given)
    assert ("every account of GitHub can sign in" in messages) == is_open
    assert ("every account" in messages) == is_open


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_init_configuration_for_each_gateway_is_valid_with_its_comments(
    gateway: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, messages = configure(capsys, {**BASE, "gateway": gateway})
    settings = load(text, tmp_path)
    assert settings.core.reverse_proxy == (gateway != "none")
    page = re.search(r"docs/gateways/\S+", messages)
    assert (page is not None) == (gateway != "none")
    assert page is None or (ROOT / page[0]).exists()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M)
    assert uncommented != text
    changed = load(uncommented, tmp_path).core
    assert changed.skip_provider_button
    assert [domain.lstrip(".") for domain in changed.cookie.domains] == ["example.com"]


def test_init_configures_tls_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = make_certificate(tmp_path, "app.example.com")
    answers = {
        **BASE,
        "gateway": "none",
        "tls-cert-file": certificate.cert_file,
        "tls-key-file": certificate.key_file,
        "listen": "127.0.0.1:8443",
        "client-secret-file": "/run/secrets/absent",
    }
    text, messages = configure(capsys, answers)
    assert "not checked: client_secret_file (the new file:" in messages
    secret = tmp_path / "secret"
    secret.write_text("from-file")
    settings = load(text.replace("/run/secrets/absent", str(secret)), tmp_path)
    [listener] = settings.listeners
    assert listener.tls is not None
    assert listener.port == 8443
    assert settings.core.redirect_url == "https://app.example.com/oauth2/callback"
    assert settings.core.providers[0].client_secret.value == b"from-file"


def test_init_generates_another_cookie_secret_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pattern = r'^cookie_secret = "([\w-]{43})"$'
    found = [re.findall(pattern, configure(capsys, BASE)[0], re.M) for _ in range(2)]
    assert len(found[0]) == 1
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"host": "app.example.com"}, "--issuer: missing"),
        ({**BASE, "issuer": "idp"}, "expected a URL such as https://HOST"),
        ({**BASE, "host": "https://app"}, "expected a host such as"),
        ({**BASE, "trusted-proxies": "10.0.0.1/8"}, "expected addresses or networks"),
        ({**BASE, "store": "file"}, "expected one of cookie, redis, sqlite"),
        ({**BASE, "upstream": "http://a"}, "has no effect with the other answers"),
        ({**BASE, "client-id": "a\nb"}, "expected printable characters"),
    ],
)
def test_init_invalid_flag_writes_nothing(
    answers: Mapping[str, str],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "authproxy.cfg"
    assert main(["init", str(file), "--no-questions", *flags(answers)]) == 2
    assert problem in capsys.readouterr().err
    assert not file.exists()


def test_init_failed_check_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "authproxy.cfg"
    given = flags({**BASE, "listen": "nowhere"})
    assert main(["init", str(file), "--no-questions", *given]) == 1
    assert "http_address (the new file:" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize(
    ("lines", "code", "problem"),
    [
        (["keycloak-oidc"], 1, "nothing written"),
        (["a", "b", "c", "d"], 2, "no valid answer for --provider"),
        (["x" * 5000], 2, "more than 4096 characters"),
        (
            ["github", "web", "", "", "", "", ""],
            2,
            "no valid answer for --email-domains",
        ),
    ],
)
def test_init_without_answers_writes_nothing(
    lines: list[str], code: int, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "authproxy.cfg"
    done = run([str(file)], lines)
    assert (done.returncode, done.stdout) == (code, "")
    assert problem in done.stderr
    assert not file.exists()


@pytest.mark.parametrize("arguments", [("init", "--help"), ("help", "init")])
def test_init_help_prints_usage(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: authproxy init ")
