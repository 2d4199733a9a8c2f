"""oauth2-proxy and authproxy write the same log lines for the same requests.

Intended differences: authproxy removes the values of secret query parameters, and the
texts of messages differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider
from authproxy_devprovider.provider import serve as serve_provider
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.peers import (
    AUTHPROXY,
    OAUTH2_PROXY,
    REFERENCE,
    AuthServer,
    command,
    start_auth_server,
)
from support.ports import LOOPBACK, free_port
from support.processes import wait_for

from .cases import BAD_BEARER, basic
from .configurations import HTPASSWD

pytestmark = pytest.mark.peers

FIELDS = "|".join(
    f"{{{{.{name}}}}}"
    for name in (
        "RequestID", "Host", "Protocol", "RequestMethod", "RequestURI", "ResponseSize",
        "StatusCode", "Upstream", "UserAgent", "Username",
    )
)  # fmt: skip
CONFIG = f"""{REFERENCE}
request_logging_format = 'R|{FIELDS}|{{{{.Client}}}}|{{{{.Timestamp}}}}|{{{{.RequestDuration}}}}'
silence_ping_logging = true
exclude_logging_paths = ["/hidden", "/a b"]
"""
AUTH_FIELDS = "|".join(
    f"{{{{.{name}}}}}"
    for name in (
        "RequestID", "Host", "Protocol", "RequestMethod", "UserAgent", "Username",
        "Status", "Client", "Timestamp", "Message",
    )
)  # fmt: skip
AUTH_CONFIG = f"{REFERENCE}\nauth_logging_format = 'A|{AUTH_FIELDS}'\n"
DEFAULTS = REFERENCE
# Target, method, headers.
REQUESTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("/oauth2/auth", "GET", {}),
    ("/oauth2/auth?x=%22a%22&y=%5C", "GET", {"User-Agent": 'quoted "agent" \\ tab\t'}),
    (
        "/oauth2/auth",
        "POST",
        {"User-Agent": "caf\u00e9 \x01".encode().decode("latin-1")},
    ),
    ("/oauth2/userinfo", "HEAD", {"Host": "other.example.com"}),
    ("/robots.txt", "GET", {"User-Agent": ""}),
    ("/ping", "GET", {}),
    ("/ready", "GET", {}),
    ("/hidden", "GET", {}),
    ("/hidden?x", "GET", {}),
    ("/%68idden", "GET", {}),
    ("/a%20b", "GET", {}),
    ("/hidden/", "GET", {"Accept": "application/json"}),
)
LOGGED = 5  # no pings or excluded paths


@pytest.fixture(scope="module")
def provider() -> DevProvider:
    client = DemoClient(id=CLIENT_ID, secret=CLIENT_SECRET)
    return DevProvider(ProviderConfig(users=example_users("pw"), clients=(client,)))


@pytest.fixture(scope="module")
def issuer(provider: DevProvider) -> Iterator[str]:
    with serve_provider(provider) as running:
        yield running.url


def each_program(
    folder: Path, issuer: str, config: str, **environment: str
) -> Iterator[AuthServer]:
    """Run oauth2-proxy, then authproxy, with the same configuration."""
    for name in (OAUTH2_PROXY, AUTHPROXY):
        if command(name) is None:
            pytest.skip(f"{name} is not installed")
        server = start_auth_server(
            name, folder / name, issuer, config=config, environment=environment
        )
        try:
            yield server
        finally:
            server.stop()


def send(server: AuthServer, number: int) -> None:
    """Send the request *number* with an id that contains the number."""
    target, method, headers = REQUESTS[number]
    connection = HTTPConnection(LOOPBACK, server.port, timeout=60)
    connection.request(
        method, target, headers={"X-Request-Id": f"id-{number:02}", **headers}
    )
    connection.getresponse().read()
    connection.close()


def lines(server: AuthServer, pattern: str) -> list[str]:
    """Return the log lines of the requests, sorted by request id."""
    return sorted(re.findall(pattern, server.process.log(), re.M))


def wait_for_lines(server: AuthServer, pattern: str, count: int) -> None:
    """Wait for *count* lines: each worker writes its own, when it finds time."""
    wait_for(lambda: len(lines(server, pattern)) >= count, f"{count} lines")


def test_request_log_lines_equal(tmp_path: Path, issuer: str) -> None:
    """All fields, with unusual client values, and which requests are logged."""
    found = []
    for server in each_program(tmp_path, issuer, CONFIG):
        for number in range(len(REQUESTS)):
            send(server, number)
        pattern = r"^R\|(id-\d\d\|.*)$"
        wait_for_lines(server, pattern, LOGGED)
        found.append(
            [
                line.replace(f":{server.port}|", ":PORT|")
                for line in lines(server, pattern)
            ]
        )
    reference, actual = ([one.rsplit("|", 3) for one in some] for some in found)
    assert [one[0] for one in actual] == [one[0] for one in reference]
    for one in (*actual, *reference):
        assert re.fullmatch(r"127\.0\.0\.1(:\d+)?", one[1])
        assert re.fullmatch(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", one[2])
        assert re.fullmatch(r"\d+\.\d{3}", one[3])


def test_default_request_log_format_equal(tmp_path: Path, issuer: str) -> None:
    """Log parsers for oauth2-proxy read authproxy's log."""
    found = []
    for server in each_program(tmp_path, issuer, DEFAULTS):
        send(server, 0)
        wait_for(lambda: "id-00" in server.process.log(), "the line")  # noqa: B023
        [line] = lines(server, r"^.* - id-00 - .*$")
        line = re.sub(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", "TIME", line)
        line = line.replace(str(server.port), "PORT")
        found.append(re.sub(r"\d\.\d{3}$", "SECONDS", line))
    assert found[0] == found[1]


def test_auth_log_lines_equal(
    tmp_path: Path, issuer: str, provider: DevProvider
) -> None:
    """Both programs log a login as a success with the same fields."""
    found = []
    for server in each_program(tmp_path, issuer, AUTH_CONFIG):
        assert log_in(server, provider) == 302
        wait_for(lambda: "A|id-00" in server.process.log(), "the line")  # noqa: B023
        [line] = lines(server, r"^A\|(id-00\|.*)$")
        found.append(line.replace(f":{server.port}|", ":PORT|").rsplit("|", 3)[0])
    assert found[0] == found[1]


# Conditions and functions of Go's text/template.
TEMPLATES = f"""{REFERENCE}
htpasswd_file = "{{folder}}/htpasswd"
skip_jwt_bearer_tokens = true
request_logging_format = 'T|{{{{.RequestID}}}}|{{{{if eq .Username "-"}}}}no user{{{{else}}}}\
{{{{html .Username}}}}{{{{end}}}}|{{{{.StatusCode | printf "%6s"}}}}|{{{{len .RequestMethod}}}}|\
{{{{- /* a comment */ -}}}} {{{{with .Upstream}}}}to {{{{.}}}}{{{{end}}}}|{{{{slice .Protocol 0 4}}}}'
auth_logging_format = 'A|{{{{.RequestID}}}}|{{{{if ne .Status "AuthFailure"}}}}{{{{.Status}}}}{{{{else}}}}\
failed{{{{end}}}}|{{{{printf "%-5s" .RequestMethod}}}}|{{{{.Username}}}}'
standard_logging_format = 'S|[{{{{.File}}}}]|{{{{len (slice .Timestamp 0 4)}}}}|{{{{.Message}}}}'
"""
START = "/oauth2/start?rd=/"
# Requests after a login (id-00), with a credential that the log must not contain.
AUTHENTICATIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("/oauth2/auth", {"Authorization": basic("carol", "secret")}),
    ("/oauth2/auth", {"Authorization": basic("carol", "wrong")}),
    ("/oauth2/auth", {"Authorization": BAD_BEARER}),
    ("/oauth2/callback?code=CODE&state=STATE:/", {}),
    ("/oauth2/callback?code=CODE&state=STATE:/", {"Cookie": "other_csrf=SECRET"}),
    ("/oauth2/callback?error=access_denied&state=STATE:/", {}),
    ("/oauth2/auth", {"Cookie": "_oauth2_proxy=SECRET|1|y"}),
)
AUTH_LINES = {
    OAUTH2_PROXY: [
        "A|id-00|AuthSuccess|GET  |alice@example.com",
        "A|id-01|AuthSuccess|GET  |carol",
        "A|id-02|failed|GET  |carol",
        *["A|id-04|failed|GET  |-"] * 2,
        *["A|id-05|failed|GET  |-"] * 2,
    ],
    AUTHPROXY: [
        "A|id-00|AuthSuccess|GET  |alice@example.com",
        "A|id-02|failed|GET  |carol",
        "A|id-04|failed|GET  |-",
        "A|id-05|failed|GET  |-",
        "A|id-06|failed|GET  |-",
        "A|id-08|failed|GET  |-",
    ],
}


