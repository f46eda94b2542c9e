"""Issuers that a resolver finds by the name in an unverified token. Attackers choose which, and how many.

Until a token of such an issuer was accepted, its outbound work is counted together with that of all others like it,
none of it has priority, and it pushes no other issuer out of memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from scopeguard import Guard, Introspection, Issuer, IssuerResolver, StatusListPolicy
from scopeguard.devserver.keys import SigningKey
from scopeguard.edge.lanes import BOUNDS
from scopeguard.flow.effects import Answer, Lane, Send, SingleFlight
from scopeguard.guard import Decision, Denied, Granted, Unavailable, engine_of
from scopeguard.testing import FakeAuthority, FakeClock
from scopeguard.testing.transport import Network
from storms import PATIENCE, Storm, request_with

API = "https://api.test"
NAMES = tuple("abcd")
RUNTIMES = ("threads", "asyncio", "trio", "mixed")


def tenant(name: str) -> str:
    return f"https://{name}.as.test"


class Scene:
    """Tenants that a resolver finds, a configured issuer, and every flight that the guard asks for."""

    def __init__(self, change: Callable[[Issuer], Issuer], max_issuers: int) -> None:
        clock = FakeClock()
        self.clock = clock
        self.tenants = {name: FakeAuthority(tenant(name), API, clock=clock) for name in NAMES}
        self.configured = FakeAuthority("https://configured.test", API, clock=clock)
        self.network = Network(self.configured, *self.tenants.values())
        self.looked_up: list[str] = []
        self.flights: list[SingleFlight] = []
        issuers = {authority.url: change(authority.issuer) for authority in self.tenants.values()}

        def resolve(name: str) -> Issuer | None:
            self.looked_up.append(name)
            return issuers.get(name)

        self.issuers = issuers
        resolver = IssuerResolver(
            accepts=lambda name: name.endswith(".as.test"), resolve=resolve, max_issuers=max_issuers
        )
        self.guard = Guard(self.configured.issuer, resolver=resolver, transport=self, clock=clock)
        runtime: Any = engine_of(self.guard).runtime
        answer = runtime._answer

        def record_flight(effect: object, *arguments: Any) -> Any:
            if isinstance(effect, SingleFlight):
                self.flights.append(effect)
            return answer(effect, *arguments)

        runtime._answer = record_flight

    def send(self, request: Send, /) -> Answer:
        if request.form is not None:
            body = b'{"active":true,"aud":"https://api.test","scope":"read","client_id":"app","sub":"s"}'
            return Answer(200, body, {"content-type": "application/json"})
        return self.network.send(request)

    def close(self) -> None: ...

    def forge_token(self, name: str) -> str:
        """Return a token that names a tenant and has a forged signature."""
        return self.tenants[name].mint("read", key=SigningKey.generate("ES256"))

    def check(self, token: str) -> tuple[Decision, list[SingleFlight]]:
        """Return the decision and the flights that it started in the lanes of issuers."""
        self.flights.clear()
        decision = self.guard.check(request_with(token))
        return decision, [flight for flight in self.flights if flight.account != "resolver"]

    @property
    def held(self) -> set[str]:
        resolved = engine_of(self.guard).issuers.resolved
        assert resolved is not None
        return {record.issuer.url for record in resolved.found}


@pytest.fixture
def new_scene() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(change: Callable[[Issuer], Issuer] = lambda issuer: issuer, *, max_issuers: int = 100) -> Scene:
        made.append(Scene(change, max_issuers))
        return made[-1]

    yield make
    for scene in made:
        scene.guard.close()


def fetch_keys_by_id(issuer: Issuer) -> Issuer:
    return replace(issuer, key_url_template=f"{issuer.url}/keys/{{kid}}")


def use_introspection(issuer: Issuer) -> Issuer:
    settings = Introspection(
        auth="bearer", bearer_token=lambda: "own-token", endpoint=f"{issuer.url}/introspect", ttl=0
    )
    return replace(issuer, validate="introspection", introspection=settings)


def use_status_lists(issuer: Issuer) -> Issuer:
    return replace(issuer, experimental_status_list=StatusListPolicy())


def verify_by_the_second_set(issuer: Issuer) -> Issuer:
    return replace(issuer, jwks_uri=[f"{issuer.url}/older", f"{issuer.url}/jwks"])


KINDS: dict[str, tuple[Callable[[Issuer], Issuer], set[Lane]]] = {
    "key sets": (lambda issuer: issuer, {Lane.KEYS}),
    "several key sets": (
        lambda issuer: replace(issuer, jwks_uri=[f"{issuer.url}/jwks", f"{issuer.url}/more"]),
        {Lane.KEYS},
    ),
    "keys by id": (fetch_keys_by_id, {Lane.KEYS}),
    "introspection": (use_introspection, {Lane.INTROSPECTION, Lane.HOOKS}),
    "status lists": (use_status_lists, {Lane.KEYS, Lane.STATUS_LISTS}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_new_issuers_share_one_account_without_priority(kind: str, new_scene: Callable[..., Scene]):
    change, lanes = KINDS[kind]
    scene = new_scene(change)
    headers = {"kid": "1d9cf9f5-8d0f-4b5c-9a3c-2f1f3d9a2b10"} if kind == "keys by id" else {}
    flights: list[SingleFlight] = []
    for name in NAMES[:2]:
        claims = {"status": {"status_list": {"uri": f"{tenant(name)}/statuses", "idx": 1}}}
        token = scene.tenants[name].mint("read", claims=claims if kind == "status lists" else {}, headers=headers)
        flights += scene.check(token)[1]
    assert {flight.lane for flight in flights} == lanes
    (account,) = {flight.account or flight.authority for flight in flights}
    assert account not in scene.issuers
    assert not any(flight.priority for flight in flights)


def test_issuer_has_an_account_and_priority_after_an_accepted_token(new_scene: Callable[..., Scene]):
    scene = new_scene()
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Granted)
    scene.clock.advance(3601)
    decision, (flight, *_) = scene.check(scene.tenants["a"].mint("read"))
    assert isinstance(decision, Granted)
    assert (flight.account, flight.priority) == (tenant("a"), True)


def test_forged_token_does_not_make_an_issuer_known(new_scene: Callable[..., Scene]):
    scene = new_scene()
    assert isinstance(scene.check(scene.forge_token("a"))[0], Denied)
    scene.clock.advance(3601)
    _, flights = scene.check(scene.forge_token("a"))
    assert flights
    assert not any(flight.priority for flight in flights)
    assert not any(flight.priority for flight in scene.flights), "looking it up again"
    assert {flight.account for flight in flights}.isdisjoint({tenant("a")})


def test_configured_issuer_has_priority_from_the_first_token(new_scene: Callable[..., Scene]):
    scene = new_scene()
    decision, (flight,) = scene.check(scene.configured.mint("read"))
    assert isinstance(decision, Granted)
    assert (flight.account, flight.priority) == (scene.configured.url, True)


def test_token_accepted_by_introspection_makes_its_issuer_known(new_scene: Callable[..., Scene]):
    scene = new_scene(use_introspection)
    token = scene.tenants["a"].mint("read")
    assert isinstance(scene.check(token)[0], Granted)
    decision, flights = scene.check(token)
    assert isinstance(decision, Granted)
    assert [(flight.account, flight.priority) for flight in flights] == [(tenant("a"), True)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hanging_key_sets_of_new_issuers_do_not_delay_configured_ones(runtime: str):
    configured, stranger = FakeAuthority("https://configured.test", API), SigningKey.generate("ES256")
    gate, arrived = threading.Event(), threading.Semaphore(0)

    class Hanging:
        def send(self, request: Send, /) -> Answer:
            if request.url.startswith(configured.url):
                return configured.transport.send(request)
            arrived.release()
            assert gate.wait(PATIENCE), "the gate was not opened"
            return Answer(503, b"")

        def close(self) -> None: ...

    resolver = IssuerResolver(
        accepts=lambda name: True, resolve=lambda name: Issuer(name, audience=API, jwks_uri=f"{name}/jwks")
    )
    guard = Guard(configured.issuer, resolver=resolver, transport=Hanging(), clock=configured.clock)
    bounds = BOUNDS[Lane.KEYS]
    places = bounds.places_of_one - bounds.reserved
    flood = Storm(runtime, guard)
    names = [configured.mint("read", claims={"iss": f"https://{i}.test"}, key=stranger) for i in range(100)]
    try:
        flood.start(names)
        for _ in range(places):
            assert arrived.acquire(timeout=PATIENCE), "no key set was asked for"
        flood.wait_for_decisions(100 - places - bounds.waiting)
        assert isinstance(guard.check(request_with(configured.mint("read"))), Granted)
    finally:
        gate.set()
        assert flood.end() == {"Unavailable": 100}
        guard.close()


# -- memory


def test_new_issuers_evict_no_issuer_with_an_accepted_token(new_scene: Callable[..., Scene]):
    scene = new_scene(max_issuers=2)
    for name in "ab":
        assert isinstance(scene.check(scene.tenants[name].mint("read"))[0], Granted)
    for name in "cdcd":
        assert isinstance(scene.check(scene.forge_token(name))[0], Denied)
    assert scene.held == {tenant("a"), tenant("b"), tenant("d")}
    scene.looked_up.clear()
    for name in "ab":
        assert isinstance(scene.check(scene.tenants[name].mint("read"))[0], Granted)
    assert scene.looked_up == []
    assert scene.tenants["a"].transport.count("jwks") == scene.tenants["b"].transport.count("jwks") == 1


def test_issuer_with_several_key_sets_is_kept_whichever_of_them_has_the_key(new_scene: Callable[..., Scene]):
    scene = new_scene(verify_by_the_second_set, max_issuers=1)
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Granted)
    for name in "bcbc":
        assert not isinstance(scene.check(scene.forge_token(name))[0], Granted)
    assert tenant("a") in scene.held
    scene.looked_up.clear()
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Granted)
    assert scene.looked_up == []
    assert scene.tenants["a"].transport.count("jwks") == 1


def test_new_issuers_use_the_remaining_capacity(new_scene: Callable[..., Scene]):
    scene = new_scene(max_issuers=3)
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Granted)
    for name in "bcd":
        assert isinstance(scene.check(scene.forge_token(name))[0], Denied)
    assert scene.held == {tenant("a"), tenant("c"), tenant("d")}


@pytest.mark.parametrize("change", [lambda issuer: issuer, verify_by_the_second_set])
def test_evicted_issuer_is_kept_again_after_an_accepted_token(
    change: Callable[[Issuer], Issuer], new_scene: Callable[..., Scene]
):
    """Other issuers evict it while its keys are fetched for its first token."""
    scene = new_scene(change, max_issuers=1)
    decisions: list[Decision] = []
    good = scene.tenants["a"].mint("read")
    with scene.tenants["a"].hold() as held:
        waiting = threading.Thread(target=lambda: decisions.append(scene.guard.check(request_with(good))))
        waiting.start()
        held.wait_for_requests()
        assert not isinstance(scene.guard.check(request_with(scene.forge_token("b"))), Granted)
        assert scene.held == {tenant("b")}
        held.release()
        waiting.join(PATIENCE)
    assert [type(decision) for decision in decisions] == [Granted]
    assert tenant("a") in scene.held
    scene.looked_up.clear()
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Granted)
    assert scene.looked_up == []


def test_issuer_that_the_resolver_dropped_meanwhile_is_not_kept_again(new_scene: Callable[..., Scene]):
    scene = new_scene(max_issuers=1)
    good = scene.tenants["a"].mint("read")
    with scene.tenants["a"].hold() as held:
        waiting = threading.Thread(target=lambda: scene.guard.check(request_with(good)))
        waiting.start()
        held.wait_for_requests()
        assert isinstance(scene.guard.check(request_with(scene.forge_token("b"))), Denied)
        del scene.issuers[tenant("a")]
        assert isinstance(scene.guard.check(request_with(scene.forge_token("a"))), Denied)
        held.release()
        waiting.join(PATIENCE)
    assert tenant("a") not in scene.held
    assert isinstance(scene.check(scene.tenants["a"].mint("read"))[0], Denied)


# -- metadata


def test_failed_key_set_fetch_keeps_the_introspection_endpoint():
    """Only the search for the key set starts again, as often as the pauses between its fetches allow."""
    authority = FakeAuthority("https://as.test", API)
    issuer = replace(
        authority.issuer, validate="auto", introspection=Introspection(client_id="api", client_secret="sg-secret-x")
    )
    searched: list[str] = []
    broken = True

    class Half:
        def send(self, request: Send, /) -> Answer:
            if "/.well-known/" in request.url:
                searched.append(request.url)
            if request.form is not None:
                return Answer(200, b'{"active":false}', {"content-type": "application/json"})
            if broken and request.url == metadata_of(authority):
                return Answer(503, b"")
            return authority.transport.send(request)

        def close(self) -> None: ...

    guard = Guard(issuer, transport=Half(), clock=authority.clock)
    assert isinstance(guard.check(request_with("opaque-0")), Denied)
    before = len(searched)
    for number in range(1, 6):
        assert isinstance(guard.check(request_with(authority.mint("read"))), Unavailable)
        assert isinstance(guard.check(request_with(f"opaque-{number}")), Denied)
        fetches = number - 1  # The first fetch uses the known metadata.
        assert len(searched) <= before + fetches
        authority.clock.advance(60)
    broken = False
    assert isinstance(guard.check(request_with(authority.mint("read"))), Granted)
    after = len(searched)
    assert isinstance(guard.check(request_with("opaque-last")), Denied)
    assert len(searched) == after
    guard.close()


def metadata_of(authority: FakeAuthority) -> str:
    """Return the URL of its key set."""
    return f"{authority.url}/jwks"
