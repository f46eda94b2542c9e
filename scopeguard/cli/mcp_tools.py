"""List the tools that an MCP server has registered, for the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_TIMEOUT: Final = 10.0  # seconds; a server may fetch its list from other servers


def registered_tools(app: Any) -> list[str] | None:
    """Return the names of the tools of *app*, a server from fastmcp or the official SDK. ``None`` if not known."""
    server = _find_server(app)
    if server is None:
        return None
    try:
        tools: Iterable[Any] = asyncio.run(_list_tools(server))
        return sorted(str(tool.name) for tool in tools)
    except Exception:  # noqa: BLE001 - any object may be a server
        return None


async def _list_tools(server: Any) -> Iterable[Any]:
    async with asyncio.timeout(_TIMEOUT):
        tools: Iterable[Any] = await server.list_tools()
        return tools


def _find_server(app: Any) -> Any:
    """Return the object that has registered the tools of *app*, a Starlette app that the server has made."""
    server = getattr(getattr(app, "state", None), "fastmcp_server", None)
    if server is not None:
        return server
    for route in getattr(app, "routes", ()):
        manager = getattr(getattr(route, "endpoint", None), "session_manager", None)
        find_handler = getattr(getattr(manager, "app", None), "get_request_handler", None)
        if find_handler is not None:
            found = getattr(getattr(find_handler("tools/list"), "handler", None), "__self__", None)
            if hasattr(found, "list_tools"):
                return found
    return None