def test_log_templates_with_conditions_and_functions(
    tmp_path: Path, issuer: str, provider: DevProvider
) -> None:
    """authproxy logs each failed login, and Basic credentials only if they fail.

    It names the user of a callback, and no code or state.
    """
    found = []
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    config = TEMPLATES.replace("{folder}", str(tmp_path))
    for server in each_program(tmp_path, issuer, config):
        log_in(server, provider)
        for number, (target, headers) in enumerate(AUTHENTICATIONS, 1):
            request(server, target, number=number, **headers)
        provider.config.failing["token"] = 500
        assert log_in(server, provider, number=8) == 500
        provider.config.failing.clear()
        requests = len(AUTHENTICATIONS) + 2 * 2  # two logins
        wait_for_lines(server, r"^T\|id.*$", requests)
        assert lines(server, r"^A\|.*$") == AUTH_LINES[server.name]
        assert all(line.startswith("S|[") for line in lines(server, r"^S.*$"))
        if server.name == AUTHPROXY:
            assert not re.search("SECRET|CODE|STATE|eyJ|wrong", server.process.log())
        text = "\n".join(lines(server, r"^T\|id.*$"))
        # A callback that fails because of the client gets 403, not 500.
        text = re.sub(r"(id-0[45]\|no user\|) +500", r"\1   403", text)
        found.append(text.replace("id-00|alice@example.com", "id-00|no user"))
    assert found[0] == found[1]


