"""Every metric that there is, with the values that its labels may have.

The set is closed: a label's value that is not listed here is counted as "other". So the
numbers have fixed places in memory, and no client can make more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Literal, NamedTuple, TypeAlias, get_args

from authproxy_core.login.failures import MESSAGES
from authproxy_core.messages import EventKind

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]

OTHER = "other"
STATUSES = 1000  # of HTTP; 0 stands for an answer that was never begun

# In seconds. The first are those of oauth2-proxy; a store next door is faster.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STORE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
)  # fmt: skip

METHODS = (
    "get", "put", "head", "post", "delete", "connect", "options", "notify", "trace",
    "patch", "unknown",
)  # fmt: skip
REASONS: Mapping[str, tuple[str, ...]] = {
    "allowed": (
        "session", "bearer", "basic", "skipped", "trusted_ip", "preflight", OTHER,
    ),
    "unauthenticated": ("no_session", "session_expired", "bearer", "basic", OTHER),
    "denied": (
        "email", "groups", "query", "rule", "upstream", "foreign_origin", "bearer", "basic",
        "session", OTHER,
    ),
    "failed": (
        "store_unavailable", "provider_unreachable", "body_too_large", "client_gone",
        OTHER,
    ),
}  # fmt: skip
LOGIN_FAILURES = (
    *sorted(
        {
            *MESSAGES, "algorithm", "algorithms", "at_hash", "claims_too_deep",
            "directory_failed", "directory_invalid", "directory_refused",
            "discovery_failed", "discovery_invalid", "federated_token", "groups_failed",
            "groups_invalid", "groups_too_many", "jwks_empty", "jwks_failed",
            "jwks_invalid", "malformed", "no_code", "no_id_token", "no_session",
            "not_allowed", "profile_failed", "profile_invalid", "provider_error",
            "signature", "subject", "tenant", "token_endpoint_failed",
            "token_endpoint_invalid", "token_failed", "type", "unknown_key",
            "userinfo_failed", "userinfo_invalid", "userinfo_subject", "validation",
        }
    ),
    OTHER,
)  # fmt: skip
EVENTS = (*get_args(EventKind), OTHER)
PURPOSES = (
    "discovery", "jwks", "token", "refresh", "userinfo", "profile", "groups",
    "directory", "validate", "introspection", "revocation", "logout", OTHER,
)  # fmt: skip
FETCH_OUTCOMES = ("ok", "refused", "error", "failed")
OPERATIONS = (
    "load", "load_all", "save", "delete", "add", "members", "remove", "lock", "unlock",
    "ping", OTHER,
)  # fmt: skip
REFRESHES = ("refreshed", "failed", "ended")
STORE_OUTCOMES = ("ok", "error")
RELOADS = ("success", "failure")
UPSTREAM_FAILURES = (
    "timeout", "connection_failed", "closed_early", "busy", "malformed_answer", OTHER,
)  # fmt: skip
SCRAPE_CODES = ("200", "500", "503")


class Family(NamedTuple):
    """One metric: its name, and one series for each of ``series``, its labels' values.

    A family is ``listed`` when series that are still 0 are shown too.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    series: tuple[Labels, ...] = ((),)
    buckets: tuple[float, ...] = ()
    listed: bool = True


def _each(*values: tuple[str, ...]) -> tuple[Labels, ...]:
    return tuple(product(*values))


