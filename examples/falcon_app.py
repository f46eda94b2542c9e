"""A Falcon app: ``protect`` checks tokens, and ``requires`` says which scopes a responder requires.

    pip install ".[falcon,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    waitress-serve --listen=127.0.0.1:8000 examples.falcon_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import os

import falcon

from scopeguard import Guard, Issuer, any_of
from scopeguard.falcon import access_token, protect, requires

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
tables: dict[str, list[object]] = {}


class Rows:
    @falcon.before(requires(any_of("bigquery.readonly", "bigquery")))
    def on_get(self, _: falcon.Request, resp: falcon.Response, table: str) -> None:
        resp.media = tables.get(table, [])

    @falcon.before(requires(any_of("bigquery.insertdata", "bigquery")))
    def on_post(self, req: falcon.Request, resp: falcon.Response, table: str) -> None:
        rows = tables.setdefault(table, [])
        rows.append(req.get_media())
        resp.status, resp.media = falcon.HTTP_201, {"rows": len(rows)}


class Me:
    def on_get(self, _: falcon.Request, resp: falcon.Response) -> None:  # without requires: any valid token
        resp.media = {"client": access_token().client_id}


class Health:
    def on_get(self, _: falcon.Request, resp: falcon.Response) -> None:
        resp.text = "ok"


api = falcon.App()
api.add_route("/tables/{table}/rows", Rows())
api.add_route("/me", Me())
api.add_route("/healthz", Health())
app = protect(api, guard=guard, public=["/healthz"])
