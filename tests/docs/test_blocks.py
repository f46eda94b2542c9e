"""Every block of code in the README and under docs/ runs, and does what the text around it says."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import prometheus_client
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import scopeguard
from algorithms import ML_DSA_HERE
from documentation import BLOCKS, NAMED, README, run
from environment import ROOT, plain_environment
from loopback import Certificates
from scopeguard import Guard, HeaderList, Issuer, RequestView, RevocationPolicy, presets
from scopeguard.asgi import GuardMiddleware
from scopeguard.cli.commands import cli
from scopeguard.client import DPoPKey, TokenEndpointError, TokenExchange
from scopeguard.config.file import settings_from
from scopeguard.devserver import Client
from scopeguard.devserver.keys import SigningKey, compact
from scopeguard.doctor.store import IN_A_CLUSTER, PERMISSIONS, WITH_REPLICAS
from scopeguard.edge.http import HttpxTransport
from scopeguard.guard import engine_of
from scopeguard.mcp import Tool
from scopeguard.spec.api_key import read_keys
from scopeguard.spec.mcp import Message
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority, FakeDecisionPoint, Network, ProofKey, bad_proofs
from scopeguard.wsgi import GuardMiddleware as WSGIGuard

ISSUER, API = "https://auth.example.com", "https://api.example.com"
ETL = "spiffe://prod.example.com/ns/etl"
LOCAL_ISSUER, LOCAL_API = "http://127.0.0.1:9000", "http://127.0.0.1:8000"


def _make_reachable(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """Let guards and clients that are created with their defaults reach *authority*."""
    for module in ("scopeguard.guard", "scopeguard.client.repeated_token_requests"):
        monkeypatch.setattr(f"{module}.HttpxTransport", lambda: authority.transport)
    return authority


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """The authorization server of the pages under docs/."""
    return _make_reachable(FakeAuthority(ISSUER, audience=API, scopes=["bigquery.insertdata"]), monkeypatch)


@pytest.fixture
def devserver(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """The authorization server of the README, where ``scopeguard devserver`` listens."""
    return _make_reachable(
        FakeAuthority(LOCAL_ISSUER, audience=LOCAL_API, scopes=["rows.read", "rows.write"]), monkeypatch
    )


def asgi_app() -> Starlette:
    async def answer(_: Any) -> PlainTextResponse:
        token = scopeguard.access_token_or_none()
        return PlainTextResponse("nobody" if token is None else str(token.client_id))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


def wsgi_app(_: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def _check_asgi(authority: FakeAuthority) -> None:
    client = TestClient(run("asgi", app=asgi_app())["app"])
    assert client.get("/healthz").text == "nobody"
    assert client.get("/rows").headers["www-authenticate"] == 'Bearer realm="api"'
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"


def _check_wsgi(authority: FakeAuthority) -> None:
    app = run("wsgi", application=wsgi_app)["application"]
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url=API) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/rows").status_code == 401
        assert client.get("/rows", headers=authority.bearer("read")).status_code == 200


def _check_starlette(authority: FakeAuthority) -> None:
    client = TestClient(run("starlette")["app"])
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery.insertdata")).json() == {"client": "client"}


def _check_fastapi(authority: FakeAuthority) -> None:
    client = TestClient(run("fastapi")["app"])
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery.insertdata")).json() == {"client": "client"}
    assert client.get("/rows", headers=authority.bearer("bigquery", subject="ann")).json() == {"subject": "ann"}
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["OAuth2"]["flows"]["clientCredentials"]["tokenUrl"] == f"{ISSUER}/token"


def _check_fastapi_swagger(authority: FakeAuthority) -> None:
    client = TestClient(run("fastapi_swagger")["app"])
    flows = client.get("/openapi.json").json()["components"]["securitySchemes"]["OAuth2"]["flows"]
    assert {name: flow["scopes"] for name, flow in flows.items()} == {
        "clientCredentials": {"rows.read": "Read rows"},
        "authorizationCode": {"rows.read": "Read rows"},
    }
    assert '"usePkceWithAuthorizationCodeGrant": true' in client.get("/docs").text
    assert '"clientId": "swagger"' in client.get("/docs").text
    assert client.get("/rows", headers=authority.bearer("rows.read")).status_code == 200


def _check_fastapi_middleware(authority: FakeAuthority) -> None:
    names = run("fastapi")
    app = run("fastapi_middleware", **names)["app"]
    app.add_api_route("/unmarked", lambda: "reached", methods=["GET"])
    client = TestClient(app)
    assert client.get("/unmarked").status_code == 401
    assert client.get("/unmarked", headers=authority.bearer("read")).status_code == 200
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.get("/openapi.json").status_code == client.get("/docs").status_code == 200


def _check_fastapi_documentation_file(authority: FakeAuthority) -> None:
    document = {
        "issuers": [{"url": ISSUER, "audience": API}],
        **tomllib.loads(NAMED["fastapi_documentation_file"].source),
    }
    issuers, arguments = settings_from(document, ROOT)
    app = FastAPI()
    app.get("/rows")(lambda: "reached")
    paths = {app.docs_url, app.swagger_ui_oauth2_redirect_url, app.redoc_url, app.openapi_url}
    client = TestClient(GuardMiddleware(app, guard=Guard(*issuers, **arguments)))
    assert {path: client.get(str(path)).status_code for path in paths} == dict.fromkeys(paths, 200)
    assert client.get("/rows").status_code == 401


def _check_flask(authority: FakeAuthority) -> None:
    client = run("flask")["app"].test_client()
    assert client.get("/healthz").status_code == 404  # public, and there is no such route
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery")).json == {"client": "client"}


def _check_rules(authority: FakeAuthority) -> None:
    client = TestClient(run("rules", app=asgi_app())["app"])
    reader = authority.bearer("bigquery.readonly")
    assert client.get("/tables/x/rows", headers=reader).status_code == 200
    assert client.post("/tables/x/rows", headers=reader).status_code == 403
    token = authority.mint("bigquery.readonly")
    assert client.get("/tables/x/export", params={"access_token": token}).status_code == 200
    assert client.get("/tables/x/rows", params={"access_token": token}).status_code == 401
    assert client.get("/me", headers=authority.bearer()).text == "client"
    assert client.get("/news/today").text == "nobody"
    assert client.get("/news/today", headers=authority.bearer(expires_in=-60)).status_code == 401
    assert client.get("/elsewhere", headers=reader).status_code == 403
    assert client.get("/healthz").status_code == 200


def _check_proxies_file(_: FakeAuthority) -> None:
    """The issuer is ``scopeguard devserver``, and the requests are those that the page sends."""
    authority = FakeAuthority(LOCAL_ISSUER, audience="http://127.0.0.1:8080")
    issuers, arguments = settings_from(tomllib.loads(NAMED["proxies_file"].source), ROOT)
    guard = Guard(*issuers, **{**arguments, "transport": authority.transport, "clock": authority.clock})
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    reader, writer = authority.bearer("rows.read"), authority.bearer("rows.write")
    calls = [("GET", "/rows/stations"), ("DELETE", "/rows/stations"), ("GET", "/me"), ("GET", "/else")]
    assert [client.request(*call, headers=reader).status_code for call in calls] == [200, 403, 200, 403]
    assert client.delete("/rows/stations", headers=writer).status_code in (200, 405)
    assert client.get("/healthz").status_code == 200


def _check_client(authority: FakeAuthority) -> None:
    """The API of the block is answered here, the token request by the authority."""
    seen: list[str] = []

    def send(_: object, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{API}/insert"
        seen.append(request.headers["authorization"])
        return httpx.Response(200, request=request)

    loader = Client(client_id="loader", secret="a password", scopes=["bigquery.insertdata"])
    authority.authority.registry.add_client(loader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", send)
        patch.setenv("CLIENT_SECRET", "a password")
        run("client")
    assert len(seen) == 1
    assert authority.authority.tokens.find(seen[0].removeprefix("Bearer ")) is not None


def _check_introspection(authority: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_SECRET", authority.api.secret)
        guard = run("introspection")["guard"]
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    opaque = {"authorization": f"Bearer {authority.mint('read', token_format='opaque')}"}
    assert client.get("/rows", headers=opaque).text == "client"
    assert client.get("/rows", headers=opaque).text == "client"
    assert authority.transport.count("introspection") == 1
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"
    assert authority.transport.count("introspection") == 1
    guard.close()


def _check_introspection_file(authority: FakeAuthority) -> None:
    environment = {"API_SECRET": authority.api.secret}
    issuers, _ = settings_from(tomllib.loads(NAMED["introspection_file"].source), ROOT, environment=environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_SECRET", authority.api.secret)
        assert issuers == run("introspection")["guard"].issuers


def _check_introspection_flask(_: FakeAuthority) -> None:
    authority = FakeAuthority(LOCAL_ISSUER, audience=LOCAL_API)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_SECRET", authority.api.secret)
        names = run("introspection_flask")
    client = names["app"].test_client()
    with authority.takes_over(names["guard"]):
        for scope, status in (("rows.write", 200), ("rows.write", 200), ("rows.read", 403)):
            token = authority.mint(scope, token_format="opaque")
            headers = {"Authorization": f"Bearer {token}"}
            assert [client.post("/rows/a", headers=headers).status_code for _ in range(2)] == [status] * 2
        assert authority.transport.count("introspection") == 3


def _check_revocation(authority: FakeAuthority) -> None:
    guard = Guard(authority.issuer, clock=authority.clock)
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    token = authority.mint("read")
    revoked = [{"authorization": f"Bearer {token}"}, authority.bearer("read", subject="ann")]
    others = [authority.bearer("read"), authority.bearer("read", client_id="loader")]
    for headers in (*revoked, *others):
        assert client.get("/rows", headers=headers).status_code == 200
    run("revocation", guard=guard)["log_out"](token)
    assert [client.get("/rows", headers=headers).status_code for headers in revoked] == [401, 401]
    assert client.get("/rows", headers=others[0]).status_code == 200
    guard.close()


def _check_streams(authority: FakeAuthority) -> None:
    names = run("streams")
    client = TestClient(names["app"])
    with client.websocket_connect("/rows", headers=authority.bearer("rows.read", subject="ann")) as socket:
        socket.send_json({"token": authority.mint("rows.read", subject="ann", expires_in=7200)})
        assert socket.receive_json() == {"until": int(authority.clock.wall()) + 7200}
        socket.send_json({"token": authority.mint("rows.read", subject="bob")})
        assert "not for the user and client" in socket.receive_json()["refused"]
        socket.send_json({"token": authority.mint("other", subject="ann")})  # lacks the scope of @requires
        assert "lacks a scope" in socket.receive_json()["refused"]
        socket.send_json({})
        assert "refused" in socket.receive_json()
        names["guard"].revoke(subject="ann")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert (closed.value.code, closed.value.reason) == (1008, "The access token was revoked")


def _check_contract(authority: FakeAuthority) -> None:
    scopes = {"read": "Read rows"}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "rows", "version": "1"},
        "components": {
            "securitySchemes": {
                "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": scopes}}}
            }
        },
        "paths": {"/rows": {"get": {"security": [{"oauth": ["read"]}], "responses": {}}, "post": {"responses": {}}}},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("openapi.json").write_text(json.dumps(document), "utf-8")
        guard = run("contract")["guard"]
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    assert client.get("/rows").status_code == 401
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"
    for refused in (
        client.get("/rows", headers=authority.bearer("other")),
        client.post("/rows", headers=authority.bearer("read")),  # "deny"
        client.get("/else", headers=authority.bearer("read")),
    ):
        assert refused.status_code == 403


def _check_network_http(_: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIENT_SECRET", "a password")
        run("network_http")


def _check_network_keycloak(_: FakeAuthority) -> None:
    assert run("network_keycloak")["issuer"].jwks_uri.startswith("http://keycloak:8080/")


def _check_network_own_transport(authority: FakeAuthority) -> None:
    with httpx.Client(transport=authority.httpx_transport()) as client:
        names = run("network_own_transport")
        names["guard"].close()
        guard = Guard(authority.issuer, transport=names["OwnTransport"](client))
        app = TestClient(GuardMiddleware(asgi_app(), guard=guard))
        assert app.get("/rows", headers=authority.bearer("read")).text == "client"
        guard.close()


def _check_network_transport(_: FakeAuthority) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        Certificates(Path(folder)).bundle.rename("corporate-ca.pem")
        patch.setenv("CLIENT_SECRET", "a password")
        run("network_transport")


def _check_salesforce(_: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_SECRET", "s")
        (issuer,) = run("salesforce")["guard"].issuers
    assert issuer.introspection.client_id == "3MVG8..."


def _check_security_events(authority: FakeAuthority) -> None:
    guard = Guard(authority.issuer, clock=authority.clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTS_SECRET", "sg-secret-of-the-events")
        routes = run("security_events", guard=guard)["routes"]
    client = TestClient(Starlette(routes=routes))
    assert client.post("/events").status_code in (400, 401)
    guard.close()


def _check_rule_mark(_: FakeAuthority) -> None:
    (mark,) = run("rule_mark")["test_two_enabled_methods_are_an_invalid_request"].pytestmark
    assert mark.args == ("B-13",)


def _check_requirements(authority: FakeAuthority) -> None:
    rules = run("requirements")["rules"]
    guard = Guard(authority.issuer, audit="off")
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard, rules=rules))
    recent = {"acr": "urn:example:silver", "auth_time": authority.clock.wall() - 200}
    assert client.get("/payments", headers=authority.bearer("payments", claims=recent)).status_code == 200
    refused = client.get("/payments", headers=authority.bearer("payments"))
    assert 'acr_values="urn:example:gold urn:example:silver", max_age="300"' in refused.headers["www-authenticate"]
    details = {"authorization_details": [{"type": "payment_initiation", "actions": ["initiate"]}]}
    assert client.get("/payments/1", headers=authority.bearer("payments", claims=details)).status_code == 200
    assert client.get("/payments/1", headers=authority.bearer("payments")).status_code == 403
    assert client.get("/mail", headers=authority.bearer("mail")).status_code == 403


def _check_requirements_file(authority: FakeAuthority) -> None:
    text = f'[[issuers]]\nurl = "{ISSUER}"\naudience = "{API}"\n' + NAMED["requirements_file"].source
    _, arguments = settings_from(tomllib.loads(text), ROOT, file="api.toml", environment={})
    (rule,) = arguments["rules"].all
    assert rule.access == scopeguard.all_of("payments", scopeguard.USER, acr=["urn:example:gold"], max_age=300)


def _check_profiles(_: FakeAuthority) -> None:
    guard = run("profiles")["guard"]
    assert guard.profile is scopeguard.Profile.MCP
    with pytest.raises(scopeguard.ConfigurationError, match="query contradicts profile 'mcp'"):
        guard.sources.with_methods(["query"])


def _check_resource_metadata(authority: FakeAuthority) -> None:
    client = TestClient(run("resource_metadata", app=asgi_app())["app"])
    url = f"{API}/.well-known/oauth-protected-resource/v1"
    (shown,) = (block for block in BLOCKS if block.page == "docs/resource-metadata.md" and block.language == "json")
    assert client.get("/.well-known/oauth-protected-resource/v1").json() == json.loads(shown.source)
    refused = client.get("/v1/rows").headers["www-authenticate"]
    assert refused == f'Bearer realm="{API}/v1", scope="rows.read", resource_metadata="{url}"'
    token = authority.mint("rows.read", audience=f"{API}/v1")
    assert client.get("/v1/rows", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def _check_downstream(authority: FakeAuthority) -> None:
    """The stock API is answered here, the exchange by the authority."""
    seen: list[str] = []

    async def send(_: object, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://stock.example.com/levels"
        seen.append(request.headers["authorization"].removeprefix("Bearer "))
        return httpx.Response(200, json={"tea": 3}, request=request)

    orders = Client(
        client_id="orders", secret="a password", scopes=["stock.read"], introspects=[API],
        exchanges_for=["https://stock.example.com"],
    )  # fmt: skip
    authority.authority.registry.add_client(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", send)
        patch.setenv("CLIENT_SECRET", "a password")
        client = TestClient(run("downstream")["app"])
        headers = authority.bearer("stock.read", subject="ann")
        assert [client.get("/orders", headers=headers).json() for _ in range(2)] == [{"tea": 3}] * 2
        (token,) = set(seen)
        issued = authority.authority.tokens.find(token)
        assert issued is not None
        assert (issued.claims["sub"], issued.claims["act"]) == ("ann", {"sub": "orders"})
        unknown = client.get("/orders", headers=authority.bearer("other"))
        assert unknown.status_code == 403
        with authority.outage():
            response = client.get("/orders", headers=authority.bearer("stock.read"))
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def _check_downstream_hook(_: FakeAuthority) -> None:
    with run("downstream_hook")["client"] as client:
        assert client.event_hooks["request"] == [scopeguard.client.refuse_inbound_token]


def _check_downstream_task(authority: FakeAuthority) -> None:
    """Its job is submitted in a request, and done after it."""
    jobs: list[dict[str, Any]] = []

    class Jobs:
        def submit(self, function: Any, **options: Any) -> None:
            jobs.append(options)

    start = run("downstream_task")["start"]
    exchange = TokenExchange(f"{ISSUER}/token", "orders", "a password", transport=authority.transport)

    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        start(Jobs(), exchange, print)
        return wsgi_app(environ, start_response)

    guard = Guard(authority.issuer, transport=authority.transport, keep_token_for_exchange=True)
    guarded = WSGIGuard(app, guard=guard)
    with httpx.Client(transport=httpx.WSGITransport(app=guarded), base_url=API) as client:
        assert client.get("/", headers=authority.bearer("read")).status_code == 200
    with pytest.raises(TokenEndpointError, match="invalid_client"):  # the authority does not know "orders"
        jobs[0]["auth"].token()


def _check_downstream_testing(_: FakeAuthority) -> None:
    run("downstream_testing")["test_the_stock_api_sees_the_user"]()


def _check_downstream_presets(_: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIENT_SECRET", "a password")
        names = run("downstream_presets")
    assert "login.microsoftonline.com/contoso.onmicrosoft.com/" in repr(names["graph"])
    assert "acme.eu.auth0.com/oauth/token" in repr(names["stock"])
    assert "https://auth.partner.example" in repr(names["partner"])


def _check_mcp(authority: FakeAuthority) -> None:
    url = "https://mcp.example.com/mcp"
    client = TestClient(run("mcp", app=asgi_app())["app"])
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "delete_file"}}
    assert 'scope="files:write"' in client.post("/mcp", json=body).headers["www-authenticate"]
    for scope, status in (("files:read", 403), ("files:write", 200)):
        token = authority.mint(scope, audience=url)
        assert client.post("/mcp", json=body, headers={"Authorization": f"Bearer {token}"}).status_code == status


def _check_mcp_server(_: FakeAuthority) -> None:
    class Sdk:
        """As much of the SDK's server as the page uses. ``make mcp`` runs a real one."""

        def __init__(self, name: str) -> None:
            assert name == "files"

        def tool(self) -> Callable[[Any], Any]:
            return lambda function: function

        def streamable_http_app(self, *, stateless_http: bool, json_response: bool) -> Any:
            assert stateless_http
            assert json_response
            return asgi_app()

    library = ModuleType("mcp.server.mcpserver")
    vars(library)["MCPServer"] = Sdk
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mcp", "mcp.server"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, library.__name__, library)
        names = run("mcp_server")
    authority = FakeAuthority("http://127.0.0.1:9000", audience="http://127.0.0.1:8000/mcp")
    params = {"name": "delete_file", "arguments": {"name": "x"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    with authority.takes_over(names["guard"]), TestClient(names["app"], base_url="http://127.0.0.1:8000") as client:
        for scope, status in (("files:read", 403), ("files:write", 200)):
            headers = {"Accept": "application/json", **authority.bearer(scope)}
            assert client.post("/mcp", json=body, headers=headers).status_code == status


def _check_mcp_function(authority: FakeAuthority) -> None:
    rule = run("mcp_function", all_of=scopeguard.all_of, Tool=Tool)["rule"]
    message = Message(method="tools/call", name="transfer", params={"arguments": {"amount": 5000}})
    assert rule.find_requirement(message) == scopeguard.all_of("pay:large")


def _check_policy_function(authority: FakeAuthority) -> None:
    async def owners_of(table: str) -> list[str]:
        return ["alice"] if table == "hers" else []

    pdp = FakeDecisionPoint("https://pdp.example.com", decide=False)
    rules = run("policy_function", owners_of=owners_of)["rules"]
    guard = Guard(authority.issuer, audit="off", transport=Network(authority, pdp), clock=authority.clock)
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard, rules=rules))
    alice = authority.bearer("tables.read reports.read", subject="alice", client_id="app")
    assert [client.get(f"/tables/{name}", headers=alice).status_code for name in ("hers", "his")] == [200, 403]
    assert client.get("/tables/hers", headers=authority.bearer("x", subject="alice")).status_code == 403
    assert client.get("/reports/2026", headers=alice).status_code == 403
    (shown,) = (b.source for b in BLOCKS if b.page == "docs/policy-decisions.md" and b.language == "http")
    evaluation = json.loads(shown.partition("\n\n")[2])
    evaluation["subject"]["properties"]["scopes"] = ["reports.read", "tables.read"]
    assert pdp.evaluations == [evaluation]


