"""A WSGI app, protected without changing it: rules say which scopes each route requires.

    pip install ".[cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    waitress-serve --listen=127.0.0.1:8000 examples.wsgi_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from scopeguard import Guard, Issuer, Rule, access_token, any_of
from scopeguard.wsgi import GuardMiddleware

rows: list[Any] = []


def plain_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A plain WSGI app. It may read the token, but does not have to."""
    content: Any = rows
    status = "200 OK"
    if environ["PATH_INFO"] == "/healthz":
        content = "ok"
    elif environ["PATH_INFO"] == "/me":
        content = {"client": access_token().client_id}
    elif environ["REQUEST_METHOD"] == "POST":
        rows.append(json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))))
        status, content = "201 Created", {"rows": len(rows)}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(content).encode()]


guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
app = GuardMiddleware(
    plain_app,
    guard=guard,
    public=["/healthz"],
    rules=[
        Rule("/tables/{table}/rows", any_of("bigquery.insertdata", "bigquery"), methods=["POST"]),
        Rule("/tables/{table}/rows", any_of("bigquery.readonly", "bigquery"), methods=["GET"]),
        Rule("/me"),  # any valid token
        # A request that matches no rule is denied.
    ],
)
