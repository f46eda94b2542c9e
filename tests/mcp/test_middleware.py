"""Each operation of an MCP server needs what its rule says, whatever headers and body look like."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_calls import METADATA, NEW, OLD, RESOURCE, Server, call, new, record, request, tool_call
from scopeguard import (
    AUTHENTICATED,
    DENIED,
    MACHINE,
    ApiKey,
    ApiKeys,
    ConfigurationError,
    Guard,
    Issuer,
    Rule,
    all_of,
    any_of,
)
from scopeguard.mcp import PROTOCOL_METHODS, McpMiddleware, Method, Prompt, ResourceUri, Tool
from scopeguard.spec.api_key import make_key

pytestmark = pytest.mark.anyio

RULES = [
    Tool("delete_*", all_of("files:write", "files:read")),
    Tool("pay", lambda arguments: all_of("pay:large") if arguments["amount"] > 100 else all_of("pay")),
    Tool("closed", DENIED),
    Tool("*", all_of("files:read")),
    Prompt("review", "prompts"),
    ResourceUri("file:///public/**", AUTHENTICATED),
    ResourceUri("file:///reports/*", "reports"),
    Method("tools/list", AUTHENTICATED),
]


@pytest.fixture
def app(server: Server) -> McpMiddleware:
    return server.protect(RULES)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.rule("MC-01", "N-02", "N-09")
@pytest.mark.parametrize("headers", [(), (OLD,), new("tools/call", "delete_all")], ids=["absent", "older", "newer"])
@pytest.mark.parametrize("token", [(), ((b"authorization", b"Bearer no.valid.token"),)], ids=["missing", "invalid"])
async def test_request_without_valid_token_learns_the_scopes_of_its_operation(
    app: McpMiddleware, headers: Any, token: Any
):
    answer = await call(app, tool_call("delete_all"), *headers, *token)
    assert (answer.status, answer.received) == (401, None)
    assert 'scope="files:write files:read"' in answer.challenge
    assert METADATA in answer.challenge
    assert ("error=" in answer.challenge) == bool(token)


@pytest.mark.rule("MC-01")
@pytest.mark.parametrize("token", [(), ((b"authorization", b"Bearer no.valid.token"),)], ids=["missing", "invalid"])
@pytest.mark.parametrize("headers", [(), (NEW,)], ids=["older", "newer"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b"name=value"])
async def test_probe_that_is_not_a_message_learns_where_the_metadata_is(
    app: McpMiddleware, body: bytes, headers: Any, token: Any
):
    """Clients that know only the URL send any request to it, to find the challenge."""
    answer = await call(app, body, *headers, *token)
    assert (answer.status, answer.received) == (401, None)
    assert METADATA in answer.challenge
    assert "scope=" not in answer.challenge


@pytest.mark.rule("MC-02", "MC-03", "N-08", "N-10", "N-11")
@pytest.mark.parametrize("headers", [(), new("tools/call", "delete_all")], ids=["older", "newer"])
async def test_missing_scope_of_a_tool_is_a_403_with_all_scopes_of_the_operation_only(
    server: Server, app: McpMiddleware, headers: Any
):
    answer = await call(app, tool_call("delete_all"), server.token("files:read other"), *headers)
    assert (answer.status, answer.received) == (403, None)
    assert 'error="insufficient_scope"' in answer.challenge
    assert 'scope="files:write files:read"' in answer.challenge
    assert METADATA in answer.challenge
    assert "other" not in answer.challenge


@pytest.mark.parametrize("headers", [(), new("tools/call", "delete_all")], ids=["older", "newer"])
async def test_app_receives_the_same_body(server: Server, app: McpMiddleware, headers: Any):
    body = b'{"jsonrpc":"2.0", "id":"x",\n "method":"tools/call","params":{"name":"delete_all"}}'
    for token in [server.token("files:read files:write")] * 2:  # verified, then from the cache
        answer = await call(app, body, token, *headers, chunks=[body[:7], b"", body[7:]])
        assert (answer.status, answer.received, answer.body) == (200, body, b"ok")


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_response_to_an_api_key_is_not_for_shared_caches(server: Server, method: str):
    """Fault: an adapter that checks in its own way, and leaves out what the others do around the check."""
    identifier, text, digest = make_key("acme", lambda size: b"x" * size)
    key = ApiKey(id=identifier, sha256=digest, client_id="reports", scopes=["files:read"], expires_at=None)
    keys = ApiKeys(prefix="acme", lookup=lambda _: key, issuer="https://mcp.test/keys")
    guard = server.guard(api_keys=keys, token_sources=["header", "api_key"])
    app = server.protect(RULES, guard=guard)
    body = tool_call("read") if method == "POST" else b""
    for credential, wanted in (((b"x-api-key", text.encode()), b"private"), (server.token("files:read"), None)):
        answer = await call(app, body, credential, method=method)
        assert (answer.status, dict(answer.headers).get(b"cache-control")) == (200, wanted)


@pytest.mark.rule("MC-04", "N-12")
async def test_broader_scope_satisfies_a_narrower_rule_with_a_declared_hierarchy(server: Server):
    guard = server.guard(implies={"files:admin": ["files:write", "files:read"]})
    app = server.protect(RULES, guard=guard)
    assert (await call(app, tool_call("delete_all"), server.token("files:admin"))).status == 200


@pytest.mark.rule("MC-11")
@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("tools/list", 200),
        ("server/discover", 403),
        ("prompts/list", 403),
        ("logging/setLevel", 403),
        ("Tools/List", 403),
        ("tools/list ", 403),
        ("unknown/method", 403),
        ("notifications/unknown", 403),
        *((name, 200) for name in PROTOCOL_METHODS),
    ],
)
async def test_only_methods_with_a_rule_are_allowed(server: Server, app: McpMiddleware, method: str, status: int):
    answer = await call(app, request(method), server.token())
    assert answer.status == status
    assert answer.challenge == ""


@pytest.mark.rule("MC-11")
async def test_operation_without_a_rule_is_denied(server: Server):
    app = server.protect([])
    for body in (
        tool_call("any"), request("prompts/get", name="any"), request("resources/read", uri="file:///any"),
        request("tools/list"),
    ):  # fmt: skip
        assert (await call(app, body, server.token("files:read"))).status == 403
        assert (await call(app, body)).status == 401


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        (request("prompts/get", name="any"), "operation=prompts/get any"),
        (request("tools/list"), "operation=tools/list"),
    ],
    ids=["prompt", "method"],
)
async def test_log_names_the_operation_without_a_rule(
    server: Server, caplog: pytest.LogCaptureFixture, body: Any, operation: str
):
    await call(server.protect([]), body, server.token("files:read"))
    (record,) = (each for each in caplog.records if each.name == "scopeguard.decisions")
    assert f"no_rule ({operation}): " in record.getMessage()


async def test_rule_replaces_the_default_of_a_protocol_method(server: Server):
    app = server.protect([Method("initialize", all_of("connect"))])
    assert (await call(app, request("initialize"), server.token())).status == 403
    assert (await call(app, request("initialize"), server.token("connect"))).status == 200
    assert (await call(app, request("ping"), server.token())).status == 200


@pytest.mark.rule("N-11")
async def test_function_decides_from_the_arguments(server: Server, app: McpMiddleware):
    for amount, scope in ((5, "pay"), (500, "pay:large")):
        for headers in ((), new("tools/call", "pay")):
            refused = await call(app, tool_call("pay", amount=amount), server.token("x"), *headers)
            assert (refused.status, f'scope="{scope}"' in refused.challenge) == (403, True)
            unknown = await call(app, tool_call("pay", amount=amount), *headers)
            assert (unknown.status, f'scope="{scope}"' in unknown.challenge) == (401, True)
        assert (await call(app, tool_call("pay", amount=amount), server.token(scope))).status == 200


@pytest.mark.parametrize("body", [tool_call("pay"), tool_call("pay", amount="x"), request("tools/call", name="pay")])
async def test_failure_of_a_function_denies(server: Server, app: McpMiddleware, body: Any):
    answer = await call(app, body, server.token("pay pay:large"))
    assert (answer.status, answer.challenge, answer.received) == (403, "", None)
    assert (await call(app, body)).status == 401


@pytest.mark.parametrize("result", [None, True, 7, "public", [all_of("a")]])
async def test_wrong_result_of_a_function_denies(server: Server, result: Any):
    app = server.protect([Tool("*", lambda arguments: result)])
    assert (await call(app, tool_call("any"), server.token("a"))).status == 403


async def test_condition_of_a_rule_applies(server: Server):
    app = server.protect([Tool("*", MACHINE), Prompt("*", any_of("a", "b"))])
    assert (await call(app, tool_call("any"), server.token(sub="someone"))).status == 403
    assert (await call(app, tool_call("any"), server.token())).status == 200
    assert (await call(app, request("prompts/get", name="x"), server.token("b"))).status == 200


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("file:///public/a/b", 200),
        ("FILE:///public/a", 200),
        ("file://localhost/public/a", 200),
        ("file:///reports/a", 403),
        ("file:///reports/a/b", 403),
        ("file:///public/../etc/passwd", 403),
        ("file:///public/%2e%2e/etc/passwd", 403),
        ("file:///public/%252e%252e/etc/passwd", 403),
        ("file:///public/..%2fetc", 403),
        ("file:///public\\..\\etc", 403),
        ("file:///public//x", 403),
        ("file:///public/a\n", 403),
        ("file://evil/public/a", 403),
        ("public/a", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
async def test_resources_are_matched_in_one_form(
    server: Server, app: McpMiddleware, uri: str, status: int, method: str
):
    assert (await call(app, request(method, uri=uri), server.token())).status == status


async def test_prompts_have_rules_of_their_own(server: Server, app: McpMiddleware):
    for name, scope, status in (("review", "prompts", 200), ("review", "x", 403), ("other", "prompts files:read", 403)):
        assert (await call(app, request("prompts/get", name=name), server.token(scope))).status == status


@pytest.mark.rule("N-07", "N-16")
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_session_id_does_not_replace_a_token(server: Server, app: McpMiddleware, method: str):
    session = (b"mcp-session-id", b"0123456789abcdef0123456789abcdef")
    body = request("ping") if method == "POST" else b""
    refused = await call(app, body, session, method=method)
    assert (refused.status, refused.received) == (401, None)
    assert METADATA in refused.challenge
    assert (await call(app, body, session, server.token(), method=method)).status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "post"])
async def test_other_http_methods_are_denied(server: Server, app: McpMiddleware, method: str):
    assert (await call(app, request("ping"), method=method)).status == 401
    assert (await call(app, request("ping"), server.token("files:read"), method=method)).status == 403


@pytest.mark.rule("MC-12", "N-03", "N-04")
@pytest.mark.parametrize("claims", [{"aud": "https://other.test/mcp"}, {"aud": None}, {"exp": 1}], ids=str)
async def test_token_for_another_resource_or_expired_is_invalid(
    server: Server, app: McpMiddleware, claims: dict[str, Any]
):
    answer = await call(app, tool_call("read"), server.token("files:read", **claims))
    assert (answer.status, answer.received) == (401, None)
    assert 'error="invalid_token"' in answer.challenge


@pytest.mark.rule("MC-14", "N-06")
async def test_token_in_the_query_is_not_accepted(server: Server, app: McpMiddleware):
    token = server.token("files:read")[1].removeprefix(b"Bearer ")
    answer = await call(app, tool_call("read"), query=b"access_token=" + token)
    assert answer.status in (400, 401)
    assert answer.received is None


@pytest.mark.rule("N-06")
@pytest.mark.parametrize("sources", [["query"], ["header", "query"], ["form"]], ids=str)
def test_guard_that_takes_tokens_elsewhere_is_refused(sources: list[str]):
    guard = Guard(Issuer("https://as.test", audience=RESOURCE), token_sources=sources)
    with pytest.raises(ConfigurationError, match="token_sources"):
        Server().protect(RULES, guard=guard)


@pytest.mark.rule("MC-05", "N-13", "N-01")
async def test_metadata_lists_the_scopes_of_all_rules(server: Server, app: McpMiddleware):
    answer = await call(app, method="GET", path="/.well-known/oauth-protected-resource/mcp")
    assert answer.json["scopes_supported"] == ["files:read", "files:write", "prompts", "reports"]
    assert answer.json["resource"] == RESOURCE
    assert answer.json["authorization_servers"] == ["https://as.test"]
    with pytest.warns(UserWarning, match="offline_access"):
        rules = [Tool("*", all_of("files:read", "offline_access"))]
    other = server.protect(rules)
    answer = await call(other, method="GET", path="/.well-known/oauth-protected-resource/mcp")
    assert answer.json["scopes_supported"] == ["files:read"]


async def test_routes_beside_the_endpoint_have_rules_of_their_own(server: Server):
    app = server.protect(RULES, routes=[Rule("/upload", all_of("upload"), ["POST"])], public=["/healthz"])
    assert (await call(app, method="GET", path="/healthz")).status == 200
    assert (await call(app, b"data", server.token("upload"), path="/upload")).received == b"data"
    assert (await call(app, b"data", server.token("files:read"), path="/upload")).status == 403
    for path in ("/mcp", "/mcp/", "//mcp", "/other", "/upload/", "/UPLOAD"):
        assert (await call(app, tool_call("delete_x"), server.token("upload"), path=path)).status == 403


@pytest.mark.parametrize("path", ["/{rest:path}", "/{rest:segments}/"])
def test_route_that_hides_the_endpoint_is_refused(server: Server, path: str):
    with pytest.raises(ConfigurationError, match="matches every path"):
        server.protect(RULES, routes=[Rule(path, all_of("a"))])


@pytest.mark.rule("N-15")
@pytest.mark.parametrize("app", [None, 7, "server.py"], ids=repr)
def test_server_without_http_is_refused(server: Server, app: Any):
    with pytest.raises(ConfigurationError):
        McpMiddleware(app, guard=server.guard(), rules=RULES)


def test_rules_are_required(server: Server):
    with pytest.raises(ConfigurationError, match="rules are missing"):
        McpMiddleware(record, guard=server.guard())  # a mistake that must not open the server
