"""A slow, dead or lying policy decision point beside good traffic: only requests that need its decision suffer.

Tested on both edges. Kinds of fault: work for decisions that takes the places of other work, a queue without a bound,
and a caller that makes the decision point fail for others.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from doors import asgi_app, call_asgi, call_in_loop, call_wsgi, wsgi_app
from scenarios import Answered, Exchange
from scopeguard import Guard, Introspection, Issuer, Rule, asgi, wsgi
from scopeguard.edge.lanes import BOUNDS
from scopeguard.flow.effects import Answer, Lane
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority, FakeDecisionPoint, Network

DECISIONS = BOUNDS[Lane.DECISIONS]
PATIENCE = 30.0


class Api:
    """An API with a route that a decision point decides about, and one without."""

    def __init__(self, runtime: str, **settings: Any) -> None:
        self.runtime = runtime
        self.authority = FakeAuthority()
        self.pdp = FakeDecisionPoint()
        asking = Introspection(client_id="api", client_secret=self.authority.api.secret, ttl=0)
        opaque = Issuer(self.authority.url, audience=self.authority.audience, validate="auto", introspection=asking)
        self.guard = Guard(
            opaque,
            rules=[Rule("/decided/{name}", decide=self.pdp.authzen(**settings)), Rule("/plain")],
            transport=Network(self.authority, self.pdp),
            clock=self.authority.clock,
            refusal_log="off",
        )
        if runtime == "threads":
            self.send: Callable[[Exchange], Answered] = partial(
                call_wsgi, wsgi.GuardMiddleware(wsgi_app, guard=self.guard)
            )
        else:
            self.app = asgi.GuardMiddleware(asgi_app, guard=self.guard)
            self.send = call_in_loop(runtime, call_asgi, self.app)
        self.statuses: list[int] = []
        self.answered = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def exchange(self, path: str, subject: str = "alice", *, opaque: bool = False) -> Exchange:
        token = self.authority.mint(subject=subject, token_format="opaque" if opaque else "jwt")
        return Exchange(target=path, headers=((b"authorization", b"Bearer " + token.encode()),))

    def get(self, path: str, subject: str = "alice", *, opaque: bool = False) -> int:
        return self.send(self.exchange(path, subject, opaque=opaque)).status

    def flood(self, exchanges: list[Exchange]) -> None:
        if self.runtime == "threads":
            work: list[Callable[[], None]] = [partial(self._one, exchange) for exchange in exchanges]
        else:
            work = [partial(anyio.run, self._all, exchanges, backend=self.runtime)]
        threads = [threading.Thread(target=target) for target in work]
        for thread in threads:
            thread.start()
        self._threads += threads

    def end(self) -> Counter[int]:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a request never ends"
        return Counter(self.statuses)

    def _one(self, exchange: Exchange) -> None:
        self.statuses.append(self.send(exchange).status)
        self.answered.release()

    async def _all(self, exchanges: list[Exchange]) -> None:
        async def one(exchange: Exchange) -> None:
            self.statuses.append((await call_asgi(self.app, exchange)).status)
            self.answered.release()

        async with anyio.create_task_group() as group:
            for exchange in exchanges:
                group.start_soon(one, exchange)


@pytest.fixture(params=["threads", "asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.rule("Z-04")
def test_slow_decision_point_delays_no_keys_no_introspection_and_no_other_route(runtime: str):
    api = Api(runtime)
    assert api.get("/decided/warm") == 200
    most = DECISIONS.places_of_one + DECISIONS.waiting
    with api.pdp.transport.hold() as held:
        api.flood([api.exchange(f"/decided/{number}") for number in range(most + 40)])
        held.wait_for_requests(DECISIONS.places_of_one)
        # Requests beyond the queue get an answer at once.
        for _ in range(40):
            assert api.answered.acquire(timeout=PATIENCE), "requests wait that should have been refused"
        assert api.statuses == [503] * 40
        assert len(api.pdp.transport.sends) == 1 + DECISIONS.places_of_one
        assert api.get("/plain") == 200
        assert api.get("/plain", opaque=True) == 200
        api.authority.rotate(overlap=False)
        api.authority.clock.advance(60)
        assert api.get("/plain") == 200
    assert api.end() == {200: most, 503: 40}
    assert len(engine_of(api.guard).runtime.flights) == 0


@pytest.mark.rule("Z-04")
def test_dead_decision_point_costs_a_few_exchanges_and_recovers(runtime: str):
    api = Api(runtime, retries=0)
    api.pdp.go_down()
    assert {api.get("/decided/x", str(number)) for number in range(50)} == {503}
    assert len(api.pdp.transport.sends) == 3
    assert api.get("/plain") == 200
    api.authority.clock.advance(31)
    api.pdp.recover()
    assert {api.get("/decided/x", str(number)) for number in range(10)} == {200}


@pytest.mark.rule("Z-04")
def test_caller_whose_questions_fail_does_not_shut_others_out(runtime: str, monkeypatch: pytest.MonkeyPatch):
    api = Api(runtime)
    respond = api.pdp.respond
    slow = "mallory"

    def answer(request: Any) -> Answer:
        if f'"id":"{slow}"'.encode() in (request.content or b""):
            api.pdp.hang()
            try:
                return respond(request)
            finally:
                api.pdp.recover()
        return respond(request)

    monkeypatch.setattr(api.pdp.transport, "respond", answer)
    for number in range(20):
        assert api.get(f"/decided/{number}", slow) == 503
        assert api.get(f"/decided/{number}", "alice") == 200
        api.authority.clock.advance(1)


@pytest.mark.rule("Z-02")
def test_decision_point_that_lies_about_its_form_never_permits(runtime: str):
    api = Api(runtime)
    lies = [
        b"",
        b"\xff",
        b"true",
        b"[true]",
        b'{"decision":"true"}',
        b'{"decision":true,"decision":false}',
        b'{"decision":true}\x00',
        b'{"Decision":true}',
        b'{"decision":true' + b" " * 70_000 + b"}",
        b'{"decision":true,"context":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"decision":true,"x":1e999}',
    ]
    for number, body in enumerate(lies):
        api.pdp._fault = Answer(200, body, {"content-type": "application/json"})
        assert api.get(f"/decided/{number}", str(number)) == 503, body
        api.authority.clock.advance(60)
