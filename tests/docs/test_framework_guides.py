"""The blocks of the guides for Falcon, Litestar, Quart, aiohttp and gRPC run, and do what the text around them says."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import falcon
import falcon.testing
import grpc
import grpc.aio
import pytest
from litestar import Litestar
from litestar.testing import TestClient as LitestarClient
from quart.testing.connections import WebsocketResponseError

from aiohttp_calls import call_aiohttp
from documentation import run
from scenarios import Answered, Exchange
from scopeguard.falcon import protect
from scopeguard.litestar import ScopeGuard as LitestarScopeGuard
from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    made = FakeAuthority("https://auth.example.com", audience="https://api.example.com")
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: made.transport)
    # Litestar would configure the logging of the whole process.
    monkeypatch.setattr("litestar.logging.config.LoggingConfig.configure", lambda _: logging.getLogger)
    for name in ("block_litestar", "block_litestar_layers"):  # Litestar looks up the modules of handlers
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return made


def test_falcon_responders_need_their_scopes(authority: FakeAuthority):
    client = falcon.testing.TestClient(run("falcon")["app"])
    assert client.simulate_get("/healthz").json == "ok"
    assert client.simulate_post("/rows").status_code == 401
    assert client.simulate_post("/rows", headers=authority.bearer("read")).status_code == 403
    assert client.simulate_post("/rows", headers=authority.bearer("bigquery")).json == {"client": "client"}
    assert client.simulate_get("/rows", headers=authority.bearer("", subject="ann")).json == {"subject": "ann"}


def test_falcon_hooks_cover_classes_suffixes_and_sinks(authority: FakeAuthority):
    api: Any = falcon.App()
    run("falcon_sink", api=api)
    client: Any = falcon.testing.TestClient(protect(api, guard=run("falcon")["guard"]))

    def status(method: str, path: str, scope: str) -> int:
        code: int = client.simulate_request(method, path, headers=authority.bearer(scope)).status_code
        return code

    assert [status("GET", "/rows", scope) for scope in ("rows.read", "other")] == [200, 403]
    scopes = ("rows.read rows.insert", "rows.read", "rows.insert")
    assert [status("POST", "/rows:batch", scope) for scope in scopes] == [200, 403, 403]
    assert [status("GET", "/files/a", scope) for scope in ("files.read", "rows.read")] == [200, 403]


def test_grpc_methods_need_their_scopes(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    asyncio.run(_call_grpc_server(authority, monkeypatch))


async def _call_grpc_server(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, generated = _generated_code()
    monkeypatch.setitem(sys.modules, "rows_pb2", messages)
    monkeypatch.setitem(sys.modules, "rows_pb2_grpc", generated)
    server, port = await run("grpc")["serve"]("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            insert, read = channel.unary_unary("/rows.v1.Rows/Insert"), channel.unary_stream("/rows.v1.Rows/Read")

            def fields(scope: str) -> list[tuple[str, str]]:
                return [("authorization", f"Bearer {authority.mint(scope)}")]

            assert await insert(b"", metadata=fields("rows.insert")) == b"client"
            assert [row async for row in read(b"", metadata=fields("rows.read"))] == [b"row"]
            for metadata, code in ((fields("rows.read"), "PERMISSION_DENIED"), ([], "UNAUTHENTICATED")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await insert(b"", metadata=metadata)
                assert refused.value.code().name == code
            with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
                await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    finally:
        await server.stop(None)


def _generated_code() -> tuple[Any, Any]:
    """Return stand-ins for the modules that protoc generates, with bytes as messages."""
    described = SimpleNamespace(
        full_name="rows.v1.Rows", methods=[SimpleNamespace(name="Insert"), SimpleNamespace(name="Read")]
    )
    messages: Any = ModuleType("rows_pb2")
    messages.DESCRIPTOR = SimpleNamespace(services_by_name={"Rows": described})
    messages.Inserted, messages.Row = lambda client: client.encode(), lambda: b"row"
    generated: Any = ModuleType("rows_pb2_grpc")
    generated.RowsServicer = object

    def add(servicer: Any, server: Any) -> None:
        handlers = {
            "Insert": grpc.unary_unary_rpc_method_handler(servicer.Insert),
            "Read": grpc.unary_stream_rpc_method_handler(servicer.Read),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rows.v1.Rows", handlers),))

    generated.add_RowsServicer_to_server = add
    return messages, generated


def test_aiohttp_handlers_need_their_scopes(authority: FakeAuthority):
    def send(method: str, path: str, token: str | None = None) -> Answered:
        field = () if token is None else ((b"authorization", f"Bearer {token}".encode()),)
        return call_aiohttp(lambda: run("aiohttp")["app"], Exchange(method=method, target=path, headers=field))

    assert send("GET", "/healthz").body == b"ok"
    assert send("POST", "/rows").status == 401
    assert send("POST", "/rows", authority.mint("read")).status == 403
    assert send("POST", "/rows", authority.mint("bigquery")).json == {"client": "client"}
    assert send("GET", "/rows", authority.mint("", subject="ann")).json == {"subject": "ann"}


def statuses(client: Any, path: str, *scopes: str | None, authority: FakeAuthority, method: str = "GET") -> list[int]:
    """Return the status for a token with each of *scopes*; ``None`` is a request without a token."""
    given = [{} if each is None else authority.bearer(each) for each in scopes]
    return [client.request(method, path, headers=headers).status_code for headers in given]


def test_litestar_handlers_need_their_scopes(authority: FakeAuthority):
    app = run("litestar")["app"]
    with LitestarClient(app, base_url="https://api.example.com") as client:
        assert client.get("/healthz").text == "ok"
        assert statuses(client, "/insert", None, "read", method="POST", authority=authority) == [401, 403]
        assert client.post("/insert", headers=authority.bearer("bigquery")).json() == {"client": "client"}
        assert statuses(client, "/schema/openapi.json", None, "", authority=authority) == [401, 200]
        assert statuses(client, "/nowhere", None, "", authority=authority) == [401, 404]


def test_litestar_guards_of_layers_add_up(authority: FakeAuthority):
    app = Litestar([run("litestar_layers")["router"]], openapi_config=None, logging_config=None)
    LitestarScopeGuard(app, run("litestar")["guard"])
    with LitestarClient(app, base_url="https://api.example.com") as client:
        few, some, every = "api", "api rows.read", "api rows.read rows.secret"
        assert statuses(client, "/v1/rows", few, some, authority=authority) == [403, 200]
        assert statuses(client, "/v1/rows/secret", some, every, authority=authority) == [403, 200]
        assert statuses(client, "/v1/rows/open", None, few, some, authority=authority) == [401, 403, 200]
        assert f'scope="{every}"' in client.get("/v1/rows/secret").headers["www-authenticate"]


def test_litestar_document_has_the_scopes(authority: FakeAuthority):
    names = run("litestar")
    before = {name: names[name] for name in ("insert", "health", "guard", "provide_token")}
    app = run("litestar_openapi", **before)["app"]
    with LitestarClient(app, base_url="https://api.example.com") as client:
        document = client.get("/schema/openapi.json").json()
        assert client.get("/schema").status_code == 200
    assert document["paths"]["/insert"]["post"]["security"] == [
        {"Bearer": ["bigquery.insertdata"]},
        {"Bearer": ["bigquery"]},
    ]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_quart_views_need_their_scopes(authority: FakeAuthority):
    names = run("quart")
    app = names["app"]
    app.register_blueprint(run("quart_blueprint")["rows"])

    async def call() -> None:
        client = app.test_client()

        async def status(method: str, path: str, scopes: str | None) -> int:
            headers = {} if scopes is None else authority.bearer(scopes)
            answer = await client.open(path, method=method, headers=headers, scheme="https")
            code: int = answer.status_code
            return code

        assert await status("GET", "/healthz", None) == 200
        assert [await status("POST", "/insert", scopes) for scopes in (None, "read", "bigquery")] == [401, 403, 200]
        assert [await status("GET", "/rows/", scopes) for scopes in (None, "other", "rows.read")] == [401, 403, 200]
        both = ("rows.read", "rows.read rows.write")
        assert [await status("POST", "/rows/", scopes) for scopes in both] == [403, 200]
        assert [await status("GET", "/nowhere", scopes) for scopes in (None, "")] == [401, 404]
        async with client.websocket("/live", headers=authority.bearer("rows.read"), scheme="wss") as socket:
            assert await socket.receive() == "client"
        with pytest.raises(WebsocketResponseError):
            async with client.websocket("/live", scheme="wss") as socket:
                await socket.receive()

    asyncio.run(call())
