"""A Flask app: the extension denies by default, and ``@requires`` says which scopes a view requires.

    pip install ".[flask,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    flask --app examples.flask_app run --port 8000

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request
from flask.views import MethodView

from scopeguard import Guard, Issuer, any_of
from scopeguard.flask import ScopeGuard, access_token, public, requires

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
app = Flask(__name__)
ScopeGuard(app, guard)
tables: dict[str, list[Any]] = {}


class Rows(MethodView):
    @requires(any_of("bigquery.readonly", "bigquery"))
    def get(self, table: str) -> list[Any]:
        return tables.get(table, [])

    @requires(any_of("bigquery.insertdata", "bigquery"))
    def post(self, table: str) -> tuple[dict[str, int], int]:
        rows = tables.setdefault(table, [])
        rows.append(request.get_json())
        return {"rows": len(rows)}, 201


app.add_url_rule("/tables/<table>/rows", view_func=Rows.as_view("rows"))


@app.get("/me")
def me() -> dict[str, str | None]:  # without @requires: any valid token
    return {"client": access_token().client_id}


@app.get("/healthz")
@public
def healthz() -> str:
    return "ok"
