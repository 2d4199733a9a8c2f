"""Errors of Redis connections, and what an operator can do about error replies."""

from __future__ import annotations

from authproxy_core.errors import StoreError

IS_CLUSTER = (
    "the server is a node of a cluster: set redis_use_cluster and "
    "redis_cluster_connection_urls"
)
REMEDIES = {  # first token of an error reply → remedy
    "MOVED": IS_CLUSTER,
    "ASK": IS_CLUSTER,
    "CROSSSLOT": IS_CLUSTER,
    "CLUSTERDOWN": "not every slot of the cluster has a master: check its nodes",
    "READONLY": "the server is a replica: set redis_connection_url to its master, or "
    "redis_use_sentinel",
    "MASTERDOWN": "the server is a replica without its master: set "
    "redis_connection_url to the master, or redis_use_sentinel",
    "NOAUTH": "set redis_password (for sentinels redis_sentinel_password), and "
    "redis_username for an ACL user",
    "WRONGPASS": "check redis_username and redis_password (for sentinels "
    "redis_sentinel_password)",
    "NOPERM": "grant the Redis user the commands and keys that docs/sessions.md lists",
    "DENIED": "set requirepass in the configuration of Redis, and redis_password",
    "LOADING": "Redis is reading its data; it is tried again until it is ready",
    "OOM": "raise maxmemory in the configuration of Redis",
    "MISCONF": "Redis cannot write its data to disk: check its dir and disk space",
}
REMEDIES_OF_ERR = {  # part of an ERR reply in lower case → remedy
    "without any password configured": "unset redis_password: the server has none",
    "no password is set": "unset redis_password: the server has none",
    "db index is out of range": "set another database in redis_connection_url",
    "select is not allowed in cluster mode": "remove the database from the URLs",
    "cluster support disabled": "unset redis_use_cluster: the server is no cluster node",
    "max number of clients reached": "raise maxclients in the configuration of Redis",
    "unknown command 'sentinel'": "redis_sentinel_connection_urls must name sentinels",
    "unknown command 'set'": "set redis_use_sentinel if the server is a sentinel",
}


class ConnectionLostError(StoreError):
    """The connection closed before the reply; the command may have been executed."""


class ReplyError(StoreError):
    """An error reply of Redis; ``prefix`` is its first token (NOAUTH, MOVED, …).

    The message contains a remedy, if there is one.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.prefix = text.partition(" ")[0]
        remedy = self._remedy()
        super().__init__(f"redis: {text}{remedy and f'; {remedy}'}")

    def _remedy(self) -> str:
        text = self.text.lower()
        of_err = (one for part, one in REMEDIES_OF_ERR.items() if part in text)
        return REMEDIES.get(self.prefix.lstrip("-"), "") or next(of_err, "")

    @property
    def is_denied(self) -> bool:
        """Whether the user may not run the command, or the server has none of the name.

        In a script the reply is an ERR.
        """
        text = self.text.lower()
        return (
            self.prefix == "NOPERM"
            or "acl failure in script" in text
            or "user executing the script can't" in text
            or "unknown command" in text
            or "unknown redis command" in text  # in a script
        )
