"""aiohttp: ``setup`` for an app, and decorators for handlers.

    @requires("rows.insert")
    async def insert(request):
        return web.json_response({"client": request["access_token"].client_id})

    app = web.Application()
    app.router.add_post("/rows", insert)
    setup(app, guard, public=["/healthz"])

``setup`` adds middleware, outside of the middleware that the app has. It checks the token of each request once, after
aiohttp has routed the request and before anything else, and for the routes of sub-apps and unknown paths as well.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import aiohttp as _aiohttp
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "aiohttp") from None

from scopeguard.aiohttp.application import setup
from scopeguard.aiohttp.decorators import optional, public, requires
from scopeguard.tokens import access_token, access_token_or_none

__all__ = ["access_token", "access_token_or_none", "optional", "public", "requires", "setup"]
del _aiohttp
