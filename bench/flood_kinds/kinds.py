"""The table of floods; each module of attacks adds its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from flood_kinds.link import Link

ALL = ("authproxy", "oauth2-proxy", "nginx")
PROXIES = ALL[:2]
HTTP2 = ("authproxy", "nginx")  # oauth2-proxy does not offer it
Attack = Callable[[Link], Awaitable[None]]


class Variant(NamedTuple):
    """How the programs are started for a flood."""

    tls: bool = False
    output: str = "file"  # of the logs: "file", "pipe" that is full, or "disk"
    toml: str = ""  # options of both proxies
    own_toml: str = ""  # options that only authproxy has


class Flood(NamedTuple):
    """An attack on one connection, repeated until the time is over."""

    name: str
    title: str
    attack: Attack
    variant: Variant
    against: tuple[str, ...]
    connections: int  # of each attacker
    total: int  # of all attackers; 0: no limit
    port: str  # "main", "metrics" or "proxy"
    is_reader: bool
    alpn: str  # "" connects without TLS, also to a TLS listener


PLAIN, TLS = Variant(), Variant(tls=True)
FLOODS: dict[str, Flood] = {}


def flood(
    *,
    variant: Variant = PLAIN,
    against: tuple[str, ...] = ALL,
    connections: int = 1,
    total: int = 0,
    port: str = "main",
    is_reader: bool = True,
    alpn: str = "",
) -> Callable[[Attack], Attack]:
    """Register an attack; its docstring is the title."""

    def register(attack: Attack) -> Attack:
        name = attack.__name__
        title = (attack.__doc__ or "").strip().rstrip(".")
        FLOODS[name] = Flood(
            name,
            title,
            attack,
            variant,
            against,
            connections,
            total,
            port,
            is_reader,
            alpn,
        )
        return attack

    return register
