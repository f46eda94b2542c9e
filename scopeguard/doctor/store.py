"""Checks of the shared store in Redis or Valkey, by the operations that a guard performs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from scopeguard.config.checks import is_loopback
from scopeguard.core.engine import Engine
from scopeguard.doctor.clocks import NOTABLE
from scopeguard.doctor.finding import Finding, error, ok, skipped, warning
from scopeguard.errors import AuthorityUnavailable
from scopeguard.stores.redis import RedisStore, ServerFacts

SUBJECT: Final = "store"
_LEAST: Final = (6, 2)
_KEEPING: Final = "noeviction"
PERMISSIONS: Final = (
    "allow the user of the store: +get +set +eval +time +info +xadd +xrange +xtrim +expire +multi +exec +zadd +zrange "
    "+zrem +zcount +zscore +pttl +pexpire, for the keys with the prefix of [store]"
)
_FIXES: Final = {
    "AuthenticationError": "correct the user and password in the URL of the store",
    "TimeoutError": "allow this machine to connect to Redis; if Redis is slow, raise the timeout of [store]",
    "NoPermissionError": PERMISSIONS,
    "ResponseError": f"{PERMISSIONS}; Redis has to be 6.2 or newer",  # a command that a script may not use
    "ReadOnlyError": "use the URL of the primary, not that of a replica",
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
    return [*findings, *check_facts(facts, engine.clock.wall(), claims=engine.checks_proofs)]


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
    if store.host is None or is_loopback(store.host):
        return ok(SUBJECT, "url", "on this machine")
    if not store.is_encrypted:
        text = f"{store.host} is reached in cleartext: introspection answers and the password can be read and changed"
        return warning(SUBJECT, "url", text, fix="use rediss://, and set secret in [store]")
    if not store.has_password:
        text = f"{store.host} is used without a password"
        return warning(SUBJECT, "url", text, fix="set a password in Redis and in the URL of the store")
    return ok(SUBJECT, "url", f"{store.host}, with TLS and a password")


def check_facts(facts: ServerFacts, now: float, *, claims: bool) -> list[Finding]:
    """Check what the server says about itself.

    *claims*: whether used proofs are remembered there. *now* is in seconds since the epoch.
    """
    return [_check_version(facts), _check_role(facts), _check_eviction(facts, claims=claims), _check_time(facts, now)]


def _check_version(facts: ServerFacts) -> Finding:
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    if facts.product == "Redis" and numbers < _LEAST:
        text = f"Redis {facts.version} is older than 6.2"
        return error(SUBJECT, "version", text, fix="update Redis")
    return ok(SUBJECT, "version", f"{facts.product} {facts.version}")


def _check_role(facts: ServerFacts) -> Finding:
    if facts.is_cluster:
        return error(SUBJECT, "role", "Redis Cluster is not supported", fix="use one server")
    if facts.role != "master":
        text = f"the server is a {facts.role}, which refuses writes"
        return error(SUBJECT, "role", text, fix="use the URL of the primary")
    return ok(SUBJECT, "role", "primary")


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
    if abs(offset) > NOTABLE:
        text = (
            f"the clock of Redis is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} that of this machine"
        )
        return warning(SUBJECT, "clock", text, fix="synchronise both clocks (NTP)")
    return ok(SUBJECT, "clock", f"within {NOTABLE:.0f} s of this machine's")
