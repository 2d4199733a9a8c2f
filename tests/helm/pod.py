"""A pod without Kubernetes: the files, flags and variables that its container gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helm.chart import FOLDER, Manifest, Objects, contents
from support.certificates import make_certificate
from support.google import ACCOUNT


class Pod:
    """The container of a rendered deployment, with its volumes in a directory.

    ``arguments`` and ``environment`` are those of the container. The mount paths in
    them and in the files are replaced by directories.
    """

    def __init__(self, objects: Objects, folder: Path) -> None:
        self._folder = folder
        existing = _existing_objects(folder)
        self._objects = {
            (one["kind"], one["metadata"]["name"]): contents(one)
            for one in [*existing, *objects.all]
            if one["kind"] in ("Secret", "ConfigMap")
        }
        container = objects.container
        mounts = {
            one["name"]: one["mountPath"] for one in container.get("volumeMounts", [])
        }
        self._paths = sorted(mounts.values(), key=len, reverse=True)
        for volume in objects.pod["spec"].get("volumes", []):
            self._mount(volume, mounts.get(volume["name"], "/unused"))
        self.arguments = [self._moved(one) for one in container["args"]]
        self.environment = dict(self._environment(container))

    def _moved(self, text: str) -> str:
        """Replace the mount paths in *text*."""
        paths = "|".join(map(re.escape, self._paths))
        return re.sub(rf"(?<=[\"= ])({paths})(?=[/\"]|$)", rf"{self._folder}\1", text)

    def _mount(self, volume: Manifest, path: str) -> None:
        """Write the files of *volume* where the container sees *path*."""
        target = Path(f"{self._folder}{path}")
        target.mkdir(parents=True, exist_ok=True)
        for source in volume.get("projected", {}).get("sources", [volume]):
            for file, text in self._files(source):
                (target / file).parent.mkdir(exist_ok=True)
                (target / file).write_text(self._moved(text))

    def _files(self, source: Manifest) -> Iterator[tuple[str, str]]:
        """Return paths and texts of a volume source; raises KeyError without object."""
        kind = {"secret": "Secret", "configMap": "ConfigMap"}
        for field, value in source.items():
            if field not in kind:
                continue
            texts = self._objects[kind[field], value.get("secretName") or value["name"]]
            items = value.get("items") or [{"key": key, "path": key} for key in texts]
            yield from ((item["path"], texts[item["key"]]) for item in items)

    def _environment(self, container: Manifest) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", []):
            name = source.get("configMapRef", source.get("secretRef"))["name"]
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            yield from self._objects[kind, name].items()
        for one in container.get("env", []):
            if "value" in one:
                yield one["name"], one["value"]
            else:
                key = one["valueFrom"]["secretKeyRef"]
                yield one["name"], self._objects["Secret", key["name"]][key["key"]]


def _existing_objects(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of cluster.yaml, with keys that are made here."""
    certificate = make_certificate(folder, "login.example.com")
    texts = {
        "CERTIFICATE": Path(certificate.cert_file).read_text(),
        "KEY": Path(certificate.key_file).read_text(),
        "SERVICE_ACCOUNT": json.dumps(ACCOUNT),
    }
    documents = list(yaml.safe_load_all((FOLDER / "cluster.yaml").read_text()))
    for document in documents:
        for field in ("data", "stringData"):
            for key, value in document.get(field, {}).items():
                document[field][key] = texts.get(value, value)
    return documents
