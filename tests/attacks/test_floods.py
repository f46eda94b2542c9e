"""Floods of forged tokens beside valid ones: the work that attackers cause is bounded, and no other work waits
behind it. Tested on both edges."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from scopeguard import Guard, Introspection, Issuer, IssuerResolver
from scopeguard.edge.lanes import BOUNDS
from scopeguard.flow.effects import Answer, Lane, Send
from scopeguard.guard import Denied, Granted, Unavailable, engine_of
from scopeguard.reasons import Reason
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority
from storms import PATIENCE, Storm, request_with

OPAQUE = "https://opaque.test"
INTROSPECTION = BOUNDS[Lane.INTROSPECTION]
ORDINARY = INTROSPECTION.places_of_one - INTROSPECTION.reserved
MOST_ASKED = ORDINARY + INTROSPECTION.waiting
RUNTIMES = ("threads", "asyncio", "trio", "mixed")


class Upstream:
    """One authority that answers at once, and one with introspection whose answers a gate can hold back."""

    def __init__(self, good: FakeAuthority) -> None:
        self.good = good
        self.asked: list[str] = []
        self.active: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    def send(self, request: Send, /) -> Answer:
        if not request.url.startswith(OPAQUE):
            return self.good.transport.send(request)
        token = dict(request.form or ())["token"]
        self.asked.append(token)
        self.arrived.release()
        assert self.gate.wait(PATIENCE), "the gate was not opened"
        body = b'{"active":true,"aud":"https://api.example.com","scope":"read","client_id":"app"}'
        return Answer(200, body if token in self.active else b'{"active":false}', {"content-type": "application/json"})

    def close(self) -> None: ...

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE), "no request arrived"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(FakeAuthority())


def new_guard(upstream: Upstream, **options: Any) -> Guard:
    introspection = Introspection(
        client_id="api", client_secret="sg-secret-of-the-api", endpoint=f"{OPAQUE}/introspect", negative_ttl=0.001
    )
    opaque = Issuer(OPAQUE, audience="https://api.example.com", validate="introspection", introspection=introspection)
    return Guard(upstream.good.issuer, opaque, transport=upstream, clock=upstream.good.clock, **options)


@pytest.fixture
def guard(upstream: Upstream) -> Iterator[Guard]:
    guard = new_guard(upstream, store=MemoryStore(upstream.good.clock))
    yield guard
    upstream.gate.set()
    guard.close()


def junk(count: int) -> list[str]:
    return [f"junk-{secrets.token_urlsafe(12)}" for _ in range(count)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_flood_at_one_authority_is_bounded_and_does_not_affect_others(runtime: str, guard: Guard, upstream: Upstream):
    """The keys of the other issuer are fetched and the revocation log is read during the flood."""
    upstream.gate.clear()
    flood = Storm(runtime, guard)
    flood.start(junk(300))
    flood.wait_for_decisions(300 - MOST_ASKED)  # Refused at once, while all other requests wait.
    for decision in flood.decisions:
        assert isinstance(decision, Unavailable)
        assert decision.error.reason is Reason.TOO_MANY_WAITING
        assert int(dict(decision.response.headers)["retry-after"]) >= 1
    assert len(upstream.asked) == ORDINARY
    token = upstream.good.mint("read")
    assert isinstance(guard.check(request_with(token)), Granted)
    assert isinstance(anyio.run(guard.acheck, request_with(token)), Granted)
    upstream.gate.set()
    assert flood.end() == {"Unavailable": 300 - MOST_ASKED, "Denied": MOST_ASKED}
    assert len(upstream.asked) == MOST_ASKED


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_previously_accepted_token_has_priority(runtime: str, guard: Guard, upstream: Upstream):
    upstream.active.add("known")
    assert isinstance(guard.check(request_with("known")), Granted)
    upstream.wait_for(1)
    upstream.good.clock.advance(61)  # Its cached answer has expired.
    upstream.gate.clear()
    flood = Storm(runtime, guard)
    flood.start(junk(300))
    flood.wait_for_decisions(300 - MOST_ASKED)
    upstream.wait_for(ORDINARY)
    known = Storm("threads", guard)
    known.start(["known"])
    upstream.wait_for(1)
    assert upstream.asked[-1] == "known"
    upstream.gate.set()
    assert known.end() == {"Granted": 1}
    flood.end()


def test_token_that_became_inactive_loses_its_priority(guard: Guard, upstream: Upstream):
    asking = engine_of(guard).issuers.all[1].introspection
    assert asking is not None
    upstream.active.add("known")
    assert isinstance(guard.check(request_with("known")), Granted)
    (digest,) = asking.accepted._newer
    upstream.active.clear()
    upstream.good.clock.advance(61)
    assert isinstance(guard.check(request_with("known")), Denied)
    assert digest not in asking.accepted


@pytest.mark.anyio
async def test_cancelled_requests_cause_no_introspection(guard: Guard, upstream: Upstream):
    upstream.gate.clear()
    async with anyio.create_task_group() as group:
        for token in junk(MOST_ASKED):
            group.start_soon(guard.acheck, request_with(token))
        await anyio.to_thread.run_sync(upstream.wait_for, ORDINARY)
        group.cancel_scope.cancel()
    assert len(engine_of(guard).runtime.flights) == ORDINARY
    upstream.gate.set()
    await guard.aclose()
    assert len(upstream.asked) == ORDINARY


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hanging_look_ups_of_a_resolver_do_not_delay_known_issuers(runtime: str, upstream: Upstream):
    """All look-ups hang. Their number is limited, further ones are refused, and an issuer found before has priority."""
    gate, entered = threading.Event(), threading.Semaphore(0)
    tenant = FakeAuthority("https://tenant.test")
    tenant.clock = tenant.authority.clock = upstream.good.clock

    class Both(Upstream):
        def send(self, request: Send, /) -> Answer:
            own = request.url.startswith(tenant.url)
            return tenant.transport.send(request) if own else super().send(request)

    def resolve(name: str) -> Issuer | None:
        if name == tenant.url:
            return tenant.issuer
        entered.release()
        assert gate.wait(PATIENCE), "the gate was not opened"
        return None

    guard = new_guard(Both(upstream.good), resolver=IssuerResolver(accepts=lambda name: True, resolve=resolve, ttl=600))
    try:
        assert isinstance(guard.check(request_with(tenant.mint("read"))), Granted)
        upstream.good.clock.advance(601)
        bounds = BOUNDS[Lane.HOOKS]
        places = bounds.places_of_one - bounds.reserved
        flood = Storm(runtime, guard)
        names = [upstream.good.mint("read", claims={"iss": f"https://{i}.test"}) for i in range(300)]
        flood.start(names)
        flood.wait_for_decisions(300 - places - bounds.waiting)
        for _ in range(places):
            assert entered.acquire(timeout=PATIENCE), "no look-up began"
        assert isinstance(guard.check(request_with(tenant.mint("read"))), Granted)
        assert isinstance(guard.check(request_with(upstream.good.mint("read"))), Granted)
        gate.set()
        assert flood.end() == {"Unavailable": 300 - places - bounds.waiting, "Denied": places + bounds.waiting}
    finally:
        gate.set()
        guard.close()
