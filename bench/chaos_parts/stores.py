"""The stores of a chaos run: what instances are told, and how each store is broken."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

from support.ports import LOOPBACK
from support.processes import wait_for
from support.programs import find
from support.redis import (
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    ClusterSetup,
    RedisServer,
    SentinelSetup,
)

DURABLE = ("appendonly yes", "appendfsync always")
DISK = "48m"  # size of the file system of SQLite
KINDS = ("cookie", "redis", "sentinel", "cluster", "sqlite")
MOVED_SLOTS, BATCH = 1000, 50


class RedisStore:
    """A single server that keeps its data after a crash."""

    gated = True

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.server = RedisServer(folder, *DURABLE)
        stack.enter_context(self.server)
        self.port = self.server.port

    def options(self, port: int) -> dict[str, Any]:
        """Return the options of an instance that reaches the store at *port*."""
        return {
            "session_store_type": "redis",
            "redis_connection_url": f"redis://{LOOPBACK}:{port}",
        }


class CookieStore(RedisStore):
    """Sessions in cookies; locks and revocations in Redis."""

    def options(self, port: int) -> dict[str, Any]:
        """Return the options of an instance that reaches the store at *port*."""
        return {
            "shared_state": "redis",
            "session_revocation": True,
            "redis_connection_url": f"redis://{LOOPBACK}:{port}",
        }


class SentinelStore:
    """A master, a replica and a sentinel."""

    gated = False
    port = 0

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.setup = SentinelSetup(folder)
        for server in (self.setup.first, self.setup.second):
            with server._config.open("a") as config:
                config.write("".join(f"{line}\n" for line in DURABLE))
        stack.enter_context(self.setup)

    def options(self, _port: int) -> dict[str, Any]:
        """Return the options of an instance."""
        return {
            "session_store_type": "redis",
            "redis_use_sentinel": True,
            "redis_sentinel_master_name": MASTER_NAME,
            "redis_sentinel_password": SENTINEL_PASSWORD,
            "redis_password": PASSWORD,
            "redis_sentinel_connection_urls": [
                f"redis://{LOOPBACK}:{self.setup.sentinel.port}"
            ],
        }

    def fail_over(self) -> RedisServer:
        """Kill the master; return it when the replica has taken over."""
        master = self.setup.master()
        master.kill()
        wait_for(lambda: self.setup.master() is not master, "a failover", 20.0)
        return master

    def has_replica(self) -> bool:
        """Return whether the other server has the data of the master."""
        master = self.setup.master()
        others = {self.setup.first, self.setup.second} - {master}
        text = others.pop().ask("INFO", "replication")
        return "master_link_status:up" in text


class ClusterStore:
    """Three masters and a replica."""

    gated = False
    port = 0

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.setup = ClusterSetup(folder)
        stack.enter_context(self.setup)

    def options(self, _port: int) -> dict[str, Any]:
        """Return the options of an instance."""
        return {
            "session_store_type": "redis",
            "redis_use_cluster": True,
            "redis_cluster_connection_urls": [
                f"redis://{server.address.host}:{server.port}"
                for server in self.setup.servers[:3]
            ],
        }

    def move_slots(self, first: int, source: int, target: int) -> None:
        """Move `MOVED_SLOTS` slots with their keys, as redis-cli --cluster reshard."""
        masters = self.setup.servers[:3]
        giving, taking = masters[source], masters[target]
        ids = [server.ask("CLUSTER", "MYID").strip() for server in (giving, taking)]
        for start in range(first, first + MOVED_SLOTS, BATCH):
            slots = range(start, start + BATCH)
            set_slot = "CLUSTER SETSLOT"
            ask_all(taking, [f"{set_slot} {slot} IMPORTING {ids[0]}" for slot in slots])
            ask_all(giving, [f"{set_slot} {slot} MIGRATING {ids[1]}" for slot in slots])
            found = ask_all(
                giving, [f"CLUSTER GETKEYSINSLOT {slot} 100" for slot in slots]
            )
            migrate = f"MIGRATE {LOOPBACK} {taking.port}"
            ask_all(giving, [f"{migrate} {key} 0 5000" for key in found.split()])
            for server in (taking, giving):
                ask_all(server, [f"{set_slot} {slot} NODE {ids[1]}" for slot in slots])


def ask_all(server: RedisServer, commands: list[str]) -> str:
    """Run commands with one redis-cli; return its output."""
    program = find("redis-cli")
    assert program is not None
    done = subprocess.run(
        [program, "-p", str(server.port)],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


class SqliteStore:
    """A file on a small file system if this process may mount one."""

    gated = False
    port = 0

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.refusal = done.stderr.strip()
        if done.returncode == 0:
            stack.callback(subprocess.run, ["umount", "-l", self.disk], check=False)

    def options(self, _port: int) -> dict[str, Any]:
        """Return the options of an instance."""
        return {
            "session_store_type": "sqlite",
            "sqlite_path": str(self.disk / "sessions.db"),
        }


STORES = {
    "cookie": CookieStore,
    "redis": RedisStore,
    "sentinel": SentinelStore,
    "cluster": ClusterStore,
    "sqlite": SqliteStore,
}
Store = RedisStore | SentinelStore | ClusterStore | SqliteStore
