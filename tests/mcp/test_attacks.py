"""Requests that headers, bodies and clients make ambiguous, slow or large reach no MCP server."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import unquote

import anyio
import anyio.lowlevel
import pytest

from mcp_calls import NEW, OLD, Answer, Pair, Server, call, new, request, tool_call
from scopeguard import AUTHENTICATED, DPoP, Rule, all_of
from scopeguard.adapter.asgi_types import Message, Scope
from scopeguard.mcp import McpMiddleware, Method, Prompt, ResourceUri, Tool
from scopeguard.testing import ProofKey

pytestmark = pytest.mark.anyio

RULES = [
    Tool("delete_*", all_of("files:write")),
    Tool("*", all_of("files:read")),
    ResourceUri("file:///secret/**", all_of("secret")),
    ResourceUri("**", AUTHENTICATED),
    Method("tools/list", AUTHENTICATED),
]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def app(server: Server) -> McpMiddleware:
    return server.protect(RULES)


def name_headers(name: bytes, method: bytes = b"tools/call") -> tuple[Pair, ...]:
    return NEW, (b"mcp-method", method), (b"mcp-name", name)


@pytest.mark.rule("MC-06", "MC-07", "MC-09")
@pytest.mark.parametrize(
    "headers",
    [
        name_headers(b"read"),
        name_headers(b"DELETE_ALL"),
        name_headers(b"delete_all, read"),
        name_headers(b"delete%5Fall"),
        name_headers(b"=?base64?cmVhZA==?="),
        name_headers(b"=?base64?ZGVsZXRlX2FsbB==?="),
        name_headers("\uff44elete_all".encode()),
        name_headers(b"delete_all", b"tools/list"),
        name_headers(b"delete_all", b"TOOLS/CALL"),
        (*name_headers(b"delete_all"), (b"Mcp-Name", b"delete_all")),
        (*name_headers(b"delete_all"), (b"mcp-method", b"tools/call")),
        (*name_headers(b"delete_all"), OLD),
        (NEW, (b"mcp-method", b"tools/call")),
        (NEW, (b"mcp-name", b"delete_all")),
        (NEW,),
        ((b"mcp-protocol-version", b"latest"),),
    ],
)
async def test_headers_that_differ_from_the_body_are_a_400(
    server: Server, app: McpMiddleware, headers: tuple[Pair, ...]
):
    for token in (server.token("files:write files:read"), server.token("files:read")):
        answer = await call(app, tool_call("delete_all"), token, *headers)
        assert (answer.status, answer.code, answer.received) == (400, -32020, None)
        assert answer.json["id"] in (1, None)
        assert answer.challenge == ""


@pytest.mark.rule("MC-08")
@pytest.mark.parametrize("version", [(), (OLD,), ((b"mcp-protocol-version", b"2025-11-25"),)], ids=len)
async def test_headers_of_an_older_version_are_not_used(server: Server, app: McpMiddleware, version: tuple[Pair, ...]):
    headers = (*version, (b"mcp-method", b"tools/list"), (b"mcp-name", b"read"))
    answer = await call(app, tool_call("delete_all"), server.token("files:read"), *headers)
    assert (answer.status, 'scope="files:write"' in answer.challenge) == (403, True)
    headers = (*version, (b"mcp-method", b"tools/call"), (b"mcp-name", b"delete_all"))
    assert (await call(app, tool_call("read"), server.token("files:read"), *headers)).status == 200


@pytest.mark.rule("MC-10")
@pytest.mark.parametrize(
    "body",
    [
        json.dumps([tool_call("read"), tool_call("delete_all")]).encode(),
        b'{"method":"tools/list","method":"tools/call","params":{"name":"delete_all"}}',
        b'{"method":"tools/call","params":{"name":"read","name":"delete_all"}}',
        b'{"method":"tools/call","params":{"name":"read"},"params":{"name":"delete_all"}}',
        b'{"method":"tools/call","params":{"name":"read"},"Params":{"name":"delete_all"}}',
        b'{"method":"tools/call","params":{"name":"read","Name":"delete_all"}}',
        b'{"method":"tools/call","params":{"name":"read"}}{"method":"tools/call"}',
        b'{"result":{},"method":"tools/call","params":{"name":"delete_all"}}',
        b"\xff\xfe{\x00}\x00",
        b"",
    ],
)
async def test_ambiguous_bodies_are_a_400_before_any_rule(server: Server, app: McpMiddleware, body: bytes):
    for headers in ((), name_headers(b"read")):
        answer = await call(app, body, server.token("files:read files:write"), *headers)
        assert (answer.status, answer.received) == (400, None)
        assert answer.code in (-32700, -32600)
    # Without a token, a body without a method is a probe, and learns where to get a token.
    assert (await call(app, body)).status == (400 if b'"method"' in body else 401)


@pytest.mark.parametrize(
    "headers",
    [
        ((b"content-encoding", b"gzip"),),
        ((b"content-encoding", b"identity"), (b"content-encoding", b"br")),
        ((b"Content-Encoding", b"deflate"),),
    ],
)
async def test_compressed_body_is_refused(server: Server, app: McpMiddleware, headers: tuple[Pair, ...]):
    answer = await call(app, tool_call("read"), server.token("files:read"), *headers)
    assert (answer.status, answer.received) == (400, None)


@pytest.mark.parametrize(
    "name", ["DELETE_all", "\uff44elete_all", "Delete_all", "delete_all\n", "delete_\u200ball", "file\x00"]
)
async def test_lookalikes_of_a_stricter_rule_are_denied(server: Server, app: McpMiddleware, name: str):
    answer = await call(app, tool_call(name), server.token("files:read"))
    assert answer.status == 403
    assert answer.received is None


@pytest.mark.parametrize(
    "uri",
    [
        "FILE:///secret/a",
        "file:///%73ecret/a",
        "file:///x/../secret/a",
        "file:////secret/a",
        "file://localhost/secret/a",
        "file:///SECRET/a",
        "file:///secret%2Fa",
        "file:///secret\\a",
        " file:///secret/a",
        "file:///secret/a\t",
    ],
)
async def test_other_spellings_of_a_secret_resource_need_its_scope(server: Server, app: McpMiddleware, uri: str):
    assert (await call(app, request("resources/read", uri=uri), server.token("other"))).status == 403


@pytest.mark.rule("MC-13")
async def test_foreign_origin_is_refused(server: Server):
    app = server.protect(RULES, allowed_origins=["https://App.example.com:443", "http://localhost:3000"])
    for origin, status in (
        (b"https://app.example.com", 200),
        (b"http://localhost:3000", 200),
        (b"https://mcp.test", 200),  # that of the resource
        (b"https://evil.example", 403),
        (b"https://app.example.com.evil.example", 403),
        (b"http://app.example.com", 403),
        (b"http://mcp.test", 403),
        (b"https://mcp.test:8443", 403),
        (b"HTTPS://mcp.test", 403),
        (b"null", 403),
        (b"", 403),
        (b"https://mcp.test, https://evil.example", 403),
        (b"https://mcp.test\xff", 403),
    ):
        for method in ("POST", "GET", "DELETE"):
            body = tool_call("read") if method == "POST" else b""
            answer = await call(app, body, server.token("files:read"), (b"origin", origin), method=method)
            assert answer.status == status, origin
            assert (answer.received is None) == (status == 403)
    both = ((b"origin", b"https://mcp.test"), (b"origin", b"https://mcp.test"))
    assert (await call(app, tool_call("read"), server.token("files:read"), *both)).status == 403
    assert (await call(app, tool_call("read"), server.token("files:read"))).status == 200


async def test_body_is_bounded(server: Server):
    app = server.protect(RULES, max_body_bytes=1000)
    token = server.token("files:read")
    small, large = (tool_call("read", text="x" * size) for size in (500, 1000))
    assert (await call(app, small, token)).status == 200
    for chunks in (None, [json.dumps(large).encode()[at : at + 10] for at in range(0, 1100, 10)]):
        answer = await call(app, large, token, chunks=chunks)
        assert (answer.status, answer.received) == (413, None)
    declared = await call(app, small, token, (b"content-length", b"1001"))
    assert declared.status == 413


async def test_little_is_read_without_a_token(server: Server, app: McpMiddleware):
    """A long body is not read to the end to name a scope in the challenge."""
    short = await call(app, tool_call("delete_all", text="x" * 16_000))
    assert 'scope="files:write"' in short.challenge
    long = await call(app, tool_call("delete_all", text="x" * 17_000))
    assert (long.status, "scope=" in long.challenge) == (401, False)
    of_headers = await call(app, tool_call("delete_all", text="x" * 17_000), *new("tools/call", "delete_all"))
    assert 'scope="files:write"' in of_headers.challenge


class Slow:
    """A client that sends a part of the body, and then nothing."""

    def __init__(self, app: Any, *headers: Pair) -> None:
        self.app = app
        self.headers = headers
        self.received = 0
        self.called = False

    async def send_part(self, *, gone: bool = False) -> Answer:
        sent: list[Message] = []
        parts = [{"type": "http.request", "body": b'{"method":', "more_body": True}]

        async def receive() -> Message:
            self.received += 1
            if parts:
                return parts.pop()
            if gone:
                return {"type": "http.disconnect"}
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {
            "type": "http", "method": "POST", "scheme": "https", "path": "/mcp", "query_string": b"", "root_path": "",
            "headers": list(self.headers), "client": None, "state": {"received": []},
        }  # fmt: skip
        await self.app(scope, receive, send)
        return Answer(sent[0]["status"], list(sent[0]["headers"]), sent[1]["body"], None)


async def test_slow_body_times_out(server: Server):
    app = server.protect(RULES, body_timeout=0.01)
    answer = await Slow(app, server.token("files:read")).send_part()
    assert answer.status == 408
    for headers in ((), (OLD,)):
        answer = await Slow(app, *headers).send_part()
        assert (answer.status, "scope=" in answer.challenge) == (401, False)


async def test_request_that_waits_for_its_body_can_be_cancelled(server: Server, app: McpMiddleware):
    with anyio.move_on_after(0.01) as limit:
        await Slow(app, server.token("files:read")).send_part()
    assert limit.cancelled_caught


async def test_error_of_the_server_in_receive_is_not_caught(server: Server, app: McpMiddleware):
    class ServerError(Exception):
        pass

    async def receive() -> Message:
        await anyio.lowlevel.checkpoint()
        raise ServerError

    scope: Scope = {
        "type": "http", "method": "POST", "scheme": "https", "path": "/mcp", "query_string": b"", "root_path": "",
        "headers": [server.token("files:read")], "client": None, "state": {},
    }  # fmt: skip
    with pytest.raises(ServerError):
        await app(scope, receive, cast("Any", None))


async def test_request_of_a_disconnected_client_does_not_reach_the_app(server: Server, app: McpMiddleware):
    answer = await Slow(app, server.token("files:read")).send_part(gone=True)
    assert answer.status == 400


async def test_body_is_not_read_for_a_request_whose_headers_name_the_operation(server: Server, app: McpMiddleware):
    slow = Slow(app, *new("tools/call", "delete_all"))
    answer = await slow.send_part()
    assert (answer.status, slow.received) == (401, 0)


@pytest.mark.parametrize("token", [True, False])
async def test_websocket_is_refused(server: Server, app: McpMiddleware, token: bool):
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket", "scheme": "wss", "path": "/mcp", "query_string": b"", "root_path": "",
        "headers": [server.token("files:read files:write")] if token else [], "client": None, "subprotocols": [],
    }  # fmt: skip
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_lifespan_reaches_the_server(server: Server):
    seen: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = McpMiddleware(lifespan, guard=server.guard(), rules=[])
    await app({"type": "lifespan"}, cast("Any", None), cast("Any", None))
    assert seen == ["lifespan"]


async def test_response_of_a_client_needs_a_token_only(server: Server, app: McpMiddleware):
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"roots": []}}
    assert (await call(app, answer, OLD)).status == 401
    assert (await call(app, answer, server.token(), OLD)).status == 200
    assert (await call(app, answer, server.token(), NEW)).status == 400


async def test_outage_is_a_503(server: Server, app: McpMiddleware):
    with server.authority.outage():
        answer = await call(app, tool_call("read"), server.token("files:read"))
    assert (answer.status, dict(answer.headers)[b"retry-after"] > b"") == (503, True)


@pytest.mark.parametrize("cached", [False, True])
async def test_decisions_are_reported_once(server: Server, cached: bool):
    seen: list[Any] = []
    guard = server.guard(on_decision=seen.append)
    app = server.protect(RULES, guard=guard)
    token = server.token("files:read")
    if cached:
        await call(app, tool_call("read"), token)
        seen.clear()
    for body, headers, kind in (
        (tool_call("read"), (), "Granted"),
        (tool_call("delete_all"), (), "Denied"),
        (tool_call("read"), (NEW,), "Denied"),
        (request("unknown"), (), "Denied"),
    ):
        await call(app, body, token, *headers)
        assert [(type(event.decision).__name__, event.adapter) for event in seen] == [(kind, "mcp")]
        seen.clear()


@pytest.mark.rule("MC-15")
async def test_bound_token_needs_its_proof_at_an_mcp_server_too(server: Server):
    key = ProofKey()
    token = server.authority.mint("files:read", bound_to=key)
    app = server.protect(RULES, guard=server.guard(dpop=DPoP(mode="required")))

    def proof(method: str = "POST") -> list[Pair]:
        headers = key.headers(token, method, "https://mcp.test/mcp", at=server.authority.clock.wall())
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    assert (await call(app, tool_call("read"), *proof())).status == 200
    assert (await call(app, tool_call("delete_x"), *proof())).status == 403
    replayed = proof()
    assert (await call(app, tool_call("read"), *replayed)).status == 200
    for wrong in (replayed, proof("GET"), [(b"authorization", b"Bearer " + token.encode())]):
        answer = await call(app, tool_call("read"), *wrong)
        assert (answer.status, answer.received) == (401, None)
        assert answer.challenge.startswith("DPoP ")


@pytest.mark.parametrize(
    "raw",
    [
        b"/%75pload", b"/upload/", b"//upload", b"/x/../upload", b"/upload%2F", b"/%2575pload", b"/x%2f..%2fupload",
        b"/upload%00", b"/upload;x/../", b"/api/upload",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "PUT"])
async def test_another_spelling_of_a_route_is_not_the_mcp_endpoint(server: Server, raw: bytes, method: str):
    """An app may route each of them to /upload, which needs more than any message of a client."""

    async def upload(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = server.protect([Tool("*", "read")], routes=[Rule("/upload", "upload", methods=["POST"])])
    app.app = upload

    async def call_spelled(scope: Scope, receive: Any, send: Any) -> None:
        await app({**scope, "path": unquote(raw.decode()), "raw_path": raw}, receive, send)

    read, both = server.token("read"), server.token("read upload")
    ping = request("ping")
    assert (await call(call_spelled, ping, read, method=method)).status == 403
    assert (await call(call_spelled, ping, method=method)).status in (401, 403)
    assert (await call(app, ping, both, path="/upload")).status == 200
    assert (await call(app, ping, read, path="/upload")).status == 403
    assert (await call(app, ping, both, path="/upload", method="GET")).status == 403  # no route names this method
    for path in ("/mcp", "/mcp/", "/", "/%6dcp"):
        assert (await call(app, ping, read, path=path)).status == 200


@pytest.mark.parametrize("method", ["Tools/Call", "TOOLS/CALL", " tools/call", "tool\u017f/call", "resources/READ"])
async def test_another_spelling_of_a_method_does_not_bypass_tool_rules(server: Server, method: str):
    app = server.protect([Method("*", "read"), Tool("*", "write")])
    answer = await call(app, request(method, name="delete_all", uri="a:b"), server.token("read"))
    assert (answer.status, answer.received) == (403, None)


@pytest.mark.parametrize("kind", ["tools/call", "prompts/get", "resources/read", "other"])
async def test_a_long_name_does_not_block_the_event_loop(server: Server, kind: str):
    """Unicode normalisation sorts combining marks in quadratic time: minutes for a name as long as a body."""
    name = "A" + "\u0301\u0316" * 50_000
    app = server.protect([Tool("D*", "write"), Tool("*", "read"), Prompt("*", "read"), Method("*", "read")])
    message = request(name) if kind == "other" else request(kind, name=name, uri=f"a://b/{name}")
    answer = await call(app, json.dumps(message, ensure_ascii=False).encode(), server.token("read"))
    assert (answer.status, answer.received) == (403, None)
    assert (await call(app, tool_call("A" + "\u0301\u0316" * 1000), server.token("read"))).status == 200
