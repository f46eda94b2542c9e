"""The orders API: it calls the stock API for its user, with a token that it gets in exchange for the user's."""

import httpx
import stock
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scopeguard import Guard, Issuer, Rule
from scopeguard.asgi import GuardMiddleware
from scopeguard.client import (
    ForwardingRefused,
    TokenEndpointUnavailable,
    TokenExchange,
    TokenExchangeRefused,
    arefuse_inbound_token,
)

RESOURCE = "https://orders.example.com"
CLIENT_ID = "orders"


def create_app(issuer: str, token_url: str, secret: str, stock_url: str) -> GuardMiddleware:
    exchange = TokenExchange(token_url, CLIENT_ID, secret, audience=stock.RESOURCE, scopes=["stock.read"])
    hooks = {"request": [arefuse_inbound_token]}

    async def orders(_: Request) -> JSONResponse:
        async with httpx.AsyncClient(base_url=stock_url, auth=exchange) as client:
            response = await client.get("/levels")
        return JSONResponse(response.json(), response.status_code)

    async def careless(request: Request) -> JSONResponse:
        """Send the headers of the request on, as many proxies do. The hook refuses it."""
        async with httpx.AsyncClient(base_url=stock_url, event_hooks=hooks) as client:
            response = await client.get("/levels", headers={"Authorization": request.headers["Authorization"]})
        return JSONResponse(response.json(), response.status_code)

    async def handle_outage(_: Request, error: Exception) -> JSONResponse:
        seconds = getattr(error, "retry_after", None) or 1
        return JSONResponse({"detail": "Try again"}, 503, {"Retry-After": f"{seconds:.0f}"})

    async def handle_refusal(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "You may not use the stock API"}, 403)

    async def handle_forwarding_refused(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "The token of the caller was not forwarded"}, 500)

    app = Starlette(
        routes=[Route("/orders", orders), Route("/careless", careless)],
        exception_handlers={
            TokenEndpointUnavailable: handle_outage,
            TokenExchangeRefused: handle_refusal,
            ForwardingRefused: handle_forwarding_refused,
        },
    )
    guard = Guard(
        Issuer(issuer, audience=RESOURCE),
        rules=[Rule("/{path:path}", "orders.read")],
        keep_token_for_exchange=True,
    )
    return GuardMiddleware(app, guard=guard)
