"""Options of one provider type: files, environment variables, problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.config.build.provider_types import PROVIDER_OF_OPTION, TokenFile
from authproxy.config.load import load_settings
from authproxy.config.options.table import BY_KEY
from authproxy.config.read.resolved import ConfigError
from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.providers import (
    GithubSettings,
    GoogleSettings,
    ProviderSettings,
)
from authproxy_core.settings.root import Secret
from support.configuration import (
    BASE,
    account_file,
    key_file,
    problem,
    problems,
    settings,
)
from support.endpoints import public_pem, signing_key, weak_key


def provider(*flags: str, env: dict[str, str] | None = None) -> ProviderSettings:
    """Return the only provider of the configuration."""
    [loaded] = settings(*flags, env=env).core.providers
    return loaded


def warnings(*flags: str) -> list[str]:
    return [text for text in settings(*flags).warnings if "provider" in text]


def test_provider_help_lists_all_types() -> None:
    assert BY_KEY["provider"].help.endswith(", ".join(sorted(PROVIDER_TYPES)))


@pytest.mark.parametrize("kind", sorted(PROVIDER_TYPES))
def test_provider_each_type_is_accepted(kind: str, tmp_path: Path) -> None:
    flags = [f"--provider={kind}"]
    if PROVIDER_TYPES[kind].required_options:
        flags += [f"--{name}-url=https://i/{name}" for name in ("login", "redeem")]
        flags.append("--validate-url=https://i/me")
    if kind == "login.gov":
        flags.append(f"--jwt-key-file={key_file(tmp_path, 'one')}")
    found = provider(*flags)
    assert found.type == kind
    assert found.id == f"{kind}=web"


def test_bitbucket_workspace_in_each_form(tmp_path: Path) -> None:
    """Also by its former name bitbucket_team, which it overrides."""
    kind = "--provider=bitbucket"
    file = tmp_path / "file.cfg"
    file.write_text('bitbucket_workspace = "eng"\n')
    [from_file] = settings(kind, file=file).core.providers
    found = [
        from_file,
        provider(kind, "--bitbucket-workspace=eng"),
        provider(kind, env={"OAUTH2_PROXY_BITBUCKET_WORKSPACE": "eng"}),
        provider(kind, "--bitbucket-team=eng"),
        provider(kind, "--bitbucket-team=old", "--bitbucket-workspace=eng"),
    ]
    assert [one.bitbucket.workspace for one in found] == ["eng"] * len(found)


def test_github_options_are_set() -> None:
    found = provider(
        "--provider=github",
        "--github-org=acme",
        "--github-team=devs,ops",
        "--github-repo=acme/app",
        "--github-token=hidden",
        "--github-user=alice,bob",
    )
    assert found.github == GithubSettings(
        org="acme",
        team="devs,ops",
        repo="acme/app",
        token=Secret("hidden"),
        users=("alice", "bob"),
    )
    assert "hidden" not in repr(found)


@pytest.mark.parametrize("key", sorted(PROVIDER_OF_OPTION))
def test_option_of_another_type_warns(key: str) -> None:
    reader = PROVIDER_OF_OPTION[key]
    flag = f"--{key.replace('_', '-')}"
    singular = {
        "keycloak_groups": "--keycloak-group",
        "gitlab_groups": "--gitlab-group",
        "gitlab_projects": "--gitlab-project",
        "github_users": "--github-user",
        "google_groups": "--google-group",
        "google_group": "--google-group",
        "entra_id_allowed_tenants": "--entra-id-allowed-tenant",
    }
    value = "https://i/x" if key.endswith("_url") else "true"
    [text] = warnings(f"{singular.get(key, flag)}={value}")
    assert text.endswith(f"has no effect: only the provider {reader} reads it")


def test_google_groups_variable_of_another_type_warns_once() -> None:
    env = {"OAUTH2_PROXY_GOOGLE_GROUPS": "a"}
    [text] = [text for text in settings(env=env).warnings if "google" in text]
    assert text.startswith("google_groups")


# Keys in files


def test_public_key_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(signing_key().as_pem(private=False))
    endpoints = ("--login-url=https://i/a", "--redeem-url=https://i/b")
    flag = f"--oidc-public-key-file={file}"
    found = provider("--skip-oidc-discovery", *endpoints, flag)
    assert found.public_keys == (file.read_text(),)
    both = problem(
        "--skip-oidc-discovery", *endpoints, flag, "--oidc-jwks-url=https://i/k"
    )
    assert both.startswith("oidc_public_key_files (--oidc-public-key-file): can't be")
    assert warnings(flag) == []
    assert any(
        text.endswith("has no effect without skip_oidc_discovery")
        for text in settings(flag).warnings
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "can't read"),
        (b"\xff", "is not UTF-8 text"),
        (b"no pem", "expected public keys in PEM"),
        (public_pem(weak_key().public_key()).encode(), "expected public keys in PEM"),
    ],
)
def test_public_key_files_invalid_rejected(
    content: bytes | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    found = problems(
        "--skip-oidc-discovery",
        "--login-url=https://i/a",
        "--redeem-url=https://i/b",
        f"--oidc-public-key-file={file}",
    )
    assert expected in found[0]


def test_login_gov_key_from_file_or_option(tmp_path: Path) -> None:
    file = key_file(tmp_path, "one")
    flag = f"--jwt-key-file={file}"
    found = provider("--provider=login.gov", flag, "--client-secret=")
    assert found.login_gov.jwt_key == Secret(file.read_bytes())
    assert problem("--provider=login.gov", flag, "--jwt-key=x").startswith(
        "jwt_key (--jwt-key): can't be used with jwt_key_file"
    )
    assert problem("--provider=login.gov") == (
        "jwt_key: missing (or jwt_key_file); expected a private RSA key"
    )
    assert problem("--provider=login.gov", "--jwt-key=hidden-key") == (
        "jwt_key: expected a private RSA key of at least 2048 bits in PEM"
    )
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert problem("--provider=login.gov", f"--jwt-key-file={empty}") == (
        f"jwt_key_file (--jwt-key-file): {empty} is empty"
    )
    missing = problem("--provider=login.gov", "--jwt-key-file=/missing")
    assert missing.startswith("jwt_key_file (--jwt-key-file): can't read /missing")


# Environment variables


def test_entra_id_token_file_read_at_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    env = {"AZURE_FEDERATED_TOKEN_FILE": str(file)}
    flags = ("--provider=entra-id", "--entra-id-federated-token-auth")
    found = provider(*flags, "--client-secret=", env=env)
    assert found.entra_id.federated_token == TokenFile(str(file))
    read = found.entra_id.federated_token
    assert read is not None
    assert read() == b"one"
    file.write_text("two")
    assert read() == b"two"
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        read()
    assert problem(*flags, env=env).endswith(
        f"no file {file} (AZURE_FEDERATED_TOKEN_FILE)"
    )
    assert problem(*flags).endswith(
        "requires the variable AZURE_FEDERATED_TOKEN_FILE with a file name"
    )


GOOGLE = ("--provider=google", "--google-admin-email=admin@example.com")


def test_google_service_account_file_is_read(tmp_path: Path) -> None:
    file = account_file(tmp_path, "one")
    found = provider(
        *GOOGLE, f"--google-service-account-json={file}", "--google-group=a"
    )
    assert found.google == GoogleSettings(
        groups=("a",),
        admin_email="admin@example.com",
        credentials=Secret(file.read_bytes()),
    )


def test_google_default_credentials_search_order(tmp_path: Path) -> None:
    flags = (*GOOGLE, "--google-use-application-default-credentials=true")
    env = {"HOME": str(tmp_path)}
    found = provider(*flags, "--google-target-principal=sa@p", env=env).google
    assert found.metadata_server
    assert found.target_principal == "sa@p"
    default = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    default.parent.mkdir(parents=True)
    default.write_bytes(account_file(tmp_path, "one").read_bytes())
    found = provider(*flags, env=env).google
    assert not found.metadata_server
    assert found.credentials == Secret(default.read_bytes())
    explicit = account_file(tmp_path, "two")
    found = provider(
        *flags, env={**env, "GOOGLE_APPLICATION_CREDENTIALS": str(explicit)}
    ).google
    assert found.credentials == Secret(explicit.read_bytes())
    both = problem(*flags, f"--google-service-account-json={explicit}", env=env)
    assert "can't be used with google_use_application_default_credentials" in both


def test_google_options_invalid_rejected(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    file.write_text('{"type": "external_account"}')
    flag = f"--google-service-account-json={file}"
    assert problem(*GOOGLE, flag) == (
        "google_service_account_json: expected credentials of type service_account "
        "or authorized_user"
    )
    assert problem("--provider=google", flag).startswith("google_admin_email: missing")
    assert problem(*GOOGLE).startswith("google_service_account_json: missing")
    missing = problems(*GOOGLE, "--google-service-account-json=/missing")
    assert "can't read /missing" in missing[0]
    assert problem("--provider=google", "--google-group=a").startswith(
        "google_groups (--google-group): needs google_admin_email"
    )


def test_google_group_overrides_google_groups(tmp_path: Path) -> None:
    account = account_file(tmp_path, "one")
    env = {
        **BASE,
        "OAUTH2_PROXY_PROVIDER": "google",
        "OAUTH2_PROXY_GOOGLE_GROUPS": "new",
        "OAUTH2_PROXY_GOOGLE_GROUP": "old",
        "OAUTH2_PROXY_GOOGLE_ADMIN_EMAIL": "a@b.c",
        "OAUTH2_PROXY_GOOGLE_SERVICE_ACCOUNT_JSON": str(account),
    }
    loaded = load_settings([], env)
    assert loaded.core.providers[0].google.groups == ("old",)
    assert any("overrides google_groups" in text for text in loaded.warnings)


def test_allowed_roles_require_keycloak_oidc() -> None:
    found = problem("--provider=gitlab", "--allowed-role=x")
    assert "gitlab has no roles" in found


# Several providers

SEVERAL = """
providers:
- id: keycloak
  name: Staff
  provider: keycloak-oidc
  clientID: web
  clientSecret: one
  oidcConfig: {issuerURL: https://idp.example.com/}
- id: github
  name: Partners
  provider: github
  clientID: app
  clientSecret: two
  hosts: [partners.example.com]
  githubConfig: {org: acme, users: [alice]}
- id: adfs
  provider: adfs
  clientID: app
  clientSecret: three
  hosts: [adfs.example.com]
  oidcConfig: {issuerURL: https://adfs.example.com/adfs}
  ADFSConfig: {skipScope: true}
server: {bindAddress: '127.0.0.1:4180'}
"""


def alpha(text: str, directory: Path) -> list[str]:
    return (
        [f"--alpha-config={directory / 'alpha.yaml'}"]
        if _write(text, directory)
        else []
    )


def _write(text: str, directory: Path) -> int:
    return (directory / "alpha.yaml").write_text(text)


ENV = {
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
}


def test_alpha_providers_bound_to_hosts(tmp_path: Path) -> None:
    loaded = load_settings(alpha(SEVERAL, tmp_path), ENV)
    keycloak, github, adfs = loaded.core.providers
    assert (keycloak.name, keycloak.hosts) == ("Staff", ())
    assert (github.hosts, github.github.org) == (("partners.example.com",), "acme")
    assert adfs.skip_scope
    assert loaded.warnings == ()
    # Each host offers one provider, so the sign-in page can be skipped.
    loaded = load_settings([*alpha(SEVERAL, tmp_path), "--skip-provider-button"], ENV)
    assert loaded.core.skip_provider_button


def test_alpha_adfs_option_of_another_type_warns(tmp_path: Path) -> None:
    text = SEVERAL.replace("provider: adfs", "provider: oidc")
    loaded = load_settings(alpha(text, tmp_path), ENV)
    [warning] = loaded.warnings
    assert warning.startswith("providers[2].ADFSConfig.skipScope")
    assert "only the provider adfs reads it" in warning


def test_alpha_provider_problem_names_provider(tmp_path: Path) -> None:
    text = SEVERAL.replace("hosts: [adfs.example.com]", "hosts: [partners.example.com]")
    text = text.replace("clientSecret: one", "clientSecret: ''")
    with pytest.raises(ConfigError) as caught:
        load_settings(alpha(text, tmp_path), ENV)
    found = "\n".join(caught.value.problems)
    assert "'partners.example.com' is bound to two providers" in found
    assert "(provider 'keycloak')" in found
