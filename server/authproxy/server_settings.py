"""What the server is started with; holds the core's settings.

Built by ``config.load`` from flags, environment and files. Durations are seconds,
sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from authproxy_core.settings.root import Seconds, Secret, Settings


class TlsSettings(Struct, frozen=True, kw_only=True):
    """Certificate chain and key, PEM files; ``min_version`` is TLS1.2 or TLS1.3.

    ``cipher_suites`` are OpenSSL's names of suites for TLS 1.2; empty: its choice.
    ``http2`` offers HTTP/2 to clients (ALPN). ``pem`` has chain and key as text, and
    stands for both files.
    """

    cert_file: str
    key_file: str
    min_version: str = "TLS1.2"
    cipher_suites: tuple[str, ...] = ()
    http2: bool = True
    pem: Secret = Secret(b"")


class Listener(Struct, frozen=True, kw_only=True):
    """A place to listen: a TCP address, or a unix socket when ``path`` is set.

    ``descriptor`` is a socket that systemd has opened (3 and up).
    """

    host: str = ""
    port: int = 0
    path: str = ""
    mode: int | None = None
    descriptor: int | None = None
    tls: TlsSettings | None = None
    metrics: bool = False  # for the metrics alone, and they for it alone


class Limits(Struct, frozen=True, kw_only=True):
    """What one client may ask of a worker."""

    head_bytes: int = 64 << 10
    header_count: int = 200
    target_bytes: int = 32 << 10  # of the request line's target
    head_timeout: Seconds = 60.0  # from the first byte of a head to its end
    idle_timeout: Seconds = 120.0  # between two requests of a connection
    write_timeout: Seconds = 60.0  # without the client reading anything
    connections: int = 10_000  # per worker
    body_bytes: int = 64 << 10  # of a form that the proxy itself reads
    drain_timeout: Seconds = 30.0  # for requests in flight when stopping


class ForwardSettings(Struct, frozen=True, kw_only=True):
    """How upstreams are reached; ``upgrade_lifetime`` ends tunnels, 0: never.

    Every ``upgrade_check_interval`` a tunnel's session must still hold, 0: never asked.

    ``connections`` are at most open to one upstream, ``idle_connections`` of them kept
    unused, for ``idle_timeout`` each; all per worker. For ``recent`` seconds after its
    last answer a connection is taken to be alive.
    """

    connect_timeout: Seconds = 10.0  # TLS, and the wait for room, included
    idle_timeout: Seconds = 60.0
    recent: Seconds = 1.0
    idle_connections: int = 64
    connections: int = 2048
    upgrade_lifetime: Seconds = 0.0
    upgrade_check_interval: Seconds = 60.0


class ClientSettings(Struct, frozen=True, kw_only=True):
    """How the identity provider is reached."""

    insecure_skip_verify: bool = False
    ca_files: tuple[str, ...] = ()
    use_system_trust_store: bool = False
    connect_timeout: Seconds = 5.0
    pool_size: int = 16  # connections per origin and worker


class LogFileSettings(Struct, frozen=True, kw_only=True):
    """A log file and its rotation; 0 means no limit of age (days) or number."""

    path: str
    max_size: int = 100  # MiB
    max_age: int = 7
    max_backups: int = 0
    compress: bool = False


class LogSettings(Struct, frozen=True, kw_only=True):
    """Which lines are written, and how.

    ``standard_format`` and its like are Go templates over known fields; an empty one
    stands for the default. ``format`` "json" takes the place of all three. Without a
    ``file``, lines go to standard output.
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


class RedisAddress(Struct, frozen=True, kw_only=True):
    """Where a Redis server or sentinel is: TCP, or a unix socket when ``path`` is set."""

    host: str = ""
    port: int = 6379
    path: str = ""


class RedisSettings(Struct, frozen=True, kw_only=True):
    """How Redis is reached.

    ``addresses`` are the server's, the sentinels', or some of the cluster's. With
    ``tls`` the certificate is verified for the address's host, by the authorities of
    the system and of ``ca_file``, unless ``verify`` is off. ``idle_timeout`` closes a
    connection that was not used for so long; 0: never.
    """

    mode: Literal["single", "sentinel", "cluster"] = "single"
    addresses: tuple[RedisAddress, ...] = ()
    db: int = 0
    username: str = ""
    password: Secret = Secret(b"")
    master_name: str = ""
    sentinel_password: Secret = Secret(b"")
    tls: bool = False
    verify: bool = True
    ca_file: str = ""
    client_name: str = ""
    connect_timeout: Seconds = 2.0
    answer_timeout: Seconds = 2.0
    idle_timeout: Seconds = 0.0


class StoreSettings(Struct, frozen=True, kw_only=True):
    """The store that all processes share.

    ``kind`` "none": there is none. "sqlite" keeps it in the file ``path``; when that is
    empty, in one of a private temporary folder that lives as long as the server.
    """

    kind: Literal["none", "sqlite", "redis"] = "none"
    path: str = ""
    redis: RedisSettings = RedisSettings()


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Everything that the server is started with; ``listeners`` include the metrics'."""

    core: Settings
    listeners: tuple[Listener, ...]
    workers: int = 1
    limits: Limits = Limits()
    client: ClientSettings = ClientSettings()
    forward: ForwardSettings = ForwardSettings()
    logs: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    request_id_header: str = "x-request-id"
    proxy_protocol_from: tuple[str, ...] = ()  # addresses, networks, "unix"
    reload_on_change: bool = True  # of one of the ``files``
    files: tuple[str, ...] = ()  # that the settings were made from
    warnings: tuple[str, ...] = ()  # to be logged once at start
