"""Requirements for each tool, prompt and resource of an MCP server, around any server that is an ASGI app.

    from scopeguard import AUTHENTICATED, Guard, Issuer, all_of
    from scopeguard.mcp import McpMiddleware, Method, Prompt, ResourceUri, Tool

    guard = Guard(Issuer("https://login.example.com"), resource="https://mcp.example.com/mcp")
    app = McpMiddleware(
        server.streamable_http_app(),
        guard=guard,
        rules=[
            Tool("delete_*", all_of("files:write")),
            Tool("*", all_of("files:read")),
            Method("tools/list", AUTHENTICATED),
        ],
    )

It works over HTTP only. A server that talks over standard input and output has no tokens to check.
"""

from __future__ import annotations

from scopeguard.mcp.middleware import McpMiddleware
from scopeguard.rules.mcp import PROTOCOL_METHODS, McpPolicy, Method, OperationRule, Prompt, ResourceUri, Tool

__all__ = [
    "PROTOCOL_METHODS",
    "McpMiddleware",
    "McpPolicy",
    "Method",
    "OperationRule",
    "Prompt",
    "ResourceUri",
    "Tool",
]
