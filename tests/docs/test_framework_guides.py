"""The blocks of the guides for Falcon, aiohttp and gRPC run, and do what the text around them says."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import falcon
import falcon.testing
import grpc
import grpc.aio
import pytest

from aiohttp_calls import call_aiohttp
from documentation import run
from scenarios import Answered, Exchange
from scopeguard.falcon import protect
from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    made = FakeAuthority("https://auth.example.com", audience="https://api.example.com")
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: made.transport)
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
