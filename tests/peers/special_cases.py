"""Requests that concern one option only; they are sent in its configurations.

Most are those that oauth2-proxy 7.15.5 and 7.15.6 answer differently from 7.15.4.
"""

from __future__ import annotations

from collections.abc import Iterator

from .cases import BROWSER, Case

# Spellings of paths at which bypass rules for /public/ apply or do not apply.
PATHS = (
    "/public/file?next=/../x;v=1&t=%23",
    "/public/f?q=%zz",
    "/public/a%20b",
    "/public/%66ile",
    "/public/caf%C3%A9",
    "/public/100%25",
    "/public/..;/admin",
    "/public/%2e%2e;/admin",
    "/public/file;v=1",
    "/public/file%3bv=1",
    "/public/%2e%2e/admin",
    "/public/../admin",
    "/public/./file",
    "/public//file",
    "//public/x",
    "//admin/public/x",
    "/public/x%23y",
    "/public/file%3fx",
    "/public/%00",
    "/public/%7f",
    "/public/..\\admin",
    "/public/..%5cadmin",
    "/public/x?a#b",
    "/public%2fx",
    "/public/file%2fx",
    "/public/%252e%252e/x",
    "/public/%253b",
    "/public/%c0%ae%c0%ae/admin",
    "/public/%ff",
    "/public/%EF%BC%8E%EF%BC%8E/admin",
    "/public/.../x",
    "/public/..%20/x",
    "/public",
)
# Values of X-Forwarded-Uri that are not in origin-form.
OTHER_FORMS = (
    "https://example.com/public/x",
    "public/x",
    "*",
    "",
    "/public/x?a b",
    "/%zz",
)


def bypass_cases() -> Iterator[Case]:
    """Paths as request target, and as the path that a trusted gateway forwards."""
    for path in PATHS:
        yield Case(f"odd {path}, target", path, headers=BROWSER)
    for path in (*PATHS, *OTHER_FORMS):
        fields = {"x-forwarded-uri": path, "x-forwarded-host": "app.example.com"}
        yield Case(f"forwarded path {path!r}", "{P}/auth", headers=fields)


def address_cases() -> Iterator[Case]:
    """Addresses of clients behind two trusted proxies; 10.9.9.9 is exempt."""
    for value in (
        "10.9.9.9",
        "10.9.9.9, 203.0.113.9",
        "10.9.9.9\r\nX-Forwarded-For: 203.0.113.9",
        "203.0.113.9\r\nX-Forwarded-For: 10.9.9.9",
        "10.9.9.9, 192.0.2.20",
        "garbage, 10.9.9.9",
        "10.9.9.9, garbage",
        "10.9.9.9, unknown, 192.0.2.20",
        "10.9.9.9,",
        "::ffff:10.9.9.9",
        "10.9.9.9:1234",
        "[10.9.9.9]:80",
        "[10.9.9.9]",
        "10.9.9.9:",
        "10.9.9.9:abc",
        "",
        *(", ".join(["10.9.9.9", *["192.0.2.20"] * count]) for count in (31, 40)),
    ):
        fields = {"X-Forwarded-For": value}
        yield Case(f"X-Forwarded-For: {value!r}", "{P}/auth", headers=fields)
    yield Case("X-Forwarded-For missing", "{P}/auth")


def single_address_cases() -> Iterator[Case]:
    """Addresses of clients in a header with one value; 10.9.9.9 is exempt."""
    for value in (
        "10.9.9.9", "10.9.9.9:1", "10.9.9.9, 203.0.113.9", "203.0.113.9, 10.9.9.9",
        "10.9.9.9\r\nX-Real-IP: 203.0.113.9", "", "x",
    ):  # fmt: skip
        yield Case(f"X-Real-IP: {value!r}", "{P}/auth", headers={"X-Real-IP": value})
    yield Case(
        "X-Forwarded-For only", "{P}/auth", headers={"X-Forwarded-For": "10.9.9.9"}
    )


def host_cases() -> Iterator[Case]:
    """Hosts, with and without a port, at which a login starts."""
    for host in (
        "app.example.com", "app.example.com:443", "APP.Example.com", "app.other.net:8443",
        "other.net", "badexample.com", "example.com", "unknown.test:80",
    ):  # fmt: skip
        yield Case(f"start at {host}", "{P}/start?rd=/", headers={"Host": host})


def slash_cases() -> Iterator[Case]:
    """Targets that lack the slash of the only upstream's path."""
    for target in (
        "/api", "/api/", "/api?x=1&y=/2", "/a%70i?x=1", "/api?", "/api/?x=1", "/apix",
    ):  # fmt: skip
        yield Case(f"slash of {target}", target, credentials="user")


BYPASS_CASES = tuple(bypass_cases())
ADDRESS_CASES = tuple(address_cases())
SINGLE_ADDRESS_CASES = tuple(single_address_cases())
HOST_CASES = tuple(host_cases())
SLASH_CASES = tuple(slash_cases())
