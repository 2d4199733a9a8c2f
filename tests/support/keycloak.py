"""Keycloak with a realm that is configured for oauth2-proxy."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.certificates import Certificate
from support.http import Client, Reply, form_action
from support.ports import LOOPBACK, free_port
from support.processes import Process

ADMIN = "admin"
REALM = "staff"
CLIENT_ID = "oauth2-proxy"
CLIENT_SECRET = "client-secret-of-the-tests"
PASSWORD = "a-password-of-the-tests"
APP = "https://app.example.com"
# Incompressible names, so that a session needs two cookies.
MANY_ROLES = tuple(
    hashlib.sha256(str(number).encode()).hexdigest()[:40] for number in range(60)
)

# Other clients; each differs from the first in one setting.
NO_MAPPER = "no-audience-mapper"  # the audience of the ID token is the client
WRONG_AUDIENCE = "audience-account"  # the only audience of the ID token is "account"
CONSENT = "requires-consent"
OPTIONAL_GROUPS = "optional-groups"  # groups only if the scope is requested


class Keycloak:
    """The URLs and the admin API of a Keycloak that `start_keycloak` started."""

    def __init__(self, process: Process, http_port: int, https_port: int) -> None:
        self.process = process
        self.http_port = http_port
        self.https_port = https_port
        self._client = Client()
        self._token = ""

    @property
    def issuer(self) -> str:
        """The issuer URL of the realm over TLS, with a self-signed certificate."""
        return f"https://{LOOPBACK}:{self.https_port}/realms/{REALM}"

    @property
    def plain_issuer(self) -> str:
        """The issuer URL of the realm without TLS."""
        return f"http://{LOOPBACK}:{self.http_port}/realms/{REALM}"

    def is_ready(self) -> bool:
        """Return whether the master realm can be read."""
        try:
            reply = self._client.get(self._url("/realms/master"))
        except OSError:
            return False
        return reply.status == 200

    def admin(self, method: str, path: str, data: Any = None) -> Reply:
        """Call the admin API; *path* follows ``/admin/realms``."""
        if not self._token:
            self._token = self._log_in_as_admin()
        headers = [("authorization", f"Bearer {self._token}")]
        body = b""
        if data is not None:
            headers.append(("content-type", "application/json"))
            body = json.dumps(data).encode()
        url = self._url(f"/admin/realms{path}")
        reply = self._client.request(method, url, headers, body)
        if reply.status == 401:  # the token has expired after one minute
            self._token = ""
            return self.admin(method, path, data)
        assert reply.status < 400, f"{method} {path}: {reply.status} {reply.text}"
        return reply

    def client_uuid(self, client_id: str) -> str:
        """Return Keycloak's id of a client."""
        found = self.admin("GET", f"/{REALM}/clients?clientId={client_id}").json
        return str(found[0]["id"])

    def user_uuid(self, name: str) -> str:
        """Return Keycloak's id of a user, the subject of its tokens."""
        found = self.admin("GET", f"/{REALM}/users?exact=true&username={name}").json
        return str(found[0]["id"])

    def log_out_everywhere(self, name: str) -> None:
        """Log out all sessions of a user, as an administrator does."""
        self.admin("POST", f"/{REALM}/users/{self.user_uuid(name)}/logout", {})

    @contextlib.contextmanager
    def given_many_roles(self, name: str) -> Iterator[None]:
        """Assign so many roles to a user that the session needs two cookies."""
        every = self.admin("GET", f"/{REALM}/roles").json
        many = [role for role in every if role["name"] in MANY_ROLES]
        path = f"/{REALM}/users/{self.user_uuid(name)}/role-mappings/realm"
        self.admin("POST", path, many)
        try:
            yield
        finally:
            self.admin("DELETE", path, many)

    def _log_in_as_admin(self) -> str:
        reply = self._client.submit(
            self._url("/realms/master/protocol/openid-connect/token"),
            {
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": ADMIN,
                "password": PASSWORD,
            },
        )
        assert reply.status == 200, reply.text
        return str(reply.json["access_token"])

    def _url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.http_port}{path}"


def start_keycloak(script: Path, folder: Path, certificate: Certificate) -> Keycloak:
    """Start Keycloak in memory and create the realm; the caller stops the process."""
    keycloak = launch_keycloak(script, folder, certificate, free_port())
    try:
        _set_up(keycloak)
    except BaseException:
        keycloak.process.stop()
        raise
    return keycloak


