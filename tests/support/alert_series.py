"""Series with which promtool evaluates the alert rules: healthy ones, and one cause each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

JOB = "authproxy"
STEPS = 45  # minutes; all alerts are evaluated at the end
Series = Mapping[str, str]


def constant(value: float) -> str:
    """Return promtool's notation of a gauge."""
    return f"{value}x{STEPS}"


def rate(per_minute: float) -> str:
    """Return promtool's notation of a counter."""
    return f"0+{per_minute}x{STEPS}"


def durations(name: str, labels: str, slow: float) -> Series:
    """Return a histogram of 1000 fast values a minute and *slow* ones up to 5 s."""
    buckets = {"0.001": 1000.0, "5": 1000 + slow, "+Inf": 1000 + slow}
    return {
        f'{name}_bucket{{{labels},le="{bound}"}}': rate(count)
        for bound, count in buckets.items()
    }


ABSENT = "AuthproxyAbsent"  # needs no series at all
UP = "up{}"
STORE = "authproxy_store_operation_duration_seconds"
PROVIDER = "authproxy_provider_request_duration_seconds"
DECISIONS = "authproxy_decisions_total"
UPSTREAM = "authproxy_upstream"
STORE_ERRORS = 'authproxy_store_operations_total{operation="load",outcome="error"}'
FETCHES = 'authproxy_provider_requests_total{purpose="token",outcome='
FAILED_LOGINS = 'authproxy_logins_total{result="failure",reason="login_state_lost"}'
TOKEN = 'purpose="token"'
LOAD = 'operation="load"'
# Small shares of failures, as they occur when nothing is wrong with the installation.
HEALTHY: Series = {
    UP: constant(1),
    "authproxy_workers{}": constant(2),
    "authproxy_workers_ready{}": constant(2),
    f'{DECISIONS}{{verdict="allowed",reason="session"}}': rate(1000),
    f'{DECISIONS}{{verdict="failed",reason="client_gone"}}': rate(100),
    f'{DECISIONS}{{verdict="failed",reason="store_unavailable"}}': rate(5),
    'oauth2_proxy_requests_total{code="202"}': rate(1000),
    'oauth2_proxy_requests_total{code="500"}': rate(20),
    f'{UPSTREAM}_failures_total{{reason="timeout"}}': rate(2),
    f"{UPSTREAM}_response_duration_seconds_count{{}}": rate(100),
    'authproxy_store_operations_total{operation="load",outcome="ok"}': rate(1000),
    STORE_ERRORS: rate(5),
    **durations(STORE, LOAD, 5),
    **durations(STORE, 'operation="lock"', 1000),
    f'{FETCHES}"ok"}}': rate(100),
    f'{FETCHES}"refused"}}': rate(50),
    f'{FETCHES}"failed"}}': rate(5),
    **durations(PROVIDER, TOKEN, 20),
    'authproxy_logins_total{result="success",reason=""}': rate(10),
    FAILED_LOGINS: rate(4),
    'authproxy_refreshes_total{result="refreshed"}': rate(100),
    'authproxy_refreshes_total{result="failed"}': rate(5),
    'authproxy_reloads_total{outcome="success"}': rate(1),
    'authproxy_reloads_total{outcome="failure"}': constant(1),
    "authproxy_worker_starts_total{}": constant(2),
    "process_start_time_seconds{}": constant(1e9),
    "process_open_fds{}": constant(1500),
    "process_max_fds{}": constant(1024),
    "authproxy_log_lines_dropped_total{}": constant(7),
    'authproxy_trace_spans_total{outcome="exported"}': rate(1000),
    'authproxy_trace_spans_total{outcome="dropped"}': constant(7),
}


class Cause(NamedTuple):
    """The changes of `HEALTHY` that raise an alert, and its labels and summary."""

    changes: Series
    summary: str
    labels: tuple[str, ...] = ("job", "instance")
    more_labels: Mapping[str, str] = {}


