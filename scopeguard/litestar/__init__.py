"""Litestar: an extension that requires a token for every route, guards, and an accessor of the token.

    @post("/insert", guards=[requires(any_of("bigquery.insertdata", "bigquery"))])
    async def insert(token: NamedDependency[AccessToken]) -> dict[str, str | None]:
        return {"subject": token.subject}

    @get("/healthz", scopeguard="public")
    async def health() -> str:
        return "ok"

    app = Litestar([insert, health], dependencies={"token": provide_token()})
    ScopeGuard(app, guard)

The extension is the ASGI middleware, around ``app.asgi_handler``. It looks up the handler of a request in the router
of Litestar, and checks the token before any middleware of the app runs, and even if no route matches. A refusal is a
finished response, so that no exception handler of the app changes it. Litestar's ``request.user`` and ``request.auth``
are the token.

``requires`` also works without the extension, in an app behind :class:`scopeguard.asgi.GuardMiddleware`. Without either
it raises, and the handler does not run.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import litestar as _litestar
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "litestar") from None

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.asgi import CloseStreams
from scopeguard.litestar.application import AccessRefused, ScopeGuard, provide_token, renew, requires
from scopeguard.litestar.openapi import OpenAPISecurity
from scopeguard.tokens import access_token, access_token_or_none

__all__ = [
    "REQUIREMENT", "AccessRefused", "CloseStreams", "OpenAPISecurity", "ScopeGuard", "access_token",
    "access_token_or_none", "provide_token", "renew", "requires",
]  # fmt: skip
del _litestar
