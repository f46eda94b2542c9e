"""Quart: an extension that requires a token for every route, decorators for views, and an accessor of the token.

    app = Quart(__name__)
    ScopeGuard(app, guard, public=["/static/{name:path}"])

    @app.post("/insert")
    @requires(any_of("bigquery.insertdata", "bigquery"))
    async def insert():
        return {"subject": access_token().subject}

    @app.get("/healthz")
    @public
    async def health():
        return "ok"

The extension is the ASGI middleware, around ``app.asgi_app``. It looks up the view of a request in Quart, and checks
the token before Quart runs anything else. A refusal is a finished response, so that no error handler of the app changes
it. ``requires`` also works without the extension, in an app behind :class:`scopeguard.asgi.GuardMiddleware`. Without
either it raises, and the view does not run.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import quart as _quart
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "quart") from None

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.adapter.open_views import optional, public
from scopeguard.asgi import CloseStreams
from scopeguard.quart.application import ScopeGuard
from scopeguard.quart.decorators import renew, requires
from scopeguard.tokens import access_token, access_token_or_none

__all__ = [
    "REQUIREMENT", "CloseStreams", "ScopeGuard", "access_token", "access_token_or_none", "optional", "public", "renew",
    "requires",
]  # fmt: skip
del _quart
