"""Options of upstreams and of connections to them."""

from __future__ import annotations

from authproxy_core.settings.root import Settings, UpstreamSettings

from ...server_settings import ForwardSettings
from .option import Option, in_group

UPSTREAM_OPTIONS = in_group(
    "Upstreams",
    Option(
        "upstreams",
        "list",
        (),
        "upstream URLs: http, https, h2c, h2, unix, static or file; the path of the "
        "URL is also the path that the upstream serves",
        Settings.upstreams,
        "upstream",
        note="file:///dev/null responds with 404",
    ),
    Option(
        "upstream_timeout",
        "duration",
        30.0,
        "timeout for the headers of an upstream response; 0 means no limit",
        UpstreamSettings.timeout,
    ),
    Option(
        "pass_host_header",
        "bool",
        True,
        "forward the client's Host header; false sends the upstream's host",
        UpstreamSettings.pass_host_header,
    ),
    Option(
        "ssl_upstream_insecure_skip_verify",
        "bool",
        False,
        "skip the verification of the certificates of https upstreams (insecure)",
        UpstreamSettings.insecure_skip_tls_verify,
    ),
    Option(
        "upstream_ca_files",
        "list",
        (),
        "PEM files with the CA certificates to trust for https upstreams",
        UpstreamSettings.ca_pem,
        note="default: provider_ca_files, else the system's CA certificates",
        is_extension=True,
    ),
    Option(
        "flush_interval",
        "duration",
        1.0,
        "maximum delay of partial upstream responses",
        note="accepted for compatibility: responses are never delayed",
        minimum=None,
    ),
    Option(
        "proxy_websockets",
        "bool",
        True,
        "forward WebSockets and other upgrades",
        UpstreamSettings.proxy_websockets,
        note="false takes effect; oauth2-proxy ignores it",
    ),
    Option(
        "disable_keep_alives",
        "bool",
        False,
        "use each upstream connection for one request only",
        UpstreamSettings.disable_keep_alives,
    ),
    Option(
        "websocket_origins",
        "list",
        (),
        "additional origins whose pages may open WebSockets with a session: "
        "scheme://host[:port], or * for any; the request's own origin is always "
        "allowed",
        Settings.websocket_origins,
        "websocket-origin",
        is_extension=True,
    ),
    Option(
        "upgrade_max_lifetime",
        "duration",
        0.0,
        "maximum lifetime of a WebSocket; 0 means no limit",
        ForwardSettings.upgrade_lifetime,
        is_extension=True,
    ),
    Option(
        "upgrade_check_interval",
        "duration",
        60.0,
        "interval between session checks of an open WebSocket; 0 disables them",
        ForwardSettings.upgrade_check_interval,
        is_extension=True,
    ),
    Option(
        "upstream_connect_timeout",
        "duration",
        10.0,
        "timeout for connecting to an upstream, including TLS",
        ForwardSettings.connect_timeout,
        minimum=0.001,
        is_extension=True,
    ),
    Option(
        "upstream_idle_timeout",
        "duration",
        60.0,
        "time after which an idle upstream connection is closed",
        ForwardSettings.idle_timeout,
        is_extension=True,
    ),
    Option(
        "upstream_idle_connections",
        "int",
        64,
        "maximum number of idle connections to each upstream, per worker",
        ForwardSettings.idle_connections,
        is_extension=True,
    ),
    Option(
        "upstream_connections",
        "int",
        2048,
        "maximum number of connections to each upstream, per worker; 0 means no limit",
        ForwardSettings.connections,
        is_extension=True,
    ),
    Option(
        "file_follow_symlinks",
        "bool",
        False,
        "follow symlinks that leave the root directory of a file upstream",
        Settings.follow_symlinks,
        note="symlinks within the root directory are always followed",
        is_extension=True,
    ),
    Option(
        "via",
        "string",
        "",
        "pseudonym in the Via header of upstream requests; empty omits the header",
        Settings.via,
        is_extension=True,
    ),
)
