"""Render deploy/helm/authproxy with helm."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.programs import ROOT, find

CHART = ROOT / "deploy" / "helm" / "authproxy"
FOLDER = Path(__file__).parent
VALUES = tuple(sorted(path.stem for path in (FOLDER / "values").glob("*.yaml")))
RELEASE, NAMESPACE = "login", "sso"
KUBERNETES = "1.34.0"
Manifest = dict[str, Any]


def run(*arguments: str, values: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm with *values*, a text, on its standard input."""
    command = [str(find("helm")), *arguments]
    return subprocess.run(
        command, input=values, capture_output=True, text=True, timeout=120
    )


def template(values: str) -> subprocess.CompletedProcess[str]:
    """Render the chart with *values*, YAML."""
    command = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    return run(*command, "--kube-version", KUBERNETES, "--values", "-", values=values)


class Objects:
    """Rendered objects by kind and name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all: list[Manifest] = [one for one in yaml.safe_load_all(text) if one]

    def names(self) -> set[str]:
        """Return ``KIND/NAME`` of each object, with ``NAME`` of the release removed."""
        return {f"{one['kind']}/{one['metadata']['name']}" for one in self.all}

    def get(self, kind: str, name: str = "") -> Manifest:
        """Return the object of *kind* (and *name*); there must be exactly one."""
        (found,) = [
            one
            for one in self.all
            if one["kind"] == kind and name in ("", one["metadata"]["name"])
        ]
        return found

    @property
    def pod(self) -> Manifest:
        """The pod template of the deployment."""
        pod: Manifest = self.get("Deployment")["spec"]["template"]
        return pod

    @property
    def container(self) -> Manifest:
        """The container of authproxy, the first one."""
        container: Manifest = self.pod["spec"]["containers"][0]
        return container

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the container: values, or ``SECRET:KEY``."""
        return dict(_variables(self.container.get("env", [])))


def _variables(env: list[Manifest]) -> Iterator[tuple[str, str]]:
    for one in env:
        if "value" in one:
            yield one["name"], one["value"]
        else:
            key = one["valueFrom"]["secretKeyRef"]
            yield one["name"], f"{key['name']}:{key['key']}"


@cache
def rendered(name: str) -> Objects:
    """Render the chart with the values file *name*."""
    done = template((FOLDER / "values" / f"{name}.yaml").read_text())
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # such as values that replace maps by lists
    return Objects(done.stdout)


def contents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a Secret or ConfigMap by key."""
    texts = dict(manifest.get("stringData", {}))
    for key, value in manifest.get("data", {}).items():
        is_secret = manifest["kind"] == "Secret"
        texts[key] = base64.b64decode(value).decode() if is_secret else value
    return texts
