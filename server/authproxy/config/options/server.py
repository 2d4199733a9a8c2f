"""Rows of the option table: headers, upstreams, listeners, limits, pages, logs."""

from __future__ import annotations

from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import PageSettings, Settings

from ...server_settings import Limits, LogFileSettings, LogSettings, ServerSettings
from .option import Option, in_group

STANDARD_FORMAT = "[{{.Timestamp}}] [{{.File}}] {{.Message}}"
AUTH_FORMAT = (
    "{{.Client}} - {{.RequestID}} - {{.Username}} [{{.Timestamp}}] [{{.Status}}] "
    "{{.Message}}"
)
REQUEST_FORMAT = (
    "{{.Client}} - {{.RequestID}} - {{.Username}} [{{.Timestamp}}] {{.Host}} "
    "{{.RequestMethod}} {{.Upstream}} {{.RequestURI}} {{.Protocol}} {{.UserAgent}} "
    "{{.StatusCode}} {{.ResponseSize}} {{.RequestDuration}}"
)

HEADER_OPTIONS = in_group(
    "Headers",
    Option(
        "set_xauthrequest",
        "bool",
        False,
        "answer with X-Auth-Request-User, -Email, -Preferred-Username and -Groups",
        Settings.inject_response_headers,
    ),
    Option(
        "set_authorization_header",
        "bool",
        False,
        "answer with Authorization: Bearer and the ID token",
        Settings.inject_response_headers,
    ),
    Option(
        "set_basic_auth",
        "bool",
        False,
        "answer with Authorization: Basic, needs basic_auth_password",
        Settings.inject_response_headers,
    ),
    Option(
        "pass_access_token",
        "bool",
        False,
        "pass X-Forwarded-Access-Token upstream; with set_xauthrequest also answer "
        "with X-Auth-Request-Access-Token",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_authorization_header",
        "bool",
        False,
        "pass Authorization: Bearer and the ID token upstream",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_basic_auth",
        "bool",
        True,
        "pass the identity upstream, with basic_auth_password also as Authorization",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_user_headers",
        "bool",
        True,
        "pass X-Forwarded-User, -Email, -Groups and -Preferred-Username upstream",
        Settings.inject_request_headers,
    ),
    Option(
        "prefer_email_to_user",
        "bool",
        False,
        "call the user by the e-mail address in headers",
        Settings.inject_request_headers,
    ),
    Option(
        "basic_auth_password",
        "string",
        "",
        "password of the Basic credentials in headers",
        Settings.inject_request_headers,
        secret=True,
    ),
    Option(
        "skip_auth_strip_headers",
        "bool",
        True,
        "remove the client's own copies of the headers passed upstream",
        Settings.inject_request_headers,
    ),
    Option(
        "strip_identity_headers",
        "bool",
        True,
        "remove other headers that could name a user as well (X-Forwarded-User, "
        "X-Auth-Request-Email …); off with skip_auth_strip_headers = false",
        Settings.strip_identity_headers,
        is_extension=True,
    ),
)

LISTENER_OPTIONS = in_group(
    "Listeners",
    Option(
        "http_address",
        "string",
        "127.0.0.1:4180",
        "plain address: host:port, unix://PATH,mode=0660, or fd:3 for the first socket "
        "that systemd has opened; - disables it",
        ServerSettings.listeners,
    ),
    Option(
        "https_address",
        "string",
        ":443",
        "TLS address, used instead of http_address with tls_cert_file",
        ServerSettings.listeners,
    ),
    Option(
        "tls_cert_file",
        "string",
        "",
        "PEM file of the certificate chain",
        ServerSettings.listeners,
    ),
    Option(
        "tls_key_file",
        "string",
        "",
        "PEM file of the private key",
        ServerSettings.listeners,
    ),
    Option(
        "http2",
        "bool",
        True,
        "offer HTTP/2 to the clients of the TLS address (ALPN)",
        ServerSettings.listeners,
        is_extension=True,
    ),
    Option(
        "tls_min_version",
        "string",
        "",
        "lowest TLS version; empty means TLS1.2",
        ServerSettings.listeners,
        choices=("", "TLS1.2", "TLS1.3"),
    ),
    Option(
        "tls_cipher_suites",
        "list",
        (),
        "cipher suites of TLS 1.2, in the names of IANA and Go",
        ServerSettings.listeners,
        "tls-cipher-suite",
    ),
    Option(
        "workers",
        "int",
        0,
        "worker processes; 0 means one for each usable CPU",
        ServerSettings.workers,
        maximum=1024,
        is_extension=True,
    ),
    Option(
        "proxy_protocol_from",
        "list",
        (),
        "load balancers that announce clients by the PROXY protocol (1 or 2): addresses "
        "and networks, unix for peers on a unix socket; without its header their "
        "connections are refused, those of others are as usual",
        ServerSettings.proxy_protocol_from,
        is_extension=True,
    ),
    Option(
        "reload_on_change",
        "bool",
        True,
        "reload when one of the configuration's files has changed, as with SIGHUP",
        ServerSettings.reload_on_change,
        is_extension=True,
    ),
    *(
        Option(key, "string", "", help_, ServerSettings.listeners)
        for key, help_ in (
            (
                "metrics_address",
                "plain address of the metrics endpoint: host:port, or unix://PATH",
            ),
            (
                "metrics_secure_address",
                "TLS address of the metrics endpoint, which needs the next two",
            ),
            ("metrics_tls_cert_file", "PEM file of the metrics certificate chain"),
            ("metrics_tls_key_file", "PEM file of the metrics key"),
        )
    ),
)

