"""All metric families, with the values that their labels can have.

The set is closed: an unlisted label value counts as "other". So each series has a fixed
offset in shared memory, and no client can add series.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Literal, NamedTuple, TypeAlias, get_args

from authproxy_core.login.failures import PAGES_BY_REASON
from authproxy_core.messages import EventKind

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]

OTHER = "other"
STATUSES = 1000  # HTTP status codes; 0 is a request without a response

# Upper bounds in seconds. BUCKETS are those of oauth2-proxy; a local store is faster.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STORE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
)  # fmt: skip

METHODS = (
    "get", "put", "head", "post", "delete", "connect", "options", "notify", "trace",
    "patch", "unknown",
)  # fmt: skip
REASONS: Mapping[str, tuple[str, ...]] = {
    "allowed": ("session", "bearer", "basic", "skipped", OTHER),
    "unauthenticated": ("no_session", OTHER),
    "denied": (
        "email", "groups", "user", "query", "rule", "upstream", "foreign_origin",
        "foreign_form", "credentials_refused", OTHER,
    ),
    "failed": (
        "store_unavailable", "provider_unreachable", "body_too_large", "client_gone",
        OTHER,
    ),
}  # fmt: skip
LOGIN_FAILURES = (
    *sorted(
        {
            *PAGES_BY_REASON, "algorithm", "algorithms", "at_hash", "c_hash", "claims_too_deep",
            "directory_failed", "directory_invalid", "directory_refused",
            "discovery_failed", "discovery_invalid", "federated_token", "groups_failed",
            "groups_invalid", "groups_too_many", "jwks_empty", "jwks_failed",
            "invalid_request", "jwks_invalid", "login_loop", "malformed", "no_code",
            "no_id_token", "no_session", "not_allowed", "profile_failed", "profile_invalid", "provider_error", "server_error",
            "signature", "subject", "target_too_long", "tenant",
            "token_endpoint_failed", "token_endpoint_invalid",
            "token_endpoint_rejected", "token_failed", "type", "unknown_key",
            "userinfo_failed", "userinfo_invalid", "userinfo_subject", "validation",
        }
    ),
    OTHER,
)  # fmt: skip
EVENTS = (*get_args(EventKind), OTHER)
PURPOSES = (
    "discovery", "jwks", "token", "userinfo", "profile", "groups", "directory",
    "validate", "revocation", "logout", OTHER,
)  # fmt: skip
FETCH_OUTCOMES = ("ok", "refused", "error", "failed")
OPERATIONS = (
    "load", "load_all", "save", "delete", "add", "members", "remove", "lock", "unlock",
    OTHER,
)  # fmt: skip
REFRESHES = ("refreshed", "failed", "ended")
STORE_OUTCOMES = ("ok", "error")
RELOADS = ("success", "failure")
SPAN_OUTCOMES = ("exported", "dropped")
UPSTREAM_FAILURES = (
    "timeout", "connection_failed", "closed_early", "busy", "malformed_answer", OTHER,
)  # fmt: skip
SCRAPE_CODES = ("200", "500", "503")  # as promhttp; authproxy counts only 200


class Family(NamedTuple):
    """One metric: ``series`` has the label values of each of its series.

    ``buckets`` are the upper bounds of a histogram. With ``shows_zero`` series that are
    still 0 are exposed too.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    series: tuple[Labels, ...] = ((),)
    buckets: tuple[float, ...] = ()
    shows_zero: bool = True


def _each(*values: tuple[str, ...]) -> tuple[Labels, ...]:
    return tuple(product(*values))


