"""Text forms of network addresses."""

from __future__ import annotations


def bracket_ipv6(host: str) -> str:
    """Return *host* as it is written in URLs: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def format_peer(peername: object) -> tuple[str, str]:
    """Return a peer's IP address and its ``host:port`` for logs.

    *peername* is the transport's ``peername``. A peer on a unix socket has the address
    "" and the log text "@".
    """
    if not isinstance(peername, tuple) or len(peername) < 2:
        return "", "@"
    # A dual-stack socket reports IPv4 peers as ::ffff:192.0.2.1.
    host, port = str(peername[0]).removeprefix("::ffff:"), peername[1]
    return host, f"{bracket_ipv6(host)}:{port}"
