"""The manifests in deploy/ match the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from authproxy.config.load import load_settings
from authproxy.server_settings import ServerSettings
from support.certificates import make_certificate
from support.programs import find

DEPLOY = Path(__file__).parents[2] / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def document_of_kind(name: str, kind: str) -> dict[str, Any]:
    (document,) = [one for one in documents(name) if one["kind"] == kind]
    return document


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    """The settings of the ConfigMap, with secret files as in the pod."""
    text = document_of_kind("kubernetes.yaml", "ConfigMap")["data"]["authproxy.cfg"]
    for name in ("client-secret", "cookie-secret"):
        (tmp_path / name).write_text("0123456789abcdef")
    file = tmp_path / "authproxy.cfg"
    file.write_text(text.replace("/secrets/", f"{tmp_path}/"))
    return load_settings(["--config", str(file)], {})


def test_pod_matches_its_configuration(settings: ServerSettings) -> None:
    pod = document_of_kind("kubernetes.yaml", "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert settings.listeners[0].port == port["containerPort"]
    assert container["livenessProbe"]["httpGet"]["path"] == settings.core.ping_path
    assert container["readinessProbe"]["httpGet"]["path"] == settings.core.ping_path
    assert pod["terminationGracePeriodSeconds"] > settings.limits.drain_timeout
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", ["kubernetes.yaml", "traefik.yaml"])
def test_auth_response_headers_list_every_identity_header(
    settings: ServerSettings, name: str
) -> None:
    """FA13, FA14: a client could send an identity header that is not listed."""
    (auth,) = [
        one["spec"]["forwardAuth"]
        for one in documents(name)
        if "forwardAuth" in one.get("spec", {})
    ]
    injected = {rule.name.lower() for rule in settings.core.inject_response_headers}
    assert injected <= {header.lower() for header in auth["authResponseHeaders"]}
    assert re.search(r":4180/oauth2/(auth|forward_auth)$", auth["address"])
    cookie = settings.core.cookie.name
    assert {cookie, f"{cookie}_0"} <= set(auth["addAuthCookiesToResponse"])


def test_fa10_nginx_example_checks_every_location_of_the_application() -> None:
    """It has no directive that lets requests pass without the check, and says why."""
    text = (DEPLOY / "nginx.conf").read_text()
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    directives = " ".join(lines)
    assert not re.search(r"\b(satisfy|try_files|auth_request off)\b", directives)
    for name, body in re.findall(r"location ([^{]+) {([^{}]*)}", directives):
        checked = "auth_request /oauth2/auth;" in body
        assert checked or name.lstrip("= ").startswith("/oauth2/"), name
    for word in ("try_files", "satisfy any", "auth_request off"):
        assert word in text


def test_image_copies_existing_sources() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            built = source == "dist/authproxy.pyz"  # by zipapp/build.py
            assert built or (DEPLOY.parent / source).exists(), source
    assert "USER 65532" in text


def run_check(program: str, *arguments: str | Path) -> None:
    """Run a program's check of its configuration; skip if it is not installed."""
    found = find(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    command = [str(part) for part in (found, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "warning" not in output.lower(), output


def deployed(name: str, folder: Path, certificates: str) -> Path:
    """Copy an example; only the directory *certificates* becomes *folder*.

    It gets a certificate ``app.pem`` and a key ``app.key``.
    """
    certificate = make_certificate(folder, "app.example.com")
    pem = Path(certificate.cert_file).read_text()
    key = Path(certificate.key_file).read_text()
    (folder / "app.key").write_text(key)
    (folder / "app.pem").write_text(pem + key)
    file = folder / name
    text = (DEPLOY / name).read_text()
    assert f"{certificates}/app.pem" in text
    file.write_text(text.replace(certificates, str(folder)))
    return file


def test_nginx_accepts_its_example(tmp_path: Path) -> None:
    """In an http block and nothing else, as in /etc/nginx/conf.d."""
    example = deployed("nginx.conf", tmp_path, "/etc/nginx")
    main = tmp_path / "main.conf"
    main.write_text(f"pid nginx.pid;\nevents {{}}\nhttp {{ include {example}; }}\n")
    run_check("nginx", "-t", "-q", "-p", tmp_path, "-c", main)


def test_haproxy_accepts_its_example(tmp_path: Path) -> None:
    example = deployed("haproxy.cfg", tmp_path, "/etc/haproxy")
    shutil.copy(DEPLOY / "forward_auth.lua", tmp_path)
    run_check("haproxy", "-c", "-q", "-f", example)


def test_envoy_accepts_its_example(tmp_path: Path) -> None:
    example = deployed("envoy.yaml", tmp_path, "/etc/envoy")
    flags = ["--mode", "validate", "--log-level", "error"]
    run_check("envoy", "-c", example, *flags)


def test_caddy_accepts_its_example() -> None:
    file = DEPLOY / "Caddyfile"
    run_check("caddy", "validate", "--config", file, "--adapter", "caddyfile")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing"
)
@pytest.mark.parametrize("unit", ["authproxy.service", "authproxy.socket"])
def test_systemd_unit_verifies(unit: str) -> None:
    command = ["systemd-analyze", "verify", "--recursive-errors=no"]
    result = subprocess.run(
        [*command, str(DEPLOY / unit)], capture_output=True, text=True
    )
    problems = [line for line in result.stderr.splitlines() if "authproxy" in line]
    assert not problems, problems
    assert result.returncode == 0
