"""MCP servers behind the guard: ``python -m mcp_apps PORT {sdk,fastmcp} ISSUER`` serves one on loopback.

It runs in the environment that ``make apps`` makes. The servers are built as their documentation says, and know nothing
of tokens.
"""

import sys
from importlib import import_module
from typing import Any, Final

from scopeguard import AUTHENTICATED, Guard, Issuer, Resource, all_of
from scopeguard.mcp import McpMiddleware, Method, Tool

TOOLS: Final = [Tool("read_*", all_of("files:read")), Tool("delete_*", all_of("files:write"))]


def _read_file(name: str) -> str:
    return f"the text of {name}"


def _delete_file(name: str) -> str:
    return f"deleted {name}"


def _sdk() -> Any:
    server = import_module("mcp.server.mcpserver").MCPServer("files")
    server.tool("read_file")(_read_file)
    server.tool("delete_file")(_delete_file)
    return server.streamable_http_app()


def _fastmcp() -> Any:
    server = import_module("fastmcp").FastMCP("files")
    server.tool(_read_file, name="read_file")
    server.tool(_delete_file, name="delete_file")
    return server.http_app(path="/mcp")


def guard_server(kind: str, url: str, issuer: str) -> Any:
    """Return the MCP server of *kind* behind the middleware, for the URL *url*.

    There are two ways to make a client begin with the scope ``files:read`` only. The first challenge names it in front
    of the server of the official SDK. In front of fastmcp, the challenge names no scope, and the metadata lists this
    one only.
    """
    app = {"sdk": _sdk, "fastmcp": _fastmcp}[kind]()
    if kind == "sdk":
        resource, methods = Resource(url), Method("*", all_of("files:read"))
    else:
        resource, methods = Resource(url, scopes=["files:read"]), Method("*", AUTHENTICATED)
    guard = Guard(Issuer(issuer), resource=resource, profile="mcp")
    return McpMiddleware(app, guard=guard, rules=[*TOOLS, methods])


def main(port: str, kind: str, issuer: str) -> None:
    app = guard_server(kind, f"http://127.0.0.1:{port}/mcp", issuer)
    import_module("uvicorn").run(app, port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
