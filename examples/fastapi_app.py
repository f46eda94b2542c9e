"""A FastAPI app with ``Security`` and ``Depends``. http://127.0.0.1:8000/docs has an Authorize button.

    pip install ".[fastapi,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    uvicorn examples.fastapi_app:app

Press the button, enter "loader" and "any secret", choose scopes, and try the operations. ``python
examples/swagger_ui.py`` starts both in one process, with users who sign in on a login page.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Security

from scopeguard import AccessToken, Guard, Issuer, any_of
from scopeguard.fastapi import GuardMiddleware, Protected

ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:9000")
AUDIENCE = "http://127.0.0.1:8000"
DESCRIPTIONS = {"bigquery.insertdata": "Insert rows", "bigquery.readonly": "Read rows", "bigquery": "Everything"}
guard = Guard(Issuer(ISSUER, audience=AUDIENCE))
protected = Protected(
    guard,
    token_url=f"{ISSUER}/token",
    authorization_url=f"{ISSUER}/authorize",
    scopes=DESCRIPTIONS,
)
app = FastAPI(title="Tables", redoc_url=None, swagger_ui_init_oauth={"clientId": "swagger"})
# Without the middleware, routes without a dependency are open: "scopeguard audit examples.fastapi_app:app" shows them.
app.add_middleware(GuardMiddleware, guard=guard, public=["/healthz", "/openapi.json", "/docs", "/docs/oauth2-redirect"])
tables: dict[str, list[Any]] = {}


@app.post("/tables/{table}/rows", status_code=201, dependencies=[Security(protected, scopes=["bigquery.insertdata"])])
async def insert(table: str, row: dict[str, Any]) -> dict[str, int]:
    rows = tables.setdefault(table, [])
    rows.append(row)
    return {"rows": len(rows)}


@app.get("/tables/{table}/rows", dependencies=[Depends(protected.requires(any_of("bigquery.readonly", "bigquery")))])
def read(table: str) -> list[Any]:
    return tables.get(table, [])


@app.get("/me")
async def me(token: Annotated[AccessToken, Depends(protected)]) -> dict[str, str | None]:
    return {"client": token.client_id, "user": token.subject}


@app.get("/healthz")
async def healthz() -> str:
    return "ok"
