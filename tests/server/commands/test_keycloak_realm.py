"""``authproxy keycloak-realm``: its arguments; tests/e2e imports the realm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from authproxy.commands.cli import main

APPS = ("https://app.example.com", "http://localhost:8080")


def test_realm_uses_given_secrets_and_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("given-secret\n")
    (tmp_path / "password").write_text("given-password\n")
    arguments = [
        *(f"{APPS[0]}/", APPS[1], "--realm", "Staff", "--client-id", "portal"),
        *("--proxy-prefix", "/login", "--user", "carol", "--user", "dan=ops,dev"),
        *("--client-secret-file", str(tmp_path / "secret")),
        *("--password-file", str(tmp_path / "password")),
        *("--backchannel-url", "http://authproxy:4180/login/backchannel-logout"),
    ]
    assert main(["keycloak-realm", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    realm = json.loads(out)
    assert realm["realm"] == "Staff"
    [client] = realm["clients"]
    assert (client["clientId"], client["secret"]) == ("portal", "given-secret")
    assert client["redirectUris"] == [f"{app}/login/callback" for app in APPS]
    assert client["webOrigins"] == list(APPS)
    attributes = client["attributes"]
    logout = attributes["post.logout.redirect.uris"].split("##")
    assert logout == [f"{app}/*" for app in APPS]
    assert attributes["backchannel.logout.url"].startswith("http://authproxy:4180/")
    carol, dan = realm["users"]
    assert (carol["groups"], carol["realmRoles"]) == (
        [],
        ["default-roles-staff", "editor"],
    )
    assert (dan["groups"], dan["clientRoles"]) == (["ops", "dev"], {})
    password = {
        "type": "password",
        "value": "given-password",
        "temporary": False,
    }
    assert dan["credentials"] == [password]
    assert dan["requiredActions"] == []


def test_generated_secrets_are_new_and_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = []
    for _ in range(2):
        assert main(["keycloak-realm", APPS[0]]) == 0
        out, err = capsys.readouterr()
        realm = json.loads(out)
        alice, bob = realm["users"]
        passwords = [user["credentials"][0]["value"] for user in (alice, bob)]
        assert err == (
            f"client secret: {realm['clients'][0]['secret']}\n"
            f"temporary password of alice: {passwords[0]}\n"
            f"temporary password of bob: {passwords[1]}\n"
        )
        assert alice["requiredActions"] == ["UPDATE_PASSWORD"]
        shown += err.splitlines()
    assert len(set(shown)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: URL"),
        (["app.example.com"], "expected an http or https URL"),
        (["ftp://app.example.com"], "expected an http or https URL"),
        (["https://user@app.example.com"], "expected an http or https URL"),
        (["https://app.example.com:x"], "expected an http or https URL"),
        (["https://app.example.com/path"], "expected scheme and host"),
        (["https://*.example.com"], "expected scheme and host"),
        ([APPS[0], "--realm", "a/b"], "argument --realm"),
        ([APPS[0], "--user", "=staff"], "argument --user"),
        ([APPS[0], "--user", "bob=a,,b"], "argument --user"),
        ([APPS[0], "--proxy-prefix", "oauth2"], "expected a path"),
        ([APPS[0], "--backchannel-url", "/x"], "expected an http or https URL"),
        ([APPS[0], "--password-file", "/missing"], "/missing: cannot be read"),
        ([APPS[0], "--client-secret-file", "/dev/null"], "expected one line of text"),
        ([APPS[0], "--client", "x"], "unrecognized arguments"),
    ],
)
def test_invalid_argument_prints_no_realm(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["keycloak-realm", *arguments])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
