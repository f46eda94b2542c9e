"""Proofs of possession (RFC 9449) through every adapter: the same answers, and one nonce in each."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import fastapi
import flask
import pytest
from aiohttp.test_utils import make_mocked_request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from doors import DOORS, Door, asgi_app, call_asgi, call_in_loop, call_wsgi, guard_for, wsgi_app
from framework_doors import FRAMEWORK_DOORS
from proof_doors import (
    KEY,
    NONCE_KEY,
    ORIGIN,
    PROOF_SCENARIOS,
    WITHOUT_MODES,
    ProofApi,
    ProofScenario,
    challenges,
    errors,
)
from scenarios import Answered, Exchange
from scopeguard import DPoP, Guard, Rule, TokenSources, all_of, asgi, wsgi
from scopeguard.aiohttp.requests import request_view as aiohttp_view
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.testing import FakeAuthority

ALL = (*DOORS, *FRAMEWORK_DOORS)
ADAPTERS = [door for door in ALL if door.saw]
SPA = (b"origin", b"https://spa.test")


@pytest.fixture(scope="module", params=ALL, ids=lambda door: door.name)
def api(request: pytest.FixtureRequest) -> ProofApi:
    return ProofApi(request.param)


@pytest.mark.rule("D-01", "D-06", "D-17", "D-44", "D-45", "D-46", "D-48", "D-49", "D-51", "D-52", "S-11")
@pytest.mark.parametrize("scenario", PROOF_SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_adapter_answers_alike(api: ProofApi, scenario: ProofScenario):
    if scenario.needs_modes and api.door.name in WITHOUT_MODES:
        assert api.send(scenario.make(api)).status == 200  # only a rule has a mode of its own
        return
    for _ in range(3):  # a token that was never seen, a remembered one, and one that is found by its field
        sent = scenario.make(api)
        answer = api.send(sent)
        assert (answer.status, errors(answer)) == (scenario.status, scenario.errors), answer
        for _, value in answer.headers:
            assert api.bound not in value
        if sent.method == "GET" and answer.status == 401:
            assert answer.all("cache-control") == ["no-store"]
            assert answer.json.get("error") == next(filter(None, errors(answer).values()), None)


@pytest.mark.rule("D-54", "D-58")
def test_each_adapter_accepts_a_proof_once(api: ProofApi):
    once = api.good()
    assert [api.send(once).status for _ in range(3)] == [200, 401, 401]
    assert errors(api.send(once))["DPoP"] == "invalid_dpop_proof"
    assert api.send(api.good()).status == 200


@pytest.mark.rule("D-26", "D-27", "D-28", "D-31", "D-32", "D-33", "D-70")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_each_adapter_asks_for_a_nonce_and_renews_it(door: Door):
    api = ProofApi(door, nonce_keys=[NONCE_KEY], nonce_lifetime=100)
    for wrong in ({}, {"nonce": "unknown"}):
        refused = api.send(api.good(claims=wrong))
        assert (refused.status, errors(refused)["DPoP"]) == (401, "use_dpop_nonce")
        (nonce,) = refused.all("dpop-nonce")
        assert refused.all("cache-control") == ["no-store"]
    young = api.send(api.good(claims={"nonce": nonce}))
    assert (young.status, young.all("dpop-nonce")) == (200, [])
    api.authority.clock.advance(60)
    for method in ("GET", "POST", "HEAD"):
        renewed = api.send(api.good(method=method, claims={"nonce": nonce}))
        assert renewed.status == 200
        (fresh,) = renewed.all("dpop-nonce")
        assert fresh != nonce
        assert renewed.all("cache-control") == ["no-store"]
    api.authority.clock.advance(41)
    assert api.send(api.good(claims={"nonce": nonce})).status == 401
    assert api.send(api.good(claims={"nonce": fresh})).status == 200


@pytest.mark.rule("D-69")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_a_proof_does_not_cover_query_fields_and_body(door: Door):
    api = ProofApi(door)
    for target, body in (("/both?a=1", b"x"), ("/both?a=2", b"y")):
        sent = api.request(api.proof(method="POST"), target=target, method="POST", more=((b"x-other", body),))
        answer = api.send(replace(sent, body=body))
        assert (answer.status, answer.json["body"]) == (200, body.decode())


@pytest.mark.rule("D-22", "D-23")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_no_field_of_the_request_changes_the_origin(door: Door):
    api = ProofApi(door)
    spoofed = (
        (b"x-forwarded-host", b"evil.test"),
        (b"x-forwarded-proto", b"http"),
        (b"forwarded", b"host=evil.test;proto=https"),
        (b"x-forwarded-prefix", b"/prefix"),
    )
    for uri in ("https://evil.test/both", "http://api.test/both", "https://api.test/prefix/both"):
        answer = api.send(api.request(api.proof(claims={"htu": uri}), more=spoofed))
        assert (answer.status, errors(answer)["DPoP"]) == (401, "invalid_dpop_proof")
    assert api.send(api.request(api.proof(), more=spoofed)).status == 200


# An app that sets a nonce and a cache policy itself, and one whose page is on another origin.


def guard_with_nonces(authority: FakeAuthority, **settings: Any) -> Guard:
    policy = DPoP(base_url=ORIGIN, nonce_keys=[NONCE_KEY], nonce_lifetime=100)
    return guard_for(authority, dpop=policy, audit="off", **settings)


OWN = {"DPoP-Nonce": "of-the-app", "Cache-Control": "public, max-age=60"}


async def asgi_with_own_nonce(scope: Any, receive: Any, send: Any) -> None:
    await JSONResponse({}, headers=OWN)(scope, receive, send)


def wsgi_with_own_nonce(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Access-Control-Allow-Origin", "https://spa.test"), *OWN.items()])
    return [b"{}"]


def _asgi(guard: Guard) -> Any:
    app = CORSMiddleware(asgi_with_own_nonce, allow_origins=["https://spa.test"])
    return call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(app, guard=guard))


def _wsgi(guard: Guard) -> Any:
    app = wsgi.GuardMiddleware(wsgi_with_own_nonce, guard=guard)
    return lambda exchange: call_wsgi(app, exchange)


def _fastapi(guard: Guard, *, inside: bool = False) -> Any:
    app = fastapi.FastAPI()

    @app.get("/both", dependencies=[fastapi.Depends(Protected(guard))])
    async def both() -> JSONResponse:
        return JSONResponse({}, headers=OWN)

    if inside:
        app.add_middleware(asgi.GuardMiddleware, guard=guard)
    app.add_middleware(CORSMiddleware, allow_origins=["https://spa.test"])
    return call_in_loop("asyncio", call_asgi, app)


def _fastapi_behind(guard: Guard) -> Any:
    return _fastapi(guard, inside=True)


def _fastapi_injected(guard: Guard) -> Any:
    app = fastapi.FastAPI()

    @app.get("/both", dependencies=[fastapi.Depends(Protected(guard))])
    async def both(response: fastapi.Response) -> dict[str, str]:
        response.headers.update(OWN)
        return {}

    app.add_middleware(CORSMiddleware, allow_origins=["https://spa.test"])
    return call_in_loop("trio", call_asgi, app)


def _flask(guard: Guard) -> Any:
    app = flask.Flask(__name__, static_folder=None)
    ScopeGuard(app, guard)
    app.add_url_rule("/both", "both", flask_requires("read")(lambda: ({}, OWN)))
    return lambda exchange: call_wsgi(app, exchange)


APPS = [_asgi, _wsgi, _fastapi, _fastapi_behind, _fastapi_injected, _flask]


@pytest.mark.rule("D-31", "D-33", "B-58")
@pytest.mark.parametrize("make", APPS, ids=lambda make: make.__name__.strip("_"))
def test_the_nonce_replaces_that_of_the_app_and_scripts_can_read_it(make: Any):
    api = ProofApi(DOORS[0])
    send = make(guard_with_nonces(api.authority, cors_preflight="pass"))

    def ask(**claims: Any) -> Answered:
        answer: Answered = send(api.request(api.proof(claims=claims), more=(SPA,)))
        return answer

    refused = ask()
    (nonce,) = refused.all("dpop-nonce")
    exposed = ", ".join(refused.all("access-control-expose-headers")).lower().split(", ")
    assert sorted(exposed) == ["dpop-nonce", "www-authenticate"]
    api.authority.clock.advance(60)
    renewed = ask(nonce=nonce)
    assert renewed.status == 200
    (fresh,) = renewed.all("dpop-nonce")
    assert fresh not in (nonce, "of-the-app")
    assert renewed.all("cache-control") == ["no-store"]
    assert renewed.all("access-control-expose-headers") == ["DPoP-Nonce"]
    assert ask(nonce=fresh).status == 200


@pytest.mark.rule("D-75")
def test_layers_and_dependencies_of_one_request_accept_one_proof():
    api = ProofApi(DOORS[0])
    guard, other = guard_with_nonces(api.authority), guard_for(api.authority, dpop=DPoP(base_url=ORIGIN), audit="off")
    protected, own_sources = Protected(guard), Protected(guard, token_sources=("header",))
    app = fastapi.FastAPI()

    @app.get("/both", dependencies=[fastapi.Depends(each) for each in (protected, own_sources, Protected(other))])
    async def both() -> dict[str, str]:
        return {}

    app.add_middleware(asgi.GuardMiddleware, guard=guard)
    layered = asgi.GuardMiddleware(app, guard=other)
    in_wsgi = wsgi.GuardMiddleware(wsgi.GuardMiddleware(wsgi_app, guard=guard), guard=other)
    for send in (call_in_loop("asyncio", call_asgi, layered), lambda exchange: call_wsgi(in_wsgi, exchange)):
        nonce = send(api.good()).all("dpop-nonce")[0]
        exchange = api.good(claims={"nonce": nonce})
        assert [send(exchange).status for _ in range(2)] == [200, 401]


@pytest.mark.rule("D-52", "D-68")
def test_other_places_hold_no_bound_token():
    api = ProofApi(DOORS[0])
    sources = TokenSources(methods=["header", "forwarded", "subprotocol"], trusted_proxies=["192.0.2.1"])
    guard = guard_for(api.authority, dpop=DPoP(base_url=ORIGIN), token_sources=sources, audit="off")
    proof = (b"dpop", api.proof().encode())
    sends = (
        call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard)),
        lambda exchange: call_wsgi(wsgi.GuardMiddleware(wsgi_app, guard=guard), exchange),
    )
    for send in sends:
        for scheme, status in (("DPoP", 401), ("Bearer", 401)):
            field = (b"x-forwarded-authorization", f"{scheme} {api.bound}".encode())
            assert send(Exchange(headers=(field, proof))).status == status
        assert send(api.request(proof[1].decode())).status == 200
        proof = (b"dpop", api.proof().encode())


@pytest.mark.rule("D-23", "D-67")
@pytest.mark.parametrize(("path", "raw"), [("/v1/both", b"/v1/both"), ("/both", b"/both"), ("/v1both", b"/v1both")])
def test_the_mount_prefix_is_part_of_the_uri(path: str, raw: bytes):
    scope = {"type": "http", "path": path, "raw_path": raw, "root_path": "/v1", "headers": ()}
    expected = b"/v1/both" if path == "/v1/both" else b"/v1" + raw
    assert asgi.full_raw_path(scope) == expected


def test_request_as_debuggers_show_it_has_no_token_of_the_query():
    """Pages and services for exceptions show the local variables of each frame around the app."""
    target, query = "/x?access_token=sg-token", "access_token=sg-token"
    scope = {"type": "http", "path": "/x", "raw_path": target.encode(), "query_string": query.encode(), "headers": ()}
    views = [asgi.request_view(scope, "GET", with_proofs=True)]
    for name in ("RAW_URI", "REQUEST_URI"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "QUERY_STRING": query, name: target}
        views.append(wsgi.request_view(environ, with_proofs=True))
    transport: Any = SimpleNamespace(get_extra_info=lambda name, default=None: default)
    views.append(aiohttp_view(make_mocked_request("GET", target, transport=transport), with_proofs=True))
    for view in views:
        assert view.raw_path == b"/x"
        assert "sg-token" not in repr(view)


@pytest.mark.rule("D-51")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_a_guard_that_requires_proofs_offers_no_bearer(door: Door):
    api = ProofApi(door, mode="required")
    for exchange in (Exchange(), api.request(scheme="Bearer", token=api.unbound), api.request(scheme="Bearer")):
        for _ in range(3):
            answer = api.send(exchange)
            assert (answer.status, list(challenges(answer))) == (401, ["DPoP"])
    assert api.send(api.good()).status == 200


def test_a_rule_with_a_mode_alone_makes_the_guard_check_proofs():
    api = ProofApi(DOORS[0])
    rules = [Rule("/bound", all_of("read"), dpop="required"), Rule("/both", all_of("read"))]
    guard = guard_for(api.authority, rules=rules, resource=ORIGIN, audit="off")
    send = call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard))
    assert send(api.good("/bound")).status == 200
    assert send(api.request(scheme="Bearer", token=api.unbound, target="/bound")).status == 401
    assert send(api.request(scheme="Bearer", token=api.unbound)).status == 200


class Socket:
    """Handshakes of a websocket at ``/ws``, and the first message that the server sends."""

    def __init__(self, guard: Guard, authority: FakeAuthority) -> None:
        self.app = asgi.GuardMiddleware(self._accept, guard=guard)
        self.authority = authority
        self.token = authority.mint("read", bound_to=KEY)

    @staticmethod
    async def _accept(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": []})
        await send({"type": "websocket.close", "code": 1000})

    def open(self, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        offered = [value.decode() for name, value in headers if name == b"sec-websocket-protocol"]
        scope = {
            "type": "websocket", "scheme": "wss", "path": "/ws", "raw_path": b"/ws", "query_string": b"",
            "root_path": "", "headers": list(headers), "client": ("192.0.2.1", 1), "state": {},
            "extensions": {"websocket.http.response": {}}, "subprotocols": ", ".join(offered).split(", "),
        }  # fmt: skip
        anyio.run(self.app, scope, receive, send)
        first: dict[str, Any] = sent[0]
        return first

    def proof(self, **claims: Any) -> tuple[bytes, bytes]:
        now = self.authority.clock.wall()
        return b"dpop", KEY.proof(self.token, "GET", "wss://api.test/ws", at=now, claims=claims).encode()

    def authorization(self, scheme: str = "DPoP") -> tuple[bytes, bytes]:
        return b"authorization", f"{scheme} {self.token}".encode()


@pytest.mark.rule("D-32", "D-44", "D-54", "D-67")
def test_a_websocket_is_opened_with_a_proof():
    authority = FakeAuthority()
    socket = Socket(guard_with_nonces(authority), authority)
    refused = socket.open(socket.authorization(), socket.proof())
    assert refused["status"] == 401
    nonce = dict(refused["headers"])[b"dpop-nonce"].decode()
    authority.clock.advance(60)
    proof = socket.proof(nonce=nonce)
    accepted = socket.open(socket.authorization(), proof)
    assert accepted["type"] == "websocket.accept"
    assert [name for name, _ in accepted["headers"]].count(b"dpop-nonce") == 1
    assert socket.open(socket.authorization(), proof)["status"] == 401
    assert socket.open(socket.authorization("Bearer"), socket.proof(nonce=nonce))["status"] == 401


@pytest.mark.rule("D-52")
def test_a_subprotocol_holds_no_bound_token():
    authority = FakeAuthority()
    sources = TokenSources(methods=["header", "subprotocol"])
    guard = guard_for(authority, dpop=DPoP(base_url=ORIGIN), token_sources=sources, audit="off")
    socket = Socket(guard, authority)
    unbound = authority.mint("read")
    for token, opened in ((socket.token, False), (unbound, True)):
        offer = (b"sec-websocket-protocol", f"chat, bearer, {token}".encode())
        assert (socket.open(offer, socket.proof())["type"] == "websocket.accept") is opened