REQUESTS = Family(
    "oauth2_proxy_requests_total",
    "counter",
    "Requests by status code of the response; 0: no response.",
    ("code",),
    _each(tuple(str(code) for code in range(STATUSES))),
    shows_zero=False,
)
IN_FLIGHT = Family(
    "oauth2_proxy_requests_in_flight",
    "gauge",
    "Requests in flight.",
)
DURATION = Family(
    "oauth2_proxy_response_duration_seconds",
    "histogram",
    "Time from the request head to the end of the response.",
    ("method",),
    _each(METHODS),
    BUCKETS,
    shows_zero=False,
)
SCRAPES = Family(
    "promhttp_metric_handler_requests_total",
    "counter",
    "Responses of the metrics endpoint by status code.",
    ("code",),
    _each(SCRAPE_CODES),
)
SCRAPES_IN_FLIGHT = Family(
    "promhttp_metric_handler_requests_in_flight",
    "gauge",
    "Requests in flight at the metrics endpoint.",
)
DECISIONS = Family(
    "authproxy_decisions_total",
    "counter",
    "Access decisions by verdict and reason.",
    ("verdict", "reason"),
    tuple((verdict, reason) for verdict in REASONS for reason in REASONS[verdict]),
    shows_zero=False,
)
LOGINS = Family(
    "authproxy_logins_total",
    "counter",
    "Completed logins by result and, unless successful, reason.",
    ("result", "reason"),
    (
        ("success", ""),
        *_each(("denied",), REASONS["denied"]),
        *_each(("failure",), LOGIN_FAILURES),
    ),
    shows_zero=False,
)
REFRESH = Family(
    "authproxy_refreshes_total",
    "counter",
    "Session refreshes by result; ended: the session requires a new login.",
    ("result",),
    _each(REFRESHES),
)
EVENT = Family(
    "authproxy_events_total",
    "counter",
    "Logged events by kind.",
    ("kind",),
    _each(EVENTS),
    shows_zero=False,
)
FETCHES = Family(
    "authproxy_provider_requests_total",
    "counter",
    "Requests to the identity provider; outcome refused: 4xx, error: 5xx, "
    "failed: no response.",
    ("purpose", "outcome"),
    _each(PURPOSES, FETCH_OUTCOMES),
    shows_zero=False,
)
FETCH_SECONDS = Family(
    "authproxy_provider_request_duration_seconds",
    "histogram",
    "Response time of the identity provider.",
    ("purpose",),
    _each(PURPOSES),
    BUCKETS,
    shows_zero=False,
)
STORE = Family(
    "authproxy_store_operations_total",
    "counter",
    "Session store operations by outcome.",
    ("operation", "outcome"),
    _each(OPERATIONS, STORE_OUTCOMES),
    shows_zero=False,
)
STORE_SECONDS = Family(
    "authproxy_store_operation_duration_seconds",
    "histogram",
    "Duration of session store operations; lock includes the wait for the lock.",
    ("operation",),
    _each(OPERATIONS),
    STORE_BUCKETS,
    shows_zero=False,
)
UPSTREAM_SECONDS = Family(
    "authproxy_upstream_response_duration_seconds",
    "histogram",
    "Time from forwarding a request to the head of the upstream's response.",
    buckets=BUCKETS,
)
UPSTREAM_FAILED = Family(
    "authproxy_upstream_failures_total",
    "counter",
    "Requests without a response from the upstream, by reason.",
    ("reason",),
    _each(UPSTREAM_FAILURES),
)
CACHE_MISSES = Family(
    "authproxy_session_cache_misses_total",
    "counter",
    "Sessions that were unsealed because the cache did not hold them. "
    "All other decisions with a session are cache hits.",
)
RELOAD = Family(
    "authproxy_reloads_total",
    "counter",
    "Reloads of the configuration and its files, by outcome.",
    ("outcome",),
    _each(RELOADS),
)
CONNECTIONS = Family("authproxy_connections", "gauge", "Open client connections.")
ACCEPTED = Family(
    "authproxy_connections_total", "counter", "Accepted client connections."
)
DROPPED_LINES = Family(
    "authproxy_log_lines_dropped_total",
    "counter",
    "Log lines that could not be written: slow or closed reader, or full disk.",
)
STARTS = Family("authproxy_worker_starts_total", "counter", "Started worker processes.")
READY = Family("authproxy_workers_ready", "gauge", "Workers that can sign users in.")
ACCEPTING = Family("authproxy_workers", "gauge", "Workers that accept connections.")
PID = Family(
    "authproxy_worker_pid", "gauge", "Process ID, for the process metrics; not exposed."
)

SPANS = Family(
    "authproxy_trace_spans_total",
    "counter",
    "Spans by outcome; dropped: full queue, or the collector did not accept them.",
    ("outcome",),
    _each(SPAN_OUTCOMES),
)

# REQUESTS is first, so that the status code itself is the offset of its value.
FAMILIES = (
    REQUESTS, IN_FLIGHT, DURATION, SCRAPES, SCRAPES_IN_FLIGHT, DECISIONS, LOGINS,
    REFRESH, EVENT, FETCHES, FETCH_SECONDS, STORE, STORE_SECONDS, UPSTREAM_SECONDS,
    UPSTREAM_FAILED, CACHE_MISSES, RELOAD, CONNECTIONS, ACCEPTED, DROPPED_LINES, STARTS, READY,
    PID, ACCEPTING, SPANS,
)  # fmt: skip
