"""An API with metrics, for Prometheus to scrape.

It has two guards: ``/tables`` shares revocations through a store, ``/proofs`` takes tokens that are bound to a key.
Both trust the same authorization server, and export to one registry.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from scopeguard import DPoP, Guard, Introspection, Issuer, KeySetPolicy, RefusalLog, RevocationPolicy, metrics
from scopeguard.asgi import GuardMiddleware
from scopeguard.edge.runtime import SystemClock
from scopeguard.starlette import requires
from scopeguard.stores import MemoryStore


@requires("tables.read")
async def read_table(request: Request) -> JSONResponse:
    return JSONResponse({"table": request.path_params["table"]})


@requires("tables.write")
async def write_table(request: Request) -> JSONResponse:
    return JSONResponse({"table": request.path_params["table"]})


async def read_proofs(request: Request) -> JSONResponse:
    return JSONResponse({"client": request.user.client_id})


def make_app(issuer_url: str, audience: str, secret: str, registry: CollectorRegistry = REGISTRY) -> Starlette:
    """Return the API at the URL *audience*. *secret* is that of its client ``api`` for introspection."""
    # Short times, so that an outage of a few seconds shows. Keep the defaults in your deployment.
    keys = KeySetPolicy(ttl=10, min_ttl=5, max_ttl=10, max_stale=60, max_backoff=3, timeout=2)
    issuer = Issuer(
        issuer_url,
        audience=audience,
        algorithms=["ES256"],
        validate="auto",
        introspection=Introspection(client_id="api", client_secret=secret, ttl=2, timeout=2),
        key_set=keys,
    )
    quiet = RefusalLog(burst=1, interval=3600)
    tables = Guard(issuer, store=MemoryStore(SystemClock()), revocation=RevocationPolicy(), refusal_log=quiet)
    proofs = Guard(issuer, dpop=DPoP(mode="required", base_url=audience), refusal_log=quiet)
    for guard in (tables, proofs):
        metrics.prometheus(guard, registry=registry)
    table = "/{table}"
    return Starlette(
        routes=[
            Mount(
                "/tables",
                routes=[Route(table, read_table, methods=["GET"]), Route(table, write_table, methods=["POST"])],
                middleware=[Middleware(GuardMiddleware, guard=tables)],
            ),
            Mount(
                "/proofs",
                routes=[Route("/", read_proofs)],
                middleware=[Middleware(GuardMiddleware, guard=proofs)],
            ),
        ]
    )
