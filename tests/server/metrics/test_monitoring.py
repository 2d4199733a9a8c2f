"""The dashboard and the alert rules in deploy/, with Prometheus and a real scrape."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from authproxy.metrics.families import FAMILIES
from support import alert_series
from support.echo import EchoApp
from support.login import Browser, Provider
from support.ports import LOOPBACK, free_port
from support.processes import wait_for
from support.program import Program
from support.programs import find
from support.prometheus import Prometheus, grouping_labels, selectors
from support.redis import RedisServer

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/authproxy.json"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]
]
LABEL_VALUES = {
    (family.name, label): [series[number] for series in family.series]
    for family in FAMILIES
    for number, label in enumerate(family.labels)
}


def needed(name: str) -> Path:
    """Return the path of a program, or skip."""
    program = find(name)
    if program is None:
        pytest.skip(f"{name} is missing")
    return program


class Scene:
    """An authproxy with provider, Redis and upstream, and what can happen to it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.provider = stack.enter_context(Provider())
        self.redis = stack.enter_context(RedisServer(folder))
        app = stack.enter_context(EchoApp())
        emails = folder / "emails"
        emails.write_text("alice@example.com\n")
        options = self.provider.options() | {
            "workers": 2,
            "metrics_address": f"{LOOPBACK}:0",
            "session_store_type": "redis",
            "redis_connection_url": self.redis.url,
            "cookie_refresh": "1s",
            "email_domains": None,
            "authenticated_emails_file": str(emails),
            "reload_on_change": False,
            "upstreams": [
                f"http://{LOOPBACK}:{app.port}/",
                f"http://{LOOPBACK}:{free_port()}/closed/",
            ],
        }
        self.program = stack.enter_context(Program(folder, **options)).started()
        self.browser = self.provider.browser()
        found = re.search(r"metrics on http://\S+:(\d+)", self.program.log())
        assert found
        self.metrics_port = int(found[1])

    def use(self) -> None:
        """Log in, refresh, forward requests, and be denied."""
        self.browser.log_in()
        assert self.browser.check() == 202
        assert self.browser.get("/page").status == 200
        assert self.browser.get("/closed/").status == 502
        assert self.provider.browser().check() == 401
        assert self.provider.browser().get("/oauth2/callback?code=x").status == 403
        assert self.logged_in("bob").status == 403
        self.wait_for_log("refreshed")

    def logged_in(self, user: str) -> Any:
        """Return the response to the callback of a new browser."""
        browser = self.provider.browser()
        return log_in(browser, user)

    def wait_for_log(self, text: str) -> None:
        """Send requests with the session until a line with *text* is new in the log."""
        before = self.program.log().count(text)

        def is_new() -> bool:
            self.browser.check()
            return self.program.log().count(text) > before

        wait_for(is_new, text, 30)

    def fail(self) -> None:
        """Break provider, configuration, a worker, and the store, in this order."""
        failing = self.provider.idp.config.failing
        for status in (503, 400):
            failing["token"] = status
            assert self.logged_in("alice").status >= 400
        for rest, event in (("no TOML", "reload failed"), ("", "reloaded")):
            self.program.configure(rest)
            self.program.signal(signal.SIGHUP)
            self.program.wait_until(lambda text=event: text in self.program.log())
        os.kill(self.program.workers[0], signal.SIGKILL)
        self.redis.kill()
        wait_for(lambda: self.browser.check() == 503, "a failed check")


def log_in(browser: Browser, user: str) -> Any:
    """Return the response to the callback, whatever it is."""
    started = browser.get("/oauth2/start?rd=/")
    back = browser.provider.idp.log_in(started.headers["location"], user)
    return browser.get(back[back.index("/oauth2") :])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after everything that the metrics count has happened."""
    program = needed("prometheus")
    needed("redis-server")
    folder = tmp_path_factory.mktemp("monitoring")
    with contextlib.ExitStack() as stack:
        scene = Scene(folder, stack)
        running = stack.enter_context(
            Prometheus(program, folder, port=scene.metrics_port, rules=ALERTS)
        )
        scene.use()
        running.wait_for_data('authproxy_refreshes_total{result="refreshed"} > 0')
        scene.use()
        scene.fail()
        yield running


def panel_queries() -> list[tuple[str, str, str]]:
    """Return title, expression and legend of each query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = (
                target["expr"]
                .replace("$__rate_interval", "5m")
                .replace("$job", "authproxy")
                .replace("$instance", ".+")
            )
            assert "$" not in expression
            found.append((panel["title"], expression, target["legendFormat"]))
    return found


def test_each_panel_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    """The labels of legends and aggregations exist; no selector finds nothing."""
    queries = panel_queries()
    assert len(queries) > 30
    for title, expression, legend in queries:
        labels = prometheus.wait_for_data(expression)
        expected = set(re.findall(r"{{(\w+)}}", legend))
        assert all(expected <= one.keys() for one in labels), (title, labels)
        assert_selectors_match(prometheus, expression)


def test_each_variable_of_the_dashboard_has_values(prometheus: Prometheus) -> None:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    queries = [one["query"]["query"] for one in variables if one["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert found
        expression, label = found[1].replace("$job", "authproxy"), found[2]
        assert all(one[label] for one in prometheus.wait_for_data(expression))


def test_each_alert_selects_exposed_series(prometheus: Prometheus) -> None:
    for rule in RULES:
        assert_selectors_match(prometheus, rule["expr"])

    def evaluated() -> bool:
        groups = prometheus.get("rules").get("groups", ())
        found = [rule["health"] for group in groups for rule in group["rules"]]
        return found == ["ok"] * len(RULES)

    wait_for(evaluated, "an evaluation of all rules")


def assert_selectors_match(prometheus: Prometheus, expression: str) -> None:
    """Assert that each selector has series with all labels that are used.

    Each alternative of a matcher is a value that the label can have, because a negative
    matcher also selects what it should exclude if its value is wrong.
    """
    found = selectors(expression)
    assert found, expression
    for selector in found:
        matchers = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', selector)
        labels = grouping_labels(expression) - {"le"} | {name for name, _ in matchers}
        series = prometheus.wait_for_data(selector)
        assert all(labels <= one.keys() for one in series), (expression, series)
        family = re.sub(r"(_bucket|_count)?{.*", "", selector)
        for name, alternatives in matchers:
            if values := LABEL_VALUES.get((family, name)):
                for one in alternatives.split("|"):
                    assert any(re.fullmatch(one, value) for value in values), selector


def test_selectors_of_expressions_found() -> None:
    expression = (
        'sum by (job, le) (rate(a_total{code=~"5.{1}|x", b!="{"}[5m])) > 2 or b'
    )
    expression += ' / on (job) (c{job="x"} * d) and absent(up) == 0 and time() > 1e3'
    assert selectors(expression) == {
        'a_total{code=~"5.{1}|x", b!="{"}', "b", 'c{job="x"}', "d", "up",
    }  # fmt: skip
    assert grouping_labels(expression) == {"job", "le"}


def test_each_alert_fires_for_its_cause_alone(tmp_path: Path) -> None:
    """Healthy servers with some failures, as in any network, raise no alert."""
    promtool = needed("promtool")
    names = [rule["alert"] for rule in RULES]
    assert sorted(names) == sorted(alert_series.FIRING)
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(alert_series.promtool_tests(ALERTS, names)))
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_explained(tmp_path: Path) -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    for rule in RULES:
        assert f"\n### {rule['alert']}\n" in page
        assert rule["labels"]["severity"] in {"critical", "warning"}
