"""Keycloak as the provider of a chaos run, with a database that survives its crashes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from support.certificates import make_certificate
from support.keycloak import Keycloak, launch_keycloak
from support.ports import LOOPBACK
from support.programs import find

REALM = "chaos"
LIFETIME = 12 * 3600  # seconds of tokens and sessions


class KeycloakProvider:
    """Has the methods of a helper process that serves the development provider."""

    def __init__(self, folder: Path, port: int, users: int, redirect: str) -> None:
        script = find("keycloak")
        if script is None:
            raise SystemExit("keycloak is not installed")
        self._script = script
        self._folder = folder
        self._port = port
        self._certificate = make_certificate(folder, LOOPBACK)
        self._priority = 100  # of the newest signing key
        self._keycloak = self._launch()
        self._keycloak.admin("POST", "", _realm(users, redirect))

    def __enter__(self) -> KeycloakProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self._keycloak.process.stop()

    def _launch(self) -> Keycloak:
        # The build option stays dev-mem, because another one would rebuild Keycloak.
        database = f"jdbc:h2:file:{self._folder}/keycloak;NON_KEYWORDS=VALUE"
        return launch_keycloak(
            self._script,
            self._folder,
            self._certificate,
            self._port,
            f"--db-url={database}",
        )

    def ask(self, do: str, value: float = 0.0) -> dict[str, Any]:
        """Perform a command; Keycloak does not count refresh tokens."""
        match do:
            case "kill":
                os.killpg(self._keycloak.process.pid, signal.SIGKILL)
                self._keycloak.process.wait()
                self._keycloak.process.stop()
            case "start":
                self._keycloak = self._launch()
            case "rotate":
                self._priority += 1
                self._keycloak.admin("POST", f"/{REALM}/components", self._new_key())
        return {"refreshes": 0, "used_twice": [], "repeated": []}

    def _new_key(self) -> dict[str, Any]:
        return {
            "name": f"key-{self._priority}",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": [str(self._priority)]},
        }


def _realm(users: int, redirect: str) -> dict[str, Any]:
    return {
        "realm": REALM,
        "enabled": True,
        "accessTokenLifespan": LIFETIME,
        "ssoSessionIdleTimeout": LIFETIME,
        "ssoSessionMaxLifespan": LIFETIME,
        # Hashing is not what a chaos run tests.
        "passwordPolicy": "hashAlgorithm(pbkdf2-sha512) and hashIterations(1)",
        "clients": [
            {
                "clientId": "authproxy",
                "secret": "demo-client-secret",
                "redirectUris": [redirect],
            }
        ],
        "users": [
            {
                "username": f"user-{number}",
                "email": f"user-{number}@example.com",
                "emailVerified": True,
                "firstName": "User",
                "lastName": f"{number}",
                "enabled": True,
                "credentials": [{"type": "password", "value": "pw"}],
            }
            for number in range(users)
        ],
    }
