"""authproxy accepts what the chart renders, and serves with it."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import pytest

from authproxy.config.load import load_settings
from helm.chart import VALUES, rendered
from helm.pod import Pod
from support.http import exchange
from support.login import Provider
from support.ports import LOOPBACK
from support.processes import Process
from support.programs import find

pytestmark = pytest.mark.skipif(not find("helm"), reason="no helm")
# Options that the chart sets by itself.
OF_THE_CHART = (
    "http_address", "https_address", "metrics_address", "config", "email",
    "authenticated_emails_file",
)  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_rendered_configuration_is_accepted(name: str, tmp_path: Path) -> None:
    """With the ports of the container, and probes that they answer."""
    objects = rendered(name)
    pod = Pod(objects, tmp_path)
    settings = load_settings(pod.arguments, pod.environment)
    assert not [one for one in settings.warnings if one.startswith(OF_THE_CHART)]
    ports = {one["name"]: one["containerPort"] for one in objects.container["ports"]}
    listeners = {one.port: one for one in settings.listeners}
    assert set(ports.values()) <= set(listeners)
    for probe in ("livenessProbe", "readinessProbe"):
        request = objects.container[probe]["httpGet"]
        assert request["path"] == settings.core.ping_path
        listener = listeners[ports[request["port"]]]
        assert (request["scheme"] == "HTTPS") == (listener.tls is not None)
    grace = objects.pod["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.limits.drain_timeout


def test_restarted_pod_serves_sessions_while_provider_is_away(tmp_path: Path) -> None:
    objects = rendered("args-map")
    pod = Pod(objects, tmp_path)
    ready = objects.container["readinessProbe"]["httpGet"]["path"]

    def start() -> Process:
        command = [sys.executable, "-m", "authproxy", *pod.arguments, *flags]
        process = Process("pod", command, folder=tmp_path, environment=pod.environment)
        return process.wait_until(lambda: status(provider.ports[0], ready) == 200, 60.0)

    with Provider() as provider:
        browser = provider.browser()
        flags = [
            f"--oidc-issuer-url={provider.url}",
            f"--client-id={provider.options()['client_id']}",
            f"--client-secret={provider.options()['client_secret']}",
            f"--http-address={LOOPBACK}:{provider.ports[0]}",
            "--metrics-address=",
            "--cookie-secure=false",
        ]
        with start():
            browser.log_in()
            assert browser.check() == 202
    with start():
        assert browser.check() == 202
        assert status(provider.ports[0], "/ready") == 503


def status(port: int, path: str) -> int:
    """Return the status of a GET request; 0 if the port does not accept it."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60.0)
    try:
        return exchange(connection, "GET", path, [("host", "app.example.com")]).status
    except OSError:
        return 0
