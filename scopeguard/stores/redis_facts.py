"""Facts about servers of Redis or Valkey, for ``scopeguard doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Facts about a primary, as it reports them: :meth:`RedisStore.facts() <scopeguard.stores.redis.RedisStore.facts>`.

    * ``name``: its address in a cluster, else empty.
    * ``product``: "Redis" or "Valkey". ``version``: that of the product.
    * ``role``: "master" for a primary. ``is_cluster``: it is a node of a cluster.
    * ``replicas``: how many replicas follow it now.
    * ``policy``: the ``maxmemory-policy``. ``max_memory``: the limit in bytes, 0 for none.
    * ``is_append_only``: writes are logged on disk.
    * ``time``: its clock, in seconds since the epoch.
    """

    name: str = ""
    product: str
    version: str
    role: str
    is_cluster: bool
    replicas: int
    policy: str
    max_memory: int
    is_append_only: bool
    time: float


def read_facts(name: str, server: Any) -> ServerFacts:
    """Return the answers of *server*, a client of redis-py, to ``INFO`` and ``TIME``."""
    info, (seconds, microseconds) = server.info(), server.time()
    valkey = info.get("valkey_version")
    return ServerFacts(
        name=name,
        product="Redis" if valkey is None else "Valkey",
        version=str(valkey or info.get("redis_version", "")),
        role=str(info.get("role", "")),
        is_cluster=bool(info.get("cluster_enabled")),
        replicas=int(info.get("connected_slaves", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        max_memory=int(info.get("maxmemory", 0)),
        is_append_only=bool(info.get("aof_enabled")),
        time=seconds + microseconds / 1_000_000,
    )
