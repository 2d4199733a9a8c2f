"""JSON schemas of the kinds that the chart renders, made without a network.

Kubernetes' own types come from client-go, HTTPRoute from Gateway API's CRD; ``.ci/run``
puts both modules into Go's module cache. Those of Traefik and of the Prometheus
operator, whose CRDs no small module has, list the fields that the chart may use.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]
CLIENT_GO = "k8s.io/client-go@v0.37.0/applyconfigurations/internal/internal.go"
HTTP_ROUTE = (
    "sigs.k8s.io/gateway-api@v1.4.1/config/crd/standard/"
    "gateway.networking.k8s.io_httproutes.yaml"
)
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
TYPES = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "Deployment": "io.k8s.api.apps.v1.Deployment",
    "HorizontalPodAutoscaler": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "Ingress": "io.k8s.api.networking.v1.Ingress",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Secret": "io.k8s.api.core.v1.Secret",
    "Service": "io.k8s.api.core.v1.Service",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
}
SCALARS = {"string": "string", "numeric": "number", "boolean": "boolean"}
TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}


def module_file(name: str) -> Path:
    """Return the path of a file in Go's module cache; it may be missing."""
    gopath = os.environ.get("GOPATH") or str(Path.home() / "go")
    return Path(os.environ.get("GOMODCACHE") or f"{gopath}/pkg/mod") / name


def missing_module() -> str:
    """Return which module is not in Go's module cache; empty if both are."""
    for name in (CLIENT_GO, HTTP_ROUTE):
        if not module_file(name).exists():
            module = name[: name.index("/", name.index("@"))]
            return f"no {module} in Go's module cache"
    return ""


def write_schemas(folder: Path) -> None:
    """Write KIND.json for each kind into *folder*."""
    source = module_file(CLIENT_GO).read_text()
    text = source.partition("YAMLObject(`")[2].partition("`)")[0]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    types = {one["name"]: one for one in yaml.load(text, Loader=loader)["types"]}
    schemas = {kind: _built_in(types, name) for kind, name in TYPES.items()}
    route = yaml.safe_load(module_file(HTTP_ROUTE).read_text())
    (version,) = [one for one in route["spec"]["versions"] if one["name"] == "v1"]
    metadata = _built_in(types, META)
    crds = {
        "HTTPRoute": version["schema"]["openAPIV3Schema"]["properties"]["spec"],
        "Middleware": MIDDLEWARE,
        "ServiceMonitor": SERVICE_MONITOR,
    }
    for kind, spec in crds.items():
        schemas[kind] = strict(
            apiVersion=TEXT, kind=TEXT, metadata={"$ref": f"#/$defs/{META}"},
            spec=_closed(spec),
        ) | {"$defs": metadata["$defs"]}  # fmt: skip
    for kind, schema in schemas.items():
        schema["required"] = ["apiVersion", "kind", "metadata"]
        (folder / f"{kind.lower()}.json").write_text(json.dumps(schema))


def _built_in(types: dict[str, Schema], name: str) -> Schema:
    """Return the schema of a type of client-go, with all types that it names."""
    definitions: dict[str, Schema] = {}
    pending = [name]
    while pending:
        current = pending.pop()
        if current not in definitions:
            definitions[current] = _converted(types[current])
            named = re.findall(r'"#/\$defs/([^"]+)"', json.dumps(definitions[current]))
            pending += named
    return {**definitions[name], "$defs": definitions}


def _converted(kind: Schema) -> Schema:
    """Convert a type of structured-merge-diff; unknown fields are errors."""
    if "namedType" in kind:
        return {"$ref": f"#/$defs/{kind['namedType']}"}
    if "scalar" in kind:
        name = SCALARS.get(kind["scalar"])
        return {"type": name} if name else {}
    if "list" in kind:
        return {"type": "array", "items": _converted(kind["list"]["elementType"])}
    if "fields" in kind["map"]:
        return strict(
            **{one["name"]: _converted(one["type"]) for one in kind["map"]["fields"]}
        )
    values = kind["map"].get("elementType")
    schema: Schema = {"type": "object"}
    return {**schema, "additionalProperties": _converted(values)} if values else schema


def strict(**properties: Schema) -> Schema:
    """Return the schema of an object with *properties* only."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _closed(schema: Any) -> Any:
    """Make the objects of a CRD's schema reject unknown fields."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


MIDDLEWARE = {
    "oneOf": [
        strict(
            errors=strict(
                status=TEXTS,
                query=TEXT,
                service=strict(name=TEXT, namespace=TEXT, port={"type": "integer"}),
            )
            | {"required": ["status", "query", "service"]}
        ),
        strict(
            forwardAuth=strict(
                address={"type": "string", "pattern": "^https?://[^ ]+$"},
                trustForwardHeader={"type": "boolean"},
                maxResponseBodySize={"type": "integer"},
                authResponseHeaders=TEXTS,
                addAuthCookiesToResponse=TEXTS,
            )
            | {"required": ["address"]}
        ),
    ]
}
SERVICE_MONITOR = strict(
    selector=strict(matchLabels={"type": "object", "additionalProperties": TEXT}),
    namespaceSelector=strict(matchNames=TEXTS),
    endpoints={
        "type": "array",
        "items": strict(
            port=TEXT,
            path=TEXT,
            interval=TEXT,
            scrapeTimeout=TEXT,
            scheme=TEXT,
            bearerTokenFile=TEXT,
            tlsConfig={"type": "object"},
            metricRelabelings={"type": "array", "items": {"type": "object"}},
            relabelings={"type": "array", "items": {"type": "object"}},
        ),
    },
) | {"required": ["selector", "endpoints"]}
