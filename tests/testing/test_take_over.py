"""An app whose guard was made at module level is tested without changes, with every adapter."""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a function.

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import anyio
import pytest
from fastapi import FastAPI, Security
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from doors import call_asgi
from scenarios import Exchange
from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    AccessToken,
    ConfigurationError,
    DPoP,
    Guard,
    Introspection,
    Issuer,
    IssuerResolver,
    Rule,
    all_of,
    asgi,
)
from scopeguard.edge.http import HttpxTransport
from scopeguard.fastapi import Protected
from scopeguard.guard import engine_of
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority, FakeClock, ProofKey
from testing_doors import DOORS, Call, asgi_door, wsgi_door

URL, API = "https://auth.example.com", "https://api.example.com"


class Offline:
    """Stands for the network, where a test must not go."""

    def send(self, request: Any, /) -> Any:
        raise AssertionError(f"the test went to the network: {request.url}")

    def close(self) -> None: ...


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority(URL, API)


def module_guard(*issuers: Issuer, **settings: Any) -> Guard:
    return Guard(*(issuers or (Issuer(URL, audience=API),)), **{"transport": Offline(), "audit": "off", **settings})


def parts(guard: Guard) -> dict[str, Any]:
    """The attributes of the engine of *guard*, except the rules that adapters have added to it."""
    return {name: value for name, value in vars(engine_of(guard)).items() if name != "_rules"}


@pytest.mark.parametrize("door", DOORS)
def test_an_authority_takes_over_the_guard_of_an_app(authority: FakeAuthority, door: Callable[[Guard], Call]):
    guard = module_guard()
    before = parts(guard)
    call = door(guard)
    with authority.takes_over(guard):
        assert call(authority.bearer("read")) == 200
        assert call(authority.bearer("other")) == 403
        assert call({}) == 401
        headers = authority.bearer("read", expires_in=100)
        assert [call(headers), call(headers)] == [200, 200]
        authority.clock.advance(200)
        assert call(headers) == 401
        with authority.outage():
            authority.rotate(overlap=False)
            authority.clock.advance(1_000_000)
            assert call(authority.bearer("read")) == 503
    assert parts(guard) == before


def test_state_of_the_guard_is_restored_after_the_block(authority: FakeAuthority):
    real = FakeAuthority(URL, API)
    guard = Guard(real.issuer, transport=real.transport, clock=real.clock)
    call = asgi_door(guard)
    headers = real.bearer("read")
    assert call(headers) == 200

    def broken_test() -> None:
        with authority.takes_over(guard):
            assert call(headers) == 401  # neither the token nor the key is known in here
            assert call(authority.bearer("read")) == 200
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_test()
    asked = len(real.requests)
    assert call(headers) == 200
    assert call(authority.bearer("read")) == 401
    assert len(real.requests) == asked + 1  # for the key of the other authority


@pytest.mark.parametrize(
    "settings",
    [
        {"keys": FakeAuthority().authority.keys.key_set(0)},
        {"jwks_uri": "https://keys.example.com/jwks"},
        {"jwks_file": "/nowhere/jwks.json"},
        {"metadata_url": "https://meta.example.com/"},
        {"key_url_template": "https://keys.example.com/{kid}"},
        {"jwks_uri": "https://keys.example.com/jwks", "jwks_ca_file": "/nowhere", "jwks_bearer_file": "/nowhere"},
    ],
    ids=" ".join,
)
def test_take_over_works_for_each_source_of_keys(authority: FakeAuthority, settings: dict[str, Any]):
    guard = module_guard(Issuer(URL, audience=API, **settings))
    with authority.takes_over(guard):
        assert asgi_door(guard)(authority.bearer("read")) == 200


def test_introspection_and_the_store_are_replaced_as_well(authority: FakeAuthority):
    class Broken(MemoryStore):
        def append(self, *arguments: Any, **settings: Any) -> None:
            raise AssertionError("the test wrote into the store")

    asked = Introspection(client_id="real", client_secret="secret", endpoint="https://as.example.com/introspect")
    issuer = Issuer(URL, audience=API, validate="auto", introspection=asked, opaque_prefixes=("real_",))
    guard = module_guard(issuer, store=Broken(FakeClock()))
    with authority.takes_over(guard):
        call = asgi_door(guard)
        token = authority.mint("read", token_format="opaque")
        assert call({"Authorization": f"Bearer {token}"}) == 200
        jwt = authority.mint("read")
        assert call({"Authorization": f"Bearer {jwt}"}) == 200
        guard.revoke(token=jwt)
        assert call({"Authorization": f"Bearer {jwt}"}) == 401


def test_authorities_take_over_one_after_the_other_and_others_get_no_request(authority: FakeAuthority):
    other = FakeAuthority("https://other.example.com", API, clock=authority.clock)
    third = FakeAuthority("https://third.example.com", API, clock=authority.clock)
    guard = module_guard(*(Issuer(each.url, audience=API) for each in (authority, other, third)))
    call = asgi_door(guard)
    with authority.takes_over(guard):
        with other.takes_over(guard):
            assert [call(each.bearer("read")) for each in (authority, other, third)] == [200, 200, 503]
        assert call(authority.bearer("read")) == 200


