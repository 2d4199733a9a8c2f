"""``deploy/compose``: its configurations run without containers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support import peers
from support.certificates import Certificate
from support.echo import EchoApp
from support.http import Client, Reply
from support.keycloak import PASSWORD as KEYCLOAK_PASSWORD
from support.keycloak import Keycloak, submit_credentials
from support.nginx import start_nginx
from support.ports import LOOPBACK, free_port
from support.processes import Process, wait_for
from support.programs import ROOT
from support.redis import RedisServer

from .conftest import require
from .test_keycloak_realm import print_realm

pytestmark = pytest.mark.e2e
COMPOSE = ROOT / "deploy" / "compose"
GATEWAYS = ("nginx", "traefik")
SECRETS = {
    "CLIENT_SECRET": "client-secret-of-this-test",
    "COOKIE_SECRET": "0123456789abcdef0123456789abcdef",
    "PASSWORD": KEYCLOAK_PASSWORD,
}


def services(gateway: str) -> dict[str, Any]:
    """Return the services of both files of a variant."""
    files = ("compose.yaml", f"compose.{gateway}.yaml")
    found = [yaml.safe_load((COMPOSE / name).read_text())["services"] for name in files]
    assert not found[0].keys() & found[1].keys()
    return found[0] | found[1]


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_compose_files_fit_each_other(gateway: str) -> None:
    found = services(gateway)
    assert set(found) == {"keycloak", "redis", "authproxy", "app", "gateway"}
    for service in found.values():
        assert "build" in service or re.search(r":[\w.]+$", service["image"])
        assert set(service.get("depends_on", ())) <= set(found)
        for volume in service.get("volumes", ()):
            source, _, options = volume.split(":")
            assert (COMPOSE / source).is_file()
            assert options == "ro"
        for name, value in service.get("environment", {}).items():
            for secret in re.findall(r"\$\{(\w+):\?", value):
                assert secret in SECRETS, name
    build = found["authproxy"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).is_file()
    # Only the gateway is reachable, and only from this machine.
    [(name, ports)] = [(n, s["ports"]) for n, s in found.items() if "ports" in s]
    assert (name, ports) == ("gateway", ["127.0.0.1:8080:8080"])
    aliases = found["gateway"]["networks"]["default"]["aliases"]
    issuer = tomllib.loads((COMPOSE / "authproxy.cfg").read_text())["oidc_issuer_url"]
    url = f"http://{aliases[0]}:8080"
    assert issuer == f"{url}/realms/main"
    assert found["keycloak"]["environment"]["KC_HOSTNAME"] == url


def test_traefik_configuration_equals_the_example_of_deploy() -> None:
    http = yaml.safe_load((COMPOSE / "traefik.yaml").read_text())["http"]
    example = yaml.safe_load((ROOT / "deploy" / "traefik.yaml").read_text())
    middleware = http["middlewares"]["login"]["forwardAuth"]
    expected = example["spec"]["forwardAuth"]
    assert middleware.pop("addAuthCookiesToResponse") == ["_oauth2_proxy"]
    del expected["addAuthCookiesToResponse"]
    assert middleware == expected
    checked = {name for name, one in http["routers"].items() if "middlewares" in one}
    assert checked == {"app"}
    hosts = set()
    for name, router in http["routers"].items():
        hosts |= set(re.findall(r"Host\(`(\S+)`\)", router["rule"]))
        [server] = http["services"][router["service"]]["loadBalancer"]["servers"]
        assert re.match(r"http://(\w+):\d+$", server["url"])[1] == name  # type: ignore[index]
    assert hosts == {"app.localhost", "keycloak.localhost"}


def test_realm_is_that_of_the_command(tmp_path: Path) -> None:
    for name in ("CLIENT_SECRET", "PASSWORD"):
        (tmp_path / name).write_text(f"${{{name}}}")
    realm, generated = print_realm(
        "http://app.localhost:8080",
        "--backchannel-url=http://authproxy:4180/oauth2/backchannel-logout",
        f"--client-secret-file={tmp_path / 'CLIENT_SECRET'}",
        f"--password-file={tmp_path / 'PASSWORD'}",
    )
    assert generated == {}
    assert yaml.safe_load((COMPOSE / "realm.json").read_text()) == realm


class Deployment(NamedTuple):
    """The nginx variant on free ports."""

    app: str
    issuer: str

    def log_in(self, client: Client, user: str, path: str = "/") -> Reply:
        """Log in at *path*, and return the application's response."""
        page = client.get(f"{self.app}{path}")
        assert "Sign in with Keycloak" in page.text
        start = client.get(f"{self.app}/oauth2/start?rd={path}")
        form = client.follow(start)
        return client.follow(submit_credentials(client, form, user))


