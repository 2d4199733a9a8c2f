"""The bill of materials of a release, in the JSON format of CycloneDX 1.6."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import uuid
import zipfile
from email.message import Message
from email.parser import BytesParser

REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9._-]+")


def bill_of_materials(
    zipapp: bytes, wheels: dict[str, bytes], targets: dict[str, list[str]], own: str
) -> str:
    """Return the document for *zipapp*.

    *wheels* has the content of all wheels, *targets* the names of each target's wheels;
    *own* is the project's wheel.
    It is reproducible: the serial number depends on the content, and the time is
    SOURCE_DATE_EPOCH or missing.
    """
    metadata = {name: read_metadata(content) for name, content in wheels.items()}
    digest = hashlib.sha256(zipapp).hexdigest()
    document: dict[str, object] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            **release_time(),
            "component": {
                **component(own, metadata[own]),
                "type": "application",
                "hashes": hashes(zipapp),
            },
        },
        "components": [
            {**component(name, metadata[name]), "hashes": hashes(content)}
            for name, content in wheels.items()
            if name != own
        ],
        "dependencies": [
            {"ref": name, "dependsOn": dependencies(name, metadata, targets)}
            for name in wheels
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def read_metadata(wheel: bytes) -> Message:
    """Return the fields of the METADATA file of *wheel*."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(
            name
            for name in archive.namelist()
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1
        )
        return BytesParser().parsebytes(archive.read(name))


def component(name: str, metadata: Message) -> dict[str, object]:
    """Return the component of the wheel *name*; each platform's wheel is one."""
    package, version = normalized(metadata["Name"]), metadata["Version"]
    return {
        "type": "library",
        "bom-ref": name,
        "name": package,
        "version": version,
        "purl": f"pkg:pypi/{package}@{version}?file_name={name}",
        "licenses": licenses(metadata),
    }


def licenses(metadata: Message) -> list[dict[str, object]]:
    """Return the license: an SPDX expression, else a name of an older field."""
    if metadata["License-Expression"]:
        return [{"expression": metadata["License-Expression"]}]
    name = (metadata["License"] or "").strip()
    names = [name] if name and "\n" not in name else []  # some have the whole text
    classifiers = metadata.get_all("Classifier") or ()
    names += [
        classifier.rpartition(" :: ")[2]
        for classifier in classifiers
        if classifier.startswith("License :: ")
    ]
    return [{"license": {"name": name}} for name in names[:1]]


def normalized(name: str) -> str:
    """Return the normalized name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes(content: bytes) -> list[dict[str, str]]:
    """Return the digests of an artifact."""
    return [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]


def release_time() -> dict[str, str]:
    """Return the time of the release if SOURCE_DATE_EPOCH has it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdigit():
        return {}
    return {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch)))}


def dependencies(
    name: str, metadata: dict[str, Message], targets: dict[str, list[str]]
) -> list[str]:
    """Return the references of the wheels that *name* requires on its targets."""
    required = set()
    for requirement in metadata[name].get_all("Requires-Dist") or ():
        match = REQUIREMENT_NAME.match(requirement)
        if match and "extra ==" not in requirement:
            required.add(normalized(match[0]))
    together = {other for names in targets.values() if name in names for other in names}
    return [
        other
        for other, fields in metadata.items()
        if other in together and normalized(fields["Name"]) in required
    ]