PURPOSE = {"purpose": "token"}
FIRING: Mapping[str, Cause] = {
    "AuthproxyDown": Cause(
        {UP: constant(0)}, "authproxy {instance} does not respond to scrapes"
    ),
    ABSENT: Cause({}, "Prometheus scrapes no authproxy", ("job",)),
    "AuthproxyNotReady": Cause(
        {"authproxy_workers_ready{}": constant(1)},
        "workers of authproxy {instance} cannot sign users in",
    ),
    "AuthproxyRequestsFailing": Cause(
        {f'{DECISIONS}{{verdict="failed",reason="provider_unreachable"}}': rate(276)},
        "authproxy {instance} fails 20.35% of its access decisions",
    ),
    "AuthproxyServerErrors": Cause(
        {'oauth2_proxy_requests_total{code="502"}': rate(340)},
        "26.47% of the responses of authproxy {instance} are 5xx",
    ),
    "AuthproxyUpstreamFailing": Cause(
        {f'{UPSTREAM}_failures_total{{reason="busy"}}': rate(34)},
        "upstreams of authproxy {instance} do not respond to 26.47% of the requests",
    ),
    "AuthproxyStoreFailing": Cause(
        {STORE_ERRORS: rate(1000)},
        "50% of the session store operations of authproxy {instance} fail",
    ),
    "AuthproxyStoreSlow": Cause(
        durations(STORE, LOAD, 1000),
        "1 % of the session store operations of authproxy {instance} take 4.9s or longer",
    ),
    "AuthproxyProviderFailing": Cause(
        {f'{FETCHES}"error"}}': rate(155)},
        "51.61% of the token requests to the identity provider fail",
        ("job",),
        PURPOSE,
    ),
    "AuthproxyProviderSlow": Cause(
        durations(PROVIDER, TOKEN, 1000),
        "5 % of the token requests to the identity provider take 4.5s or longer",
        ("job",),
        PURPOSE,
    ),
    "AuthproxyLoginsFailing": Cause(
        {FAILED_LOGINS: rate(30)}, "75% of the logins fail", ("job",)
    ),
    "AuthproxyRefreshesFailing": Cause(
        {'authproxy_refreshes_total{result="failed"}': rate(100)},
        "50% of the session refreshes fail",
        ("job",),
    ),
    "AuthproxyReloadFailed": Cause(
        {'authproxy_reloads_total{outcome="failure"}': "0x35 1x10"},
        "authproxy {instance} rejected a new configuration; the old one stays in effect",
        more_labels={"outcome": "failure"},
    ),
    "AuthproxyWorkerRestarts": Cause(
        {"authproxy_worker_starts_total{}": "2x35 3x10"},
        "workers of authproxy {instance} exit and are restarted",
    ),
    "AuthproxyDescriptorsScarce": Cause(
        {"process_open_fds{}": constant(1843.2)},
        "authproxy {instance} uses 90% of its file descriptors",
    ),
    "AuthproxyLogLinesDropped": Cause(
        {"authproxy_log_lines_dropped_total{}": "7x35 8x10"},
        "authproxy {instance} cannot write its log lines",
    ),
    "AuthproxySpansDropped": Cause(
        {'authproxy_trace_spans_total{outcome="dropped"}': rate(10)},
        "authproxy {instance} drops spans of traces",
    ),
}
CRITICAL = (
    "AuthproxyDown", "AuthproxyAbsent", "AuthproxyNotReady", "AuthproxyRequestsFailing",
    "AuthproxyStoreFailing", "AuthproxyProviderFailing",
)  # fmt: skip
# Two minutes without logins, whose ratio would be 0/0, and one failure of one login.
QUIET: Series = {
    UP: constant(1),
    "authproxy_workers{}": constant(1),
    "authproxy_workers_ready{}": constant(1),
    'authproxy_logins_total{result="success",reason=""}': constant(3),
    FAILED_LOGINS: "0x40 1x5",
    f'{DECISIONS}{{verdict="allowed",reason="session"}}': constant(9),
    f'{DECISIONS}{{verdict="failed",reason="store_unavailable"}}': constant(9),
    "process_start_time_seconds{}": "1e9x35 2e9x10",  # one restart of the service
}


def promtool_tests(rules_file: Path, names: list[str]) -> dict[str, Any]:
    """Return a file for ``promtool test rules``.

    Each cause, at an instance of its name, raises its alert and no other one of
    *names*; healthy and quiet instances raise none.
    """
    causes = {name: cause for name, cause in FIRING.items() if name != ABSENT}
    series = [*_series(HEALTHY, JOB, "healthy"), *_series(QUIET, JOB, "quiet")]
    for name, cause in causes.items():
        series += _series({**HEALTHY, **cause.changes}, _job(name), name)
    return {
        "rule_files": [str(rules_file)],
        "evaluation_interval": "1m",
        "tests": [_test(series, names, causes), _test([], names, {ABSENT})],
    }


def _series(series: Series, job: str, instance: str) -> list[dict[str, str]]:
    labels = f'job="{job}",instance="{instance}"'
    found = []
    for name, values in series.items():
        base, _, own = name.removesuffix("}").partition("{")
        all_labels = f"{own},{labels}" if own else labels
        found.append({"series": f"{base}{{{all_labels}}}", "values": values})
    return found


def _job(name: str) -> str:
    """Return the job of a cause: another one if its alert adds up all of a job."""
    return JOB if "instance" in FIRING[name].labels else name


def _test(
    series: list[dict[str, str]], names: list[str], firing: Collection[str]
) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [
            {
                "eval_time": f"{STEPS}m",
                "alertname": name,
                "exp_alerts": [_expected(name)] if name in firing else [],
            }
            for name in names
        ],
    }


def _expected(name: str) -> dict[str, Any]:
    cause = FIRING[name]
    severity = "critical" if name in CRITICAL else "warning"
    labels = {"job": JOB if name == ABSENT else _job(name), "instance": name}
    return {
        "exp_labels": {
            **{key: labels[key] for key in cause.labels},
            **cause.more_labels,
            "severity": severity,
        },
        "exp_annotations": {"summary": cause.summary.format(instance=name)},
    }
