"""Opaque access tokens, introspection and revocation, in one process.

    pip install ".[devserver]"
    python examples/introspection.py

It starts a development authorization server whose tokens are opaque, protects an app with the settings of
examples/introspection.toml, and calls it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from scopeguard import Guard, access_token
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver import Authority, Client, DevServer

API = "https://api.example.com"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An app that greets its caller."""
    del receive
    if scope["type"] != "http":
        raise RuntimeError("this app speaks HTTP only")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"hello {access_token().client_id}".encode()})


def main() -> None:
    api_secret, loader_secret = secrets.token_urlsafe(), secrets.token_urlsafe()
    authority = Authority(
        audience=API,
        clients=[
            Client(client_id="loader", secret=loader_secret, scopes=["rows.write"], token_format="opaque"),
            Client(client_id="api", secret=api_secret, introspects=[API]),
        ],
    )
    with DevServer(authority) as server:
        os.environ |= {"ISSUER": server.url, "API_SECRET": api_secret}
        guard = Guard.from_file(str(Path(__file__).with_name("introspection.toml")))
        client = TestClient(GuardMiddleware(app, guard=guard), base_url=API)

        form = {"grant_type": "client_credentials"}
        answer = httpx.post(f"{server.url}/token", auth=("loader", loader_secret), data=form).json()
        token = answer["access_token"]
        print(f"an opaque token of {len(token)} characters: the guard introspects it")

        def call() -> None:
            response = client.get("/", headers={"Authorization": f"Bearer {token}"})
            count = sum("introspect" in request for request in authority.requests)
            text = response.text if response.is_success else response.headers["www-authenticate"]
            print(f"{response.status_code} {text}; introspection requests so far: {count}")

        call()
        call()  # uses the cached answer
        guard.revoke(token=token)
        call()
        guard.close()


if __name__ == "__main__":
    main()
