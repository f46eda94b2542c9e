"""Runs an API that calls another one for its users, and shows what each of them sees. All on loopback.

``python examples/downstream/run.py`` starts the development authorization server, the orders API and the stock API. It
exits with 0 only if each request ends as expected.
"""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import orders
import stock
import uvicorn
from starlette.types import ASGIApp

from scopeguard.devserver import Authority, Client, DevServer, Endpoint, Outage
from scopeguard.devserver.token_requests import Grant


@contextmanager
def serve(app: ASGIApp) -> Iterator[str]:
    """Serve *app* on a free loopback port for the length of the block, and yield its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def sign_in(authority: Authority, user: str, *scopes: str) -> dict[str, str]:
    """Return the header of *user* with a token for the orders API. A login would issue it; this server has none."""
    grant = Grant(
        client_id="web-shop",
        subject=user,
        scopes=scopes,
        audiences=(orders.RESOURCE,),
        token_format="jwt",
        lifetime=600,
    )
    return {"Authorization": f"Bearer {authority.issue(grant).token}"}


class Story:
    """Prints each step, and counts those that end in another way than expected."""

    unexpected = 0

    def step(self, what: str, response: httpx.Response, status: int, *facts: str) -> None:
        """Print *what* and *response*, which should have *status*, and *facts* in its text."""
        text = response.text or response.headers.get("WWW-Authenticate", "")
        good = response.status_code == status and all(fact in text for fact in facts)
        self.unexpected += not good
        print(f"{what}\n    {response.status_code} {text}{'' if good else '    UNEXPECTED'}")

    def count(self, what: str, number: int, expected: int) -> None:
        """Print *number*, which should be *expected*."""
        self.unexpected += number != expected
        print(f"{what}: {number}{'' if number == expected else '    UNEXPECTED'}")


def tell(authority: Authority, orders_url: str, stock_url: str) -> int:
    """Send the requests of the story. Return the number of unexpected results."""
    story = Story()
    ann = sign_in(authority, "ann", "orders.read", "stock.read")
    bob = sign_in(authority, "bob", "orders.read", "stock.read")
    carol = sign_in(authority, "carol", "orders.read", "stock.read")
    dave = sign_in(authority, "dave", "orders.read")
    with httpx.Client() as client:
        story.step(
            "Ann calls the orders API, which calls the stock API for her:",
            client.get(f"{orders_url}/orders", headers=ann),
            200,
            '"asked for":"ann"',
            '"asked by":"orders"',
        )
        story.step(
            "Bob does the same, and the stock API sees Bob:",
            client.get(f"{orders_url}/orders", headers=bob),
            200,
            '"asked for":"bob"',
            '"asked by":"orders"',
        )
        client.get(f"{orders_url}/orders", headers=ann)
        exchanges = authority.requests.count(f"POST {authority.path(Endpoint.TOKEN)}")
        story.count("Ann calls again. Exchanges so far, one for each of the two", exchanges, 2)
        story.step(
            "Ann's own token is not for the stock API:",
            client.get(f"{stock_url}/levels", headers=ann),
            401,
            "invalid_token",
        )
        story.step(
            "The orders API does not forward it, even if its code tries to:",
            client.get(f"{orders_url}/careless", headers=ann),
            500,
            "was not forwarded",
        )
        story.step(
            "Dave's token has no scope for the stock API, so it is not exchanged:",
            client.get(f"{orders_url}/orders", headers=dave),
            403,
            "You may not use the stock API",
        )
        with authority.faults.outage(Outage.UNAVAILABLE):
            story.step(
                "The authorization server is unavailable. Ann's token for the stock API is cached:",
                client.get(f"{orders_url}/orders", headers=ann),
                200,
                '"asked for":"ann"',
            )
            story.step(
                "Carol has none yet, and is told to try again:",
                client.get(f"{orders_url}/orders", headers=carol),
                503,
                "Try again",
            )
    print(f"Steps with an unexpected result: {story.unexpected}.")
    return story.unexpected


def main() -> int:
    secret = secrets.token_urlsafe(24)
    client = Client(
        client_id=orders.CLIENT_ID,
        secret=secret,
        scopes=["stock.read"],
        introspects=[orders.RESOURCE],  # it is this API, so it may exchange tokens for it
        exchanges_for=[stock.RESOURCE],
    )
    authority = Authority(audience=orders.RESOURCE, clients=[client])
    with DevServer(authority) as devserver, serve(stock.create_app(devserver.url)) as stock_url:
        app = orders.create_app(devserver.url, authority.url(Endpoint.TOKEN), secret, stock_url)
        with serve(app) as orders_url:
            return 1 if tell(authority, orders_url, stock_url) else 0


if __name__ == "__main__":
    sys.exit(main())
