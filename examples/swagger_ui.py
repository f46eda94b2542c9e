"""Swagger UI with a login: the app in fastapi_app.py and the development authorization server, both on loopback.

    pip install ".[fastapi,devserver]"    # in a checkout
    python examples/swagger_ui.py

Open http://127.0.0.1:8000/docs, press Authorize, and choose scopes. "OAuth2, authorizationCode" opens the login page of
the authorization server, where you are alice or bob. "OAuth2, clientCredentials" needs the client "loader" with the
secret "for development". Try an operation without a token, with one, and with one that lacks a scope: 401, 200 and 403.
"""

from __future__ import annotations

import uvicorn
from fastapi_app import AUDIENCE, DESCRIPTIONS, app

from scopeguard import ScopeCatalog
from scopeguard.devserver import Authority, Client, DevServer


def make_authority(api: str) -> Authority:
    """Return an authorization server with a client for the browser, one with a secret, and two users.

    *api* is the origin of the app, to which Swagger UI returns.
    """
    scopes = list(DESCRIPTIONS)
    browser = Client(
        client_id="swagger", scopes=scopes, redirect_uris=[f"{api}/docs/oauth2-redirect"], auth_methods=["none"]
    )
    return Authority(
        audience=AUDIENCE,
        clients=[browser, Client(client_id="loader", secret="for development", scopes=scopes)],
        subjects=["alice", "bob"],
        catalog=ScopeCatalog(descriptions=DESCRIPTIONS),
    )


def main() -> None:
    with DevServer(make_authority("http://127.0.0.1:8000"), port=9000):
        print("\nopen http://127.0.0.1:8000/docs\n", flush=True)
        uvicorn.run(app, host="127.0.0.1", port=8000)


if __name__ == "__main__":
    main()
