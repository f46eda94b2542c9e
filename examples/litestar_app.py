"""A Litestar app: the extension denies by default, and guards say which scopes a handler requires.

    pip install ".[litestar,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    uvicorn examples.litestar_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

import os
from typing import Any

from litestar import Controller, Litestar, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from scopeguard import AccessToken, Guard, Issuer, any_of
from scopeguard.litestar import OpenAPISecurity, ScopeGuard, provide_token, requires

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
tables: dict[str, list[object]] = {}


class Rows(Controller):
    path = "/tables/{table:str}/rows"

    @get(guards=[requires(any_of("bigquery.readonly", "bigquery"))])
    async def read(self, table: FromPath[str]) -> list[object]:
        return tables.get(table, [])

    @post(guards=[requires(any_of("bigquery.insertdata", "bigquery"))])
    async def insert(self, table: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, int]:
        rows = tables.setdefault(table, [])
        rows.append(await request.json())
        return {"rows": len(rows)}


@get("/me")  # without a guard: any valid token
async def me(token: NamedDependency[AccessToken]) -> dict[str, str | None]:
    return {"client": token.client_id}


@get("/healthz", scopeguard="public")
async def healthz() -> str:
    return "ok"


app = Litestar(
    [Rows, me, healthz], dependencies={"token": provide_token()}, plugins=[OpenAPISecurity(guard)], logging_config=None
)
ScopeGuard(app, guard)
