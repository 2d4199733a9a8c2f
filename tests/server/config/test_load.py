"""`load_settings`: options that depend on each other, and their problems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from authproxy.config.build import workers
from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError
from authproxy.server_settings import Listener
from authproxy_core.settings.root import (
    ClaimSource,
    HeaderRule,
    LoginParameter,
    Secret,
    UpstreamSettings,
)
from support.certificates import make_certificate
from support.configuration import BASE, problem, problems, settings

SEED = """
reverse_proxy = true
provider = "keycloak-oidc"
provider_display_name = "Keycloak"
email_domains = "*"
set_xauthrequest = true
set_authorization_header = true
ssl_insecure_skip_verify = true
insecure_oidc_allow_unverified_email = true
code_challenge_method = "S256"
upstreams = "file:///dev/null"
"""


def claim(name: str, source: str, prefix: str = "", keep: bool = False) -> HeaderRule:
    return HeaderRule(name, (ClaimSource(source, prefix),), keep)


IDENTITY = (
    claim("X-Forwarded-Groups", "groups"),
    claim("X-Forwarded-User", "user"),
    claim("X-Forwarded-Email", "email"),
    claim("X-Forwarded-Preferred-Username", "preferred_username"),
)


def test_load_settings_typical_configuration(tmp_path: Path) -> None:
    file = tmp_path / "seed.cfg"
    file.write_text(SEED)
    loaded = load_settings(
        ["--config", str(file)],
        {
            "OAUTH2_PROXY_CLIENT_ID": "web",
            "OAUTH2_PROXY_CLIENT_SECRET": "s",
            "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
            "OAUTH2_PROXY_OIDC_ISSUER_URL": "https://idp/realms/r",
            "OAUTH2_PROXY_REDIRECT_URL": "",
        },
    )
    core = loaded.core
    [provider] = core.providers
    assert (provider.id, provider.name, provider.type) == (
        "Keycloak",
        "Keycloak",
        "keycloak-oidc",
    )
    assert (provider.client_id, provider.client_secret) == ("web", Secret("s"))
    assert provider.issuer == "https://idp/realms/r"
    assert provider.code_challenge_method == "S256"
    assert provider.allow_unverified_email
    assert not provider.skip_nonce
    assert provider.login_parameters == (LoginParameter("approval_prompt", ("force",)),)
    assert core.reverse_proxy
    assert core.email_domains == ("*",)
    assert core.cookie.secrets == (Secret("0123456789abcdef"),)
    assert core.redirect_url == ""
    assert core.inject_request_headers == IDENTITY
    assert core.inject_response_headers == (
        claim("X-Auth-Request-User", "user"),
        claim("X-Auth-Request-Email", "email"),
        claim("X-Auth-Request-Preferred-Username", "preferred_username"),
        claim("X-Auth-Request-Groups", "groups"),
        claim("Authorization", "id_token", "Bearer "),
    )
    assert [upstream.uri for upstream in core.upstreams] == ["file:///dev/null"]
    assert loaded.client.insecure_skip_verify
    assert loaded.listeners == (Listener(host="127.0.0.1", port=4180),)
    assert [warning.split(" ")[0] for warning in loaded.warnings] == [
        "ssl_insecure_skip_verify",
        "reverse_proxy",
    ]


def test_load_settings_without_options_reports_missing_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings([], {})
    assert caught.value.exit_code == 1
    assert [text.partition(":")[0] for text in caught.value.problems] == [
        "cookie_secret",
        "client_id",
        "client_secret",
        "email_domains",
    ]


def test_load_settings_core_problem_has_origin() -> None:
    assert problem("--cookie-refresh=200h") == (
        "cookie_refresh (--cookie-refresh): got 720000s, expected less than "
        "cookie_expire (604800s)"
    )
    assert problem("--trusted-proxy-ip=10.0.0.1/8") == (
        "trusted_proxy_ips (--trusted-proxy-ip): got '10.0.0.1/8', expected an address "
        "or a network without host bits, such as 10.0.0.0/8"
    )
    short = problem("--cookie-secret=topsecret")
    assert short.startswith("cookie_secret (--cookie-secret): got 9 bytes")
    assert "topsecret" not in short


def test_load_settings_reports_problem_once() -> None:
    assert len(problems("--client-secret=", "--client-secret-file=/missing")) == 1
    assert len(problems("--cookie-secret=", "--cookie-secret-file=/missing")) == 1


# Secrets


def test_secret_file_read_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b" a\n")
    loaded = settings("--client-secret=", f"--client-secret-file={file}")
    assert loaded.core.providers[0].client_secret == Secret(b" a\n")
    assert loaded.warnings == (
        f"client_secret_file (--client-secret-file): {file} ends with a newline, "
        "which is part of the secret",
    )


def test_secret_takes_precedence_over_its_file(tmp_path: Path) -> None:
    loaded = settings(f"--client-secret-file={tmp_path / 'missing'}")
    assert loaded.core.providers[0].client_secret == Secret("hidden-client-secret")
    assert (
        "client_secret_file (--client-secret-file): ignored because client_secret is set"
    ) in loaded.warnings


def test_https_address_without_certificate_warns() -> None:
    assert (
        "https_address (--https-address): has no effect without tls_cert_file"
    ) in settings("--https-address=127.0.0.1:0").warnings
    assert not [text for text in settings().warnings if "https_address" in text]


def test_secret_file_missing_or_empty_rejected(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path, text in (
        (tmp_path / "missing", f"can't read {tmp_path}/missing: No such file or "
         "directory"),
        (tmp_path, f"can't read {tmp_path}: Is a directory"),
        (empty, f"{empty} is empty"),
    ):  # fmt: skip
        assert problem("--client-secret=", f"--client-secret-file={path}") == (
            f"client_secret_file (--client-secret-file): {text}"
        )


def test_cookie_secrets_form_key_ring() -> None:
    first, second = "0123456789abcdef", "fedcba9876543210"
    ring = settings(f"--cookie-secrets={second},{first}").core.cookie.secrets
    assert ring == (Secret(first), Secret(second))
    assert problem("--cookie-secrets=short").startswith(
        "cookie_secrets (--cookie-secrets): got 5 bytes"
    )
    alone = settings("--cookie-secret=", f"--cookie-secrets={second},{first}")
    assert alone.core.cookie.secrets == (Secret(second), Secret(first))
    assert problem(f"--cookie-secrets={first},").startswith("cookie_secrets (")


def test_problems_show_no_secret() -> None:
    given = ("--cookie-secret=topsecret", "--basic-auth-password=topsecret",
             "--set-basic-auth", "--set-authorization-header",
             "--pass-authorization-header", "--signature-key=topsecret",
             "--redis-connection-url=redis://:topsecret@x", "--jwt-key=topsecret",
             "--cookie-secrets=topsecret")  # fmt: skip
    found = problems(*given)
    assert len(found) >= 4
    assert "topsecret" not in "\n".join(found)


# Provider


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--provider=githup",),
         "provider (--provider): got 'githup', expected one of adfs, azure, bitbucket, "
         "cidaas, digitalocean, entra-id, facebook, github, gitlab, google, keycloak, "
         "keycloak-oidc, linkedin, login.gov, nextcloud, oidc, sourcehut; did you mean "
         "'github'?"),
        (("--provider=github",), None),
        (("--provider=google",), None),
        (("--provider=nextcloud", "--login-url=https://i/a", "--redeem-url=https://i/b"),
         "validate_url: missing; the provider nextcloud has no default"),
        (("--allowed-role=x",),
         "allowed_roles (--allowed-role): requires the provider keycloak-oidc; "
         "oidc has no roles, and oauth2-proxy ignores this option with it; remove it, or "
         "set allowed_groups"),
        (("--provider=keycloak-oidc", "--allowed-role=x,"),
         "allowed_roles (--allowed-role): got an empty role"),
        (("--allowed-group=",), None),
        (("--allowed-group=,",),
         "allowed_groups (--allowed-group): got an empty group, which "
         "matches no user"),
        (("--code-challenge-method=s256",),
         "code_challenge_method (--code-challenge-method): got 's256', expected 'S256', "
         "'plain', 'none' or nothing"),
        (("--oidc-enabled-signing-alg=none",),
         "oidc_enabled_signing_algs (--oidc-enabled-signing-alg): got 'none', expected "
         "an algorithm such as RS256 or ES256"),
        (("--oidc-audience-claim=",),
         "oidc_audience_claims (--oidc-audience-claim): empty, expected claims such as "
         "aud"),
        (("--login-url=idp.example.com",),
         "login_url (--login-url): got 'idp.example.com', expected a URL such as "
         "https://HOST/PATH"),
        (("--login-url=https://[x/",),
         "login_url (--login-url): got 'https://[x/', expected a URL such as "
         "https://HOST/PATH"),
        (("--skip-oidc-discovery", "--login-url=https://i/a", "--redeem-url=https://i/b"),
         "oidc_jwks_url: missing; needed with skip_oidc_discovery"),
        (("--skip-oidc-discovery", "--login-url=https://i/a",
          "--oidc-jwks-url=https://i/b"),
         "redeem_url: missing; needed with skip_oidc_discovery"),
        (("--redirect-url=app.example.com",),
         "redirect_url (--redirect-url): got 'app.example.com', expected a URL "
         "such as https://HOST/oauth2/callback"),
        (("--reverse-proxy", "--real-client-ip-header=X"),
         "real_client_ip_header (--real-client-ip-header): got 'X', expected one of "
         "X-Forwarded-For, X-Real-IP, X-ProxyUser-IP, X-Envoy-External-Address, "
         "CF-Connecting-IP"),
        (("--request-id-header=x y",),
         "request_id_header (--request-id-header): got 'x y', expected a header "
         "name"),
        (("--request-logging-format={{.Nope}}",), "request_logging_format: got the "
         "unknown field .Nope, expected one of .Client, .Host, .Protocol, .RequestID, "
         ".RequestDuration, .RequestMethod, .RequestURI, .ResponseSize, .StatusCode, "
         ".Timestamp, .Upstream, .UserAgent, .Username, .TraceID"),
        (("--provider-ca-file=/missing",), "provider_ca_files: can't read certificates "
         "from '/missing': No such file or directory"),
    ],
)  # fmt: skip
def test_provider_options_invalid_rejected(
    flags: tuple[str, ...], message: str | None
) -> None:
    assert list(problems(*flags)) == ([message] if message else [])


def test_provider_id_from_display_name_or_client_id() -> None:
    assert settings().core.providers[0].id == "oidc=web"
    assert settings("--provider-display-name=SSO").core.providers[0].id == "SSO"


def test_allowed_roles_become_groups() -> None:
    loaded = settings(
        "--provider=keycloak-oidc", "--allowed-group=/staff", "--allowed-role=admin,c:r"
    )
    assert loaded.core.providers[0].allowed_groups == (
        "/staff",
        "role:admin",
        "role:c:r",
    )


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ((), {"approval_prompt": "force"}),
        (("--approval-prompt=",), {"approval_prompt": "force"}),
        (("--approval-prompt=auto",), {"approval_prompt": "auto"}),
        (("--prompt=login",), {"prompt": "login"}),
        (("--acr-values=a b",), {"acr_values": "a b", "approval_prompt": "force"}),
    ],
)
def test_login_parameters_prompt_replaces_approval_prompt(
    flags: tuple[str, ...], parameters: dict[str, str]
) -> None:
    loaded = settings(*flags).core.providers[0].login_parameters
    assert {parameter.name: parameter.values for parameter in loaded} == {
        name: (value,) for name, value in parameters.items()
    }


def test_old_option_names_have_lower_precedence() -> None:
    old = ("--user-id-claim=upn", "--force-code-challenge-method=plain")
    provider = settings(*old).core.providers[0]
    assert (provider.email_claim, provider.code_challenge_method) == ("upn", "plain")
    new = ("--oidc-email-claim=mail", "--code-challenge-method=S256")
    provider = settings(*old, *new).core.providers[0]
    assert (provider.email_claim, provider.code_challenge_method) == ("mail", "S256")


# Headers


def test_request_headers_of_pass_options() -> None:
    assert settings().core.inject_request_headers == IDENTITY
    off = ("--pass-basic-auth=false", "--pass-user-headers=false")
    assert settings(*off).core.inject_request_headers == ()
    assert settings(*off, "--pass-access-token").core.inject_request_headers == (
        claim("X-Forwarded-Access-Token", "access_token"),
    )
    assert settings(
        *off, "--pass-authorization-header"
    ).core.inject_request_headers == (claim("Authorization", "id_token", "Bearer "),)
    loaded = settings("--skip-auth-strip-headers=false").core.inject_request_headers
    assert all(rule.preserve_request_value for rule in loaded)


def test_pass_access_token_sets_request_and_response_header() -> None:
    loaded = settings("--set-xauthrequest", "--pass-access-token").core
    for rules, name in (
        (loaded.inject_request_headers, "X-Forwarded-Access-Token"),
        (loaded.inject_response_headers, "X-Auth-Request-Access-Token"),
    ):
        assert rules[-1] == claim(name, "access_token")


def test_basic_auth_password_sets_authorization_headers() -> None:
    password = "--basic-auth-password=p"
    basic = HeaderRule("Authorization", (ClaimSource("user", "", Secret("p")),))
    assert settings(password).core.inject_request_headers == (basic, *IDENTITY)
    off = settings(password, "--pass-basic-auth=false")
    assert off.core.inject_request_headers == IDENTITY
    loaded = settings(password, "--set-basic-auth", "--prefer-email-to-user").core
    by_email = HeaderRule("Authorization", (ClaimSource("email", "", Secret("p")),))
    assert loaded.inject_response_headers == (by_email,)
    assert loaded.inject_request_headers == (
        by_email,
        claim("X-Forwarded-Groups", "groups"),
        claim("X-Forwarded-User", "email"),
        claim("X-Forwarded-Preferred-Username", "preferred_username"),
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set-basic-auth",),
         "set_basic_auth (--set-basic-auth): requires basic_auth_password"),
        (("--set-basic-auth", "--set-authorization-header", "--basic-auth-password=p"),
         "set_basic_auth (--set-basic-auth): can't be used with "
         "set_authorization_header, because both set Authorization"),
        (("--pass-authorization-header", "--basic-auth-password=p"),
         "pass_authorization_header (--pass-authorization-header): can't be used with "
         "basic_auth_password, because both set Authorization"),
    ],
)  # fmt: skip
def test_header_options_conflicting_rejected(
    flags: tuple[str, ...], message: str
) -> None:
    assert problem(*flags) == message


def test_minimal_session_conflicts_with_access_token() -> None:
    found = problems("--session-cookie-minimal", "--pass-access-token")
    assert len(found) == 1
    assert "session_cookie_minimal (--session-cookie-minimal)" in found[0]


# Upstreams


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://127.0.0.1:1", ("/", "/", None)),
        ("https://h/a%20b/", ("/a b/", "/a b/", None)),
        ("http://user:pw@a_b.example:8080/", ("/", "/", None)),
        ("http://bücher.example/", ("/", "/", None)),
        ("http://[fe80::1%25eth0]:80/", ("/", "/", None)),
        ("unix:///run/app.sock", ("/run/app.sock", "/", None)),
        ("static://204", ("static://204", "/", 204)),
        ("static://ok", ("static://ok", "/", 200)),
        ("file:///dev/null", ("/dev/null", "/dev/null", None)),
        ("file:///dev/null#/", ("/", "/", None)),
        ("file:///srv/a%20b/", ("/srv/a b/", "/srv/a b/", None)),
        ("file:///srv/#/web/", ("/web/", "/web/", None)),
    ],
)
def test_upstream_urls_define_path_and_id(
    uri: str, expected: tuple[str, str, int | None]
) -> None:
    [loaded] = settings(f"--upstream={uri}").core.upstreams
    assert (loaded.id, loaded.path, loaded.static_code) == expected


def test_upstream_options_apply_to_upstreams() -> None:
    loaded = settings(
        "--upstream=https://h:8443/app/",
        "--pass-host-header=false",
        "--ssl-upstream-insecure-skip-verify",
        "--upstream-timeout=5s",
    )
    assert loaded.core.upstreams == (
        UpstreamSettings(
            id="/app/",
            path="/app/",
            uri="https://h:8443/app/",
            pass_host_header=False,
            insecure_skip_tls_verify=True,
            timeout=5.0,
        ),
    )


@pytest.mark.parametrize(
    "uri",
    ["", "x", "127.0.0.1:8080", "ftp://h", "http://", "http:///x", "http://h:x/",
     "http://h:99999/", "http://h/%zz", "http://h /", "http://[::1/", "unix://",
     "unix://run/x", "static://99", "static://1000", "static://600", "file:srv",
     "file://host/dev/null", "http://%zz/", "http://a%41/", "https://a%2fb/", "h2c://a..b"],
)  # fmt: skip
def test_upstream_url_invalid_rejected(uri: str) -> None:
    # A variable that ends with a comma is a list with an empty entry.
    found = problems(env={"OAUTH2_PROXY_UPSTREAMS": uri or ","})
    assert found
    assert all(text.startswith("upstreams (") for text in found)


def test_upstream_ca_files_default_to_provider_ca_files(tmp_path: Path) -> None:
    provider = make_certificate(tmp_path, "provider").cert_file
    own = make_certificate(tmp_path, "own").cert_file
    app = "--upstream=https://app"
    [loaded] = settings(app, f"--provider-ca-file={provider}").core.upstreams
    assert (loaded.ca_pem, loaded.trust_system) == (Path(provider).read_text(), False)
    system = "--use-system-trust-store"
    [loaded] = settings(app, f"--provider-ca-file={provider}", system).core.upstreams
    assert loaded.trust_system
    both = (f"--provider-ca-file={provider}", f"--upstream-ca-files={own}", system)
    [loaded] = settings(app, *both).core.upstreams
    assert (loaded.ca_pem, loaded.trust_system) == (Path(own).read_text(), False)
    [loaded] = settings(app).core.upstreams
    assert (loaded.ca_pem, loaded.trust_system) == ("", True)


def test_upstream_ca_files_invalid_rejected(tmp_path: Path) -> None:
    key = "upstream_ca_files (--upstream-ca-files): "
    assert problem("--upstream-ca-files=/missing").startswith(key + "can't read /mis")
    (tmp_path / "x").write_text("no pem")
    found = problem(f"--upstream-ca-files={tmp_path / 'x'}")
    assert found.startswith(key + "got ")
    assert found.endswith("expected PEM files with certificates")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--via=a b", "a name without spaces"),
        ("--websocket-origin=app.example.com", "scheme://host[:port], or *"),
        ("--websocket-origin=https://a/b", "scheme://host[:port], or *"),
        ("--upstream-connect-timeout=0s", "at least"),
        ("--upstream-connections=-1", "at least"),
    ],
)
def test_forward_options_invalid_rejected(flag: str, expected: str) -> None:
    assert expected in problem(flag)


def test_forward_options_are_set() -> None:
    loaded = settings(
        "--websocket-origin=https://a.example:8443,http://[::1]/",
        "--websocket-origin=*",
        "--via=authproxy",
        "--upgrade-max-lifetime=1h",
        "--skip-auth-strip-headers=false",
    )
    assert loaded.core.websocket_origins == (
        "https://a.example:8443",
        "http://[::1]/",
        "*",
    )
    assert loaded.forward.upgrade_lifetime == 3600.0
    assert not loaded.core.strip_identity_headers


def test_upstreams_with_same_path_rejected() -> None:
    assert problem("--upstream=http://a", "--upstream=static://200") == (
        "upstreams (--upstream): several upstreams have the path '/', expected one"
    )


# Listeners


@pytest.mark.parametrize(
    ("address", "listener"),
    [
        (":80", Listener(port=80)),
        ("http://localhost:80", Listener(host="localhost", port=80)),
        ("tcp://127.0.0.1:80", Listener(host="127.0.0.1", port=80)),
        ("tcp6://[::1]:80", Listener(host="::1", port=80)),
        ("[::1]:80", Listener(host="::1", port=80)),
        ("[::]:80", Listener(host="::", port=80)),
        ("unix:///run/x.sock", Listener(path="/run/x.sock")),
        ("unix:///run/x.sock,mode=0660", Listener(path="/run/x.sock", mode=0o660)),
        ("unix://x.sock,a=b", Listener(path="x.sock")),
    ],
)
def test_http_address_forms(address: str, listener: Listener) -> None:
    assert settings(f"--http-address={address}").listeners == (listener,)


@pytest.mark.parametrize(
    "address",
    ["", "-", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80",
     "[::1:80", "https://h:80", "a b:80", "unix://", "unix://x,mode=9", "unix://x,mode",
     "unix://x,mode=7777", "unix://x,mode=", "fd:2", "FD:x", "h:٣"],
)  # fmt: skip
def test_http_address_invalid_rejected(address: str) -> None:
    found = problem(f"--http-address={address}")
    assert found.startswith("http_address (--http-address): ")


def test_tls_listener_replaces_plain_listener(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    loaded = settings(f"--tls-cert-file={cert}", f"--tls-key-file={key}")
    [listener] = loaded.listeners
    assert (listener.host, listener.port) == ("", 443)
    assert listener.tls is not None
    assert (listener.tls.min_version, listener.tls.cipher_suites) == ("TLS1.2", ())


def test_cipher_suites_translated_to_openssl_names(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    tls = (f"--tls-cert-file={cert}", f"--tls-key-file={key}")
    suites = "--tls-cipher-suite=TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA"
    good = f"{suites},TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    [listener] = settings(*tls, good).listeners
    assert listener.tls is not None
    assert listener.tls.cipher_suites == ("ECDHE-ECDSA-CHACHA20-POLY1305",)
    assert problem(*tls, suites).startswith("tls_cipher_suites (--tls-cipher-suite): c")
    assert problem(*tls, "--tls-cipher-suite=AES").startswith(
        "tls_cipher_suites (--tls-cipher-suite): got 'AES', expected a name such as"
    )


def test_tls_options_invalid_rejected(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    other = make_certificate(tmp_path, "other")
    assert problem(f"--tls-cert-file={cert}") == (
        "tls_key_file: missing; TLS requires a certificate and its key"
    )
    assert problem(f"--tls-key-file={key}") == (
        "tls_cert_file: missing; TLS requires a certificate and its key"
    )
    assert problem("--tls-cert-file=/missing", f"--tls-key-file={key}") == (
        "tls_cert_file: can't read /missing: No such file or directory"
    )
    assert problem(f"--tls-cert-file={cert}", f"--tls-key-file={other.key_file}") == (
        f"tls_cert_file: can't use {cert} with the key {other.key_file}: key values "
        "mismatch"
    )
    both = (f"--tls-cert-file={cert}", f"--tls-key-file={key}")
    assert problem(*both, "--https-address=-").startswith("https_address (")
    assert problem(*both, "--https-address=x").startswith("https_address (")


# Other options


def test_csrf_slots_from_per_request_limit() -> None:
    limit = "--cookie-csrf-per-request-limit="
    per_request = "--cookie-csrf-per-request"
    assert settings(f"{limit}3").core.cookie.csrf_slots == 8
    assert settings(f"{limit}3", per_request).core.cookie.csrf_slots == 4
    assert settings(f"{limit}-1", per_request).core.cookie.csrf_slots == 8
    assert settings(f"{limit}999", per_request).core.cookie.csrf_slots == 64


def test_default_log_format_becomes_empty() -> None:
    assert settings().logs.request_format == ""


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--insecure-oidc-skip-nonce",), "the nonce is not checked"),
        (("--insecure-oidc-skip-issuer-verification",), "the issuer of ID tokens is not checked"),
        (("--ssl-upstream-insecure-skip-verify",), "upstream certificates are not verified"),
        (("--code-challenge-method=none",), "PKCE is off"),
        (("--force-code-challenge-method=plain",), "use S256"),
        (("--reverse-proxy",), "loopback and private addresses"),
        (("--cookie-secure=false",), "uses http://"),
        (("--cookie-name=__Host-s", "--cookie-domain=a.example"),
         "starts with '__Host-' with cookie_domains"),
        (("--cookie-name=__host-s", "--cookie-path=/a"),
         "starts with '__host-' with a cookie_path other than '/'"),
        (("--cookie-name=__Secure-s", "--cookie-secure=false", "--redirect-url=/c"),
         "starts with '__Secure-' without cookie_secure"),
        (("--redirect-url=http://app.example/oauth2/callback",), "browsers drop Secure"),
        (("--auth-request-response-mode=form_post", "--cookie-csrf-samesite=lax"),
         "login cookie with SameSite=lax"),
        (("--auth-request-response-mode=form_post", "--cookie-secure=false",
          "--redirect-url=/c"), "form_post requires a Secure login cookie"),
        (("--proxy-prefix=/auth/",), "got '/auth/'; '/auth' is used instead"),
        (("--whitelist-domain=https://a.example",), "matches no host"),
        (("--email-domain=@a.example",), "matches no email"),
        (("--upstream=static://x",), "responds with 200"),
        (("--custom-templates-dir=/missing",), "built-in pages are used"),
        (("--standard-logging=false", "--auth-logging=false",
          "--request-logging=false"), "all logs are off"),
    ],
)  # fmt: skip
def test_insecure_or_useless_option_warns(flags: tuple[str, ...], text: str) -> None:
    [warning] = settings(*flags).warnings
    assert text in warning


@pytest.mark.parametrize(
    ("entry", "domains", "is_clean"),
    [
        ("a.example,.b.example", ("a.example", "b.example"), True),
        (".a.example, .b.example,", ("a.example", "b.example"), True),
        ("_x.a.example", ("_x.a.example",), True),
        ("a.example:8443", ("a.example",), False),
        ("*.a.example", ("a.example",), False),
        ("https://a.example:8443/app", ("a.example",), False),
        ("a.example.", ("a.example",), False),
        ("bücher.example", ("xn--bcher-kva.example",), False),
    ],
)
def test_cookie_domains_of_oauth2_proxy_accepted(
    entry: str, domains: tuple[str, ...], is_clean: bool
) -> None:
    loaded = settings(env={"OAUTH2_PROXY_COOKIE_DOMAINS": entry})
    assert loaded.core.cookie.domains == domains
    in_effect = "" if is_clean else f"{entry!r} is not a domain; {domains[0]!r} is used"
    assert [in_effect in text for text in loaded.warnings] == (
        [] if is_clean else [True]
    )


def test_cookie_domains_in_one_toml_string_accepted(tmp_path: Path) -> None:
    file = tmp_path / "file.cfg"
    file.write_text('\ufeffcookie_domains = [".a.example, .b.example"]')
    assert settings(file=file).core.cookie.domains == ("a.example", "b.example")


@pytest.mark.parametrize("entry", ["a b", "a@b.example", "[::1]", "a..b", "é" * 70])
def test_cookie_domains_invalid_rejected(entry: str) -> None:
    assert "expected a domain such as example.com" in problem(
        f"--cookie-domain={entry}"
    )


@pytest.mark.parametrize("prefix", ["", "/"])
def test_proxy_prefix_empty_puts_endpoints_at_root(prefix: str) -> None:
    assert settings(f"--proxy-prefix={prefix}").core.proxy_prefix == ""
    assert problem(f"--proxy-prefix={prefix}", "--ping-path=/auth") == (
        "ping_path (--ping-path): got '/auth', expected a path outside of proxy_prefix ''"
    )


def test_proxy_prefix_without_slash_names_valid_value() -> None:
    assert "expected a path such as '/auth'" in problem("--proxy-prefix=auth/")


def test_log_format_with_conditions_accepted() -> None:
    text = "{{if .Username}}{{printf `%q` .Username}}{{else}}-{{end}}"
    loaded = settings(f"--request-logging-format={text}")
    assert loaded.logs.request_format == text


def test_secure_cookie_for_local_redirect_url_does_not_warn() -> None:
    assert (
        settings("--redirect-url=http://localhost:4180/oauth2/callback").warnings == ()
    )


def test_whitelist_domains_valid_forms_do_not_warn() -> None:
    hosts = "a.example,.a.example,*.a.example,a.example:8080,a.example:*,[::1]:80"
    assert settings(f"--whitelist-domain={hosts}").warnings == ()


@pytest.mark.parametrize(
    ("text", "cpus_allowed"),
    [("max 100000", 64), ("150000 100000", 2), ("10000 100000", 1), ("x", 64)],
)
def test_workers_limited_by_cgroup_v2_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cpus_allowed: int
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    monkeypatch.setattr(workers, "QUOTA_V2", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert settings().workers == cpus_allowed


def test_workers_limited_by_cgroup_v1_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "QUOTA_V2", tmp_path / "missing")
    for name, text in (("QUOTA_V1", "-1"), ("PERIOD_V1", "100000")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(workers, name, tmp_path / name)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert settings().workers == 3
    (tmp_path / "QUOTA_V1").write_text("200000")
    assert settings().workers == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("max", 8), ("314572800", 4), ("1048576", 1), ("x", 8)]
)
@pytest.mark.parametrize("name", ["MEMORY_V2", "MEMORY_V1"])
def test_workers_limited_by_cgroup_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: int
) -> None:
    monkeypatch.setattr(workers, "MEMORY_V2", tmp_path / "missing")
    monkeypatch.setattr(workers, name, tmp_path / "memory")
    (tmp_path / "memory").write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert settings().workers == expected
    assert settings("--workers=9").workers == 9


def test_workers_refresh_without_store_defaults_to_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    alone = ("--cookie-refresh=1h", "--shared-state=none")
    assert settings("--cookie-refresh=1h").workers == 8
    assert settings(*alone).workers == 1
    several = settings(*alone, "--workers=3")
    assert several.workers == 3
    assert any("rotates refresh tokens" in text for text in several.warnings)


def test_base_configuration_has_no_warnings() -> None:
    assert settings().warnings == ()
    assert BASE["OAUTH2_PROXY_CLIENT_SECRET"] not in repr(settings())


def test_hsts_options_build_header_value() -> None:
    assert settings().core.hsts == ""
    assert settings("--hsts-max-age=8760h").core.hsts == "max-age=31536000"
    subdomains = settings("--hsts-max-age=1h", "--hsts-include-subdomains")
    assert subdomains.core.hsts == "max-age=3600; includeSubDomains"
    [warning] = settings("--hsts-include-subdomains").warnings
    assert "has no effect" in warning
