"""FastAPI: a dependency for ``Security`` and ``Depends`` that also describes itself in the OpenAPI document.

    protected = Protected(guard, token_url="https://auth.example.com/token", scopes={"bigquery.insertdata": "insert"})

    @app.post("/insert")
    async def insert(token: Annotated[AccessToken, Security(protected, scopes=["bigquery.insertdata"])]): ...

    @app.get("/tables")
    async def tables(token: Annotated[AccessToken, Depends(protected.requires(any_of("bigquery", "admin")))]): ...

The token must have all scopes that ``Security`` lists. ``protected.requires(...)`` takes any requirement.

A dependency protects only the routes that name it. ``FastAPI(dependencies=[Depends(protected)])``, or the same for a
router, protects all routes of the app or router. Responses that no route makes (404, 405), ``/docs`` and
``/openapi.json`` then stay open. To deny by default, put :class:`~scopeguard.asgi.GuardMiddleware` in front of the app.
With the same guard, it checks a token once. When the app starts, an audit reports routes that have no such dependency
(``Guard(audit=...)``).

The OpenAPI document declares the scopes of the operations and their refusals. For this and for the audit, the first
``Protected`` wraps two methods of the class ``FastAPI``: see :mod:`scopeguard.fastapi.application`.

FastAPI parses the body of a request before it calls dependencies. A body that is not JSON therefore gets 400 or 422
even without a token. The fields of a body are validated after the token has been checked.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import fastapi as _fastapi
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "fastapi") from None

from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi.decorators import public
from scopeguard.fastapi.protected import Protected
from scopeguard.fastapi.refusals import AccessRefused
from scopeguard.starlette import renew
from scopeguard.tokens import access_token, access_token_or_none

__all__ = ["AccessRefused", "GuardMiddleware", "Protected", "access_token", "access_token_or_none", "public", "renew"]
del _fastapi
