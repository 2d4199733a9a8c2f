"""The commented configuration that ``authproxy init`` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from authproxy_core.settings.provider_types import PROVIDER_TYPES

VARIABLE = "OAUTH2_PROXY_CLIENT_SECRET"
ANY_DOMAIN = "*"  # in email_domains
Answers = Mapping[str, str]
GROUP_LINES = {  # of provider types that read groups, or memberships, from other options
    "github": ('github_org = "my-org"',),
    "google": (
        'google_groups = ["staff@example.com"]',
        'google_admin_email = "admin@example.com"',
        'google_service_account_json = "/etc/authproxy/google.json"',
    ),
    "bitbucket": ('bitbucket_workspace = "my-workspace"',),
    "digitalocean": (),
    "facebook": (),
    "linkedin": (),
    "sourcehut": (),
}


def callback_url(answers: Answers) -> str:
    """Return the redirect URI to register at the provider."""
    return f"{_scheme(answers)}://{answers['host']}/oauth2/callback"


def format_configuration(answers: Answers, cookie_secret: str) -> str:
    """Return the TOML file for the *answers* by the name of their question."""
    sections = (
        _introduction(),
        _provider(answers),
        _users(answers),
        _cookies(answers, cookie_secret),
        _gateway(answers) if answers["gateway"] != "none" else _proxy(answers),
        _sessions(answers),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _introduction() -> Iterator[str]:
    yield "# Written by authproxy init. All options: authproxy --help-all."
    yield "# Check the file after a change: authproxy --config FILE --config-test"


def _provider(answers: Answers) -> Iterator[str]:
    kind = PROVIDER_TYPES[answers["provider"]]
    yield f"# Identity provider: {kind.name}. Register this redirect URI for the client:"
    yield f"# {callback_url(answers)}"
    yield _line("provider", answers["provider"])
    if kind.discovers:
        yield _line("oidc_issuer_url", answers["issuer"])
    yield _line("client_id", answers["client_id"])
    if answers["client_secret_file"]:
        yield _line("client_secret_file", answers["client_secret_file"])
    elif answers["client_secret"]:
        yield _line("client_secret", answers["client_secret"])
    else:
        yield f"# The client secret is in the variable {VARIABLE}."
    yield "# Redirect to the provider at once, without the sign-in page:"
    yield "# skip_provider_button = true"


def _users(answers: Answers) -> Iterator[str]:
    yield "# Allowed users: email domains (* for any), then groups."
    yield _line("email_domains", split_list(answers["email_domains"]))
    lines = GROUP_LINES.get(answers["provider"], ('allowed_groups = ["staff"]',))
    yield from (f"# {line}" for line in lines)


def _cookies(answers: Answers, cookie_secret: str) -> Iterator[str]:
    yield "# Seals the cookies. Keep it secret; a new one signs all users out."
    yield _line("cookie_secret", cookie_secret)
    if _scheme(answers) == "http":
        yield "# Without HTTPS, browsers send no Secure cookies. For tests only."
        yield "cookie_secure = false"
    host = urlsplit(f"//{answers['host']}").hostname or ""
    parent = host.partition(".")[2]
    if "." in parent:
        yield f"# One login for all hosts of {parent}:"
        yield f"# {_line('cookie_domains', ['.' + parent])}"
        yield f"# {_line('whitelist_domains', ['.' + parent])}"


def _gateway(answers: Answers) -> Iterator[str]:
    yield f"# The gateway ({answers['gateway']}) asks authproxy about each request and"
    yield "# forwards the traffic itself."
    yield _line("http_address", answers["listen"])
    yield "reverse_proxy = true"
    addresses = split_list(answers["trusted_proxies"])
    yield "# Addresses of the gateway, whose X-Forwarded-* headers count."
    if addresses:
        yield _line("trusted_proxy_ips", addresses)
    else:
        yield "# Without them: loopback and private addresses."
        yield '# trusted_proxy_ips = ["10.42.0.0/16"]'
    yield 'upstreams = ["file:///dev/null"]'
    yield "# X-Auth-Request-User, -Email, -Groups and -Preferred-Username for the"
    yield "# application; list them in the gateway."
    yield "set_xauthrequest = true"
    yield "# Authorization: Bearer with the ID token:"
    yield "# set_authorization_header = true"


def _proxy(answers: Answers) -> Iterator[str]:
    yield "# authproxy forwards the traffic to the application."
    if answers["tls_cert_file"]:
        yield _line("https_address", answers["listen"])
        yield _line("tls_cert_file", answers["tls_cert_file"])
        yield _line("tls_key_file", answers["tls_key_file"])
    else:
        yield _line("http_address", answers["listen"])
    yield _line("upstreams", [answers["upstream"]])
    yield _line("redirect_url", callback_url(answers))
    yield "# Public paths:"
    yield '# skip_auth_routes = ["GET=^/public/"]'


def _sessions(answers: Answers) -> Iterator[str]:
    yield "# Sessions: sealed cookies, redis or sqlite."
    yield _line("session_store_type", answers["store"])
    if answers["store"] == "redis":
        yield _line("redis_connection_url", answers["redis_url"])
    if answers["store"] == "sqlite":
        yield _line("sqlite_path", answers["sqlite_path"])
    yield "# Lifetime of a session, and the age at which its tokens are refreshed:"
    yield 'cookie_expire = "168h"'
    yield '# cookie_refresh = "1h"'


def _scheme(answers: Answers) -> str:
    is_plain = answers["gateway"] == "none" and not answers["tls_cert_file"]
    return "http" if is_plain else "https"


def split_list(text: str) -> list[str]:
    """Return the entries of a comma-separated list."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _line(key: str, value: str | list[str]) -> str:
    # A JSON string without control characters is a TOML string.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
