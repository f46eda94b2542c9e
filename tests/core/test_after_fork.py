"""A child process has none of its parent's threads: a lock that one of them held must not block the child."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from forked import Child
from scopeguard import Guard, Introspection, Issuer, IssuerResolver, ScopeCatalog, presets
from scopeguard.config.status_list import StatusListPolicy
from scopeguard.core.wiring import build_issuer_record
from scopeguard.edge.lanes import WorkLane
from scopeguard.edge.single_flight import Flights
from scopeguard.edge.threads import Threads
from scopeguard.guard import engine_of
from scopeguard.security_events import SecurityEventReceiver
from scopeguard.state import fork
from scopeguard.state.breaker import Breaker
from scopeguard.state.introspection import IntrospectionCache
from scopeguard.state.issuers import ResolvedIssuers
from scopeguard.state.key_by_id import KeysById
from scopeguard.state.keys import KeyRing
from scopeguard.state.own_bearer import OwnBearer
from scopeguard.state.revocation import Revocations
from scopeguard.state.security_event import ProcessedEvents
from scopeguard.state.status_list import StatusLists

LOCK: type = type(threading.Lock())
OURS = {
    IntrospectionCache,
    Breaker,
    Flights,
    OwnBearer,
    KeyRing,
    ResolvedIssuers,
    Revocations,
    ProcessedEvents,
    StatusLists,
    Threads,
    WorkLane,
}


def locks(thing: object, seen: set[int] | None = None) -> Iterator[tuple[type, Any]]:
    """Yield every lock reachable from *thing* through objects of this project, with the class that holds it."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping):
        parts: list[object] = list(thing.values())
    elif isinstance(thing, list | tuple | set | frozenset):
        parts = list(thing)
    elif type(thing).__module__.startswith("scopeguard"):
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [*vars(thing).values()] if hasattr(thing, "__dict__") else []
        parts += [getattr(thing, name) for name in names if hasattr(thing, name)]
    else:
        return
    for part in parts:
        if isinstance(part, LOCK):
            yield type(thing), part
        else:
            yield from locks(part, seen)


def test_after_fork_replaces_each_lock_of_an_issuer(monkeypatch: pytest.MonkeyPatch):
    """Without a fork, so that coverage sees it, and with this test's objects only."""
    monkeypatch.setattr(fork, "_every", weakref.WeakSet())
    issuer = Issuer(
        "https://as.test",
        audience="x",
        validate="auto",
        introspection=Introspection(client_id="a", client_secret="s"),
        experimental_status_list=StatusListPolicy(),
    )
    keys_by_id = presets.aws_alb(
        "eu-central-1",
        ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/name/6284be65b827c598"],
        "https://pool.test",
        ["client"],
    )
    state = [build_issuer_record(each, ScopeCatalog(), ()) for each in (issuer, keys_by_id)]
    held = list(locks(state))
    assert {owner for owner, _ in held} >= {KeyRing, KeysById, IntrospectionCache, Breaker, StatusLists}
    for _, lock in held:
        lock.acquire()
    fork._renew_all()
    assert [owner for owner, lock in locks(state) if lock.locked()] == []


def test_lock_held_in_the_parent_does_not_block_a_child():
    found = Issuer(
        "https://found.test",
        audience="x",
        validate="auto",
        introspection=Introspection(client_id="a", client_secret="s"),
        experimental_status_list=StatusListPolicy(),
    )
    guard = Guard(
        Issuer("https://as.test", audience="x", validate="auto", introspection=found.introspection),
        resolver=IssuerResolver(accepts=lambda name: name == found.url, resolve=lambda name: found),
    )
    resolved = engine_of(guard).issuers.resolved
    assert resolved is not None
    resolved.absorb(found.url, found, engine_of(guard).clock.monotonic())
    transmitter = Issuer("https://ssf.test", audience="x", experimental_status_list=StatusListPolicy())
    receiver = SecurityEventReceiver(
        guard, authorization="Bearer sg-secret", issuer="https://as.test", transmitter=transmitter
    )

    def check() -> None:
        for owner, lock in locks([guard, receiver]):
            assert lock.acquire(timeout=1), owner

    held = list(locks([guard, receiver]))
    assert {owner for owner, _ in held} >= OURS  # Otherwise the test would prove nothing.
    for _, lock in held:
        lock.acquire()
    child = Child(check)
    for _, lock in held:
        lock.release()
    assert child.ok()
