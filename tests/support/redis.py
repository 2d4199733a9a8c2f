"""Redis servers with TLS, users and Unix sockets, sentinels, and a cluster."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from authproxy.server_settings import RedisAddress
from support.certificates import make_certificate
from support.ports import LOOPBACK, free_port
from support.processes import Process, wait_for
from support.programs import find

MASTER_NAME = "main"
USER, PASSWORD, SENTINEL_PASSWORD = "app", "redis-pass word", "sentinel-pass"
# The permissions that the session store needs.
COMMANDS = (
    "+get +mget +set +del +eval +zadd +zrem +zrange +zrangebyscore +zremrangebyscore "
    "+persist +pexpireat +time +ping +auth +hello +select +role +client|tracking "
    "+client|setname +cluster|slots +asking"
)
BASE = """\
bind 127.0.0.1
save ""
appendonly no
repl-diskless-sync-delay 0
dir {folder}
"""


class RedisServer:
    """A redis-server on a free port; it can be stopped, suspended and restarted."""

    def __init__(self, folder: Path, *lines: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self._folder = folder
        self._sentinel = sentinel
        self.name = f"redis-{self.port}"
        self._config = folder / f"{self.name}.conf"
        base = BASE.format(folder=folder) if not sentinel else "bind 127.0.0.1\n"
        port = "" if any(line.startswith("port ") for line in lines) else self.port
        first = f"port {port}\n" if port else ""
        self._config.write_text(base + first + "".join(f"{one}\n" for one in lines))
        self._process: Process | None = None
        self._client: tuple[str, ...] = ("-p", str(self.port))

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> RedisAddress:
        """The host and port."""
        return RedisAddress(host=LOOPBACK, port=self.port)

    @property
    def url(self) -> str:
        """The host and port as a URL."""
        return f"redis://{LOOPBACK}:{self.port}"

    def use_client(self, *flags: str) -> None:
        """Set the flags with which redis-cli connects."""
        self._client = flags

    def start(self) -> None:
        """Start it with its previous data."""
        program = find("redis-server")
        assert program is not None
        command: list[str | Path] = [program, self._config]
        if self._sentinel:
            command.append("--sentinel")
        self._process = Process(self.name, command, folder=self._folder)
        self._process.wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            text = self.ask("PING")
            return "PONG" in text or "NOAUTH" in text
        return False

    def stop(self) -> None:
        """Stop it, even if it is suspended."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """Kill it, as in a crash."""
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        self._process.wait()
        self._process.stop()
        self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend it: it accepts connections, but does not respond."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.signal(signal.SIGCONT)

    def ask(self, *arguments: str) -> str:
        """Run a command with redis-cli; return its output."""
        program = find("redis-cli")
        assert program is not None
        done = subprocess.run(
            [program, "--no-auth-warning", *self._client, *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout + done.stderr


def with_tls_and_user(folder: Path) -> tuple[RedisServer, str]:
    """Return a server with TLS and users, and the file of its CA certificate."""
    certificate = make_certificate(folder, LOOPBACK)
    server = RedisServer(folder, "port 0", f"aclfile {folder}/users.acl")
    (folder / "users.acl").write_text(
        f"user default off\n"
        f"user {USER} on #{sha256(PASSWORD)} ~_oauth2_proxy-* resetchannels {COMMANDS}\n"
        f"user admin on >admin ~* &* +@all\n"
    )
    with server._config.open("a") as config:
        config.write(
            f"tls-port {server.port}\n"
            f"tls-cert-file {certificate.cert_file}\n"
            f"tls-key-file {certificate.key_file}\n"
            f"tls-ca-cert-file {certificate.cert_file}\n"
            "tls-auth-clients no\n"
        )
    server.use_client(
        "-p", str(server.port), "--tls", "--cacert", certificate.cert_file,
        "--user", "admin", "--pass", "admin",
    )  # fmt: skip
    return server, certificate.cert_file


def sha256(text: str) -> str:
    """Return the digest that replaces a password in an ACL file."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def with_socket(folder: Path) -> tuple[RedisServer, Path]:
    """Return a server that listens only on a Unix socket, and the socket's path."""
    path = folder / "redis.sock"
    server = RedisServer(
        folder, "port 0", f"unixsocket {path}", f'requirepass "{PASSWORD}"'
    )
    server.use_client("-s", str(path), "-a", PASSWORD)
    return server, path


