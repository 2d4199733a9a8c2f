"""Options of headers, listeners, limits, pages and logging."""

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
        "add X-Auth-Request-User, -Email, -Preferred-Username and -Groups to auth "
        "responses",
        Settings.inject_response_headers,
    ),
    Option(
        "set_authorization_header",
        "bool",
        False,
        "add Authorization: Bearer with the ID token to auth responses",
        Settings.inject_response_headers,
    ),
    Option(
        "set_basic_auth",
        "bool",
        False,
        "add Authorization: Basic to auth responses; requires basic_auth_password",
        Settings.inject_response_headers,
    ),
    Option(
        "pass_access_token",
        "bool",
        False,
        "add X-Forwarded-Access-Token to upstream requests; with set_xauthrequest "
        "also X-Auth-Request-Access-Token to auth responses",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_authorization_header",
        "bool",
        False,
        "add Authorization: Bearer with the ID token to upstream requests",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_basic_auth",
        "bool",
        True,
        "add the headers of pass_user_headers to upstream requests; with "
        "basic_auth_password also Authorization: Basic",
        Settings.inject_request_headers,
    ),
    Option(
        "pass_user_headers",
        "bool",
        True,
        "add X-Forwarded-User, -Email, -Groups and -Preferred-Username to upstream "
        "requests",
        Settings.inject_request_headers,
    ),
    Option(
        "prefer_email_to_user",
        "bool",
        False,
        "use the email as user in headers",
        Settings.inject_request_headers,
    ),
    Option(
        "basic_auth_password",
        "string",
        "",
        "password in Authorization: Basic headers",
        Settings.inject_request_headers,
        secret=True,
    ),
    Option(
        "skip_auth_strip_headers",
        "bool",
        True,
        "remove injected headers from client requests",
        Settings.inject_request_headers,
    ),
    Option(
        "strip_identity_headers",
        "bool",
        True,
        "remove other headers that may identify a user (X-Forwarded-User, "
        "X-Auth-Request-Email, …) from client requests; off if "
        "skip_auth_strip_headers is false",
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
        "HTTP listener: HOST:PORT, unix://PATH,mode=0660, or fd:3 for the first "
        "socket passed by systemd; - disables it; ignored with tls_cert_file",
        ServerSettings.listeners,
    ),
    Option(
        "https_address",
        "string",
        ":443",
        "HTTPS listener: HOST:PORT or fd:N; requires tls_cert_file and tls_key_file, "
        "and replaces http_address",
        ServerSettings.listeners,
    ),
    Option(
        "tls_cert_file",
        "string",
        "",
        "PEM file with the certificate chain",
        ServerSettings.listeners,
    ),
    Option(
        "tls_key_file",
        "string",
        "",
        "PEM file with the private key",
        ServerSettings.listeners,
    ),
    Option(
        "http2",
        "bool",
        True,
        "offer HTTP/2 on the HTTPS listener (ALPN)",
        ServerSettings.listeners,
        is_extension=True,
    ),
    Option(
        "tls_min_version",
        "string",
        "",
        "minimum TLS version; empty: TLS1.2",
        ServerSettings.listeners,
        choices=("", "TLS1.2", "TLS1.3"),
    ),
    Option(
        "tls_cipher_suites",
        "list",
        (),
        "cipher suites of TLS 1.2, with the names of IANA and Go; empty: OpenSSL's "
        "default",
        ServerSettings.listeners,
        "tls-cipher-suite",
    ),
    Option(
        "workers",
        "int",
        0,
        "number of worker processes; 0: one for each usable CPU, at most one for each "
        "64 MiB of a container's memory limit, and only one if sessions are refreshed "
        "without a shared store",
        ServerSettings.workers,
        maximum=1024,
        is_extension=True,
    ),
    Option(
        "proxy_protocol_from",
        "list",
        (),
        "load balancers that send the PROXY protocol (v1 or v2): IP addresses and "
        "networks, or unix for peers on a unix socket; their connections without the "
        "header are refused, other connections are not affected",
        ServerSettings.proxy_protocol_from,
        is_extension=True,
    ),
    Option(
        "reload_on_change",
        "bool",
        True,
        "reload when a file of the configuration changes, as with SIGHUP",
        ServerSettings.reload_on_change,
        is_extension=True,
    ),
    Option(
        "metrics_address",
        "string",
        "",
        "HTTP listener of the metrics endpoint: HOST:PORT or unix://PATH; empty "
        "disables it",
        ServerSettings.listeners,
    ),
    Option(
        "metrics_secure_address",
        "string",
        "",
        "HTTPS listener of the metrics endpoint: HOST:PORT; empty disables it; "
        "requires metrics_tls_cert_file and metrics_tls_key_file",
        ServerSettings.listeners,
    ),
    Option(
        "metrics_tls_cert_file",
        "string",
        "",
        "PEM file with the certificate chain of the metrics endpoint",
        ServerSettings.listeners,
    ),
    Option(
        "metrics_tls_key_file",
        "string",
        "",
        "PEM file with the private key of the metrics endpoint",
        ServerSettings.listeners,
    ),
)

