"""Prometheus, scraping one target, and the selectors of PromQL expressions."""

from __future__ import annotations

import http.client
import json
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from support.ports import LOOPBACK, free_port
from support.processes import Process, wait_for

JOB = "authproxy"
INTERVAL = "250ms"  # between two scrapes and between two evaluations of the rules
KEYWORDS = frozenset({"and", "or", "unless", "by", "without", "on", "ignoring", "bool"})
_STRING = r'"(?:\\.|[^"\\])*"'
_TOKEN = re.compile(
    rf"{_STRING}|\{{(?:{_STRING}|[^{{}}\"])*\}}|[A-Za-z_:][\w:]*|\d[\w.]*|\[[^\]]*\]|\S"
)
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\([^()]*\)")


class Prometheus(Process):
    """Prometheus with the rules of *rules*; it scrapes *port* of this machine."""

    def __init__(self, program: Path, folder: Path, *, port: int, rules: Path) -> None:
        self.port = free_port()
        configuration = folder / "prometheus.yaml"
        configuration.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": INTERVAL,
                        "scrape_timeout": INTERVAL,
                        "evaluation_interval": INTERVAL,
                    },
                    "rule_files": [str(rules)],
                    "scrape_configs": [
                        {
                            "job_name": JOB,
                            "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}],
                        }
                    ],
                }
            )
        )
        super().__init__(
            "prometheus",
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
                "--log.level=warn",
            ],
            folder=folder,
        )

    def __enter__(self) -> Prometheus:
        return self

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a response of the HTTP API; {} while it is not ready."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            response = connection.getresponse()
            answer = json.loads(response.read() or "{}")
        except (OSError, ValueError):
            return {}
        finally:
            connection.close()
        assert response.status != 400, (parameters, answer)
        return answer.get("data", {})

    def labels_with_data(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series of *expression* whose value is finite."""
        found = self.get("query", query=expression).get("result", ())
        return [one["metric"] for one in found if math.isfinite(float(one["value"][1]))]

    def wait_for_data(self, expression: str) -> list[dict[str, str]]:
        """Wait for the first series of *expression* with a finite value; as above."""
        found: list[dict[str, str]] = []

        def has_data() -> bool:
            found[:] = self.labels_with_data(expression)
            return bool(found)

        wait_for(has_data, f"data of {expression}", 30)
        return found


def selectors(expression: str) -> set[str]:
    """Return the vector selectors of a PromQL expression, without their ranges."""
    tokens = _TOKEN.findall(_GROUPING.sub(" ", expression))
    found = set()
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if re.match(r"[A-Za-z_:]", token) and token not in KEYWORDS:
            if following.startswith("{"):
                found.add(token + following)
            elif following != "(":
                found.add(token)
    return found


def grouping_labels(expression: str) -> set[str]:
    """Return the labels of the aggregations of *expression*."""
    inner = re.findall(r"\b(?:by|on)\s*\(([^()]*)\)", expression)
    return {label.strip() for labels in inner for label in labels.split(",")}
