"""Flask: an extension that requires a token for every route, decorators for views, and an accessor of the token.

    app = Flask(__name__)
    ScopeGuard(app, guard, public=["/static/{name:path}"])

    @app.post("/insert")
    @requires(any_of("bigquery.insertdata", "bigquery"))
    def insert():
        return {"subject": access_token().subject}

    @app.get("/healthz")
    @public
    def health():
        return "ok"

The extension checks the token of every request once, before the hooks of the app and even if no route matches. A
refusal is a finished response, so that no error handler of the app changes it. ``requires`` also works without the
extension, in an app behind :class:`scopeguard.wsgi.GuardMiddleware`. Without either it raises, and the view does not
run.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import flask as _flask
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "flask") from None

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.adapter.open_views import optional, public
from scopeguard.flask.decorators import requires
from scopeguard.flask.extension import ScopeGuard
from scopeguard.tokens import access_token, access_token_or_none

__all__ = ["REQUIREMENT", "ScopeGuard", "access_token", "access_token_or_none", "optional", "public", "requires"]
del _flask
