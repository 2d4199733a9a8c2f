"""Access rules behind a real nginx: path variants and forged forwarded headers."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from authproxy_core.session import Session
from support import nginx
from support.certificates import Certificate, make_certificate
from support.echo import EchoApp
from support.ports import LOOPBACK, free_port
from support.program import Program, session_cookie
from support.programs import ROOT, find

HOST = "app.example.com"
RULES = """
[[access_rules]]
paths = "/public/"
methods = "GET"
policy = "public"

[[access_rules]]
paths = "/admin/"
groups = "admins"

[[access_rules]]
hosts = "other.example.com"
policy = "public"
"""
USER = Session(user="u", email="u@example.com", groups=("staff",))
ADMIN = Session(user="a", email="a@example.com", groups=("admins",))


class LocalConnection(HTTPSConnection):
    """A connection to this machine for any host name."""

    def connect(self) -> None:
        plain = socket.create_connection((LOOPBACK, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


class Gateway:
    """A client of nginx."""

    def __init__(self, port: int, certificate: Certificate) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=certificate.cert_file)

    def reaches(
        self,
        target: str,
        session: Session | None = None,
        method: str = "GET",
        **headers: str,
    ) -> bool:
        """Return whether a request reaches the application."""
        connection = LocalConnection(
            HOST, self._port, context=self._context, timeout=10
        )
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        if session is not None:
            fields["Cookie"] = session_cookie(session)
        try:
            connection.request(method, target, headers={"Host": HOST, **fields})
            body = connection.getresponse().read()
        finally:
            connection.close()
        return body.startswith(b"{") and "target" in json.loads(body)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    program = find("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    certificate = make_certificate(tmp_path, HOST)
    folder = tmp_path / "nginx"
    folder.mkdir()
    port = free_port()
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    with (
        EchoApp() as app,
        Program(tmp_path, extra=RULES, reverse_proxy=True) as server,
    ):
        block = nginx.deployed_block(text, port, server.port, app.port)
        with nginx.start_nginx(program, folder, block, port, certificate):
            yield Gateway(port, certificate)


def test_access_rules_of_nginx_requests(gateway: Gateway) -> None:
    assert gateway.reaches("/public/x")
    assert not gateway.reaches("/public/x", method="DELETE")
    assert not gateway.reaches("/x")
    assert gateway.reaches("/x", USER)
    assert not gateway.reaches("/admin/x", USER)
    assert gateway.reaches("/admin/x", ADMIN)


@pytest.mark.parametrize(
    "target",
    [
        "/public/../admin/x",
        "/public/..%2fadmin/x",
        "/public/%2e%2e/admin/x",
        "/x/%2e%2e/admin/x",
        "/x/..//admin/x",
        "//admin/x",
        "/admin%2fx",
        "/%61dmin/x",
        "/public/..;/admin/x",
    ],
)
def test_access_rules_path_variants_need_session(gateway: Gateway, target: str) -> None:
    """SK: nginx normalizes the path before the application sees it."""
    assert not gateway.reaches(target, USER)
    assert not gateway.reaches(target)
    # Two leading slashes could be a URL of another host: rejected for all users.
    assert gateway.reaches(target, ADMIN) is not target.startswith("//")


def test_access_rules_forged_headers_ignored(gateway: Gateway) -> None:
    """FH: a client can't select the rule by forged fields."""
    for headers in (
        {"X_Forwarded_Uri": "/public/"},
        {"X_Forwarded_Host": "other.example.com"},
        {"X_Original_URI": "/public/"},
        {"X_Original_URL": "https://other.example.com/public/"},
        {"X_Envoy_Original_Path": "/public/"},
    ):
        assert not gateway.reaches("/admin/x", USER, **headers)
        assert not gateway.reaches("/x", **headers)
    for name in ("X_Forwarded_Method", "X_Original_Method"):
        assert not gateway.reaches("/public/x", method="DELETE", **{name: "GET"})
