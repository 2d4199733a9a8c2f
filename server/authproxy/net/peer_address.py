"""What a connection's other end is called."""

from __future__ import annotations


def format_peer(peername: object) -> tuple[str, str]:
    """The peer's address, and as host:port for logs; "" and "@" for a unix socket."""
    if not isinstance(peername, tuple) or len(peername) < 2:
        return "", "@"
    # On a socket for both families, IPv4 peers come as ::ffff:192.0.2.1.
    host, port = str(peername[0]).removeprefix("::ffff:"), peername[1]
    return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