@pytest.mark.parametrize("is_async", [False, True])
def test_issuers_that_a_resolver_finds_are_taken_over(authority: FakeAuthority, is_async: bool):
    real = Issuer(URL, audience=API, jwks_uri="https://keys.example.com/jwks")
    known = {URL: real, "https://other.example.com": replace(real, url="https://other.example.com", keys=None)}

    async def find(name: str) -> Issuer | None:
        return known.get(name)

    resolver = IssuerResolver(accepts=lambda name: name != "nobody", resolve=find if is_async else known.get)
    guard = Guard(resolver=resolver, transport=Offline(), audit="off")
    call = asgi_door(guard)
    with authority.takes_over(guard):
        assert call(authority.bearer("read")) == 200
        assert call(FakeAuthority("https://unknown.example.com", API, clock=authority.clock).bearer("read")) == 401


@pytest.mark.parametrize(
    ("issuer", "authority", "says"),
    [
        (Issuer(URL, audience=API), FakeAuthority(), "give it the same URL, as in FakeAuthority('https://auth.exa"),
        (Issuer(URL, audience=API), FakeAuthority(URL), "use FakeAuthority(..., audience=...)"),
        (Issuer(URL, audience=API, algorithms=("RS256",)), FakeAuthority(URL, API), "algorithm='RS256'"),
    ],
    ids=["url", "audience", "algorithm"],
)
def test_mismatching_authority_is_refused_at_once(issuer: Issuer, authority: FakeAuthority, says: str):
    guard = module_guard(issuer)
    before = parts(guard)
    with pytest.raises(ConfigurationError) as error, authority.takes_over(guard):
        pass
    assert says in str(error.value)
    assert parts(guard) == before


def test_an_issuer_for_any_audience_takes_any_authority():
    issuer = Issuer(URL, audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"client_id": ["client"]})
    authority = FakeAuthority(URL)
    guard = module_guard(issuer)
    with authority.takes_over(guard):
        assert asgi_door(guard)(authority.bearer("read")) == 200


def test_only_a_guard_is_taken_over(authority: FakeAuthority):
    app: Any = object()
    with pytest.raises(ConfigurationError, match="takes_over: must be a"), authority.takes_over(app):
        pass


def test_requests_in_other_threads_take_part(authority: FakeAuthority):
    guard = module_guard()
    call = wsgi_door(guard)
    seen: list[int] = []
    with authority.takes_over(guard):
        threads = [threading.Thread(target=lambda: seen.append(call(authority.bearer("read")))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [200] * 8


def test_guard_without_a_take_over_uses_the_network():
    guard = Guard(Issuer(URL, audience=API))
    authority = FakeAuthority(URL, API, clock=FakeClock())
    with authority.takes_over(guard):
        assert engine_of(guard).clock is authority.clock
    assert isinstance(engine_of(guard).runtime.transport, HttpxTransport)


def test_guard_is_restored_after_an_exception(authority: FakeAuthority):
    guard, other = module_guard(), module_guard()
    before = parts(guard), parts(other)
    with pytest.raises(ZeroDivisionError), authority.takes_over(guard), authority.takes_over(other):
        _ = 1 / 0
    assert (parts(guard), parts(other)) == before


def test_authority_takes_over_several_guards_of_one_app(authority: FakeAuthority):
    inner, outer = module_guard(), module_guard()
    app = FastAPI()
    protected = Protected(inner)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> str:
        return "in"

    client = TestClient(asgi.GuardMiddleware(app, guard=outer))
    with authority.takes_over(inner), authority.takes_over(outer):
        assert client.get("/", headers=authority.bearer("read")).status_code == 200
        assert client.get("/", headers=authority.bearer("other")).status_code == 403
        assert client.get("/").status_code == 401


def test_block_may_be_nested_in_one_of_the_same_authority(authority: FakeAuthority):
    guard = module_guard()
    call = asgi_door(guard)
    with authority.takes_over(guard):
        inside = parts(guard)
        with authority.takes_over(guard):
            assert call(authority.bearer("read")) == 200
        assert parts(guard) == inside
        assert call(authority.bearer("read")) == 200


def test_proofs_of_possession_are_checked_with_the_clock_of_the_authority(authority: FakeAuthority):
    guard = module_guard(dpop=DPoP(mode="required", base_url=API))
    call, key = asgi_door(guard), ProofKey()
    with authority.takes_over(guard):
        headers = authority.dpop("read", key=key, method="GET", uri="https://api.example.com/")
        assert [call(headers), call(headers)] == [200, 401]  # a proof is accepted once
        assert call(authority.bearer("read", bound_to=key)) == 401
    with authority.takes_over(guard):  # which begins with empty memories
        assert call(headers) == 200


async def send(app: Any, headers: dict[str, str]) -> int:
    pairs = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    return (await call_asgi(app, Exchange(method="GET", target="/", headers=pairs))).status


@pytest.mark.parametrize(
    "run", [asyncio.run, lambda main: anyio.run(lambda: main, backend="trio")], ids=["asyncio", "trio"]
)
def test_async_tests_share_the_guard(authority: FakeAuthority, run: Callable[[Any], None]):
    guard = module_guard()
    app = asgi.GuardMiddleware(PlainTextResponse("in"), guard=guard, rules=[Rule("/", all_of("read"))])

    async def test() -> None:
        seen: list[int] = []

        async def request() -> None:
            seen.append(await send(app, authority.bearer("read")))

        with authority.takes_over(guard):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(request)
            assert seen == [200] * 8
            assert await send(app, {}) == 401

    run(test())
