"""Measures what a rule for an MCP tool adds to a request with a token that was verified before.

    python -m benchmarks.mcp_tools [--rounds N]

Each contestant answers the same POST, a ``tools/call`` with a body of one kilobyte. *plain* is ``GuardMiddleware``,
which checks the token and leaves the body to the app. The others are ``McpMiddleware``, with the headers of version
2026-07-28 and without them. The app reads the body, as every server does. The figure is the difference of the smallest
times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import Turn, figure, measure_in_turns, now, silence, table
from scopeguard import Guard, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.mcp import McpMiddleware, Tool
from scopeguard.testing import FakeAuthority

URL = "https://mcp.example.com/mcp"
MUST = "<= 15"
NEWER = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/call"), (b"mcp-name", b"search")]


def body() -> bytes:
    """Return a call of a tool in 1,024 bytes, with arguments of several kinds."""
    arguments: dict[str, Any] = {"query": "", "limit": 20, "tags": ["a", "b", "c"], "options": {"exact": True}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": arguments}}
    arguments["query"] = "x" * (1024 - len(json.dumps(message)))
    return json.dumps(message).encode()


async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def contestants(loop: asyncio.AbstractEventLoop) -> dict[str, Turn]:
    authority = FakeAuthority("https://auth.example.com", audience=URL)
    content = body()

    def turn_of(made: Any, more: list[tuple[bytes, bytes]]) -> Turn:
        fields = [
            (b"host", b"mcp.example.com"),
            (b"accept", b"application/json, text/event-stream"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"authorization", b"Bearer " + authority.mint("search").encode()),
            (b"user-agent", b"benchmark"),
            *more,
        ]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def run(times: int) -> float:
            statuses: set[int] = set()

            async def send(message: dict[str, Any]) -> None:
                statuses.add(message.get("status", 200))

            begun = now()
            for _ in range(times):
                scope = {
                    "type": "http", "method": "POST", "scheme": "https", "path": "/mcp", "raw_path": b"/mcp",
                    "query_string": b"", "root_path": "", "headers": fields, "client": ("192.0.2.1", 1), "state": {},
                }  # fmt: skip
                await made(scope, receive, send)
            taken = now() - begun
            if statuses != {200}:
                raise SystemExit(f"responses to good tokens were {sorted(statuses)}")
            return taken

        return lambda times: loop.run_until_complete(run(times))

    def guard() -> Guard:
        return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, resource=URL, audit="off")

    rules = [Tool("delete_*", all_of("delete")), Tool("search", all_of("search"))]
    return {
        "bare": turn_of(app, []),
        "plain": turn_of(GuardMiddleware(app, guard=guard()), []),
        "tool rule, older version": turn_of(McpMiddleware(app, guard=guard(), rules=rules), []),
        "tool rule, version 2026-07-28": turn_of(McpMiddleware(app, guard=guard(), rules=rules), NEWER),
    }


def measure(*, quick: bool = False, rounds: int | None = None) -> dict[str, Any]:
    loop = asyncio.new_event_loop()
    try:
        found = measure_in_turns(contestants(loop), rounds=rounds or (5 if quick else 100))
    finally:
        loop.close()
    plain = found["plain"].smallest
    added = {name: (one.smallest - plain) * 1e6 for name, one in found.items() if name.startswith("tool")}
    rows = [[name, f"{one.smallest * 1e6:.2f}", f"{(one.smallest - plain) * 1e6:+.2f}"] for name, one in found.items()]
    return {
        "rows": rows,
        "figures": [
            figure(f"MCP: what a {name} and a body of 1 KB add to a warm request, µs", value, must=MUST)
            for name, value in added.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    silence()
    print(
        table(
            "An MCP tool rule",
            ["contestant", "µs per request", "more than plain"],
            measure(rounds=parser.parse_args().rounds)["rows"],
        )
    )


if __name__ == "__main__":
    main()