REQUESTS = Family(
    "oauth2_proxy_requests_total",
    "counter",
    "Answered requests by status code.",
    ("code",),
    _each(tuple(str(code) for code in range(STATUSES))),
    listed=False,
)
IN_FLIGHT = Family(
    "oauth2_proxy_requests_in_flight",
    "gauge",
    "Requests that are being answered.",
)
DURATION = Family(
    "oauth2_proxy_response_duration_seconds",
    "histogram",
    "Time from a request's head to the end of its answer.",
    ("method",),
    _each(METHODS),
    BUCKETS,
    listed=False,
)
SCRAPES = Family(
    "promhttp_metric_handler_requests_total",
    "counter",
    "Answers of the metrics endpoint by status code.",
    ("code",),
    _each(SCRAPE_CODES),
)
SCRAPES_IN_FLIGHT = Family(
    "promhttp_metric_handler_requests_in_flight",
    "gauge",
    "Requests that the metrics endpoint is answering.",
)
DECISIONS = Family(
    "authproxy_decisions_total",
    "counter",
    "Decisions about access by verdict and reason.",
    ("verdict", "reason"),
    tuple((verdict, reason) for verdict in REASONS for reason in REASONS[verdict]),
    listed=False,
)
LOGINS = Family(
    "authproxy_logins_total",
    "counter",
    "Logins that came to an end, by result and, when they failed, reason.",
    ("result", "reason"),
    (
        ("success", ""),
        *_each(("denied",), REASONS["denied"]),
        *_each(("failure",), LOGIN_FAILURES),
    ),
    listed=False,
)
REFRESH = Family(
    "authproxy_refreshes_total",
    "counter",
    "Sessions that were to be refreshed, by result; ended ones need a new login.",
    ("result",),
    _each(REFRESHES),
)
EVENT = Family(
    "authproxy_events_total",
    "counter",
    "Facts that are logged, by kind.",
    ("kind",),
    _each(EVENTS),
    listed=False,
)
FETCHES = Family(
    "authproxy_provider_requests_total",
    "counter",
    "Requests to the identity provider; refused is a 4xx, error a 5xx, failed none.",
    ("purpose", "outcome"),
    _each(PURPOSES, FETCH_OUTCOMES),
    listed=False,
)
FETCH_SECONDS = Family(
    "authproxy_provider_request_duration_seconds",
    "histogram",
    "Time that the identity provider took for its answer.",
    ("purpose",),
    _each(PURPOSES),
    BUCKETS,
    listed=False,
)
STORE = Family(
    "authproxy_store_operations_total",
    "counter",
    "Operations of the session store by outcome.",
    ("operation", "outcome"),
    _each(OPERATIONS, STORE_OUTCOMES),
    listed=False,
)
STORE_SECONDS = Family(
    "authproxy_store_operation_duration_seconds",
    "histogram",
    "Time that the session store took; that of a lock includes waiting for it.",
    ("operation",),
    _each(OPERATIONS),
    STORE_BUCKETS,
    listed=False,
)
UPSTREAM_SECONDS = Family(
    "authproxy_upstream_response_duration_seconds",
    "histogram",
    "Time from passing a request on to the head of the upstream's answer.",
    buckets=BUCKETS,
)
UPSTREAM_FAILED = Family(
    "authproxy_upstream_failures_total",
    "counter",
    "Requests that an upstream did not answer, by reason.",
    ("reason",),
    _each(UPSTREAM_FAILURES),
)
CACHE_MISSES = Family(
    "authproxy_sessions_unsealed_total",
    "counter",
    "Sessions that no cache held, so that they were unsealed. "
    "The rest of the decisions with a session are cache hits.",
)
RELOAD = Family(
    "authproxy_reloads_total",
    "counter",
    "Reloads of the configuration or of files, by outcome.",
    ("outcome",),
    _each(RELOADS),
)
CONNECTIONS = Family("authproxy_connections", "gauge", "Open connections of clients.")
ACCEPTED = Family(
    "authproxy_connections_total", "counter", "Connections of clients so far."
)
DROPPED_LINES = Family(
    "authproxy_log_lines_lost_total",
    "counter",
    "Log lines that nobody took: the reader is too slow or gone, or the disk is full.",
)
STARTS = Family(
    "authproxy_worker_starts_total", "counter", "Worker processes started so far."
)
READY = Family("authproxy_workers_ready", "gauge", "Workers that can log users in.")
PID = Family("authproxy_worker_pid", "gauge", "For the numbers of the process.")

# The one at the start has the status itself as the place of its number.
FAMILIES = (
    REQUESTS, IN_FLIGHT, DURATION, SCRAPES, SCRAPES_IN_FLIGHT, DECISIONS, LOGINS,
    REFRESH, EVENT, FETCHES, FETCH_SECONDS, STORE, STORE_SECONDS, UPSTREAM_SECONDS,
    UPSTREAM_FAILED, CACHE_MISSES, RELOAD, CONNECTIONS, ACCEPTED, DROPPED_LINES, STARTS, READY,
    PID,
)  # fmt: skip
