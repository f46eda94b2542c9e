"""Real servers that replace each other: a cluster with three primaries and three replicas, and a Redis that three
Sentinels watch. All listen on loopback."""

from __future__ import annotations

import contextlib
import itertools
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError, ResponseError

from loopback import Certificates
from redis_server import RedisServer, free_ports
from scopeguard import AuthorityUnavailable

SERVICE = "tokens"
_PRIMARIES = 3
_SLOTS = 16384


def wait_for(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Return the first true result of *condition*. A server or store that does not answer is not ready yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(RedisError, AuthorityUnavailable):
            found = condition()
            if found:
                return found
        assert time.monotonic() < deadline, condition
        select.select([], [], [], 0.01)


class RedisGroup:
    """Servers by port, started together.

    *certificates*: connections use TLS, with certificates of this authority; a test looks into a server by its Unix
    socket. *program*: see :class:`RedisServer`. *settings*: further settings of all servers but Sentinels.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        *,
        certificates: Certificates | None = None,
        program: str | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._certificates = certificates
        self._program = program
        self._settings = settings or {}
        self._stack = contextlib.ExitStack()
        ports = free_ports(2 * number)
        self.ports, self.bus_ports = ports[:number], ports[number:]
        self.servers: dict[int, RedisServer] = {}

    def scheme(self, kind: str) -> str:
        """Return the scheme of URLs for this group."""
        return f"redis+{kind}" if self._certificates is None else f"rediss+{kind}"

    def settings(self, port: int) -> dict[str, str]:
        """Return the settings for *port*, with or without TLS."""
        if self._certificates is None:
            return {"port": str(port)}
        file = str(self._certificates.issue("127.0.0.1"))
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-cert-file": file,
            "tls-key-file": file,
            "tls-ca-cert-file": str(self._certificates.bundle),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def add(self, port: int, settings: dict[str, str], *, sentinel_file: Path | None = None) -> RedisServer:
        """Start a server of this group without waiting for it."""
        folder = self.folder / str(port)
        folder.mkdir(exist_ok=True)
        server = RedisServer(
            folder, port=port, settings={**self.settings(port), **settings, **self._settings}, program=self._program
        )
        server.sentinel_file = sentinel_file
        self._stack.callback(server.kill)
        self.servers[port] = server
        server.start(wait=False)
        return server

    def kill_all(self) -> None:
        """End all servers."""
        self._stack.close()

    def run(self, port: int, *command: Any) -> Any:
        """Execute *command* on the server at *port*, and return the answer."""
        with self.servers[port].client() as client:
            return client.execute_command(*command)

    def set_user(self, port: int, *permissions: str) -> None:
        """Create the user ``api``, whose commands are the words of *permissions* that begin with a plus sign."""
        commands = [word.strip(",;") for text in permissions for word in text.split() if word.startswith("+")]
        self.run(port, "ACL", "SETUSER", "api", "reset", "on", ">sg-secret", "~scopeguard:*", *commands)

    def role(self, port: int) -> str:
        """Return ``master`` or ``slave``."""
        return str(self.run(port, "ROLE")[0].decode())

    def has_replicas(self, port: int, number: int = 1) -> bool:
        """Return whether exactly that many replicas follow the primary at *port*, and confirm what it writes."""
        role = self.run(port, "ROLE")
        if role[0] != b"master" or len(role[2]) != number:
            return False
        with self.servers[port].client() as client:
            for name in map(str, itertools.count()):
                with contextlib.suppress(ResponseError):  # another primary has this key
                    pipeline = client.pipeline(transaction=False)
                    return bool(pipeline.set(name, "", px=1).wait(number, 100).execute()[1] == number)
        raise AssertionError

    def replicas_of(self, primary: int) -> list[int]:
        """Return the ports of the replicas that follow *primary*."""
        return [int(replica[1]) for replica in self.run(primary, "ROLE")[2]]

    def flush(self) -> None:
        """Delete all data."""
        for port, server in self.servers.items():
            if server.is_up and self.role(port) == "master":
                self.run(port, "FLUSHALL")


class RedisCluster(RedisGroup):
    """A cluster with three primaries, each of which has one replica. Failovers are those that a test asks for, unless
    *node_timeout* (milliseconds) is shorter."""

    def __init__(self, folder: Path, *, node_timeout: int = 60_000, **server: Any) -> None:
        super().__init__(folder, 2 * _PRIMARIES, **server)
        self._node_timeout = node_timeout
        self.hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports[:_PRIMARIES])
        self.url = f"{self.scheme('cluster')}://{self.hosts}"

    def start(self) -> None:
        """Start it, and wait until each primary has its replica."""
        ids = {port: f"{port:040x}" for port in self.ports}
        for port in self.ports:
            # Each node starts as if it had been in the cluster before, which takes less time than joining one.
            (self.folder / f"nodes-{port}.conf").write_text(self._known_nodes(port, ids))
            settings = {
                "cluster-enabled": "yes",
                "cluster-port": str(self.bus_ports[self.ports.index(port)]),
                "cluster-node-timeout": str(self._node_timeout),
                "cluster-config-file": str(self.folder / f"nodes-{port}.conf"),
                "tls-cluster": "no" if self._certificates is None else "yes",
            }
            self.add(port, settings)
        for server in self.servers.values():
            server.wait_until_up()
        wait_for(self.is_whole)

    def _known_nodes(self, own: int, ids: dict[int, str]) -> str:
        lines = []
        for index, port in enumerate(self.ports):
            address = f"127.0.0.1:{port}@{self.bus_ports[index]}"
            me = "myself," if port == own else ""
            if index < _PRIMARIES:
                first, last = index * _SLOTS // _PRIMARIES, (index + 1) * _SLOTS // _PRIMARIES - 1
                lines.append(f"{ids[port]} {address} {me}master - 0 0 {index + 1} connected {first}-{last}")
            else:
                primary = ids[self.ports[index - _PRIMARIES]]
                lines.append(f"{ids[port]} {address} {me}slave {primary} 0 0 {index - _PRIMARIES + 1} connected")
        return "\n".join([*lines, f"vars currentEpoch {_PRIMARIES} lastVoteEpoch 0", ""])

    def is_whole(self) -> bool:
        """Return whether all slots are served, by primaries with one replica each, in the view of every node."""
        primaries = [port for port in self.ports if self.role(port) == "master"]
        return len(primaries) == _PRIMARIES and all(
            (b"cluster_state:ok" in self.run(port, "CLUSTER", "INFO"))
            and (port not in primaries or self.has_replicas(port))
            for port in self.ports
        )

    def primary_of(self, key: str, /) -> int:
        """Return the port of the primary that has *key*, in the view of the servers that are up."""
        for port, server in self.servers.items():
            if server.is_up and self.role(port) == "master":
                with contextlib.suppress(ResponseError):  # another primary has this key
                    self.run(port, "EXISTS", key)
                    return port
        raise AssertionError("no server has the key")

    def replica_of(self, primary: int) -> int:
        """Return the port of the replica that follows *primary*."""
        (replica,) = self.replicas_of(primary)
        return replica

    def replace(self, replicas: list[int], /) -> None:
        """Replace a primary that is gone by one of its *replicas*."""
        self.take_over(*replicas)

    def take_over(self, replica: int) -> None:
        """Make *replica* a primary without the agreement of others, and wait until it is one everywhere it can be."""
        self.run(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        wait_for(lambda: self.role(replica) == "master")


@contextlib.contextmanager
def run_group(group: RedisCluster | SentinelTrio) -> Iterator[Any]:
    """Run *group* for the length of a ``with`` block."""
    try:
        group.start()
        yield group
    finally:
        group.kill_all()


class SentinelTrio(RedisGroup):
    """A primary with *replicas* replicas, and three Sentinels that replace it when it is down for *down_after*
    milliseconds."""

    def __init__(self, folder: Path, *, replicas: int = 1, down_after: int = 60_000, **server: Any) -> None:
        super().__init__(folder, 1 + replicas + 3, **server)
        self._data = 1 + replicas
        self._down_after = down_after
        self.sentinels = self.ports[self._data :]
        self.hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"{self.scheme('sentinel')}://{self.hosts}/{SERVICE}"

    def start(self) -> None:
        """Start it, and wait until every Sentinel knows the others and the replicas."""
        first = self.ports[0]
        for port in self.ports[: self._data]:
            self.add(port, {} if port == first else {"replicaof": f"127.0.0.1 {first}"})
        for port in self.ports[: self._data]:
            self.servers[port].wait_until_up()
        wait_for(lambda: self.has_replicas(first, self._data - 1))
        for port in self.sentinels:
            self._add_sentinel(port, first)
        for port in self.sentinels:
            self.servers[port].wait_until_up()
        wait_for(self.is_whole)

    def _add_sentinel(self, port: int, primary: int) -> None:
        # Each Sentinel knows the others from the start, which takes less time than finding them.
        known = [
            f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {other:040x}"
            for other in self.sentinels
            if other != port
        ]
        replicas = [
            f"sentinel known-replica {SERVICE} 127.0.0.1 {other}"
            for other in self.ports[: self._data]
            if other != primary
        ]
        folder = self.folder / str(port)
        folder.mkdir()
        lines = (
            *(f"{name} {value}" for name, value in self.settings(port).items()),
            "bind 127.0.0.1",
            f"dir {folder}",
            f"unixsocket {folder}/redis.sock",
            f"sentinel myid {port:040x}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after}",
            f"sentinel failover-timeout {SERVICE} 10000",
            *replicas,
            *known,
        )
        file = self.folder / f"sentinel-{port}.conf"
        file.write_text("\n".join([*lines, ""]))
        self.add(port, {}, sentinel_file=file)

    def primary(self) -> int:
        """Return the port of the primary, as the first Sentinel that is up knows it."""
        for port in self.sentinels:
            if self.servers[port].is_up:
                return int(self.run(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        raise AssertionError("no Sentinel is up")

    def primary_of(self, _key: str, /) -> int:
        """Return the port of the primary, which has all keys."""
        return self.primary()

    def replace(self, _replicas: list[int], /) -> None:
        """Replace a primary that is gone by one of its replicas."""
        self.fail_over()

    def is_whole(self) -> bool:
        """Return whether the Sentinels agree about the primary, and all replicas follow it."""
        named = {int(self.run(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) for port in self.sentinels}
        return len(named) == 1 and self.has_replicas(named.pop(), self._data - 1)

    def fail_over(self) -> int:
        """Let the Sentinels replace a primary that works or is gone, and return the port of the new one."""
        old = self.primary()

        def find_new_primary() -> int | None:
            with contextlib.suppress(RedisError):  # the last failover is not over yet
                self.run(self.sentinels[0], "SENTINEL", "FAILOVER", SERVICE)
            new = self.primary()
            return new if new != old and self.role(new) == "master" else None

        return int(wait_for(find_new_primary))
