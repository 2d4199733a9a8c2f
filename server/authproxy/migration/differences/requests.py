"""Requests, responses and trusted gateways."""

from __future__ import annotations

from ..conditions import (
    EVERY,
    LISTENS_ON_UNIX_SOCKET,
    given,
    is_on,
    lists,
)
from .row import ADDITION, BUG, SECURITY, Difference

REQUESTS: tuple[Difference, ...] = (
    Difference(
        "semicolons-in-queries",
        "`;` in a query is valid, and so is a malformed query of the application",
        "`;` is an ordinary character (WHATWG URL); the application parses its query",
        "`allow_query_semicolons = true` treats `;` as `&` in queries of the "
        "proxy endpoints",
    ),
    Difference(
        "https-redirect-path",
        "`force_https` redirects to the path of a trusted `X-Forwarded-Uri`",
        "it is the path that the browser requested",
        BUG,
        when=is_on("force_https") & is_on("reverse_proxy"),
    ),
    Difference(
        "unauthorized-page",
        "the 401 of the auth endpoint is HTML with a link to the login, if the "
        "request accepts `text/html`",
        "some gateways show it in the browser",
        "`force_json_errors = true` leaves the text",
    ),
    Difference(
        "malformed-targets",
        "a target with `#`, and an `X-Forwarded-Uri` that is not a path, get 400",
        "gateways and applications read it differently",
        SECURITY,
    ),
    Difference(
        "methods",
        "TRACE, CONNECT and methods with lower-case letters are rejected (405, 400)",
        "TRACE shows cookies and tokens to scripts, CONNECT asks for a tunnel, "
        "and programs differ on whether `get` is GET",
        SECURITY,
    ),
    Difference(
        "redirect-bodies",
        "all redirects have a body with a link; oauth2-proxy omits it for some",
        "programs that do not follow redirects can show it (RFC 9110 §15.4)",
        ADDITION,
    ),
    Difference(
        "no-store",
        "authproxy's responses (401, 403, userinfo, JSON, robots.txt) have "
        "`Cache-Control: no-store`",
        "oauth2-proxy lets intermediaries cache them",
        SECURITY,
    ),
    Difference(
        "trusted-proxies",
        "`X-Forwarded-*` and the real-client-IP header are trusted only from "
        "`trusted_proxy_ips`, by default loopback and private addresses; the "
        "client is the last untrusted hop",
        "any client could choose the checked URL and its address",
        'list the gateways in `trusted_proxy_ips`; `["0.0.0.0/0", "::/0"]` trusts '
        "all peers",
        when=is_on("reverse_proxy"),
        look=~given("trusted_proxy_ips"),
    ),
    Difference(
        "client-addresses",
        "`X-Real-IP` and other headers with one address must have exactly one; in "
        "`X-Forwarded-For`, `[10.9.9.9]` is an address, `10.9.9.9:abc` is not",
        "a client of a gateway that appends to the header could choose the address",
        SECURITY,
        when=is_on("reverse_proxy"),
        look=given("trusted_ips"),
    ),
    Difference(
        "unix-gateways",
        "a gateway on a unix socket is trusted only if `trusted_proxy_ips` is "
        "empty or contains `unix`",
        "the list of trusted peers is complete",
        "add `unix` to `trusted_proxy_ips`",
        when=is_on("reverse_proxy")
        & LISTENS_ON_UNIX_SOCKET
        & given("trusted_proxy_ips")
        & ~lists("trusted_proxy_ips", "unix"),
        look=EVERY,
    ),
)
