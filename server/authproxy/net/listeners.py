"""The listening sockets: made once, before the workers are forked, shared by all."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import ssl
import stat
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..server_settings import Listener
from .addresses import bracket_ipv6
from .tls import server_context

BACKLOG = 1024
SO_ATTACH_FILTER = 26  # not in Python's socket module
# Drops the first packet of a TCP handshake; the third one, which completes it, and
# all others pass. Each instruction is code, jump if true, jump if false, operand.
DROP_SYN_FILTER = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass all of it
)
IPV6_UNAVAILABLE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT)


class ListenError(Exception):
    """A listener could not be opened; the text says which, and why."""


class ListeningSocket(Struct, eq=False):
    """An open listening socket and, for TLS, its context, which a reload replaces.

    A ``lent`` one is systemd's, and goes on when we have ended.
    """

    socket: socket.socket
    context: ssl.SSLContext | None = None
    metrics: bool = False
    inherited: bool = False

    @property
    def name(self) -> str:
        """For logs, such as ``http://127.0.0.1:4180``."""
        scheme = "https" if self.context else "http"
        address = self.socket.getsockname()
        if isinstance(address, str):
            return f"unix://{address}"
        host, port = address[:2]
        return f"{scheme}://{bracket_ipv6(host)}:{port}"


@contextlib.contextmanager
def open_listeners(listeners: Sequence[Listener]) -> Iterator[list[ListeningSocket]]:
    """Open all *listeners*; close them, and remove unix sockets, at the end."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for listener in listeners:
            listening = open_listener(listener)
            stack.callback(_close, listening.socket, listener.path)
            sockets.append(listening)
        yield sockets


def open_listener(listener: Listener) -> ListeningSocket:
    """Open one listener; raises `ListenError`."""
    where = listener.path or f"{listener.host}:{listener.port}"
    lent = listener.descriptor is not None
    try:
        context = server_context(listener.tls) if listener.tls else None
        if listener.descriptor is not None:
            where = f"fd:{listener.descriptor}"
            opened_socket = _systemd_socket(listener.descriptor, os.environ)
        else:
            opened_socket = _unix(listener) if listener.path else _tcp(listener)
    except (OSError, KeyError, ValueError) as error:
        raise ListenError(f"can't listen on {where}: {error}") from None
    opened_socket.setblocking(False)
    return ListeningSocket(opened_socket, context, listener.metrics, lent)


def _systemd_socket(descriptor: int, environ: Mapping[str, str]) -> socket.socket:
    """The socket that systemd has opened for us (sd_listen_fds(3)).

    Raises ValueError when it has not, or when it is none that one can listen on.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        raise ValueError("LISTEN_PID does not name this process; is this a service of a "
                         "systemd socket unit?")  # fmt: skip
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or not 3 <= descriptor < 3 + int(count):
        raise ValueError(f"LISTEN_FDS={count} does not cover it")
    handed = socket.socket(fileno=descriptor)
    if handed.type != socket.SOCK_STREAM or not handed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        handed.detach()
        raise ValueError("it is no listening stream socket")
    handed.set_inheritable(False)
    return handed


def _tcp(listener: Listener) -> socket.socket:
    """A TCP socket; without a host, for IPv6 and IPv4 alike where there is IPv6."""
    host = listener.host.strip("[]")
    if not host:
        try:
            return _bind(socket.AF_INET6, ("::", listener.port), dual=True)
        except OSError as error:
            if error.errno not in IPV6_UNAVAILABLE:
                raise
    family, _, _, _, address = socket.getaddrinfo(
        host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return _bind(family, address)


def _bind(
    family: int, address: tuple[Any, ...], *, dual: bool = False
) -> socket.socket:
    opened_socket = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
            opened_socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened_socket.bind(address)
        opened_socket.listen(BACKLOG)
    except OSError:
        opened_socket.close()
        raise
    return opened_socket


def _unix(listener: Listener) -> socket.socket:
    _remove_stale_socket(listener.path)
    opened_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment, so it is set by the umask.
    before = os.umask(0o777 & ~listener.mode) if listener.mode is not None else None
    try:
        opened_socket.bind(listener.path)
    except OSError:
        opened_socket.close()
        raise
    finally:
        if before is not None:
            os.umask(before)
    opened_socket.listen(BACKLOG)
    return opened_socket


def _remove_stale_socket(path: str) -> None:
    """Remove a socket that nobody listens on any more; raises OSError otherwise."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(f"{path} is in use")


def refuse_connections(listening: ListeningSocket) -> None:
    """Let nobody new into the socket's queue; who is in it can still be accepted.

    A socket that is lent goes on without us. Who connects now waits, and is refused when the socket is closed (TCP sends the first
    packet again after a second), or is refused at once (unix socket). Where the system
    has no such filter nothing happens.
    """
    if listening.inherited:
        return
    with contextlib.suppress(OSError):
        if listening.socket.family == socket.AF_UNIX:
            listening.socket.shutdown(socket.SHUT_RD)
        elif sys.platform == "linux":
            program = array.array(
                "B", b"".join(struct.pack("HBBI", *i) for i in DROP_SYN_FILTER)
            )
            address, _ = program.buffer_info()
            listening.socket.setsockopt(
                socket.SOL_SOCKET,
                SO_ATTACH_FILTER,
                struct.pack("HP", len(DROP_SYN_FILTER), address),
            )


def _close(opened_socket: socket.socket, path: str) -> None:
    opened_socket.close()
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)