LIMIT_OPTIONS = in_group(
    "Limits",
    Option(
        "max_head_bytes",
        "int",
        64 << 10,
        "size of a request's head",
        Limits.head_bytes,
        minimum=4096,
        is_extension=True,
    ),
    Option(
        "max_headers",
        "int",
        200,
        "number of a request's header fields",
        Limits.header_count,
        minimum=16,
        is_extension=True,
    ),
    Option(
        "max_target_bytes",
        "int",
        32 << 10,
        "size of a request's path and query",
        Limits.target_bytes,
        minimum=1024,
        is_extension=True,
    ),
    Option(
        "max_form_bytes",
        "int",
        64 << 10,
        "size of a form that the proxy itself reads",
        Limits.body_bytes,
        minimum=1024,
        maximum=64 << 10,
        is_extension=True,
    ),
    Option(
        "max_connections",
        "int",
        10_000,
        "open connections, per worker",
        Limits.connections,
        minimum=1,
        is_extension=True,
    ),
    Option(
        "head_timeout",
        "duration",
        60.0,
        "time for a request's head to arrive",
        Limits.head_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "idle_timeout",
        "duration",
        120.0,
        "time between two requests of a connection",
        Limits.idle_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "write_timeout",
        "duration",
        60.0,
        "time that a client may leave an answer unread",
        Limits.write_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "drain_timeout",
        "duration",
        30.0,
        "time for requests in flight when stopping",
        Limits.drain_timeout,
        is_extension=True,
    ),
)

PAGE_OPTIONS = in_group(
    "Pages",
    Option(
        "custom_templates_dir",
        "string",
        "",
        "directory that may hold sign_in.html, error.html and robots.txt",
        Settings.pages,
    ),
    Option(
        "custom_sign_in_logo",
        "string",
        "",
        "logo: https address, or .svg, .png, .jpg or .jpeg file; - means none",
        PageSettings.logo,
    ),
    Option(
        "banner",
        "string",
        "",
        "HTML above the sign-in button; - means none",
        PageSettings.banner,
    ),
    Option(
        "footer", "string", "", "HTML of the footer; - means none", PageSettings.footer
    ),
    Option(
        "display_htpasswd_form",
        "bool",
        True,
        "show the password form when htpasswd_file is set",
        CredentialSettings.display_form,
        note="only read with htpasswd_file",
    ),
    Option(
        "show_debug_on_error",
        "bool",
        False,
        "show internal details on error pages",
        PageSettings.show_debug_on_error,
    ),
)

LOGGING_OPTIONS = in_group(
    "Logging",
    Option(
        "standard_logging",
        "bool",
        True,
        "log what the program does",
        LogSettings.standard,
    ),
    Option(
        "standard_logging_format",
        "string",
        STANDARD_FORMAT,
        "template of these lines",
        LogSettings.standard_format,
    ),
    Option("auth_logging", "bool", True, "log logins and denials", LogSettings.auth),
    Option(
        "auth_logging_format",
        "string",
        AUTH_FORMAT,
        "template of these lines",
        LogSettings.auth_format,
        note="{{.TraceID}} is a field of ours",
    ),
    Option("request_logging", "bool", True, "log each request", LogSettings.request),
    Option(
        "request_logging_format",
        "string",
        REQUEST_FORMAT,
        "template of these lines",
        LogSettings.request_format,
        note="{{.TraceID}} is a field of ours",
    ),
    Option(
        "errors_to_info_log",
        "bool",
        False,
        "write errors where the other lines go, not to standard error",
        LogSettings.errors_to_info,
    ),
    Option(
        "exclude_logging_paths",
        "list",
        (),
        "paths without request log lines",
        LogSettings.exclude_paths,
        "exclude-logging-path",
    ),
    Option(
        "silence_ping_logging",
        "bool",
        False,
        "do not log ping_path and ready_path",
        LogSettings.silence_ping,
    ),
    Option(
        "logging_local_time",
        "bool",
        True,
        "write local times; false means UTC",
        LogSettings.local_time,
    ),
    Option(
        "request_id_header",
        "string",
        "X-Request-Id",
        "header that carries the id of a request",
        ServerSettings.request_id_header,
    ),
    Option(
        "logging_filename",
        "string",
        "",
        "file to log to instead of standard output, shared by all workers",
        LogSettings.file,
    ),
    Option(
        "logging_max_size",
        "int",
        100,
        "MiB at which the log file is rotated; 0 means 100",
        LogFileSettings.max_size,
    ),
    Option(
        "logging_max_age",
        "int",
        7,
        "days that rotated files are kept; 0 means for ever",
        LogFileSettings.max_age,
    ),
    Option(
        "logging_max_backups",
        "int",
        0,
        "rotated files to keep; 0 means any number",
        LogFileSettings.max_backups,
    ),
    Option(
        "logging_compress",
        "bool",
        False,
        "compress rotated files with gzip",
        LogFileSettings.compress,
    ),
    Option(
        "logging_format",
        "string",
        "text",
        "text, by the templates above, or json: one object a line",
        LogSettings.format,
        choices=("text", "json"),
        is_extension=True,
    ),
)
