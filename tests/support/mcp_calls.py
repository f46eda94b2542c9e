"""A guarded MCP server that records what reaches it, and calls of it in process."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from scopeguard import Guard
from scopeguard.adapter.asgi_types import Message, Receive, Scope, Send
from scopeguard.mcp import McpMiddleware
from scopeguard.testing import FakeAuthority

RESOURCE = "https://mcp.test/mcp"
METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
NEW = (b"mcp-protocol-version", b"2026-07-28")
OLD = (b"mcp-protocol-version", b"2025-06-18")

Pair = tuple[bytes, bytes]


@dataclass
class Answer:
    """A response, and the body that the app received; ``None`` if it was not called."""

    status: int
    headers: list[Pair]
    body: bytes
    received: bytes | None

    @property
    def challenge(self) -> str:
        return ", ".join(value.decode() for name, value in self.headers if name == b"www-authenticate")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> int:
        """The code of a JSON-RPC error."""
        assert dict(self.headers)[b"content-type"] == b"application/json"
        code: int = self.json["error"]["code"]
        return code


@dataclass
class Server:
    """An MCP server behind a guard."""

    authority: FakeAuthority = field(default_factory=lambda: FakeAuthority("https://as.test", audience=RESOURCE))

    def guard(self, **settings: Any) -> Guard:
        return Guard(
            self.authority.issuer,
            **{"resource": RESOURCE, "audit": "off", **settings},
            transport=self.authority.transport,
            clock=self.authority.clock,
        )

    def protect(self, rules: Iterable[Any], *, guard: Guard | None = None, **settings: Any) -> McpMiddleware:
        return McpMiddleware(record, guard=guard or self.guard(), rules=rules, **settings)

    def token(self, scopes: str = "", **claims: Any) -> Pair:
        return b"authorization", f"Bearer {self.authority.mint(scopes or None, claims=claims)}".encode()


async def record(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer any request with 200, and note its body in the scope."""
    body, more = b"", True
    while more and scope["type"] == "http" and scope["method"] == "POST":
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    scope["state"]["received"].append(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"ok"})


Call = Callable[..., Awaitable[Answer]]


async def call(
    app: Any,
    body: object = b"",
    *headers: Pair,
    method: str = "POST",
    path: str = "/mcp",
    query: bytes = b"",
    chunks: list[bytes] | None = None,
) -> Answer:
    """Send one request to *app*. *body*: bytes, or an object that is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [data] if chunks is None else chunks
    received: list[bytes] = []
    sent: list[Message] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"mcp.test"), (b"content-type", b"application/json"), *headers],
        "client": ("192.0.2.1", 1234),
        "state": {"received": received},
    }
    left = list(parts)

    async def receive() -> Message:
        if chunks is not None:
            await anyio.lowlevel.checkpoint()  # as from a server that waits for the network
        if left:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(start["status"], list(start["headers"]), content, received[0] if received else None)


def request(method: str, /, id: int | str = 1, **params: Any) -> dict[str, Any]:  # noqa: A002 - the name in JSON-RPC
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def tool_call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return request("tools/call", name=name, arguments=arguments)


def new(method: str, name: str | None = None) -> tuple[Pair, ...]:
    """The header fields of version 2026-07-28."""
    named = () if name is None else ((b"mcp-name", name.encode()),)
    return (NEW, (b"mcp-method", method.encode()), *named)


@pytest.fixture
def server() -> Server:
    return Server()