def wait_for_copy(master: RedisServer, replica: RedisServer) -> None:
    """Wait until the replica has the same number of keys as its master."""
    wait_for(
        lambda: master.ask("DBSIZE") == replica.ask("DBSIZE") != "(integer) 0\n",
        "the replica's copy",
    )


class SentinelSetup:
    """A master, a replica, and a sentinel that fails over within about two seconds."""

    def __init__(self, folder: Path) -> None:
        secured = (f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"')
        self.first = RedisServer(folder, *secured)
        self.second = RedisServer(
            folder, *secured, f"replicaof {LOOPBACK} {self.first.port}"
        )
        for server in (self.first, self.second):
            server.use_client("-p", str(server.port), "-a", PASSWORD)
        self.sentinel = RedisServer(
            folder,
            f"dir {folder}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {MASTER_NAME} {LOOPBACK} {self.first.port} 1",
            f'sentinel auth-pass {MASTER_NAME} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {MASTER_NAME} 700",
            f"sentinel failover-timeout {MASTER_NAME} 3000",
            sentinel=True,
        )
        self.sentinel.use_client("-p", str(self.sentinel.port), "-a", SENTINEL_PASSWORD)

    def __enter__(self) -> SentinelSetup:
        for server in (self.first, self.second):
            server.start()
        wait_for(
            lambda: "master_link_status:up" in self.second.ask("INFO", "replication"),
            "the replica",
        )
        # A sentinel polls a replica only every few seconds.
        self.sentinel.start()
        wait_for(
            lambda: (
                "master-link-status\nok"
                in self.sentinel.ask("SENTINEL", "REPLICAS", MASTER_NAME)
            ),
            "the sentinel to know the replica",
        )
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.sentinel, self.second, self.first):
            server.stop()

    def master(self) -> RedisServer:
        """Return the server that the sentinel reports as master."""
        text = self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
        return self.first if str(self.first.port) in text else self.second


class ClusterSetup:
    """Three masters and a replica of the first."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for _ in range(4):
            bus = free_port()
            server = RedisServer(
                folder,
                "cluster-enabled yes",
                f"cluster-port {bus}",
                "cluster-node-timeout 1500",
                f"cluster-config-file nodes-{bus}.conf",
            )
            self.nodes.append((server, bus))

    @property
    def servers(self) -> list[RedisServer]:
        """The three masters and the replica of the first."""
        return [server for server, _ in self.nodes]

    def __enter__(self) -> ClusterSetup:
        for server in self.servers:
            server.start()
        bounds = [0, 5461, 10923, 16384]
        for number, server in enumerate(self.servers[:3]):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            server.ask(
                "CLUSTER",
                "ADDSLOTSRANGE",
                str(bounds[number]),
                str(bounds[number + 1] - 1),
            )
        first = self.servers[0]
        for server, bus in self.nodes[1:]:
            first.ask("CLUSTER", "MEET", LOOPBACK, str(server.port), str(bus))
        replica = self.servers[3]
        identity = first.ask("CLUSTER", "MYID").strip()
        wait_for(
            lambda: replica.ask("CLUSTER", "REPLICATE", identity).strip() == "OK",
            "the replica",
        )
        for server in self.servers:
            wait_for(lambda s=server: self._is_good(s), "the cluster", 20.0)  # type: ignore[misc]
        wait_for(
            lambda: "master_link_status:up" in replica.ask("INFO", "replication"),
            "the replica's data",
        )
        return self

    @staticmethod
    def _is_good(server: RedisServer) -> bool:
        text = server.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in text and "cluster_known_nodes:4" in text

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop()
