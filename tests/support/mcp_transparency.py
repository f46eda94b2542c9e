"""Compares MCP servers with the same servers behind the middleware: ``python -m mcp_transparency sdk fastmcp``.

For each kind it prints a line of JSON: what differs, whether a stream is passed on while the tool still runs, and the
results of concurrent calls. Everything is in process. It runs in the environment that ``make apps`` makes.
"""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final

from scopeguard import AUTHENTICATED, Guard, all_of
from scopeguard.mcp import McpMiddleware, Method, Prompt, ResourceUri, Tool
from scopeguard.testing import FakeAuthority

URL: Final = "https://mcp.test/mcp"
META: Final = "io.modelcontextprotocol"
CALLS: Final = 250
RULES: Final = [
    Tool("*", all_of("files:read")),
    Prompt("*", AUTHENTICATED),
    ResourceUri("**", AUTHENTICATED),
    Method("*", AUTHENTICATED),
]

App = Callable[[Any, Any, Any], Awaitable[None]]
_gates: Final[list[asyncio.Event]] = []  # the last one lets a tool proceed


def _add(server: Any, context: Any) -> None:
    """Give *server*, of either library, tools, a resource and a prompt."""

    async def echo(text: str) -> str:
        await asyncio.sleep(0)
        return text

    async def wait(ctx: Any) -> str:
        await ctx.report_progress(1, 2)
        await _gates[-1].wait()
        return "done"

    def fail() -> str:
        raise ValueError("a tool that fails")

    wait.__annotations__["ctx"] = context
    for tool in (echo, wait, fail):
        server.tool()(tool)
    server.resource("file:///notes.txt")(_notes)
    server.prompt()(_review)


def _notes() -> str:
    return "notes"


def _review(topic: str) -> str:
    return f"Review {topic}"


def _sdk() -> Any:
    module = import_module("mcp.server.mcpserver")
    server = module.MCPServer("test")
    _add(server, module.Context)
    return server.streamable_http_app(host="mcp.test")


def _fastmcp() -> Any:
    module = import_module("fastmcp")
    server = module.FastMCP("test")
    _add(server, module.Context)
    return server.http_app(path="/mcp")


