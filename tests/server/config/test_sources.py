"""Flags, variables and the TOML file: syntax, precedence, messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError, UsageError
from authproxy.config.read.sources import parse_flags, resolve_options
from support.configuration import problem, problems, settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "authproxy.cfg"


def test_precedence_flag_variable_file_default(file: Path) -> None:
    env = {"OAUTH2_PROXY_COOKIE_NAME": "from_env"}
    assert settings().core.cookie.name == "_oauth2_proxy"
    file.write_text('cookie_name = "from_file"')
    assert settings(file=file).core.cookie.name == "from_file"
    assert settings(file=file, env=env).core.cookie.name == "from_env"
    flag = "--cookie-name=from_flag"
    assert settings(flag, file=file, env=env).core.cookie.name == "from_flag"


def test_precedence_list_replaces_list(file: Path) -> None:
    file.write_text('cookie_domains = ["a.example", "b.example"]')
    flags = ("--cookie-domain", "c.example", "--cookie-domain=d.example,e.example")
    assert settings(*flags, file=file).core.cookie.domains == (
        "c.example",
        "d.example",
        "e.example",
    )


def test_empty_variable_ignored_but_empty_toml_string_used(file: Path) -> None:
    file.write_text('cookie_name = "n"\nping_path = ""')
    env = {"OAUTH2_PROXY_COOKIE_NAME": ""}
    loaded = settings(file=file, env=env).core
    assert (loaded.cookie.name, loaded.ping_path) == ("n", "")


def test_precedence_overridden_value_is_not_parsed(file: Path) -> None:
    file.write_text('cookie_expire = "never"')
    env = {"OAUTH2_PROXY_COOKIE_EXPIRE": "1h"}
    assert settings(file=file, env=env).core.cookie.expire == 3600


def test_toml_keys_case_insensitive(file: Path) -> None:
    file.write_text('Cookie_Name = "n"')
    assert settings(file=file).core.cookie.name == "n"


def test_toml_duplicate_key_rejected(file: Path) -> None:
    file.write_text('cookie_name = "a"\nCOOKIE_NAME = "b"')
    assert problem(file=file) == (
        f"COOKIE_NAME ({file}:2): duplicate key; keys are case-insensitive"
    )


def test_parse_flags_boolean_consumes_no_argument() -> None:
    assert settings("--reverse-proxy", "true").core.reverse_proxy
    assert not settings("--reverse-proxy=false").core.reverse_proxy
    with pytest.raises(UsageError, match="write --reverse-proxy=false"):
        parse_flags(["--reverse-proxy", "false"])


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["top-secret"], ""),
        (["--cookie-name=a", "top-secret"], ""),
        (["--reverse-proxy", "top-secret"], " after --reverse-proxy"),
        (["-"], ""),
        (["--", "--bogus"], " after --"),
        (["true"], ""),
        (["--reverse-proxy=true", "true"], ""),
        (["--workers", "2", "true"], ""),
    ],
)
def test_parse_flags_positional_argument_rejected_unshown(
    arguments: list[str], where: str
) -> None:
    """oauth2-proxy ignores them: a misspelled command would start a server."""
    with pytest.raises(UsageError) as caught:
        parse_flags(arguments)
    problem = "got an argument that is neither a flag nor a command"
    assert caught.value.problems == (problem + where,)


def test_parse_flags_last_value_wins_and_empty_arguments_ignored() -> None:
    flags = ("--cookie-name=a", "", "--cookie-name", "b", "--", "")
    assert settings(*flags).core.cookie.name == "b"


def test_parse_flags_help_ends_parsing() -> None:
    assert parse_flags(["--help", "--bogus"]).help == "common"
    assert parse_flags(["-h"]).help == "common"
    assert parse_flags(["--help-all", "--bogus"]).help == "all"
    assert parse_flags(["--help-all=true"]).help == "all"
    assert parse_flags([]).help == ""
    with pytest.raises(UsageError):
        parse_flags(["--bogus", "--help"])


def test_parse_flags_google_group_sets_both_keys() -> None:
    flags = parse_flags(["--google-group=a", "--google-group=b"])
    assert flags.values == {"google_groups": ("a", "b"), "google_group": ("a", "b")}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--cookie-expire=1d",
         "--cookie-expire: got '1d', expected a duration with a unit, such as 1h30m or "
         "90s"),
        ("--workers=x", "--workers: got 'x', expected an integer"),
        ("--reverse-proxy=yes", "--reverse-proxy: got 'yes', expected true or false"),
        ('--email-domain=a"b',
         "--email-domain: got 'a\"b', expected comma-separated strings; \"…\" "
         "quotes a comma"),
        ('--cookie-secrets=top"secret',
         "--cookie-secrets: got a secret (not shown), expected comma-separated "
         'strings; "…" quotes a comma'),
        ("--cookie-secrt=topsecret",
         "--cookie-secrt: unknown flag; did you mean --cookie-secret?"),
        ("--zzz", "--zzz: unknown flag"),
        ("-provider=oidc", "-provider: flags start with two dashes"),
        ("--client-id", "--client-id: missing value"),
        ("--=x", "--: unknown flag"),
    ],
)  # fmt: skip
def test_parse_flags_invalid_flag_rejected(flag: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_flags([flag])
    assert caught.value.problems == (message,)
    assert caught.value.exit_code == 2


def test_parse_flags_reports_all_problems() -> None:
    assert len(problems("--bogus", "--workers=x", "--cookie-expire", "1")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('email_domain = "*"', "email_domain (FILE:1): unknown key; did you mean "
                               "email_domains?"),
        ('\nemail-domains = "*"', "email-domains (FILE:2): unknown key; did you mean "
                                  "email_domains?"),
        ('config = "x"', "config (FILE:1): unknown key"),
        ("[zzz]\na = 1", "zzz (FILE:1): unknown table"),
        ("[email_domains]\na = 1", "email_domains (FILE:1): got {'a': 1}, expected a "
                                   "list of strings"),
        ("zzz = 1", "zzz (FILE:1): unknown key"),
        ("reverse_proxy = 'yes'", "reverse_proxy (FILE:1): got 'yes', expected true or "
                                  "false"),
        ("client_id = ['a']", "client_id (FILE:1): got ['a'], expected a string"),
        ("cookie_secret = ['topsecret']", "cookie_secret (FILE:1): got a secret (not "
                                          "shown), expected a string"),
        ("cookie_expire = ''", "cookie_expire (FILE:1): got '', expected a duration "
                               "with a unit, such as 1h30m or 90s"),
        ("cookie_samesite = 'Lax'", "cookie_samesite (FILE:1): got 'Lax', expected "
                                    "'lax', 'strict', 'none' or nothing"),
        ("auth_success_status = 201", "auth_success_status (FILE:1): got 201, expected "
                                      "'200', '202' or '204'"),
        ("workers = -1", "workers (FILE:1): got -1, expected at least 0 and at most "
                         "1024"),
        ("cookie_refresh = '-1h'", "cookie_refresh (FILE:1): got '-1h0m0s', expected at "
                                   "least 0s"),
        ("session_store_type = 'disk'", "session_store_type (FILE:1): got 'disk', "
                                        "expected 'cookie', 'redis' or 'sqlite'"),
        ("skip_auth_routes = 'GET=('", "skip_auth_routes (FILE:1): got '(', expected a "
                                       "regular expression in Go's syntax: missing ): ("),
        ("logging_filename = '/missing/x'", "logging_filename: can't write /missing/x: "
                                            "No such file or directory"),
        ("logging_format = 'xml'", "logging_format (FILE:1): got 'xml', expected 'text' "
                                   "or 'json'"),
        ("logging_max_size = -1", "logging_max_size (FILE:1): got -1, expected at least "
                                  "0"),
    ],
)  # fmt: skip
def test_toml_invalid_value_names_line(file: Path, text: str, message: str) -> None:
    # A variable takes precedence over the file, so the key is removed from the base.
    env = {"OAUTH2_PROXY_" + text.strip("[\n ").split()[0].strip("[]=").upper(): ""}
    file.write_text(text)
    found = problems(file=file, env=env)
    assert [p.replace(str(file), "FILE") for p in found] == [message]


def test_toml_unreadable_file_rejected(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert problem(file=missing) == (
        f"--config: can't read {missing}: No such file or directory"
    )
    assert problem(file=tmp_path).endswith(": Is a directory")


def test_toml_malformed_file_rejected(file: Path) -> None:
    file.write_text('provider = "oidc"\nbad\n')
    assert problem(file=file).startswith(f"--config: {file} is not TOML: ")
    assert "line 2" in problem(file=file)
    file.write_bytes(b'a = "\xff"')
    assert problem(file=file) == f"--config: {file} is not UTF-8 text"


def test_toml_unreadable_file_is_the_only_problem(tmp_path: Path) -> None:
    """Its options are not reported as missing, and a reload watches the file."""
    path = str(tmp_path / "missing")
    with pytest.raises(ConfigError) as caught:
        load_settings([f"--config={path}"], {})
    assert caught.value.problems == (
        f"--config: can't read {path}: No such file or directory",
    )
    assert caught.value.files == (path,)


def test_toml_escaped_key_has_no_line(file: Path) -> None:
    file.write_text('"z\\u007Az" = 1')
    assert problem(file=file) == f"zzz ({file}): unknown key"


def test_invalid_variable_names_origin() -> None:
    assert problem(env={"OAUTH2_PROXY_REVERSE_PROXY": "yes"}) == (
        "reverse_proxy (OAUTH2_PROXY_REVERSE_PROXY): got 'yes', expected true or false"
    )
    name = "google_use_organization_id"
    assert problem("--google-use-organization-id=x") == (
        f"{name} (--google-use-organization-id): got 'x', expected true or false"
    )


def test_display_value_hides_passwords_in_urls() -> None:
    text = problem("--upstream=ftp://user:topsecret@host/")
    assert "topsecret" not in text
    assert "ftp://***@host/" in text


def test_display_value_cuts_long_values() -> None:
    assert len(problem("--upstream=ftp://" + "x" * 5000)) < 400


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("EMAIL_DOMAIN", "; did you mean OAUTH2_PROXY_EMAIL_DOMAINS?"),
        ("bitbucket_team", "; did you mean OAUTH2_PROXY_BITBUCKET_TEAM?"),
        ("CONFIG", "; use the flag --config"),
        ("ALPHA_CONFIG", "; use the flag --alpha-config"),
        ("XQZ", ""),
        ("METRICS_PORT", None),
        ("", None),
    ],
)
def test_unknown_variable_is_error(name: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(env={f"OAUTH2_PROXY_{name}": "x"})
    [text] = caught.value.problems
    expected = f"OAUTH2_PROXY_{name}: unknown environment variable"
    if hint is None:
        assert text.startswith(expected)
    else:
        assert text == expected + hint


def test_variables_of_services_and_other_programs_are_no_error() -> None:
    names = {
        "OAUTH2_PROXY_PORT": "tcp://10.0.0.1:80",
        "OAUTH2_PROXY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "OAUTH2_PROXY_PORT_80_TCP_ADDR": "10.0.0.1",
        "OAUTH2_PROXY_PORT_80_TCP_PORT": "80",
        "OAUTH2_PROXY_PORT_80_TCP_PROTO": "tcp",
        "OAUTH2_PROXY_SERVICE_HOST": "10.0.0.1",
        "OAUTH2_PROXY_SERVICE_PORT": "80",
        "OAUTH2_PROXY_SERVICE_PORT_HTTP": "80",
        "OAUTH2_PROXY_REDIS_SERVICE_HOST": "10.0.0.2",
        "OAUTH2_PROXY_REDIS_PORT": "tcp://10.0.0.2:6379",
        "OAUTH2_PROXY_REDIS_PORT_6379_TCP": "tcp://10.0.0.2:6379",
        "OAUTH2_PROXYX": "1",
        "OAUTH2_PROXY_XQZ": "",
        "oauth2_proxy_email_domain": "x",
    }
    assert settings(env=names).core == settings().core


def test_variable_of_alpha_file_is_no_error(tmp_path: Path) -> None:
    alpha = tmp_path / "alpha.yaml"
    alpha.write_text("a: ${OAUTH2_PROXY_MY_SECRET}\n")
    for name, unknown in (("MY_SECRET", False), ("OTHER_SECRET", True)):
        flags = parse_flags([f"--alpha-config={alpha}"])
        resolved = resolve_options(flags, {f"OAUTH2_PROXY_{name}": "x"})
        assert any("unknown environment" in p for p in resolved.problems) is unknown
    missing = parse_flags([f"--alpha-config={alpha}x"])
    assert resolve_options(missing, {"OAUTH2_PROXY_MY_SECRET": "x"}).problems


def test_toml_duration_number_is_nanoseconds_and_warns(file: Path) -> None:
    file.write_text("upstream_timeout = 3000000000\nidle_timeout = '2m'")
    loaded = settings("--upstream=http://127.0.0.1:1/", file=file)
    assert loaded.core.upstreams[0].timeout == 3.0
    assert loaded.warnings == (
        f"upstream_timeout ({file}:1): the number 3000000000 means nanoseconds "
        '(3s), as in oauth2-proxy; write it with a unit, such as "1h"',
    )


def test_option_of_another_provider_warns(file: Path) -> None:
    file.write_text("github_org = 'x'")
    assert [w.partition(": ")[2] for w in settings(file=file).warnings] == [
        "has no effect: only the provider github reads it",
    ]


def test_option_at_its_default_does_not_warn(file: Path) -> None:
    file.write_text("logging_max_size = 100\nskip_auth_routes = []\nhtpasswd_file = ''")
    assert settings(file=file).warnings == ()
