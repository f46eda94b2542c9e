"""An MCP server of the official SDK with two tools, and the scopes that the tools need.

The server has no code about tokens.
"""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer

from scopeguard import Guard, Issuer, all_of
from scopeguard.mcp import McpMiddleware, Method, Tool

FILES = {"notes.txt": "Buy tea.", "old.txt": "Buy coffee."}

server = MCPServer("files")


@server.tool()
def read_file(name: str) -> str:
    """Return the text of a file."""
    return FILES[name]


@server.tool()
def delete_file(name: str) -> str:
    """Delete a file."""
    del FILES[name]
    return f"{name} is deleted"


RULES = [
    Method("*", all_of("files:read")),
    Tool("read_*", all_of("files:read")),
    Tool("delete_*", all_of("files:write")),
]


def create_app(url: str, issuer: str) -> Any:
    """Return the server behind the guard. *url* is where clients reach it: the resource that tokens are for."""
    guard = Guard(Issuer(issuer), resource=url, profile="mcp")
    return McpMiddleware(server.streamable_http_app(), guard=guard, rules=RULES)
