"""Listening sockets: opened once before the workers are forked, shared by all."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..server_settings import Listener
from .addresses import bracket_ipv6
from .tls import ListenerContext, server_context

BACKLOG = 1024
SO_ATTACH_FILTER = 26  # not in Python's socket module
# A BPF program that drops SYN packets, so no new handshake starts; all other packets
# pass, so handshakes in progress complete. Instructions: code, jt, jf, k.
DROP_SYN_FILTER = (
    (0x30, 0, 0, 13),  # load the byte of the TCP flags
    (0x45, 0, 1, 0x02),  # is SYN set?
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # pass the whole packet
)
IPV6_UNAVAILABLE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT)


class ListenError(Exception):
    """A listener could not be opened; the text names it and the cause."""


class ListeningSocket(Struct, eq=False):
    """An open listening socket and, for TLS, its context, which a reload replaces.

    An ``inherited`` socket belongs to systemd and stays open when authproxy exits.
    """

    socket: socket.socket
    context: ListenerContext | None = None
    metrics: bool = False
    inherited: bool = False

    @property
    def name(self) -> str:
        """The URL for logs, such as ``http://127.0.0.1:4180``."""
        scheme = "https" if self.context else "http"
        address = self.socket.getsockname()
        if isinstance(address, str):
            return f"unix://{address}"
        host, port = address[:2]
        return f"{scheme}://{bracket_ipv6(host)}:{port}"


@contextlib.contextmanager
def open_listeners(listeners: Sequence[Listener]) -> Iterator[list[ListeningSocket]]:
    """Open all *listeners*; on exit, close them and remove unix sockets.

    Raises `ListenError`.
    """
    with contextlib.ExitStack() as stack:
        sockets = []
        for listener in listeners:
            listening = open_listener(listener)
            stack.callback(_close, listening.socket, listener.path)
            sockets.append(listening)
        yield sockets


def open_listener(listener: Listener) -> ListeningSocket:
    """Open one listener. Raises `ListenError`."""
    where = listener.path or f"{listener.host}:{listener.port}"
    inherited = listener.descriptor is not None
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
    return ListeningSocket(opened_socket, context, listener.metrics, inherited)


def _systemd_socket(descriptor: int, environ: Mapping[str, str]) -> socket.socket:
    """Return the socket that systemd has passed as *descriptor* (sd_listen_fds(3)).

    Raises ValueError if there is no such socket, or it does not listen.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        raise ValueError("LISTEN_PID does not name this process; is this a service of a "
                         "systemd socket unit?")  # fmt: skip
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or not 3 <= descriptor < 3 + int(count):
        raise ValueError(f"LISTEN_FDS={count} does not include it")
    passed_socket = socket.socket(fileno=descriptor)
    if passed_socket.type != socket.SOCK_STREAM or not passed_socket.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        passed_socket.detach()
        raise ValueError("not a listening stream socket")
    passed_socket.set_inheritable(False)
    return passed_socket


def _tcp(listener: Listener) -> socket.socket:
    """Return a TCP socket; without a host it is dual-stack if IPv6 is available."""
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
    # A chmod after bind would leave the socket open to others for a moment.
    previous = os.umask(0o777 & ~listener.mode) if listener.mode is not None else None
    try:
        opened_socket.bind(listener.path)
    except OSError:
        opened_socket.close()
        raise
    finally:
        if previous is not None:
            os.umask(previous)
    opened_socket.listen(BACKLOG)
    return opened_socket


def _remove_stale_socket(path: str) -> None:
    """Remove a unix socket without a listener. Raises OSError if *path* is in use."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(f"{path} exists and is not a socket")
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
    """Refuse new connections; those in the accept backlog can still be accepted.

    A TCP client gets no response to its SYN and retries after a second; it is refused
    once the socket is closed. A unix socket refuses at once. No effect on an inherited
    socket, and on systems without socket filters.
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
