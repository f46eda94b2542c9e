"""FastMCP's ``JWTVerifier`` with a key set that it has fetched, in the layers that FastMCP adds to its endpoint."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Starlette + fastmcp"
NEEDS = ("fastmcp",)
BASE = "Starlette"


def app(material: Material) -> Any:
    from fastmcp.server.auth.providers.jwt import JWTVerifier
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    verifier = JWTVerifier(
        jwks_uri=f"{material.origin}/jwks.json",
        issuer=material.authority.url,
        audience=AUDIENCE,
        algorithm=material.algorithm,
        required_scopes=[SCOPE],
    )

    async def rows(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)

    return Starlette(
        routes=[Route("/rows", RequireAuthMiddleware(rows, required_scopes=verifier.required_scopes))],
        middleware=[Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(verifier))],
    )