def launch_keycloak(
    script: Path, folder: Path, certificate: Certificate, http_port: int, *flags: str
) -> Keycloak:
    """Start Keycloak and wait until it responds; the caller stops the process."""
    https_port = free_port()
    process = Process(
        "keycloak",
        [
            "bash",
            script,
            # start-dev would rebuild the server at every start.
            "start",
            "--db=dev-mem",
            "--cache=local",
            "--http-enabled=true",
            "--hostname-strict=false",
            f"--http-host={LOOPBACK}",
            f"--http-port={http_port}",
            f"--https-port={https_port}",
            f"--https-certificate-file={certificate.cert_file}",
            f"--https-certificate-key-file={certificate.key_file}",
            f"--http-management-port={free_port()}",
            *flags,
        ],
        folder=folder,
        environment={
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
            # Halves the start time; the tests are too short for the C2 compiler.
            "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",
            "JAVA_OPTS_KC_HEAP": "-Xms128m -Xmx512m",
        },
    )
    keycloak = Keycloak(process, http_port, https_port)
    process.wait_until(keycloak.is_ready, 400.0)
    return keycloak


def _set_up(keycloak: Keycloak) -> None:
    """Create the realm, the ``groups`` scope, and its assignment to the clients."""
    keycloak.admin("POST", "", _realm())
    scope = keycloak.admin("POST", f"/{REALM}/client-scopes", _groups_scope())
    scope_id = scope.header("location").rpartition("/")[2]
    for client in _clients():
        name = str(client["clientId"])
        kind = "optional" if name == OPTIONAL_GROUPS else "default"
        path = f"/{REALM}/clients/{keycloak.client_uuid(name)}"
        keycloak.admin("PUT", f"{path}/{kind}-client-scopes/{scope_id}")


def _realm() -> dict[str, Any]:
    return {
        "realm": REALM,
        "enabled": True,
        "groups": [{"name": "admin"}, {"name": "test-group"}],
        "roles": {
            "realm": [{"name": name} for name in ("staff-role", *MANY_ROLES)],
            "client": {CLIENT_ID: [{"name": "operator"}]},
        },
        "clients": _clients(),
        "users": [
            _user("lisan123", ["/admin", "/test-group"], ["staff-role"]),
            _user("wangwu", ["/test-group"], []),
            _user("bigrights", ["/admin", "/test-group"], MANY_ROLES),
        ],
    }


def _user(name: str, groups: list[str], roles: Sequence[str]) -> dict[str, Any]:
    return {
        "username": name,
        "email": f"{name}@example.com",
        "firstName": name.title(),
        "lastName": "Person",
        "enabled": True,
        "emailVerified": False,
        "credentials": [{"type": "password", "value": PASSWORD}],
        "groups": groups,
        "realmRoles": ["default-roles-" + REALM, *roles],
        "clientRoles": {CLIENT_ID: ["operator"]} if roles else {},
    }


def _clients() -> list[dict[str, Any]]:
    mapper = audience_mapper(CLIENT_ID)
    return [
        client_settings(CLIENT_ID, mapper),
        client_settings(NO_MAPPER),
        client_settings(WRONG_AUDIENCE, _hardcoded_audience("account")),
        {**client_settings(CONSENT, audience_mapper(CONSENT)), "consentRequired": True},
        client_settings(OPTIONAL_GROUPS, audience_mapper(OPTIONAL_GROUPS)),
    ]


def client_settings(client_id: str, *mappers: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a confidential client with protocol *mappers*."""
    return {
        "clientId": client_id,
        "secret": CLIENT_SECRET,
        "publicClient": False,
        "standardFlowEnabled": True,
        "redirectUris": [f"{APP}/oauth2/callback", f"{APP}/*"],
        "attributes": {
            "post.logout.redirect.uris": f"{APP}/oauth2/sign_out##{APP}/",
        },
        "protocolMappers": list(mappers),
    }


def audience_mapper(client_id: str) -> dict[str, Any]:
    """Return the mapper that adds the client to the audience, besides "account"."""
    return {
        "name": f"aud-mapper-{client_id}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {
            "included.client.audience": client_id,
            "id.token.claim": "true",
            "access.token.claim": "true",
            "introspection.token.claim": "true",
        },
    }


def _hardcoded_audience(audience: str) -> dict[str, Any]:
    """Return a mapper that makes *audience* the only one, as in a broken realm."""
    return {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-hardcoded-claim-mapper",
        "config": {
            "claim.name": "aud",
            "claim.value": audience,
            "jsonType.label": "String",
            "id.token.claim": "true",
            "access.token.claim": "true",
        },
    }


def _groups_scope() -> dict[str, Any]:
    return {
        "name": "groups",
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true"},
        "protocolMappers": [
            {
                "name": "groups-mapper",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-group-membership-mapper",
                "config": {
                    "claim.name": "groups",
                    "full.path": "false",  # "admin", as in allowed_groups=admin
                    "id.token.claim": "true",
                    "access.token.claim": "true",
                    "userinfo.token.claim": "true",
                },
            }
        ],
    }


def submit_credentials(client: Client, page: Reply, name: str) -> Reply:
    """Submit Keycloak's login form on *page*; return the response."""
    action = form_action(page, "kc-form-login")
    return client.submit(action, {"username": name, "password": PASSWORD})
