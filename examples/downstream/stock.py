"""The stock API: it takes tokens for itself only, and sees the user and the API that acts for the user."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scopeguard import Guard, Issuer, Rule, access_token
from scopeguard.asgi import GuardMiddleware

RESOURCE = "https://stock.example.com"


async def levels(_: Request) -> JSONResponse:
    token = access_token()
    actor = None if token.actor is None else token.actor.subject
    return JSONResponse({"tea": 3, "asked for": token.subject, "asked by": actor})


def create_app(issuer: str) -> GuardMiddleware:
    guard = Guard(Issuer(issuer, audience=RESOURCE), rules=[Rule("/levels", "stock.read")])
    return GuardMiddleware(Starlette(routes=[Route("/levels", levels)]), guard=guard)
