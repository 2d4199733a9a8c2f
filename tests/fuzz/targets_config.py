"""Targets that read files of the operator, and templates."""

from __future__ import annotations

import tempfile
from pathlib import Path

from authproxy.config.alpha.read import read_alpha_file
from authproxy.config.build.credentials import build_credentials
from authproxy.config.read.go_csv import read_records
from authproxy.config.read.resolved import ConfigError
from authproxy.config.read.sources import Flags, parse_flags, resolve_options
from authproxy.config.read.values import format_duration, parse_duration
from authproxy.logs.formatter import REQUEST_FIELDS
from authproxy.logs.redact import compile_format, redact
from authproxy_core.errors import SettingsError
from authproxy_core.settings.credentials import is_hash
from authproxy_core.templates import TemplateError, compile_templates

from .target import Target

_directory = tempfile.TemporaryDirectory(prefix="authproxy-fuzz-")
FILE = Path(_directory.name) / "file"
MARK = "<mark>'\""  # a value that must not leave its context


def toml_config(data: bytes) -> None:
    """Read a configuration file."""
    FILE.write_bytes(data)
    resolve_options(Flags({}, {"config": str(FILE)}, ""), {})


def alpha_config(data: bytes) -> None:
    """Read an alpha configuration."""
    FILE.write_bytes(data)
    tree, problems = read_alpha_file(str(FILE), {"SECRET": "s3cret-value"})
    assert tree or problems.problems or not data.strip() or isinstance(tree, dict)
    for problem in problems.problems:
        assert "s3cret-value" not in problem, problem


def flags(data: bytes) -> None:
    """Parse a command line, one argument a line, and a duration."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        seconds = parse_duration(text)
    except ValueError:
        pass
    else:
        assert parse_duration(format_duration(seconds)) == seconds, text
    parsed = parse_flags(text.split("\n"))
    parsed.control.pop("config", None)
    parsed.control.pop("alpha-config", None)
    resolve_options(parsed, {})


def htpasswd(data: bytes) -> None:
    """Read an htpasswd file."""
    FILE.write_bytes(data)
    given = Flags({"htpasswd_file": str(FILE)}, {}, "")
    users = build_credentials(resolve_options(given, {})).users
    assert users is not None
    for secret in users.values():
        assert is_hash(secret.value)


def go_csv(data: bytes) -> None:
    """Read CSV; quoted again, the records are the same."""
    text = data.decode("utf-8", "replace")
    for separator, trim in ((",", True), (":", True), (",", False)):
        records = read_records(text, comment="#", trim=trim, separator=separator)
        lines = [
            separator.join('"' + field.replace('"', '""') + '"' for field in record)
            for record in records
        ]
        assert read_records("\n".join(lines), separator=separator) == records


def page_template(data: bytes) -> None:
    """Render a page; no value may leave its context."""
    text = data.decode("utf-8", "replace")
    values = {"A": MARK, "B": True, "C": [MARK, "x"], "D": {"E": MARK}, "F": ""}
    page = compile_templates({"page": text}).render("page", values).decode()
    assert "<mark" not in page or "<mark" in text, page


def log_format(data: bytes) -> None:
    """Format a line; it must be complete whatever the template is."""
    text = data.decode("utf-8", "replace")
    line = compile_format("request_logging_format", text, REQUEST_FIELDS)
    assert line(tuple(REQUEST_FIELDS)).endswith("\n")
    redact(data)


TARGETS = (
    Target(
        "toml_config",
        toml_config,
        (ConfigError,),
        (
            b'upstreams = ["http://a/", "static://202"]\ncookie_expire = "1h30m"\n',
            b'Cookie_Secure = 1\ncookie_refresh = 5\nport = "x"\n[[allow_rules]]\na = 1',
            b"\xef\xbb\xbfemail_domains = \"*\"\n'x y' = 1979-05-27\nreverse_proxy = true",
        ),
    ),
    Target(
        "alpha_config",
        alpha_config,
        (),
        (
            b"providers:\n- id: a\n  clientID: b\n  clientSecret: ${SECRET}\n",
            b"upstreamConfig:\n  upstreams: [{id: a, path: /, uri: http://a, timeout: 1s}]",
            b"server: &a\n  BindAddress: ':80'\nmetricsServer:\n  <<: *a\nx: !!int 0x1",
            b"injectRequestHeaders:\n- name: X\n  values:\n  - claim: user\n    value: AQ==",
        ),
    ),
    Target(
        "flags",
        flags,
        (ConfigError,),
        (
            b"--upstream=http://a/\n--cookie-expire\n1h2m3.5s\n--reverse-proxy",
            b'--email-domain="a,b",c\n--help=all\n--prot=1',
            b"1h30m0.5s",
        ),
    ),
    Target(
        "htpasswd",
        htpasswd,
        (),
        (
            b'# users\nalice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"b:c":$2y$05$'
            + b"a" * 53,
            b"a:$2a$31$" + b"." * 53 + b"\r\nb:$apr1$x\n",
        ),
    ),
    Target(
        "go_csv", go_csv, (ValueError,), (b'a,"b ""c"" d"\r\n# x\n e, f:g\n\n"\n"',)
    ),
    Target(
        "page_template",
        page_template,
        (TemplateError,),
        (
            b'<a href="/x?{{.A}}" onclick="f({{.A}})" title=\'{{.A}}\'>{{.A}}</a>',
            b"<script>var a = {{.A}}, b = '{{.A}}';</script><style>a{b:{{.A}}}</style>",
            b'{{range $i, $x := .C}}{{if $i}},{{end}}{{$x | printf "%q"}}{{else}}-{{end}}',
            b'{{define "t"}}<p {{.A}}>{{end}}{{template "t" .}}{{with .D}}{{.E}}{{end}}',
            b'{{- /* x */ -}}{{if and .B (eq .F "")}}<!-- {{.A}} -->{{slice .A 1 3}}{{end}}',
        ),
    ),
    Target(
        "log_format",
        log_format,
        (SettingsError,),
        (
            b"{{.Client}} - {{.Username}} [{{.Timestamp}}] {{.StatusCode}} %s",
            b'{{if .Username}}{{printf "%-9.3s" .Host}}{{else}}{{len .Host}}{{end}}',
            b"/oauth2/callback?code=a&state=b&%63ode=c;token=d#x",
        ),
    ),
)