def _check_policy_authzen(authority: FakeAuthority) -> None:
    loader = Client(client_id="reports-api", secret="a password", scopes=["x"])
    authority.authority.registry.add_client(loader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIENT_SECRET", "a password")
        policy = run("policy_authzen")["policy"]
    pdp = FakeDecisionPoint(policy.url)
    rules = [scopeguard.Rule("/reports/{rest:path}", decide=policy)]
    guard = Guard(authority.issuer, audit="off", transport=Network(authority, pdp), clock=authority.clock, rules=rules)
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    assert client.get("/reports/2026", headers=authority.bearer()).status_code == 200
    (evaluation,) = pdp.evaluations
    assert (evaluation["resource"], evaluation["action"]) == ({"type": "report", "id": "2026"}, {"name": "can_read"})
    (sent,) = pdp.transport.sends
    assert authority.authority.tokens.find((sent.authorization or "").removeprefix("Bearer ")) is not None
    pdp.answer(401)
    authority.clock.advance(60)
    assert client.get("/reports/2026", headers=authority.bearer()).status_code == 503


def _check_policy_file(authority: FakeAuthority) -> None:
    text = f'[[issuers]]\nurl = "{ISSUER}"\naudience = "{API}"\n' + NAMED["policy_file"].source
    _, arguments = settings_from(tomllib.loads(text), ROOT, file="api.toml", environment={"PDP_TOKEN": "sg-secret"})
    (rule,) = arguments["rules"].all
    assert rule.decide == scopeguard.AuthZen("https://pdp.example.com", authentication="sg-secret")


def _check_policy_test(_: FakeAuthority) -> None:
    names = run("policy_test")
    authority, pdp = names["authority"], names["pdp"]
    client = TestClient(GuardMiddleware(asgi_app(), guard=names["guard"]))
    assert client.get("/reports/1", headers=authority.bearer(subject="alice")).status_code == 200
    assert client.get("/reports/1", headers=authority.bearer(subject="bob")).status_code == 403
    for fault in (pdp.go_down, pdp.hang, lambda: pdp.answer(500)):
        fault()
        authority.clock.advance(60)
        assert client.get("/reports/1", headers=authority.bearer(subject="alice")).status_code == 503


def _check_api_keys(authority: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        options = ["--prefix", "acme", "--keys-file", "keys.toml", "--client-id", "reports", "--scope", "rows.read"]
        key = {"X-API-Key": CliRunner().invoke(cli, ["api-key", "new", *options]).stdout.strip()}
        client = TestClient(run("api_keys", app=asgi_app())["app"])
        token = authority.bearer("rows.read rows.write")
        paths = ("/rows", "/import", "/account")
        assert [client.get(path, headers=token).status_code for path in paths] == [200, 401, 200]
        assert [client.get(path, headers=key).status_code for path in paths] == [200, 403, 401]


def _check_api_keys_file(_: FakeAuthority) -> None:
    document = tomllib.loads(NAMED["api_keys_file"].source)
    arguments = settings_from(document, ROOT, file="api.toml", environment={})[1]
    assert arguments["api_keys"].keys_file == str(ROOT / "keys.toml")
    assert arguments["rules"].all[0].sources == {"header", "api_key"}


def _check_spiffe(_: FakeAuthority) -> None:
    key = SigningKey.generate("ES256", kid="1")
    keys = [{**key.public_jwk(), "use": "jwt-svid"}, {**key.public_jwk(), "kid": "2", "use": "x509-svid"}]
    workloads = {
        "prod.example.com/ns/etl/sa/ingest": 200,
        "prod.example.com/ns/etl2/sa/ingest": 401,
        "partner.example/ns/etl/sa/ingest": 401,
        "partner.example/billing/export": 503,  # there is no bundle here
    }
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        Path("bundle.json").write_text(json.dumps({"keys": keys, "spiffe_sequence": 1}), "utf-8")
        guard = run("spiffe")["guard"]
        assert [issuer.url for issuer in guard.issuers] == ["spiffe://prod.example.com", "spiffe://partner.example"]
        guard = Guard(guard.issuers[0], *without_network(guard.issuers[1]))
        client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
        for workload, status in workloads.items():
            claims = {"sub": f"spiffe://{workload}", "aud": API, "exp": time.time() + 60}
            token = compact({"alg": "ES256", "kid": "1"}, claims, key)
            assert client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == status


def without_network(*issuers: Issuer) -> list[Issuer]:
    return [replace(issuer, jwks_uri=None, jwks_file="missing.json") for issuer in issuers]


def _check_spiffe_file(_: FakeAuthority) -> None:
    (issuer,), _arguments = settings_from(tomllib.loads(NAMED["spiffe_file"].source), ROOT)
    own = presets.spiffe("prod.example.com", API, jwks_file=str(ROOT / "bundle.json"), id_prefixes=ETL)
    assert issuer == own


def _check_token_review(_: FakeAuthority) -> None:
    (issuer,) = run("token_review")["guard"].issuers
    assert issuer.expected_claims == {"sub": {"system:serviceaccount:etl:ingest"}}
    assert issuer.introspection.dialect == "kubernetes_token_review"


def _check_api_key_entry(_: FakeAuthority) -> None:
    (key,) = read_keys(NAMED["api_key_entry"].source.encode()).values()
    assert (key.client_id, key.claims) == ("reports", {"tenant": "acme"})


def _check_api_keys_lookup(_: FakeAuthority) -> None:
    class Database:
        async def fetch_one(self, query: str, key_id: str) -> dict[str, Any] | None:
            row = {"sha256": "0" * 64, "user_id": "alice", "scopes": "a b", "revoked": False}
            return {**row, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)} if key_id == "k" * 16 else None

    find = run("api_keys_lookup", database=Database())["find"]
    assert anyio.run(find, "k" * 16).scopes == ("a", "b")
    assert anyio.run(find, "x" * 16) is None


def _check_api_keys_checksum(_: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHECKSUM_SECRET", "a secret for checksums")
        keys = run("api_keys_checksum", find=lambda key_id: None, ApiKeys=scopeguard.ApiKeys)["keys"]
    assert keys.checksum_key == b"a secret for checksums"


def _check_mutual_tls(authority: FakeAuthority) -> None:
    pem = (ROOT / "tests" / "data" / "rfc8705-appendix-a.pem").read_text("ascii")
    bound = {"cnf": {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}
    token = authority.mint("read", claims=bound)
    guard = run("mutual_tls")["guard"]
    for client, granted in (("10.1.2.3", True), ("192.0.2.1", False)):
        pairs = [(b"authorization", f"Bearer {token}".encode()), (b"x-ssl-client-cert", quote(pem).encode())]
        view = scopeguard.RequestView(method="GET", path="/", headers=scopeguard.HeaderList(pairs), client=client)
        assert isinstance(guard.check(view), scopeguard.Granted) is granted


def _check_client_keys(authority: FakeAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVATE_KEY", key.decode())
        names = run("client_keys")
    assert names["by_key"]._policy.assertion_key.kid == "2026-11"
    assert names["by_certificate"]._policy.auth_method == "tls_client_auth"


def _check_client_dpop(authority: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIENT_SECRET", "a password")
        credentials = run("client_dpop")["credentials"]
    assert isinstance(credentials._policy.dpop, DPoPKey)


def _check_dpop(authority: FakeAuthority) -> None:
    client = TestClient(run("dpop", app=asgi_app())["app"])
    key = ProofKey()
    headers = authority.dpop("read", key=key, method="GET", uri=f"{API}/rows")
    assert client.get("/rows").headers["www-authenticate"].startswith("DPoP ")
    assert client.get("/rows", headers=authority.bearer("read", bound_to=key)).status_code == 401
    assert client.get("/rows", headers=headers).status_code == 200
    assert client.get("/rows", headers=headers).status_code == 401


def _check_post_quantum(authority: FakeAuthority) -> None:
    if not ML_DSA_HERE:
        with pytest.raises(scopeguard.ConfigurationError, match="cryptography 48"):
            run("post_quantum")
        return
    client = TestClient(GuardMiddleware(asgi_app(), guard=run("post_quantum")["guard"]))
    key = ProofKey("ML-DSA-65")
    token = authority.mint("read", claims=key.confirmation, algorithm="ML-DSA-65")
    headers = key.headers(token, "GET", f"{API}/rows", at=authority.clock.wall())
    assert client.get("/rows", headers=headers).status_code == 200


def _check_mcp_verifier(_: FakeAuthority) -> None:
    provider = ModuleType("mcp.server.auth.provider")
    vars(provider)["AccessToken"] = dict
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mcp", "mcp.server", "mcp.server.auth"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, provider.__name__, provider)
        guard = Guard(Issuer(ISSUER, audience=API))
        assert callable(run("mcp_verifier", guard=guard)["verifier"].verify_token)


def _check_json_log(authority: FakeAuthority) -> None:
    handler: logging.StreamHandler[Any] = run("json_log")["handler"]
    handler.setStream(written := io.StringIO())
    try:
        Guard(authority.issuer).check(RequestView(method="GET", path="/rows", headers=HeaderList([])))
    finally:
        logging.getLogger("scopeguard").removeHandler(handler)
    line = json.loads(written.getvalue())
    assert (line["name"], line["reason"], line["status"]) == ("scopeguard.decisions", "no_credentials", 401)


def _check_on_decision(authority: FakeAuthority) -> None:
    guard = run("on_decision")["guard"]
    client = TestClient(GuardMiddleware(PlainTextResponse("x"), guard=guard, rules=[scopeguard.Rule("/rows/{row}")]))
    with contextlib.redirect_stdout(io.StringIO()) as written:
        client.get("/rows/7", headers=authority.bearer(subject="ann", client_id="billing"))
        client.get("/rows/7")
    assert written.getvalue() == "GET /rows/{row}: ann by billing\nGET /rows/7: 401 no_credentials\n"


def _check_metrics_prometheus(authority: FakeAuthority) -> None:
    served: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prometheus_client, "start_http_server", lambda port, addr: served.append(port))
        guard = run("metrics_prometheus")["guard"]
    TestClient(GuardMiddleware(PlainTextResponse("x"), guard=guard)).get("/", headers=authority.bearer())
    assert served == [9464]
    assert b'scopeguard_decision_duration_seconds_count{outcome="granted"' in prometheus_client.generate_latest()


def _check_metrics_opentelemetry(_: FakeAuthority) -> None:
    assert len(engine_of(run("metrics_opentelemetry")["guard"]).reporter.listeners) == 1


def _check_ready(_: FakeAuthority) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as written:
        run("ready")
    assert written.getvalue() == f"{ISSUER} False no_keys\n"


def _check_mcp_file(_: FakeAuthority) -> None:
    text = f'[[issuers]]\nurl = "{ISSUER}"\naudience = "{API}"\n' + NAMED["mcp_file"].source
    arguments = settings_from(tomllib.loads(text), ROOT, file="api.toml", environment={})[1]
    assert arguments["mcp"].rules[0] == Tool("delete_*", scopeguard.all_of("files:write"))


def _check_doctor_json(authority: FakeAuthority) -> None:
    """The command runs in this process, on a file that everyone can change.

    The libraries are the newest ones, also where the oldest are installed, of which some have advisories.
    """

    def run_here(command: list[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(stdout=CliRunner().invoke(cli, command[1:]).stdout)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(subprocess, "run", run_here)
        patch.setattr("scopeguard.doctor.examination.installed_versions", dict)
        file = Path("scopeguard.toml")
        file.write_text(NAMED["file"].source, "utf-8")
        file.chmod(0o666)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run("doctor_json")
    assert printed.getvalue() == (
        "scopeguard.toml\n  permissions\n  every user of this machine can change it (mode 0666)\n"
        "  chmod o-w scopeguard.toml\n"
    )


def _check_explain(authority: FakeAuthority) -> None:
    explain = run("explain")["explain"]
    assert explain(authority.mint("rows.read")) == []
    lacking = explain(authority.mint("rows.write", audience="https://other.example.com"))
    assert lacking == [
        f"Audience: aud=https://other.example.com, wanted {API}",
        "Scopes: rows.write, wanted rows.read",
    ]


def _check_debug_page(authority: FakeAuthority) -> None:
    client = TestClient(run("debug_page")["app"], base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000))
    assert client.get("/rows").status_code == 401
    assert "<h1>Decisions</h1>" in client.get("/_scopeguard").text
    (decision,) = client.get("/_scopeguard/decisions").json()["decisions"]
    assert decision["reason"] == "no_credentials"
    assert client.get("/_scopeguard", headers={"host": "api.example.com"}).status_code == 401


CHECKS: Mapping[str, Callable[[FakeAuthority], None]] = {
    "asgi": _check_asgi,
    "wsgi": _check_wsgi,
    "starlette": _check_starlette,
    "fastapi": _check_fastapi,
    "fastapi_middleware": _check_fastapi_middleware,
    "fastapi_swagger": _check_fastapi_swagger,
    "fastapi_documentation_file": _check_fastapi_documentation_file,
    "flask": _check_flask,
    "rules": _check_rules,
    "proxies_file": _check_proxies_file,
    "dpop": _check_dpop,
    "post_quantum": _check_post_quantum,
    "spiffe": _check_spiffe,
    "spiffe_file": _check_spiffe_file,
    "token_review": _check_token_review,
    "api_keys": _check_api_keys,
    "api_keys_file": _check_api_keys_file,
    "api_key_entry": _check_api_key_entry,
    "api_keys_lookup": _check_api_keys_lookup,
    "api_keys_checksum": _check_api_keys_checksum,
    "mutual_tls": _check_mutual_tls,
    "resource_metadata": _check_resource_metadata,
    "profiles": _check_profiles,
    "mcp": _check_mcp,
    "mcp_file": _check_mcp_file,
    "mcp_server": _check_mcp_server,
    "json_log": _check_json_log,
    "on_decision": _check_on_decision,
    "metrics_prometheus": _check_metrics_prometheus,
    "metrics_opentelemetry": _check_metrics_opentelemetry,
    "ready": _check_ready,
    "mcp_verifier": _check_mcp_verifier,
    "mcp_function": _check_mcp_function,
    "requirements": _check_requirements,
    "requirements_file": _check_requirements_file,
    "policy_function": _check_policy_function,
    "policy_authzen": _check_policy_authzen,
    "policy_file": _check_policy_file,
    "policy_test": _check_policy_test,
    "contract": _check_contract,
    "client": _check_client,
    "client_dpop": _check_client_dpop,
    "client_keys": _check_client_keys,
    "downstream": _check_downstream,
    "downstream_hook": _check_downstream_hook,
    "downstream_task": _check_downstream_task,
    "downstream_testing": _check_downstream_testing,
    "downstream_presets": _check_downstream_presets,
    "introspection": _check_introspection,
    "introspection_file": _check_introspection_file,
    "introspection_flask": _check_introspection_flask,
    "revocation": _check_revocation,
    "streams": _check_streams,
    "network_http": _check_network_http,
    "network_keycloak": _check_network_keycloak,
    "network_transport": _check_network_transport,
    "network_own_transport": _check_network_own_transport,
    "salesforce": _check_salesforce,
    "security_events": _check_security_events,
    "rule_mark": _check_rule_mark,
    "doctor_json": _check_doctor_json,
    "explain": _check_explain,
    "debug_page": _check_debug_page,
}


# Each of these has a test of its own below.
ELSEWHERE = {
    *(
        "file",
        "network",
        "network_transport_file",
        "shared",
        "shared_python",
        "replicas",
        "testing",
        "takeover",
        "proofs",
        "rotation",
    ),
    *("testing_async", "testing_direct", "testing_overrides"),
    *("readme_fastapi", "readme_starlette", "readme_flask"),
    *("tutorial_file", "tutorial_app", "tutorial_tests"),  # tests/docs/test_tutorial.py
    # tests/docs/test_how_to.py
    *(
        "uvicorn_lifespan",
        "gunicorn",
        "compose_file",
        "lambda",
        "lambda_handler",
        "lambda_authorizer",
        "issuers",
        "tenants",
        "tenant_of",
    ),
    *("tenant_rule", "organization", "graphql", "graphql_ariadne", "django_wsgi", "django_view"),
    *("falcon", "falcon_sink", "grpc", "aiohttp"),
    *("litestar", "litestar_layers", "litestar_openapi", "quart", "quart_blueprint"),
    *(
        "django_settings",
        "django_views",
        "django_users",
        "django_testing",
        "django_drf_settings",
        "django_drf_views",
        "django_ninja",
    ),  # tests/docs/test_django_guide.py
    # tests/docs/test_provider_pages.py
    *("provider_auth0", "provider_entra", "provider_keycloak", "provider_okta", "provider_cognito"),
    *("provider_github_actions", "provider_kubernetes"),
    *("without_provider", "without_provider_production", "without_provider_development", "without_provider_testing"),
    *("from_pyjwt", "from_authlib", "from_azure", "from_flask_jwt"),
}


def test_every_block_is_named_and_every_name_is_tested():
    code = [block for block in BLOCKS if block.language in ("python", "toml")]
    assert not [f"{block.page}:{block.line}" for block in code if block.name is None]
    names = [block.name for block in code]
    assert len(names) == len(set(names))
    assert set(names) == {*CHECKS, *ELSEWHERE}


@pytest.mark.parametrize("name", CHECKS)
def test_a_block_runs_and_does_what_the_text_says(name: str, authority: FakeAuthority):
    CHECKS[name](authority)


@pytest.mark.timeout(180)  # over two hundred tests, on a machine that may be busy
def test_the_tests_that_the_pages_show_pass(tmp_path: Path):
    """Those of the pages on testing and on key rotation, and of the tutorial, in one process."""
    make_app = """

from scopeguard.asgi import GuardMiddleware


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def make_app(guard):
    return GuardMiddleware(answer, guard=guard)
"""
    for name in ("testing", "proofs", "rotation"):
        (tmp_path / f"test_{name}.py").write_text(NAMED[name].source, "utf-8")
    files = {"scopeguard.toml": "tutorial_file", "app.py": "tutorial_app", "test_app.py": "tutorial_tests"}
    for file, name in files.items():
        (tmp_path / file).write_text(NAMED[name].source, "utf-8")
    (tmp_path / "myapp.py").write_text(NAMED["fastapi"].source + make_app, "utf-8")
    for name in ("takeover", "testing_async", "testing_direct", "testing_overrides"):
        (tmp_path / f"test_{name}.py").write_text(NAMED[name].source, "utf-8")
    # Without rewritten assertions: pytest would rewrite all of scopeguard, too, because it has a plugin.
    unneeded = ("cacheprovider", "faker", "valkey", "xdist")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--assert=plain", *(f"-pno:{name}" for name in unneeded)],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{4 + 5 + 2 + 4 + len(bad_proofs(FakeAuthority()))} passed")


def test_the_configuration_file_is_read():
    issuers, arguments = settings_from(tomllib.loads(NAMED["file"].source), ROOT)
    guard = Guard(*issuers, **arguments)
    assert guard.resource == scopeguard.Resource(API)
    assert guard.rules is not None
    assert guard.rules.deny_unmatched


def test_what_a_network_needs_is_read_from_the_file(tmp_path: Path):
    Certificates(tmp_path).bundle.rename(tmp_path / "corporate-ca.pem")
    document = tomllib.loads(NAMED["network"].source + NAMED["network_transport_file"].source)
    (issuer,), arguments = settings_from(
        document, tmp_path, environment={"OUTBOUND_PROXY": "http://proxy.example.com:3128"}
    )
    assert issuer.insecure_http_dangerously == {"keycloak:8080"}
    assert isinstance(arguments["transport"], HttpxTransport)


def test_what_several_processes_share_is_read_from_the_file():
    document = {"issuers": [{"url": ISSUER, "audience": API}], **tomllib.loads(NAMED["shared"].source)}
    environment = {"REDIS_URL": "redis://127.0.0.1", "STORE_SECRET": "sg-secret-of-the-store"}
    _, arguments = settings_from(document, ROOT, environment=environment)
    assert isinstance(arguments["store"], RedisStore)
    assert arguments["revocation"] == RevocationPolicy()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        engine = engine_of(run("shared_python")["guard"])
    assert isinstance(engine.store, RedisStore)
    assert engine.settings.revocation == RevocationPolicy()
    document |= tomllib.loads(NAMED["replicas"].source)
    _, arguments = settings_from(document, ROOT, environment=environment)
    assert arguments["store"].replicas == 1


def test_the_permissions_of_the_store_are_those_that_are_tested():
    shown = [word for word in NAMED["acl"].source.split() if word.startswith("+")]
    assert shown == [word.strip(",") for word in PERMISSIONS.split() if word.startswith("+")]
    page = (ROOT / "docs/shared-store.md").read_text().replace("\\|", "|")
    for text in (IN_A_CLUSTER, WITH_REPLICAS):
        assert f"`{text[text.index('+') :]}`" in page


def _curl_line(framework: str) -> tuple[str, str, dict[str, str]]:
    """The method, path and headers of the command for curl that follows the app of *framework*."""
    after = README.partition(f"<!-- test: readme_{framework} -->")[2]
    (line,) = re.findall(r"^    (curl .*)$", after.partition("\n### ")[0].partition("\n## ")[0], re.MULTILINE)
    command, *arguments = shlex.split(line)
    assert command == "curl"
    url = arguments.pop()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert set(options) == {"-X", "-H"}
    assert url.startswith(f"{LOCAL_API}/")
    name, _, value = options["-H"].partition(": ")
    return options["-X"], url.removeprefix(LOCAL_API), {name: value}


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "flask"])
def test_each_app_of_the_readme_answers_its_curl_line(framework: str, devserver: FakeAuthority):
    names = run(f"readme_{framework}")
    client: Any
    if framework == "flask":
        client = httpx.Client(transport=httpx.WSGITransport(app=names["app"]), base_url=LOCAL_API)
    else:
        client = TestClient(names["app"], base_url=LOCAL_API)
    method, path, headers = _curl_line(framework)

    def call(scopes: str) -> httpx.Response:
        token = devserver.mint(scopes)
        filled = {name: value.replace("$TOKEN", token) for name, value in headers.items()}
        assert filled != headers
        response: httpx.Response = client.request(method, path, headers=filled)
        return response

    with client:
        answer = call("rows.write rows.read")
        assert answer.status_code == 200
        assert answer.json() == {"table": "stations", "client": "client"}
        assert call("rows.read").status_code == 403
        assert client.request(method, path).status_code == 401
        assert client.get("/other").status_code == 401
        if framework == "fastapi":
            assert client.get("/docs").status_code == 200
    names["guard"].close()


def test_development_server_of_the_readme_grants_the_scopes_of_its_apps():
    (granted,) = re.findall(r'scopeguard devserver --client "loader:any secret:(.*)"', README)
    assert set(granted.split()) == {"rows.read", "rows.write"}
