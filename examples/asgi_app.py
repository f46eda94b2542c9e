"""An ASGI app, protected without changing it: rules say which scopes each route requires.

    pip install ".[cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    uvicorn examples.asgi_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import json
import os
from typing import Any

from scopeguard import Guard, Issuer, Rule, access_token, any_of
from scopeguard.asgi import GuardMiddleware

rows: list[Any] = []


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    """A plain ASGI app. It may read the token, but does not have to."""
    if scope["type"] != "http":
        raise RuntimeError("this app speaks HTTP only")
    content: Any = rows
    status = 200
    if scope["path"] == "/healthz":
        content = "ok"
    elif scope["path"] == "/me":
        content = {"client": access_token().client_id}
    elif scope["method"] == "POST":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        rows.append(json.loads(body))
        status, content = 201, {"rows": len(rows)}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


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
