"""The MCP SDK's ``BearerAuthBackend`` and ``RequireAuthMiddleware``, as it adds them to its endpoint.

The SDK leaves the verification to the user, so a verifier with PyJWT and the key at hand does it.
"""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Starlette + mcp SDK"
NEEDS = ("mcp", "pyjwt")
BASE = "Starlette"


def app(material: Material) -> Any:
    import jwt
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
    from mcp.server.auth.provider import AccessToken
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    key, issuer, algorithms = material.public_key, material.authority.url, [material.algorithm]

    class Verifier:
        async def verify_token(self, token: str) -> Any:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=algorithms,
                    audience=AUDIENCE,
                    issuer=issuer,
                    options={"require": ["exp", "iss", "aud"]},
                )
            except jwt.InvalidTokenError:
                return None
            return AccessToken(
                token=token,
                client_id=claims["client_id"],
                scopes=claims.get("scope", "").split(),
                expires_at=claims["exp"],
                resource=AUDIENCE,
                subject=claims["sub"],
                claims=claims,
            )

    async def rows(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)

    return Starlette(
        routes=[Route("/rows", RequireAuthMiddleware(rows, required_scopes=[SCOPE]))],
        middleware=[Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(Verifier()))],
    )
