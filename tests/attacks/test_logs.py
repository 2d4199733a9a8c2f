"""Secrets and spoofed addresses in logs (rows OU26 and FH34)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import wait_for

from .harness import CLIENT, GATEWAY, Harness, running_harness, target_of

CANARY = "canary"
CREDENTIALS = {
    "authorization": "Basic Y2FuYXJ5OmNhbmFyeQ==",  # canary:canary
    "proxy_authorization": f"Bearer {CANARY}-proxy",
    "x_api_key": f"{CANARY}-key",
}


def callbacks(harness: Harness) -> Iterator[tuple[str, str, dict[str, str], bytes]]:
    """Yield method, target, cookies and body of callbacks that fail."""
    query = f"code={CANARY}-code&state="
    state = f"{CANARY}aa{'a' * 35}"
    own = f"_oauth2_proxy_{state[:8]}_csrf"
    jar = harness.log_in("alice")
    for cookies in (
        {},
        jar,
        {own: f"{CANARY}-broken"},
        {own: jar["_oauth2_proxy"]},
        {"_oauth2_proxy_other_csrf": f"{CANARY}-other"},
        {"_csrf": f"{CANARY}-bare", "x_csrf": f"{CANARY}-x"},
    ):
        yield "GET", f"/oauth2/callback?{query}{state}:/", cookies, b""
    for target in (
        f"?{query}",
        f"?{query}{CANARY}%00",
        f"?state={state}:/",
        "?code=%zz",
    ):
        yield "GET", f"/oauth2/callback{target}", {}, b""
    yield "POST", "/oauth2/callback", {}, f"{query}{state}:/".encode()
    started = harness.request("/oauth2/start?rd=/x")
    used = target_of(harness.idp.log_in(started.headers["location"], "bob"))
    yield "GET", f"{used}&code={CANARY}", {}, b""  # the code twice


@pytest.mark.parametrize("logging_format", ["text", "json"])
def test_ou26_failed_callback_logs_no_value(
    tmp_path: Path, logging_format: str
) -> None:
    """The lines of each log are the same if the other logs are disabled."""
    options = {"logging_format": logging_format, "workers": 1}
    with running_harness(tmp_path, **options) as harness:
        harness.program.mark()
        for number, (method, target, cookies, body) in enumerate(callbacks(harness)):
            kind = {"content_type": "application/x-www-form-urlencoded"} if body else {}
            identified = {"x_request_id": f"id-{number}"} | kind | CREDENTIALS
            response = harness.request(
                target, method=method, cookies=cookies, body=body, **identified
            )
            assert response.status in (302, 400, 403)
        for text in ("login_failed", "AuthFailure", f"id-{number}"):
            wait_for(lambda: text in harness.program.log_since_mark(), text)  # noqa: B023
        log = harness.program.log_since_mark()
    for secret in (CANARY, "Y2FuYXJ5"):
        assert secret not in log
    if logging_format == "json":
        kinds = {json.loads(line)["kind"] for line in log.splitlines() if line}
        assert kinds == {"request", "auth", "standard"}


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP"])
def test_fh34_logs_have_the_address_that_rules_see(tmp_path: Path, header: str) -> None:
    options = {"real_client_ip_header": header, "workers": 1}
    spoofed = "198.51.100.1"
    with running_harness(tmp_path, **options) as harness:
        values = {
            f"{spoofed}, 203.0.113.9": "203.0.113.9",
            f"{spoofed}, bad, 203.0.113.9": "203.0.113.9",
        }
        if header == "X-Real-IP":
            values = {"203.0.113.9": "203.0.113.9", f"{spoofed}, 203.0.113.9": GATEWAY}
        cases = [(GATEWAY, value, client) for value, client in values.items()]
        for number, (source, value, client) in enumerate(
            [*cases, (CLIENT, spoofed, CLIENT)]
        ):
            line = f"{header}: {value}"
            target = f"/oauth2/callback?number={number}"
            harness.request(target, line, f"X-Request-Id: id-{number}", source=source)
            wait_for(lambda: f"number={number}" in harness.program.log(), target)  # noqa: B023
            lines = [
                one
                for one in harness.program.log().splitlines()
                if f" id-{number} " in one
            ]
            assert len(lines) == 2  # of the failed login, and of the request
            for one in lines:
                assert re.match(rf"{re.escape(client)}(:\d+)? - ", one), one
        assert spoofed not in harness.program.log()
