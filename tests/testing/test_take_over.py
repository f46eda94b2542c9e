"""An app whose guard was made at module level is tested without changes, with every adapter."""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a function.

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    AccessToken,
    ConfigurationError,
    Guard,
    Introspection,
    Issuer,
    IssuerResolver,
    Rule,
    all_of,
    any_of,
    asgi,
    wsgi,
)
from scopeguard.edge.http import HttpxTransport
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.guard import engine_of
from scopeguard.starlette import requires
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority, FakeClock

URL, API = "https://auth.example.com", "https://api.example.com"
Call = Callable[[dict[str, str]], int]


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
    """The attributes of the engine of *guard*, except that it has logged a warning once."""
    return {name: value for name, value in vars(engine_of(guard)).items() if name != "_watches_cleartext"}


def asgi_door(guard: Guard) -> Call:
    app = asgi.GuardMiddleware(PlainTextResponse("in"), guard=guard, rules=[Rule("/", all_of("read"))])
    return lambda headers: TestClient(app).get("/", headers=headers).status_code


def wsgi_door(guard: Guard) -> Call:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"in"]

    client = Client(wsgi.GuardMiddleware(app, guard=guard, rules=[Rule("/", all_of("read"))]))
    return lambda headers: client.get("/", headers=headers).status_code


def starlette_door(guard: Guard) -> Call:
    @requires("read")
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    middleware: Any = Middleware(asgi.GuardMiddleware, guard=guard)
    client = TestClient(Starlette(routes=[Route("/", endpoint)], middleware=[middleware]))
    return lambda headers: client.get("/", headers=headers).status_code


def fastapi_door(guard: Guard) -> Call:
    app = FastAPI()
    protected = Protected(guard)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> str:
        return "in"

    client = TestClient(app)
    return lambda headers: client.get("/", headers=headers).status_code


def fastapi_requirement_door(guard: Guard) -> Call:
    app = FastAPI()
    protected = Protected(guard)

    @app.get("/", dependencies=[Depends(protected.requires(any_of("read", "all")))])
    async def endpoint() -> str:
        return "in"

    client = TestClient(app)
    return lambda headers: client.get("/", headers=headers).status_code


def flask_door(guard: Guard) -> Call:
    app = Flask("app")
    ScopeGuard(app, guard)
    app.add_url_rule("/", view_func=flask_requires("read")(lambda: "in"))
    return lambda headers: app.test_client().get("/", headers=headers).status_code


DOORS = [asgi_door, wsgi_door, starlette_door, fastapi_door, fastapi_requirement_door, flask_door]


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
