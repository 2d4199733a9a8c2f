"""The image: really built, and run read-only as the users of popular charts."""

from __future__ import annotations

import http.client
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.http import exchange
from support.image import Image, missing_requirement
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_requirement()), reason=missing_requirement()),
]
SECRET = "0123456789abcdef0123456789abcdef"
ENVIRONMENT = {
    "OAUTH2_PROXY_CLIENT_ID": "id",
    "OAUTH2_PROXY_CLIENT_SECRET": "secret",
    "OAUTH2_PROXY_COOKIE_SECRET": SECRET,
}
CONFIG = """
provider = "github"
email_domains = [ "*" ]
upstreams = [ "static://200" ]
cookie_refresh = "1h"
workers = 2
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    image = Image(Path(tempfile.mkdtemp(prefix="authproxy-image-")))
    yield image
    image.close()


def test_image_has_labels_health_check_and_numeric_user(image: Image) -> None:
    config = image.config
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"][0] == "/usr/bin/python3"  # no shell
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = {key.rpartition(".")[2] for key in config["Labels"]}
    assert {"title", "description", "licenses", "version", "revision"} <= labels
    assert not list((image.root / "usr/lib/authproxy").rglob(".unpacking-*"))


# The user of the image, of oauth2-proxy's chart with its command and arguments, of
# Bitnami's chart, and one that OpenShift assigns.
USERS = {
    "65532:65532": (),
    "2000:2000": ("/bin/oauth2-proxy",),
    "1001:1001": ("oauth2-proxy",),
    "1000680000:0": (),
}
# What the pods of the two charts have in addition: variables of Service links, and the
# configuration and sign-in page of the article for Bitnami's chart.
SERVICE_LINKS = {
    "OAUTH2_PROXY_PORT": "tcp://10.43.0.1:80",
    "OAUTH2_PROXY_PORT_80_TCP_ADDR": "10.43.0.1",
    "OAUTH2_PROXY_SERVICE_HOST": "10.43.0.1",
    "OAUTH2_PROXY_SERVICE_PORT": "80",
    "OAUTH2_PROXY_SERVICE_PORT_METRICS": "44180",
}
ARTICLE = ROOT / "tests/e2e"


def test_image_runs_read_only_as_any_user(image: Image, tmp_path: Path) -> None:
    """Without /tmp, home or passwd entry, with several workers and cookie_refresh."""
    tmp_path.chmod(0o755)
    (tmp_path / "oauth2_proxy.cfg").write_text(CONFIG)
    (tmp_path / "templates").mkdir()
    shutil.copy(ARTICLE / "reference.cfg", tmp_path / "article.cfg")
    shutil.copy(ARTICLE / "reference_sign_in.html", tmp_path / "templates/sign_in.html")
    running: dict[str, tuple[Process, int]] = {}
    try:
        for user, command in USERS.items():
            port, metrics = free_port(), free_port()
            arguments = [f"--http-address=0.0.0.0:{port}"]
            arguments += ["--https-address=0.0.0.0:4443"]
            arguments += [f"--metrics-address=0.0.0.0:{metrics}"]
            arguments += ["--config=/mnt/oauth2_proxy.cfg"]
            more = SERVICE_LINKS
            if user == "1001:1001":
                issuer = "--oidc-issuer-url=https://keycloak.example.com/realms/master"
                arguments[1:] = ["--config=/mnt/article.cfg", issuer]
                more = {"OAUTH2_PROXY_CUSTOM_TEMPLATES_DIR": "/mnt/templates"}
            process = image.start(
                arguments, folder=tmp_path, user=user, command=command,
                environment={**ENVIRONMENT, **more},
            )  # fmt: skip
            running[user] = process, port
        for process, port in running.values():
            process.wait_until(lambda port=port: listens(port), 60.0)  # type: ignore[misc]
            assert status(port, "/ping") == 200
            assert status(port, "/oauth2/auth") == 401
        check_health(image, tmp_path, running["2000:2000"][1])
        for process, _ in running.values():
            process.signal(signal.SIGTERM)
            assert process.wait(60.0) == 0
            assert "Traceback" not in process.log()
            assert "cannot" not in process.log()
        assert "SERVICE" not in running["2000:2000"][0].log()
    finally:
        for process, _ in running.values():
            process.stop()


def status(port: int, path: str) -> int:
    """Return the status of a GET request."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60.0)
    return exchange(connection, "GET", path, [("host", "app.example.com")]).status


def check_health(image: Image, folder: Path, port: int) -> None:
    """Run the image's health check against *port*, and against a closed port."""
    command = image.config["Healthcheck"]["Test"][1:]
    for number, expected in ((port, 0), (free_port(), 1)):
        url = f"http://127.0.0.1:{number}/ping"
        process = image.start(
            [], folder=folder, user="65532:65532", command=command,
            environment={"AUTHPROXY_HEALTH_URL": url},
        )  # fmt: skip
        try:
            assert process.wait(60.0) == expected, process.log()
            assert "Traceback" not in process.log()
        finally:
            process.stop()


def test_image_without_any_writable_directory_names_the_remedy(
    image: Image, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "config").chmod(0o644)
    port = free_port()
    arguments = ["--config=/mnt/config", f"--http-address=127.0.0.1:{port}"]
    process = image.start(
        arguments, folder=tmp_path, user="2000:2000", environment=ENVIRONMENT, shm="ro"
    )
    assert process.wait(60.0) == 1
    [line] = [line for line in process.log().splitlines() if "cannot" in line]
    assert "/tmp: Read-only file system" in line
    assert "/dev/shm: Read-only file system" in line
    assert "set sqlite_path, or shared_state = 'none'" in line
    assert "Traceback" not in process.log()
    process.stop()
    with image.start(
        [*arguments, "--shared-state=none"],
        folder=tmp_path, user="2000:2000", environment=ENVIRONMENT, shm="ro",
    ) as process:  # fmt: skip
        process.wait_until(lambda: listens(port), 60.0)
        assert status(port, "/ping") == 200
