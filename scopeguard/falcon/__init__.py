"""Falcon: ``protect`` for an app, and ``requires`` for responders, resources and sinks. WSGI and ASGI.

    class Rows:
        @falcon.before(requires("rows.insert"))
        def on_post(self, req, resp):
            resp.media = {"client": req.context.access_token.client_id}

    api = falcon.App()
    api.add_route("/rows", Rows())
    app = protect(api, guard=guard, public=["/healthz"])

``protect`` puts the middleware for WSGI or ASGI around the app. It checks the token of each request once, before
Falcon routes it, so that sinks, static routes and unknown paths are included. ``requires`` compares the scopes of the
token with the requirement of a responder.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import falcon as _falcon
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "falcon") from None

from scopeguard.falcon.application import protect
from scopeguard.falcon.decorators import Requires, requires
from scopeguard.tokens import access_token, access_token_or_none

__all__ = ["Requires", "access_token", "access_token_or_none", "protect", "requires"]
del _falcon
