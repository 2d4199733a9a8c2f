"""The settings of the server, which contain those of the core.

``config.load`` builds them from flags, environment variables and files. Durations are
seconds, sizes are bytes. Each struct validates itself where it is made: its constructor
raises `SettingsError` for a wrong value. `check_server` finds contradictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from authproxy_core.encoding import is_token
from authproxy_core.errors import SettingsError
from authproxy_core.settings.auth_bypass import address_problems
from authproxy_core.settings.root import UNIX_PEERS, Seconds, Secret, Settings
from authproxy_core.settings.validation import ValidatedStruct

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]


class TlsSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The TLS settings of a listener; ``min_version`` is TLS1.2 or TLS1.3.

    The files are PEM; ``pem`` contains chain and key as text and replaces both.
    ``cipher_suites`` are OpenSSL's names of TLS 1.2 suites; empty selects its default.
    ``http2`` offers HTTP/2 to clients (ALPN).
    """

    cert_file: str
    key_file: str
    min_version: Literal["TLS1.2", "TLS1.3"] = "TLS1.2"
    cipher_suites: tuple[str, ...] = ()
    http2: bool = True
    pem: Secret = Secret(b"")


class Listener(ValidatedStruct, frozen=True, kw_only=True):
    """A listening address: TCP, a unix socket (``path``), or a systemd socket.

    ``descriptor`` is the file descriptor of a socket passed by systemd (3 and up).
    """

    host: str = ""
    port: Port = 0
    path: str = ""
    mode: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    descriptor: Annotated[int, Meta(ge=3)] | None = None
    tls: TlsSettings | None = None
    metrics: bool = False  # serves the metrics endpoint only


class Limits(ValidatedStruct, frozen=True, kw_only=True):
    """Limits of requests and connections."""

    head_bytes: Positive = 64 << 10
    header_count: Positive = 200
    target_bytes: Positive = 32 << 10  # of path and query
    head_timeout: Seconds = 60.0  # to receive a head
    idle_timeout: Seconds = 120.0  # between two requests of a connection
    write_timeout: Seconds = 60.0  # while the client does not read
    connections: Positive = 10_000  # per worker
    handshakes: Positive = 512  # unfinished, per worker
    body_bytes: Positive = 64 << 10  # of a form that authproxy reads
    drain_timeout: Seconds = 30.0  # for requests in flight at shutdown


class ForwardSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Connections and tunnels to upstreams.

    ``connections`` and ``idle_connections`` are limits per upstream and worker. A
    request that is not retryable reuses a connection only within ``recent`` seconds
    after its last response, because the upstream may close an older one. An HTTP/2
    connection that is silent for ``ping_delay`` during a request gets a PING, and is
    closed if it is silent for another ``ping_timeout``.
    ``upgrade_lifetime`` ends tunnels (0: never); ``upgrade_check_interval`` is the
    interval of their session checks (0: no checks).
    """

    connect_timeout: Seconds = 10.0  # includes TLS and the wait in a full pool
    idle_timeout: Seconds = 60.0
    recent: Seconds = 1.0
    ping_delay: Seconds = 10.0
    ping_timeout: Seconds = 15.0
    idle_connections: Count = 64
    connections: Count = 2048  # 0: no limit
    upgrade_lifetime: Seconds = 0.0
    upgrade_check_interval: Seconds = 60.0


class ClientSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The HTTP client for the identity provider."""

    insecure_skip_verify: bool = False
    ca_files: tuple[str, ...] = ()
    use_system_trust_store: bool = False
    connect_timeout: Seconds = 5.0
    pool_size: Positive = 16  # connections per origin and worker


class LogFileSettings(ValidatedStruct, frozen=True, kw_only=True):
    """A log file and its rotation; 0 means no limit of age or number."""

    path: str
    max_size: Count = 100  # MiB
    max_age: Count = 7  # days
    max_backups: Count = 0
    compress: bool = False


class LogSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The logs that are written, and their formats.

    ``standard_format`` and the like are Go templates with a fixed set of fields; ""
    selects the default. ``format`` "json" replaces all three. Without a ``file``, lines
    are written to standard output.
    """

    format: Literal["text", "json"] = "text"
    file: LogFileSettings | None = None

    standard: bool = True
    auth: bool = True
    request: bool = True
    standard_format: str = ""
    auth_format: str = ""
    request_format: str = ""
    errors_to_info: bool = False
    local_time: bool = True
    silence_ping: bool = False
    exclude_paths: frozenset[str] = frozenset()


class RedisAddress(ValidatedStruct, frozen=True, kw_only=True):
    """The address of a Redis server or sentinel: TCP, or a unix socket (``path``)."""

    host: str = ""
    port: Port = 6379
    path: str = ""


class RedisSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Connections to Redis.

    ``addresses`` are those of the server, the sentinels or some cluster nodes. With
    ``tls`` and ``verify``, certificates are verified for the host of the address by the
    system's CA certificates and those of ``ca_file``. ``idle_timeout`` closes idle
    connections (0: never).
    """

    mode: Literal["single", "sentinel", "cluster"] = "single"
    addresses: tuple[RedisAddress, ...] = ()
    db: Count = 0
    username: str = ""
    password: Secret = Secret(b"")
    master_name: str = ""
    sentinel_password: Secret = Secret(b"")
    tls: bool = False
    verify: bool = True
    ca_file: str = ""
    client_name: str = ""
    connect_timeout: Seconds = 2.0
    response_timeout: Seconds = 2.0
    idle_timeout: Seconds = 0.0


class StoreSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The store that all processes share, if ``kind`` is not "none".

    An empty ``path`` of SQLite is a file in a private temporary directory, which is
    deleted when the server exits.
    """

    kind: Literal["none", "sqlite", "redis"] = "none"
    path: str = ""
    redis: RedisSettings = RedisSettings()


class TracingSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Traces for a collector; without an ``endpoint`` there are none.

    ``headers`` are sent to it, as ``name=value,name=value`` with percent-encoded values.
    ``sample_ratio`` is the share of traces that start here and are recorded. An empty
    ``service_name`` selects OTEL_SERVICE_NAME, else "authproxy".
    """

    endpoint: str = ""
    headers: Secret = Secret(b"")
    service_name: str = ""
    sample_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0


class ServerSettings(ValidatedStruct, frozen=True, kw_only=True):
    """All settings of the server; ``listeners`` include those for metrics."""

    core: Settings
    listeners: tuple[Listener, ...]
    workers: Positive = 1
    limits: Limits = Limits()
    client: ClientSettings = ClientSettings()
    forward: ForwardSettings = ForwardSettings()
    logs: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    tracing: TracingSettings = TracingSettings()
    request_id_header: str = "x-request-id"
    proxy_protocol_from: tuple[str, ...] = ()  # addresses, networks, "unix"
    reload_on_change: bool = True  # when one of the ``files`` changes
    files: tuple[str, ...] = ()  # the settings depend on them
    warnings: tuple[str, ...] = ()  # logged at startup


def check_server(settings: ServerSettings) -> None:
    """Raise `SettingsError` with a line for each value that no server can use."""
    if problems := tuple(_problems(settings)):
        raise SettingsError(problems)


def _problems(settings: ServerSettings) -> Iterator[str]:
    if not is_token(settings.request_id_header.encode(errors="replace")):
        yield "request_id_header: expected the name of a header field"
    sources = (one for one in settings.proxy_protocol_from if one != UNIX_PEERS)
    yield from address_problems("proxy_protocol_from", sources)
    store, sessions = settings.store, settings.core.sessions
    if store.kind == "none" and (sessions.needs_store or sessions.shared):
        yield "store: missing; required by core.sessions"
    if store.kind == "redis" and not store.redis.addresses:
        yield "store.redis.addresses: missing"
    if store.redis.mode == "sentinel" and not store.redis.master_name:
        yield "store.redis.master_name: missing; required by mode 'sentinel'"
