"""``authproxy migrate --from``: the result never allows more than before."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError
from authproxy.migration.converted import PLACEHOLDERS
from authproxy_core.access.rules import RuleTable
from support.conversions import (
    FORWARD_AUTH,
    VOUCH,
    decision,
    from_forward_auth,
    from_vouch,
    load,
)


@pytest.mark.parametrize(
    ("users", "allowed", "denied"),
    [
        ("", "a@example.com", "a@example.net"),
        (", allowAllUsers: true", "a@example.net", ""),
        (", whiteList: [a@example.net]", "a@example.net", "b@example.com"),
        (", whiteList: [bob]", "", "a@example.com"),
        (", teamWhitelist: [one, two/b]", "", "a@example.com"),
    ],
)
def test_vouch_users_are_those_of_before(
    users: str, allowed: str, denied: str, tmp_path: Path
) -> None:
    provider = "github" if "teamWhitelist" in users else "google"
    text = VOUCH.format(vouch=users, provider=provider, oauth="")
    settings = load(from_vouch(text), tmp_path)
    url = "https://app.example.com/"
    if allowed:
        assert decision(settings, "GET", url, "--email", allowed) == "allowed"
    if denied:
        assert decision(settings, "GET", url, "--email", denied) == "denied"


@pytest.mark.parametrize("provider", ["google", "oidc", "discord"])
def test_vouch_teams_without_github_deny_all(provider: str, tmp_path: Path) -> None:
    oauth = ", auth_url: https://o.example/authorize"
    text = VOUCH.format(
        vouch=", teamWhitelist: [org/a]", provider=provider, oauth=oauth
    )
    converted = from_vouch(text)
    assert "github_team" not in converted.lines
    assert any("vouch.teamWhitelist: teams" in one for one in converted.access_notes)
    if provider == "discord":
        converted.set("provider", "google", "chosen by an operator")
    settings = load(converted, tmp_path)
    user = ("--email", "a@example.com", "--group", "org:a")
    assert decision(settings, "GET", "https://a.example.com/", *user) == "denied"


def test_conversion_to_option_without_effect_is_to_complete() -> None:
    converted = from_vouch(VOUCH.format(vouch="", provider="google", oauth=""))
    converted.set("github_team", "org:a", "test")
    [problem] = converted.problems()
    assert problem.startswith("github_team ")
    assert "has no effect: only the provider github reads it" in problem


def test_vouch_provider_without_counterpart_is_to_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    oauth = ", callback_url: https://vouch.example.com/auth"
    file.write_text(VOUCH.format(vouch="", provider="discord", oauth=oauth))
    assert main(["migrate", "--from", "vouch", str(file)]) == 1
    out, err = capsys.readouterr()
    note = "oauth.provider: there is no provider type for discord"
    assert f"#   {note}" in out
    assert f"to complete: {note}" in err
    assert "OAUTH2_PROXY_CLIENT_SECRET: the value of oauth.client_secret" in out
    assert 'redirect_url = "https://vouch.example.com/oauth2/callback"' in out
    result = tmp_path / "authproxy.cfg"
    result.write_text(out)
    with pytest.raises(ConfigError, match="got 'CHOOSE-ONE', expected one of"):
        load_settings(["--config", str(result)], PLACEHOLDERS)


def test_forward_auth_provider_without_counterpart_is_to_complete() -> None:
    converted = from_forward_auth(
        "default-provider = generic-oauth\nproviders.generic-oauth.client-id = web\n"
        "providers.generic-oauth.client-secret = top-secret\n"
        "providers.google.client-id = other\n"
    )
    assert converted.lines["provider"].value == "CHOOSE-ONE"
    assert converted.lines["client_id"].value == "web"
    assert "OAUTH2_PROXY_CLIENT_SECRET" in converted.variables
    assert set(converted.unmapped) == {"default-provider", "providers.google.client-id"}
    assert any("got 'CHOOSE-ONE'" in one for one in converted.problems())
    [note] = converted.access_notes
    assert note.startswith("default-provider: ")


@pytest.mark.parametrize(
    ("program", "text", "note"),
    [
        (
            "vouch",
            VOUCH.format(vouch=", whiteList: [bob]", provider="google", oauth=""),
            "vouch.whiteList: users are named by email",
        ),
        (
            "vouch",
            VOUCH.format(vouch=", publicAccess: true", provider="google", oauth=""),
            "vouch.publicAccess: it lets every request pass",
        ),
        (
            "vouch",
            VOUCH.format(vouch=", publicAccess: false", provider="google", oauth=""),
            "",
        ),
        (
            "tfa",
            FORWARD_AUTH + "rule.a.rule = Query(`a=b`)\nrule.a.action = allow\n",
            "rule.a: access rules have no Query",
        ),
        (
            "tfa",
            FORWARD_AUTH + "rule.a.rule = Path(`/a`)\nrule.a.provider = google\n",
            "rule.a.provider: several providers",
        ),
        (
            "tfa",
            FORWARD_AUTH + "rule.a.rule = Query(`a=b`)\n",
            "access_rules: a rule that restricts access could not be converted",
        ),
    ],
)
def test_conversion_without_counterpart_for_access_exits_with_1(
    program: str,
    text: str,
    note: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file.yml"
    file.write_text(text)
    code = main(["migrate", "--from", program, str(file)])
    out, err = capsys.readouterr()
    assert (code, bool(err)) == ((1, True) if note else (0, False))
    assert f"#   {note}" in out
    assert not note or f"to complete: {note}" in err


RULES = """
whitelist = boss@example.com
rule.open.action = allow
rule.open.rule = Host(`app.example.com`) && Path(`/open`)
rule.api.rule = PathPrefix(`/api`) && Method(`GET`)
rule.api.domains = example.net
"""


@pytest.mark.parametrize(
    ("text", "request_", "email", "expected"),
    [
        (RULES, ("GET", "https://app.example.com/open"), "", "allowed"),
        (RULES, ("GET", "https://app.example.com/open/x"), "", "requires a login"),
        (RULES, ("GET", "https://other.example.com/open"), "", "requires a login"),
        (RULES, ("GET", "https://a.example.com/api/x"), "a@example.net", "allowed"),
        (RULES, ("GET", "https://a.example.com/api/x"), "boss@example.com", "denied"),
        (RULES, ("POST", "https://a.example.com/api/x"), "boss@example.com", "allowed"),
        (RULES, ("GET", "https://a.example.com/"), "a@example.net", "denied"),
        (
            "default-action = allow\nrule.a.rule = PathPrefix(`/a`)",
            ("GET", "https://a.example.com/"),
            "",
            "allowed",
        ),
        (
            "default-action = allow\nrule.a.rule = PathPrefix(`/a`)",
            ("GET", "https://a.example.com/a"),
            "",
            "requires a login",
        ),
        (
            "whitelist = a@example.com\ndomain = example.net",
            ("GET", "https://a.example.com/"),
            "b@example.net",
            "denied",
        ),
        (
            "whitelist = a@example.com\ndomain = example.net\n"
            "match-whitelist-or-domain = true",
            ("GET", "https://a.example.com/"),
            "b@example.net",
            "allowed",
        ),
        # A rule that cannot be converted never allows more than before.
        (
            "rule.a.action = allow\nrule.a.rule = HostRegexp(`.*`)",
            ("GET", "https://a.example.com/"),
            "",
            "requires a login",
        ),
        (
            "default-action = allow\nrule.a.rule = HostRegexp(`.*`)",
            ("GET", "https://a.example.com/"),
            "a@example.com",
            "denied",
        ),
    ],
)
def test_forward_auth_rules_decide_as_before(
    text: str, request_: tuple[str, str], email: str, expected: str, tmp_path: Path
) -> None:
    settings = load(from_forward_auth(FORWARD_AUTH + text), tmp_path)
    user = ("--email", email) if email else ()
    assert decision(settings, *request_, *user) == expected


@pytest.mark.parametrize(
    "wider",
    [
        "rule.b.rule = PathPrefix(`/`)\nrule.b.action = allow",
        "rule.b.rule = PathPrefix(`/`)\nrule.b.domains = example.com",
        "default-action = allow",
    ],
)
def test_forward_auth_missing_restrictive_rule_denies_all(
    wider: str, tmp_path: Path
) -> None:
    text = f"rule.a.rule = Query(`a=b`)\nrule.a.whitelist = boss@example.com\n{wider}"
    converted = from_forward_auth(FORWARD_AUTH + text)
    settings = load(converted, tmp_path)
    for path in ("/", "/a?a=b", "/%2e%2e/a"):
        for user in ((), ("--email", "a@example.com"), ("--email", "boss@example.com")):
            url = f"https://a.example.com{path}"
            assert decision(settings, "GET", url, *user) == "denied", (path, user)
    table = RuleTable(settings.core.access)
    assert table.evaluate(None, None, None).policy == "deny"
    assert table.evaluate("a.example.com", b"OPTIONS", b"*").policy == "deny"
    # Without the leading rule, the other rules are those of before.
    del converted.rules[0]
    complete = load(from_forward_auth(FORWARD_AUTH + wider), tmp_path)
    assert load(converted, tmp_path).core.access == complete.core.access