@pytest.fixture
def deployment(
    tmp_path: Path,
    keycloak: Keycloak,
    redis: RedisServer,
    app: EchoApp,
    certificate: Certificate,
) -> Iterator[Deployment]:
    """Run the nginx variant: names and ports of the containers are replaced."""
    nginx, auth_port, port = require("nginx"), free_port(), free_port()
    replaced = {
        "http://keycloak:8080": f"http://{LOOPBACK}:{keycloak.http_port}",
        "http://authproxy:4180": f"http://{LOOPBACK}:{auth_port}",
        "http://app:80": f"http://{LOOPBACK}:{app.port}",
        "redis://redis:6379": redis.url,
        "0.0.0.0:4180": f"{LOOPBACK}:{auth_port}",
        "172.16.0.0/12": LOOPBACK,
        "listen 8080": f"listen {LOOPBACK}:{port}",
        "app.localhost:8080": f"localhost:{port}",
        "keycloak.localhost:8080": f"{LOOPBACK}:{port}",
        "app.localhost": "localhost",
        "keycloak.localhost": LOOPBACK,
        **{f"${{{name}}}": value for name, value in SECRETS.items()},
    }

    def text_of(name: str) -> str:
        text = (COMPOSE / name).read_text()
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    realm = yaml.safe_load(text_of("realm.json"))
    keycloak.admin("POST", "", realm)
    config = tmp_path / "compose.cfg"
    config.write_text(text_of("authproxy.cfg"))
    command = peers.command(peers.AUTHPROXY)
    assert command
    variables = {
        f"OAUTH2_PROXY_{name}": SECRETS[name]
        for name in ("CLIENT_SECRET", "COOKIE_SECRET")
    }
    try:
        with (
            start_nginx(nginx, tmp_path, text_of("nginx.conf"), port, certificate),
            Process(
                "authproxy",
                [*command, "--config", config],
                folder=tmp_path,
                environment={"PYTHONPATH": peers.SOURCES, **variables},
            ) as program,
        ):
            wait_for(lambda: "[provider_ready]" in program.log(), "the provider", 30.0)
            issuer = f"http://{LOOPBACK}:{port}/realms/main"
            yield Deployment(f"http://localhost:{port}", issuer)
    finally:
        keycloak.admin("DELETE", "/main")


def test_nginx_variant_signs_in_and_restricts_and_logs_out(
    deployment: Deployment, keycloak: Keycloak
) -> None:
    alice, bob = Client(), Client()
    shown = deployment.log_in(alice, "alice", "/admin/page")
    assert shown.url == f"{deployment.app}/admin/page"
    headers = dict(shown.json["headers"])
    assert headers["x-auth-request-email"] == "alice@example.com"
    assert {"admin", "staff"} <= set(headers["x-auth-request-groups"].split(","))
    assert deployment.log_in(bob, "bob").status == 200
    assert bob.get(f"{deployment.app}/admin/page").status == 403

    [user] = keycloak.admin("GET", "/main/users?username=alice").json
    keycloak.admin("POST", f"/main/users/{user['id']}/logout", {})
    page = f"{deployment.app}/page"
    wait_for(lambda: "Sign in with Keycloak" in alice.get(page).text, "the logout")

    signed_out = bob.get(f"{deployment.app}/oauth2/sign_out")
    assert signed_out.location.startswith(deployment.issuer)
    after = bob.follow(signed_out)
    assert after.url.startswith(f"{deployment.app}/oauth2/signed_out")
    assert "You are signed out of this application." in after.text
