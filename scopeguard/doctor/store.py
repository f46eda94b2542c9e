"""Checks of the shared store in Redis or Valkey, by the operations that a guard performs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

from scopeguard.config.hosts import is_loopback
from scopeguard.core.engine import Engine
from scopeguard.doctor.finding import Finding, Level, error, ok, skipped, warning
from scopeguard.doctor.thresholds import CLOCK_DIFFERENCE
from scopeguard.errors import AuthorityUnavailable
from scopeguard.stores.redis import RedisStore
from scopeguard.stores.redis_facts import ServerFacts
from scopeguard.stores.redis_servers import Kind

SUBJECT: Final = "store"
_LEAST: Final = (6, 2)
_SEVERITY: Final = (Level.SKIPPED, Level.OK, Level.WARNING, Level.ERROR)
_KEEPING: Final = "noeviction"
_COMMANDS: Final = "+get +set +eval +time +xadd +xrange +xdel +zadd +zrange +zrem +zcount +zscore +pttl +pexpire +info"
PERMISSIONS: Final = f"allow the user of the store: {_COMMANDS}, for the keys with the prefix of [store]"
IN_A_CLUSTER: Final = "; in a cluster also +cluster|slots +command"
WITH_REPLICAS: Final = "; with replicas in [store] also +wait"
_FIXES: Final = {
    "AuthenticationError": "correct the user and password in the URL of the store",
    "TimeoutError": "allow this machine to connect to Redis; if Redis is slow, raise the timeout of [store]",
    "NoPermissionError": PERMISSIONS + WITH_REPLICAS + IN_A_CLUSTER,
    # A command that a script may not use.
    "ResponseError": f"{PERMISSIONS}{WITH_REPLICAS}{IN_A_CLUSTER}; Redis has to be 6.2 or newer",
    "ReadOnlyError": "use the URL of the primary, not that of a replica",
    "MasterNotFoundError": "start the Sentinels, or correct their addresses and the name of the primary in the URL",
    "RedisClusterException": "start the nodes of the cluster; use redis+cluster:// only for a cluster",
    "MovedError": "this is a node of a cluster: begin the URL with redis+cluster:// or rediss+cluster://",
    "NotReplicated": "start the replicas, or lower replicas in [store]",
}


def check_store(engine: Engine, monotonic: Callable[[], float]) -> list[Finding]:
    """Check the store of the guard of *engine*. Its test values expire after a second."""
    store = engine.store
    if store is None:
        return []
    if not isinstance(store, RedisStore):
        return [skipped(SUBJECT, "server", f"{type(store).__name__} is not checked")]
    findings = [check_url(store)]
    try:
        begun = monotonic()
        _use(store, proofs=engine.checks_proofs)
        seconds = monotonic() - begun
        facts = store.facts()
    except AuthorityUnavailable as outage:
        problem = outage.detail.get("problem", "")
        fix = _FIXES.get(problem, "start Redis, or correct the URL of the store")
        return [*findings, error(SUBJECT, "connection", f"the store cannot be used: {problem}", fix=fix)]
    findings.append(ok(SUBJECT, "connection", f"reads, writes and scripts work, in {seconds * 1000:.0f} ms"))
    about = check_facts(
        facts, engine.clock.wall(), claims=engine.checks_proofs, kind=store.kind, replicas=store.replicas
    )
    return [*findings, *about]


def _use(store: RedisStore, *, proofs: bool) -> None:
    """Perform the operations of a guard with names that no guard uses. Adding to the log of revocations is left out,
    because every process would read the entry."""
    name = f"doctor:{secrets.token_hex(8)}"
    store.put(name, b"doctor", seconds=1)
    store.get(name)
    store.read(None)
    if proofs:
        store.claim(name.encode(), name, holder=name, seconds=1, total=1, per_owner=1, per_holder=1)


def check_url(store: RedisStore) -> Finding:
    """Check encryption and password of a store that is not on this machine."""
    if all(is_loopback(host) for host in store.hosts):
        return ok(SUBJECT, "url", "on this machine")
    hosts = ", ".join(store.hosts)
    reached = "are reached" if len(store.hosts) > 1 else "is reached"
    if not store.is_encrypted:
        text = f"{hosts} {reached} in cleartext: introspection answers and the password can be read and changed"
        fix = f"use rediss{'' if store.kind is Kind.SERVER else '+' + store.kind}://, and set secret in [store]"
        return warning(SUBJECT, "url", text, fix=fix)
    if not store.has_password:
        text = f"{hosts} {reached} without a password"
        return warning(SUBJECT, "url", text, fix="set a password in Redis and in the URL of the store")
    return ok(SUBJECT, "url", f"{hosts}, with TLS and a password")


def check_facts(
    servers: Sequence[ServerFacts], now: float, *, claims: bool, kind: Kind = Kind.SERVER, replicas: int = 0
) -> list[Finding]:
    """Check what each primary says about itself. Of the findings about one topic, return the worst.

    *claims*: whether used proofs are remembered there. *now* is in seconds since the epoch. *replicas*: how many must
    confirm what is written.
    """

    def worst(check: Callable[[ServerFacts], Finding]) -> Finding:
        found = [check(facts) for facts in servers]
        return max(found, key=lambda finding: _SEVERITY.index(finding.level))

    return [
        worst(_check_version),
        worst(lambda facts: _check_role(facts, kind, len(servers))),
        *(
            []
            if kind is Kind.SERVER and not replicas
            else [worst(lambda facts: _check_replicas(facts, replicas, claims=claims))]
        ),
        worst(lambda facts: _check_eviction(facts, claims=claims)),
        worst(lambda facts: _check_time(facts, now)),
    ]


def _check_version(facts: ServerFacts) -> Finding:
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal())
    if facts.product == "Redis" and numbers < _LEAST:
        text = f"Redis {facts.version} is older than 6.2"
        return error(SUBJECT, "version", text, fix="update Redis")
    return ok(SUBJECT, "version", f"{facts.product} {facts.version}")


def _check_role(facts: ServerFacts, kind: Kind, primaries: int) -> Finding:
    if facts.is_cluster and kind is not Kind.CLUSTER:
        text = "the server is a node of a cluster, and has only a part of the keys"
        fix = "begin the URL with redis+cluster:// or rediss+cluster://"
        return error(SUBJECT, "role", text, fix=fix)
    if facts.role != "master":
        text = f"the server is a {facts.role}, which refuses writes"
        return error(SUBJECT, "role", text, fix="use the URL of the primary")
    match kind:
        case Kind.SERVER:
            return ok(SUBJECT, "role", "primary")
        case Kind.SENTINEL:
            return ok(SUBJECT, "role", "primary, known to the Sentinels")
        case Kind.CLUSTER:
            return ok(SUBJECT, "role", f"cluster with {_count(primaries, 'primary', 'primaries')}")


def _check_replicas(facts: ServerFacts, replicas: int, *, claims: bool) -> Finding:
    """Check that replicas can confirm what is written: without them, a failover may lose it."""
    found = f"{facts.name or 'the primary'} has {_count(facts.replicas, 'replica', 'replicas')}"
    if facts.replicas < replicas:
        text = f"{found}, and {replicas} must confirm used proofs and revocations: until then, the answer is 503"
        return error(SUBJECT, "replicas", text, fix="start the replicas, or lower replicas in [store]")
    if replicas == 0 and claims:
        text = f"{found}, and none confirms used proofs: after a failover, the last ones could be used again"
        fix = f"set replicas = {facts.replicas} in [store]" if facts.replicas else "start replicas, and set replicas"
        return warning(SUBJECT, "replicas", text, fix=fix)
    if 0 < replicas < facts.replicas:
        text = f"{found}, of which {replicas} must confirm used proofs and revocations; the others may lack them"
        return ok(SUBJECT, "replicas", text)
    return ok(SUBJECT, "replicas", f"{found}; {replicas} must confirm used proofs and revocations")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _check_eviction(facts: ServerFacts, *, claims: bool) -> Finding:
    """Check that Redis evicts nothing: an evicted proof could be used again, and an evicted revocation is lost."""
    kept = "on disk (appendonly)" if facts.is_append_only else "in memory only (appendonly is off)"
    if facts.policy == _KEEPING or facts.max_memory == 0:
        limit = "maxmemory is not limited" if facts.max_memory == 0 else f"maxmemory-policy is {_KEEPING}"
        return ok(SUBJECT, "memory", f"{limit}; revocations are kept {kept}")
    text = f"maxmemory-policy is {facts.policy}: "
    fix = f"set maxmemory-policy {_KEEPING} in Redis"
    if claims:
        return error(SUBJECT, "memory", text + "a used proof may be forgotten, and could then be used again", fix=fix)
    return warning(SUBJECT, "memory", text + "a revocation may be forgotten", fix=fix)


def _check_time(facts: ServerFacts, now: float) -> Finding:
    offset = facts.time - now
    if abs(offset) > CLOCK_DIFFERENCE:
        text = (
            f"the clock of Redis is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} that of this machine"
        )
        return warning(SUBJECT, "clock", text, fix="synchronise both clocks (NTP)")
    return ok(SUBJECT, "clock", f"within {CLOCK_DIFFERENCE:.0f} s of this machine's")