def modern(method: str, name: str | None = None, /, **params: Any) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return a request of version 2026-07-28."""
    token = {"progressToken": "p"}
    meta = {f"{META}/protocolVersion": "2026-07-28", f"{META}/clientCapabilities": {}, **token}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    named = [] if name is None else [("mcp-name", name)]
    return "POST", [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), *named], json.dumps(body).encode()


def older_request(
    method: str, message_id: int | None = 1, /, **params: Any
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return a request of version 2025-06-18."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if message_id is not None:
        body["id"] = message_id
    version = [] if method == "initialize" else [("mcp-protocol-version", "2025-06-18")]
    return "POST", version, json.dumps(body, indent=1).encode()


async def send(
    app: App,
    what: tuple[str, list[tuple[str, str]], bytes],
    *fields: tuple[str, str],
    on_body: Callable[[bytes], None] | None = None,
) -> list[tuple[Any, ...]]:
    """Return the messages that *app* sends, as tuples."""
    method, more, body = what
    parts = [body[:20], body[20:]]
    sent: list[tuple[Any, ...]] = []

    async def receive() -> dict[str, Any]:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await asyncio.sleep(3600)
        raise AssertionError

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            sent.append((message["status"], *sorted((n.decode(), v.decode()) for n, v in message["headers"])))
        else:
            sent.append((message.get("body", b"").decode(), message.get("more_body", False)))
            if on_body is not None:
                on_body(message.get("body", b""))

    headers = [
        ("host", "mcp.test"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        *more,
        *fields,
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
        "server": ("mcp.test", 443), "client": ("192.0.2.1", 1), "path": "/mcp", "raw_path": b"/mcp", "root_path": "",
        "query_string": b"", "headers": [(n.encode(), v.encode()) for n, v in headers], "state": {},
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, take), 20)
    return sent


ASKED: Final = {
    "discover": modern("server/discover"),
    "tools/list": modern("tools/list"),
    "tools/call": modern("tools/call", "echo", name="echo", arguments={"text": "é \u2028 x" * 300}),
    "a tool that fails": modern("tools/call", "fail", name="fail", arguments={}),
    "a tool that is not there": modern("tools/call", "none", name="none", arguments={}),
    "wrong arguments": modern("tools/call", "echo", name="echo", arguments={"text": {}}),
    "resources/read": modern("resources/read", "file:///notes.txt", uri="file:///notes.txt"),
    "prompts/get": modern("prompts/get", "review", name="review", arguments={"topic": "tea"}),
    "unknown method": modern("unknown/method"),
    "unknown version": ("POST", [("mcp-protocol-version", "2099-01-01"), *modern("ping")[1][1:]], modern("ping")[2]),
    "GET": ("GET", [("mcp-protocol-version", "2026-07-28")], b""),
    "DELETE": ("DELETE", [("mcp-protocol-version", "2026-07-28")], b""),
}


async def session(app: App, *fields: tuple[str, str]) -> list[list[tuple[Any, ...]]]:
    """Return the responses in a session of version 2025-06-18, without its random identifier."""
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    opened = await send(app, older_request("initialize", **client), *fields)
    found = dict(opened[0][1:])
    held = (("mcp-session-id", found["mcp-session-id"]),) if "mcp-session-id" in found else ()
    responses = [
        opened,
        await send(app, older_request("notifications/initialized", None), *fields, *held),
        await send(app, older_request("tools/list", 2), *fields, *held),
        await send(app, older_request("tools/call", 3, name="echo", arguments={"text": "x"}), *fields, *held),
        await send(app, ("DELETE", [("mcp-protocol-version", "2025-06-18")], b""), *fields, *held),
    ]
    secret = found.get("mcp-session-id", "-")
    return [json.loads(json.dumps(response).replace(secret, "SESSION")) for response in responses]


async def stream(app: App, *fields: tuple[str, str]) -> bool:
    """Return whether the first part of a stream arrives while the tool still runs."""
    proceed = asyncio.Event()
    _gates.append(proceed)
    early: list[bool] = []

    def take(body: bytes) -> None:
        if b"notifications/progress" in body:
            early.append(not proceed.is_set())
            proceed.set()

    sent = await send(app, modern("tools/call", "wait", name="wait", arguments={}), *fields, on_body=take)
    return early == [True] and "done" in sent[-2][0] + sent[-1][0]


async def concurrent(app: App, *fields: tuple[str, str]) -> dict[str, int]:
    """Return how often each kind of result occurs among many calls at once."""

    async def one(number: int) -> str:
        text = f"call {number}"
        sent = await send(app, modern("tools/call", "echo", name="echo", arguments={"text": text}), *fields)
        return f"{sent[0][0]} {'right' if text in ''.join(part[0] for part in sent[1:]) else 'wrong'}"

    return dict(Counter(await asyncio.gather(*map(one, range(CALLS)))))


async def main(kind: str) -> None:
    bare = {"sdk": _sdk, "fastmcp": _fastmcp}[kind]()
    authority = FakeAuthority("https://as.test", audience=URL)
    guard = Guard(authority.issuer, resource=URL, transport=authority.transport, clock=authority.clock, audit="off")
    guarded = McpMiddleware(bare, guard=guard, rules=RULES)
    token = ("authorization", f"Bearer {authority.mint('files:read')}")
    different: list[Any] = []
    async with bare.router.lifespan_context(bare):
        for name, what in ASKED.items():
            before, after = [await send(app, what, token) for app in (bare, guarded)]
            if before != after:
                different.append([name, before, after])
        in_session = [await session(app, token) for app in (bare, guarded)]
        if in_session[0] != in_session[1]:
            different.append(["session", *in_session])
        print(
            json.dumps(
                {
                    "compared": len(ASKED) + len(in_session[0]),
                    "statuses": sorted({(await send(bare, what))[0][0] for what in ASKED.values()}),
                    "different": different,
                    "streamed": [await stream(app, token) for app in (bare, guarded)],
                    "concurrent": await concurrent(guarded, token),
                }
            )
        )


if __name__ == "__main__":
    # The servers log each tool that fails with a drawn traceback, which takes longer than all the rest.
    logging.disable(logging.ERROR)
    for _kind in sys.argv[1:]:
        asyncio.run(main(_kind))
