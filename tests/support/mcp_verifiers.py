"""Tries the verifiers with the real libraries: ``python -m mcp_verifiers``.

It runs in the environment that ``make apps`` makes. It prints the HTTP status of each kind of token, by library, as
JSON.
"""

import asyncio
import json
from importlib import import_module
from typing import Any

from mcp_transparency import URL, modern, send
from scopeguard import AuthorityUnavailable, Guard
from scopeguard.mcp.verifier import FastmcpVerifier, SdkVerifier
from scopeguard.testing import FakeAuthority


def _sdk(guard: Guard) -> Any:
    settings = import_module("mcp.server.auth.settings").AuthSettings(
        issuer_url="https://as.test", resource_server_url=URL, required_scopes=["read"], validate_token_resource=True
    )
    server = import_module("mcp.server.mcpserver").MCPServer("x", token_verifier=SdkVerifier(guard), auth=settings)
    return server.streamable_http_app(host="mcp.test")


def _fastmcp(guard: Guard) -> Any:
    return import_module("fastmcp").FastMCP("x", auth=FastmcpVerifier(guard, required_scopes=["read"])).http_app()


def _guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, resource=URL, transport=authority.transport, audit="off")


async def _status(app: Any, token: str) -> Any:
    sent = await send(app, modern("tools/list"), ("authorization", f"Bearer {token}"))
    return sent[0][0]


async def main() -> None:
    found: dict[str, dict[str, Any]] = {}
    for name, build in (("sdk", _sdk), ("fastmcp", _fastmcp)):
        authority = FakeAuthority("https://as.test", audience=URL)
        tokens = {
            "good": authority.mint("read"),
            "weak": authority.mint("other"),
            "of another audience": authority.mint("read", audience="https://other.test"),
            "expired": authority.mint("read", expires_in=-600),
            "bound": authority.mint("read", claims={"cnf": {"jkt": "x"}}),
            "garbage": "gar\u00dfbage",
        }
        app = build(_guard(authority))
        async with app.router.lifespan_context(app):
            found[name] = {kind: await _status(app, token) for kind, token in tokens.items()}
        other = build(_guard(authority))
        with authority.outage():
            try:
                found[name]["outage"] = await _status(other, tokens["good"])
            except AuthorityUnavailable as error:
                found[name]["outage"] = type(error).__name__
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
