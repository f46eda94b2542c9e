"""PyJWT in an ASGI middleware, with the key at hand, as apps without a library do it."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Starlette + PyJWT by hand"
NEEDS = ("pyjwt", "starlette")
BASE = "Starlette"


def app(material: Material) -> Any:
    import jwt
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    key, issuer, algorithms = material.public_key, material.authority.url, [material.algorithm]

    class BearerAuth:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            kind, _, token = authorization.decode("latin-1").partition(" ")
            response: Response | None = None
            if kind.lower() != "bearer":
                response = JSONResponse({"error": "unauthorized"}, 401, {"WWW-Authenticate": "Bearer"})
            else:
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
                    response = JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": "Bearer"})
                else:
                    if SCOPE not in claims.get("scope", "").split():
                        response = JSONResponse({"error": "insufficient_scope"}, 403)
                    scope.setdefault("state", {})["claims"] = claims
            if response is not None:
                await response(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    async def rows(request: Any) -> Response:
        return JSONResponse({})

    return Starlette(routes=[Route("/rows", rows)], middleware=[Middleware(BearerAuth)])