LIMIT_OPTIONS = in_group(
    "Limits",
    Option(
        "max_head_bytes",
        "int",
        64 << 10,
        "maximum size of the request line and headers",
        Limits.head_bytes,
        minimum=4096,
        is_extension=True,
    ),
    Option(
        "max_headers",
        "int",
        200,
        "maximum number of request headers",
        Limits.header_count,
        minimum=16,
        is_extension=True,
    ),
    Option(
        "max_target_bytes",
        "int",
        32 << 10,
        "maximum size of path and query",
        Limits.target_bytes,
        minimum=1024,
        is_extension=True,
    ),
    Option(
        "max_form_bytes",
        "int",
        64 << 10,
        "maximum size of a form that authproxy reads itself",
        Limits.body_bytes,
        minimum=1024,
        maximum=64 << 10,
        is_extension=True,
    ),
    Option(
        "max_connections",
        "int",
        10_000,
        "maximum number of open client connections, per worker",
        Limits.connections,
        minimum=1,
        is_extension=True,
    ),
    Option(
        "max_handshakes",
        "int",
        512,
        "maximum number of connections, per worker, whose TLS handshake or PROXY protocol "
        "header is unfinished; further ones replace the oldest; at most half of "
        "max_connections",
        Limits.handshakes,
        minimum=1,
        is_extension=True,
    ),
    Option(
        "head_timeout",
        "duration",
        60.0,
        "timeout for receiving the request headers",
        Limits.head_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "idle_timeout",
        "duration",
        120.0,
        "timeout between two requests of a connection",
        Limits.idle_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "write_timeout",
        "duration",
        60.0,
        "timeout for writing a response to a client that does not read",
        Limits.write_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "drain_timeout",
        "duration",
        30.0,
        "time for requests in flight during a shutdown; the rest is aborted",
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
        "directory with templates that replace built-in pages: sign_in.html, "
        "error.html, robots.txt",
        Settings.pages,
    ),
    Option(
        "custom_sign_in_logo",
        "string",
        "",
        "logo on the sign-in page: https URL, or .svg, .png, .jpg or .jpeg file; - "
        "for no logo; empty: the built-in logo",
        PageSettings.logo,
    ),
    Option(
        "banner",
        "string",
        "",
        "HTML above the sign-in button; - for no banner; empty: the allowed email "
        "domains",
        PageSettings.banner,
    ),
    Option(
        "footer",
        "string",
        "",
        "HTML of the footer; empty or - for no footer",
        PageSettings.footer,
    ),
    Option(
        "display_htpasswd_form",
        "bool",
        True,
        "show the password form on the sign-in page",
        CredentialSettings.display_form,
        note="ignored without htpasswd_file",
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
        "write the standard log (events of the process)",
        LogSettings.standard,
    ),
    Option(
        "standard_logging_format",
        "string",
        STANDARD_FORMAT,
        "template of standard log lines; ignored with logging_format json",
        LogSettings.standard_format,
    ),
    Option(
        "auth_logging",
        "bool",
        True,
        "write the auth log (logins and denials)",
        LogSettings.auth,
    ),
    Option(
        "auth_logging_format",
        "string",
        AUTH_FORMAT,
        "template of auth log lines; ignored with logging_format json",
        LogSettings.auth_format,
        note="{{.TraceID}} is not in oauth2-proxy",
    ),
    Option(
        "request_logging", "bool", True, "write the request log", LogSettings.request
    ),
    Option(
        "request_logging_format",
        "string",
        REQUEST_FORMAT,
        "template of request log lines; ignored with logging_format json",
        LogSettings.request_format,
        note="{{.TraceID}} is not in oauth2-proxy",
    ),
    Option(
        "errors_to_info_log",
        "bool",
        False,
        "write errors to the same output as other log lines, instead of standard error",
        LogSettings.errors_to_info,
    ),
    Option(
        "exclude_logging_paths",
        "list",
        (),
        "paths that are not logged in the request log",
        LogSettings.exclude_paths,
        "exclude-logging-path",
    ),
    Option(
        "silence_ping_logging",
        "bool",
        False,
        "exclude ping_path and ready_path from the request log",
        LogSettings.silence_ping,
    ),
    Option(
        "logging_local_time",
        "bool",
        True,
        "use local time; false: UTC",
        LogSettings.local_time,
    ),
    Option(
        "request_id_header",
        "string",
        "X-Request-Id",
        "header with the request ID",
        ServerSettings.request_id_header,
    ),
    Option(
        "logging_filename",
        "string",
        "",
        "log file of all workers, instead of standard output",
        LogSettings.file,
    ),
    Option(
        "logging_max_size",
        "int",
        100,
        "size in MiB at which the log file is rotated; 0: 100",
        LogFileSettings.max_size,
    ),
    Option(
        "logging_max_age",
        "int",
        7,
        "days to keep rotated log files; 0 means no limit",
        LogFileSettings.max_age,
    ),
    Option(
        "logging_max_backups",
        "int",
        0,
        "number of rotated log files to keep; 0 means no limit",
        LogFileSettings.max_backups,
    ),
    Option(
        "logging_compress",
        "bool",
        False,
        "compress rotated log files with gzip",
        LogFileSettings.compress,
    ),
    Option(
        "logging_format",
        "string",
        "text",
        "text (lines of the templates), or json (one object per line)",
        LogSettings.format,
        choices=("text", "json"),
        is_extension=True,
    ),
)
