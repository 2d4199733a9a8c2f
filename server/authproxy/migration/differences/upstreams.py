"""Upstreams, WebSockets and static files."""

from __future__ import annotations

from ..conditions import (
    BYPASSES,
    DROPS_WEBSOCKETS,
    EVERY,
    FORWARDS_WEBSOCKETS,
    KEEPS_HOST,
    PROXIES,
    REWRITES_PATHS,
    SERVES_FILES,
    SERVES_TLS,
    given,
    is_on,
)
from .row import BUG, SECURITY, Difference

UPSTREAMS: tuple[Difference, ...] = (
    Difference(
        "cookies-not-forwarded",
        "authproxy's session and login cookies are not forwarded",
        "an upstream could use them to impersonate the user",
        SECURITY,
        when=PROXIES,
    ),
    Difference(
        "identity-headers-stripped",
        "request headers that can name a user are stripped from client requests, "
        "configured or not, in every spelling that folds to them",
        "upstreams trust `X-Forwarded-Email` even if authproxy does not send it",
        "`strip_identity_headers = false`",
        when=PROXIES & is_on("strip_identity_headers", "skip_auth_strip_headers"),
        look=BYPASSES,
    ),
    Difference(
        "forwarded-headers-sent",
        "`X-Forwarded-Host` and `X-Forwarded-Proto` are always sent upstream; "
        "forwarded headers of untrusted peers are not forwarded",
        "upstreams can rely on them",
        "`trusted_proxy_ips` lists the trusted peers; otherwise not available: it "
        "would weaken security",
        when=PROXIES,
        look=~is_on("reverse_proxy") & ~SERVES_TLS,
    ),
    Difference(
        "upstream-host",
        "the upstream's `Host` is that of a trusted `X-Forwarded-Host`",
        "the upstream builds its URLs from the host that the browser sees",
        "`pass_host_header = false` sends the upstream's host",
        when=PROXIES & is_on("reverse_proxy") & KEEPS_HOST,
        look=EVERY,
    ),
    Difference(
        "websocket-without-session",
        "a WebSocket request without a session gets 401, not a page",
        "browsers do not show a page for it",
        BUG,
        when=PROXIES & FORWARDS_WEBSOCKETS,
    ),
    Difference(
        "clean-path-after-login",
        "paths with `//` or `..` are redirected to their clean form only with a "
        "session, otherwise after the login",
        "access is decided for the path as received",
        BUG,
        when=PROXIES,
    ),
    Difference(
        "clean-path-escapes",
        "the redirect to the clean path keeps `%2F`",
        "oauth2-proxy decodes it or escapes it twice (`%252F`)",
        BUG,
        when=PROXIES,
    ),
    Difference(
        "clean-path-dots",
        "the redirect to the clean path resolves `/a//../b` to `/a/b`",
        "`..` removes the segment before it, also an empty one, as in browsers "
        "(RFC 3986 §5.2.4); oauth2-proxy redirects to `/b`",
        BUG,
        when=PROXIES,
    ),
    Difference(
        "compression",
        "upstreams are asked for a compressed response only if the client accepts it",
        "authproxy would have to decompress it; compression next to secrets "
        "reveals them (BREACH)",
        "clients send `Accept-Encoding: gzip`",
        when=PROXIES,
    ),
    Difference(
        "rewritten-dots",
        "a rewritten path with a `..` segment gets 400",
        "the path could leave the upstream's `rewriteTarget`",
        SECURITY,
        when=REWRITES_PATHS,
    ),
    Difference(
        "request-lines",
        "a request target in absolute-form or with raw UTF-8 is forwarded in "
        "percent-encoded origin-form; HTTP/1.0 without Host gets `Host: "
        "localhost`; `rewriteTarget` drops an empty query",
        "authproxy and upstreams see one form of the target",
        SECURITY,
        when=PROXIES,
    ),
    Difference(
        "websocket-origins",
        "a WebSocket that a page of another site opens with the user's session "
        "gets 403",
        "the same-origin policy does not apply to WebSockets (RFC 6455 §10.2)",
        '`websocket_origins = ["*"]`',
        when=PROXIES & FORWARDS_WEBSOCKETS & ~given("websocket_origins"),
        look=EVERY,
    ),
    Difference(
        "websocket-checks",
        "a WebSocket is closed within a minute after its session expired or was "
        "revoked",
        "it would outlive the session without limit",
        '`upgrade_check_interval = "0s"`',
        when=PROXIES & FORWARDS_WEBSOCKETS & given("upgrade_check_interval"),
    ),
    Difference(
        "websockets-disabled",
        "`proxy_websockets = false` disables upgrades; `h2c` is never forwarded",
        "oauth2-proxy forwards upgrades even then; requests inside `h2c` would "
        "not be checked",
        "`proxy_websockets = true`",
        when=PROXIES & DROPS_WEBSOCKETS,
        look=EVERY,
    ),
    Difference(
        "ambiguous-upstream-responses",
        "upstream responses with both Content-Length and Transfer-Encoding, a "
        "folded framing field or one with a space before the colon, "
        "Transfer-Encoding in HTTP/1.0, or HTTP/2.0 in the status line get 502; a "
        "connection whose response had to be normalized is not used again",
        "other readers of the same bytes see another end of the response (RFC "
        "9112 §11.1)",
        SECURITY,
        when=PROXIES,
    ),
    Difference(
        "symlinks-in-files",
        "static files: symlinks that leave the root directory are not followed; a "
        "file with an unknown extension is sent as text or bytes, never as HTML",
        "users who can write files could read others or run scripts in the site's "
        "origin",
        "`file_follow_symlinks = true`",
        when=SERVES_FILES & ~is_on("file_follow_symlinks"),
        look=EVERY,
    ),
)