def log_in(server: AuthServer, provider: DevProvider, number: int = 0) -> int:
    """Log in alice; return the status of the callback."""
    status, location, cookies = request(server, START, number=number)
    assert status == 302
    callback = urlsplit(provider.log_in(location, "alice"))
    target = f"{callback.path}?{callback.query}"
    return request(server, target, number=number, Cookie=cookies)[0]


def request(
    server: AuthServer, target: str, number: int = 0, **headers: str
) -> tuple[int, str, str]:
    """Return status, Location and cookies of the response."""
    connection = HTTPConnection(LOOPBACK, server.port, timeout=60)
    fields = {"X-Request-Id": f"id-{number:02}", "User-Agent": 'a "b"', **headers}
    connection.request("GET", target, headers=fields)
    response = connection.getresponse()
    response.read()
    connection.close()
    new = response.headers.get_all("Set-Cookie", [])
    return (
        response.status,
        response.headers.get("Location", ""),
        "; ".join(one.partition(";")[0] for one in new),
    )


def test_metrics_equal(tmp_path: Path, issuer: str) -> None:
    """oauth2-proxy's metrics with the same names, types, labels and values."""
    port = free_port()
    found = []
    for server in each_program(
        tmp_path, issuer, REFERENCE, OAUTH2_PROXY_METRICS_ADDRESS=f"{LOOPBACK}:{port}"
    ):
        for number in range(len(REQUESTS)):
            send(server, number)
        connection = HTTPConnection(LOOPBACK, port, timeout=60)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        found.append((response.headers["Content-Type"], response.read().decode()))
        connection.close()
    (expected_type, reference), (actual_type, actual) = found
    assert actual_type == expected_type
    wanted = r"^(# TYPE )?(oauth2_proxy_|promhttp_)(?!.*_sum).*$"
    for line in re.finditer(wanted, reference, re.M):
        if (
            "_bucket" not in line[0] and "_count" not in line[0]
        ) or 'le="+Inf"' in line[0]:
            assert line[0] in actual.splitlines()
