"""The servers that a URL of the Redis store names: one server, a primary that Sentinels know, or a cluster.

The clients are those of redis-py. Time limits, retries and the types of answers are set here and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from scopeguard.edge.files import check_file
from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command

T = TypeVar("T")


class Kind(StrEnum):
    """How the servers work together."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES: Final = {
    "redis": Kind.SERVER,
    "rediss": Kind.SERVER,
    "unix": Kind.SERVER,
    "redis+sentinel": Kind.SENTINEL,
    "rediss+sentinel": Kind.SENTINEL,
    "redis+cluster": Kind.CLUSTER,
    "rediss+cluster": Kind.CLUSTER,
}
_DEFAULT_PORTS: Final = {Kind.SERVER: 6379, Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}
# The options that a URL may have. Time limits and retries are set here; options that change the types of answers or
# switch the verification of certificates off are not allowed.
_OPTIONS: Final = frozenset(
    ("db", "protocol", "client_name", "username", "password",
     "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
)  # fmt: skip
_FILES: Final = frozenset(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
_SENTINEL_OPTIONS: Final = frozenset(("sentinel_username", "sentinel_password"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers and the options in a URL.

    * ``addresses``: the hosts and ports of Sentinels, of nodes of a cluster, or of the server; empty for a Unix socket.
    * ``service``: the name under which the Sentinels know the primary.
    * ``options``: those of connections to Redis, by the names of redis-py. ``sentinel_options``: user and password for
      the Sentinels.
    """

    kind: Kind
    addresses: tuple[tuple[str, int], ...]
    is_encrypted: bool
    service: str = ""
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)


def library() -> Any:
    """Return redis-py, or raise :class:`ConfigurationError` that says how to install it."""
    try:
        import redis  # noqa: PLC0415 - an optional dependency
        import redis.backoff  # noqa: PLC0415
        import redis.cluster  # noqa: PLC0415
        import redis.connection  # noqa: PLC0415
        import redis.exceptions  # noqa: PLC0415
        import redis.retry  # noqa: PLC0415
        import redis.sentinel  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(f"store: needs redis-py; {install_command('redis')}") from None
    return redis


def parse_url(url: str) -> Servers:
    """Return the servers and the options in *url*.

    Raises :class:`ConfigurationError` unless it can be read and all its options are allowed. Messages do not quote the
    URL, which may contain a password.
    """
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    if scheme not in _SCHEMES or "://" not in url:
        raise ConfigurationError(
            "store: the Redis URL must begin with redis://, rediss:// or unix://; with redis+sentinel:// or "
            "rediss+sentinel:// for Sentinels, and redis+cluster:// or rediss+cluster:// for a cluster"
        )
    kind = _SCHEMES[scheme]
    try:
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True)
        _check_parts(parts, kind, given)
        options, addresses = _read(parts, kind)
    except ValueError:  # its text may contain a part of the password
        raise ConfigurationError("store: the Redis URL is invalid; percent-encode the password in it") from None
    for name in sorted(_FILES & given.keys()):
        check_file(given[name][0], f"store: {name} in the Redis URL")
    allowed = _OPTIONS | _SENTINEL_OPTIONS if kind is Kind.SENTINEL else _OPTIONS
    for name in sorted(given.keys() - allowed):
        listed = ", ".join(sorted(allowed))
        raise ConfigurationError(f"store: the Redis URL has the option {name[:40]!a}; the allowed ones are {listed}")
    service, *rest = [unquote(part) for part in parts.path.strip("/").split("/")]
    if kind is Kind.SENTINEL and (not service or len(rest) > 1 or not all(part.isdecimal() for part in rest)):
        raise ConfigurationError(
            "store: the Redis URL must name the primary that the Sentinels know, as in "
            "redis+sentinel://host-1:26379,host-2:26379/mymaster, or /mymaster/0 with a db"
        )
    if kind is Kind.CLUSTER and (service not in ("", "0") or options.pop("db", 0) != 0):
        raise ConfigurationError("store: the Redis URL has a path or db, and a cluster has only db 0; leave it out")
    return Servers(
        kind=kind,
        addresses=addresses,
        is_encrypted=scheme.startswith("rediss"),
        service=service if kind is Kind.SENTINEL else "",
        options=options,
        sentinel_options={
            name.removeprefix("sentinel_"): given[name][0] for name in sorted(_SENTINEL_OPTIONS & given.keys())
        },
    )


def _check_parts(parts: SplitResult, kind: Kind, options: Iterable[str]) -> None:
    """Raise :class:`ValueError` if a password with ``?``, ``#`` or ``/`` was not percent-encoded.

    redis-py ignores a fragment, and a path that is not a number, and would connect to another server.
    """
    if parts.fragment or not all(name.isidentifier() for name in options):
        raise ValueError("a part of a password")
    path = parts.path.removeprefix("/")
    if kind is Kind.SERVER and parts.scheme != "unix" and path and not path.isdecimal():
        raise ValueError("a path that is not the number of a database")


def _read(parts: SplitResult, kind: Kind) -> tuple[dict[str, Any], tuple[tuple[str, int], ...]]:
    """Return the options and the addresses of a URL. Raises :class:`ValueError` or :class:`ConfigurationError`."""
    user, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    if kind is Kind.SERVER and (others or ("@" in user and "," in user)):
        raise ConfigurationError(
            "store: the Redis URL names several hosts; begin it with redis+cluster:// for a cluster, or with "
            "redis+sentinel:// for Sentinels; percent-encode the password in it"
        )
    if kind is not Kind.SERVER and "," in user:  # user and password for each host, or a comma in the password
        raise ConfigurationError(
            "store: the Redis URL must have user and password once, before the first host, as in "
            f"redis+{kind}://user:password@host-1,host-2; percent-encode the password in it, a comma as %2C"
        )
    path = parts.path
    if kind is Kind.SENTINEL:  # redis-py expects only the number of the database
        path = "/" + "/".join(path.strip("/").split("/")[1:])
    plain = f"{parts.scheme.partition('+')[0]}://{user}{at}{first}{path}?{parts.query}"
    options: dict[str, Any] = library().connection.parse_url(plain)
    for name in _SENTINEL_OPTIONS:
        options.pop(name, None)
    if parts.scheme == "unix":
        return options, ()
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    options.pop("host", None)
    options.pop("port", None)
    return options, tuple(_address(host, kind) for host in (first, *others))


def _address(text: str, kind: Kind) -> tuple[str, int]:
    split = urlsplit(f"//{text}")
    if kind is not Kind.SERVER and not split.hostname:
        raise ValueError("a host is missing")
    return split.hostname or "localhost", _DEFAULT_PORTS[kind] if split.port is None else split.port


class Client(Protocol):
    """A client for the servers of a URL."""

    def run(self, key: str, operation: Callable[[Any], T], /) -> T:
        """Return the result of *operation* with a client of redis-py for the server that has *key*."""
        ...

    def primaries(self) -> list[tuple[str, Any]]:
        """Return a name for each primary, empty if there is only one, and a client of redis-py for it."""
        ...

    def close(self) -> None:
        """Close the connections that are not in use. The others are closed by the operations that use them."""
        ...


class PrimaryClient:
    """A client for one server, or for the primary that Sentinels know.

    An operation is sent again once if its connection is closed or the primary was replaced, but never after a timeout.
    """

    def __init__(self, servers: Servers, timeout: float) -> None:
        redis, limits = library(), _limits(timeout)
        if servers.kind is Kind.SENTINEL:
            encryption = {name: value for name, value in servers.options.items() if name.startswith("ssl")}
            sentinels = redis.sentinel.Sentinel(
                list(servers.addresses),
                sentinel_kwargs={**encryption, **servers.sentinel_options, **limits},
                **{**servers.options, **limits},
            )
            self._redis: Any = sentinels.master_for(servers.service)
        elif servers.addresses:
            ((host, port),) = servers.addresses
            self._redis = redis.Redis(host=host, port=port, **servers.options, **limits)
        else:
            pool = redis.ConnectionPool(**servers.options, **limits)
            self._redis = redis.Redis(connection_pool=pool)

    def run(self, _key: str, operation: Callable[[Any], T], /) -> T:
        """Return the result of *operation*."""
        try:
            return operation(self._redis)
        except library().ConnectionError:
            return operation(self._redis)

    def primaries(self) -> list[tuple[str, Any]]:
        """Return the only client."""
        return [("", self._redis)]

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._redis.connection_pool.disconnect(inuse_connections=False)


class ClusterClient:
    """A client for a cluster. redis-py says which node has a key; operations are sent to that node here.

    So all commands of an operation use one connection. The operation is sent again once if its node is gone or has lost
    the key, after asking the cluster for its nodes, but never after a timeout. While asking, each node that does not
    answer costs the time limit once.
    """

    def __init__(self, servers: Servers, timeout: float) -> None:
        redis = library()
        self._servers, self._timeout = servers, timeout
        self._cluster: Any = None
        self._is_outdated = False
        self._asking = threading.Lock()
        self._elsewhere: tuple[type[Exception], ...] = (
            redis.ConnectionError,
            redis.exceptions.ClusterDownError,
            redis.exceptions.MovedError,
            redis.ReadOnlyError,
        )

    def run(self, key: str, operation: Callable[[Any], T], /) -> T:
        """Return the result of *operation* on the node that has *key*."""
        try:
            return operation(self._node_of(key))
        except library().TimeoutError:
            self._is_outdated = True
            raise
        except self._elsewhere as error:
            self._is_outdated = True
            return operation(self._next_node(key, error))

    def primaries(self) -> list[tuple[str, Any]]:
        """Return the address of each primary, and a client for it."""
        cluster = self._ask()
        return [(node.name, cluster.get_redis_connection(node)) for node in cluster.get_primaries()]

    def close(self) -> None:
        """Close the connections that are not in use, and forget the nodes."""
        cluster, self._cluster = self._cluster, None
        for node in () if cluster is None else cluster.get_nodes():
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def _node_of(self, key: str) -> Any:
        cluster = self._ask()
        return cluster.get_redis_connection(cluster.get_node_from_key(key))

    def _next_node(self, key: str, error: Exception) -> Any:
        """Return a client for the next node after *error*, which may name a node that the others do not know yet."""
        cluster = self._cluster
        if cluster is not None and isinstance(error, library().exceptions.MovedError):
            node = cluster.get_node(error.host, error.port)
            if node is not None:
                return cluster.get_redis_connection(node)
        return self._node_of(key)

    def _ask(self) -> Any:
        """Return the known nodes of the cluster. Ask it for its nodes if they are outdated.

        One thread asks at a time. The others wait no longer than for any other answer.
        """
        cluster = self._cluster
        if cluster is not None and not self._is_outdated:
            return cluster
        redis = library()
        if not self._asking.acquire(timeout=self._timeout):
            raise redis.TimeoutError("another thread is asking the cluster for its nodes")
        try:
            cluster = self._cluster
            if cluster is None:
                self._is_outdated = False
                self._cluster = cluster = self._open()
            elif self._is_outdated:
                self._is_outdated = False
                cluster.nodes_manager.initialize()
        except Exception:
            self.close()  # the next operation starts with the nodes of the URL
            raise
        finally:
            self._asking.release()
        return cluster

    def _open(self) -> Any:
        redis = library()
        return redis.cluster.RedisCluster(
            startup_nodes=[redis.cluster.ClusterNode(host, port) for host, port in self._servers.addresses],
            require_full_coverage=False,
            **self._servers.options,
            **_limits(self._timeout),
        )


def _limits(timeout: float) -> dict[str, Any]:
    redis = library()
    # No retries: those of redis-py depend on its version and on the command. The clients above repeat an operation.
    none = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": none}


def open_client(servers: Servers, timeout: float) -> Client:
    """Return a client for *servers*. It connects at its first operation."""
    return (ClusterClient if servers.kind is Kind.CLUSTER else PrimaryClient)(servers, timeout)
