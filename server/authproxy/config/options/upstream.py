"""Rows of the option table: upstreams, and what passes to and from them."""

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
        "where requests are passed on: http, https, h2c, h2, unix, static or file "
        "addresses",
        Settings.upstreams,
        "upstream",
        note="file:///dev/null answers 404",
    ),
    Option(
        "upstream_timeout",
        "duration",
        30.0,
        "time for the head of an upstream's answer; 0 means no limit",
        UpstreamSettings.timeout,
    ),
    Option(
        "pass_host_header",
        "bool",
        True,
        "pass the client's Host upstream",
        UpstreamSettings.pass_host_header,
    ),
    Option(
        "ssl_upstream_insecure_skip_verify",
        "bool",
        False,
        "do not verify the certificates of https upstreams (insecure)",
        UpstreamSettings.insecure_skip_tls_verify,
    ),
    Option(
        "upstream_ca_files",
        "list",
        (),
        "PEM files of the authorities to trust for https upstreams",
        UpstreamSettings.ca_pem,
        note="without it provider_ca_files count, else the system's authorities",
        is_extension=True,
    ),
    Option(
        "flush_interval",
        "duration",
        1.0,
        "how long part of an answer may be held back",
        UpstreamSettings.flush_interval,
        note="answers are passed on as they come, whatever it is",
        minimum=None,
    ),
    Option(
        "proxy_websockets",
        "bool",
        True,
        "pass WebSockets and other upgrades on",
        UpstreamSettings.proxy_websockets,
        note="false does so; oauth2-proxy passes them on even then",
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
        "origins, besides the own one, whose pages may open WebSockets with a session: "
        "scheme://host[:port], or * for any",
        Settings.websocket_origins,
        "websocket-origin",
        is_extension=True,
    ),
    Option(
        "upgrade_max_lifetime",
        "duration",
        0.0,
        "how long a WebSocket may last; 0 means no limit",
        ForwardSettings.upgrade_lifetime,
        is_extension=True,
    ),
    Option(
        "upgrade_check_interval",
        "duration",
        60.0,
        "how often a WebSocket's session must still hold; 0 means that nobody asks",
        ForwardSettings.upgrade_check_interval,
        is_extension=True,
    ),
    Option(
        "upstream_connect_timeout",
        "duration",
        10.0,
        "time for a connection to an upstream, TLS included",
        ForwardSettings.connect_timeout,
        minimum=0.001,
        is_extension=True,
    ),
    Option(
        "upstream_idle_timeout",
        "duration",
        60.0,
        "how long an unused connection to an upstream is kept",
        ForwardSettings.idle_timeout,
        is_extension=True,
    ),
    Option(
        "upstream_idle_connections",
        "int",
        64,
        "unused connections kept to each upstream, per worker",
        ForwardSettings.idle_connections,
        is_extension=True,
    ),
    Option(
        "upstream_connections",
        "int",
        2048,
        "connections to each upstream, per worker; 0 means no limit",
        ForwardSettings.connections,
        is_extension=True,
    ),
    Option(
        "file_follow_symlinks",
        "bool",
        False,
        "follow symbolic links out of the folder of a file upstream",
        Settings.follow_symlinks,
        note="links that stay inside are followed anyway",
        is_extension=True,
    ),
    Option(
        "via",
        "string",
        "",
        "name of this proxy in Via fields to upstreams; empty means none",
        Settings.via,
        is_extension=True,
    ),
)
