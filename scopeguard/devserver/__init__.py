"""An authorization server on a loopback port. FOR DEVELOPMENT ONLY, as its log and its start page say too.

    authority = Authority(
        audience="https://api.example.com",
        clients=[Client(client_id="robot", secret="for development", scopes=["bigquery.insertdata"])],
    )
    with DevServer(authority) as server:
        guard = Guard(Issuer(server.url, audience="https://api.example.com"))

``serve`` does the same in the foreground. :mod:`scopeguard.devserver.authority` says what the server supports, and
:mod:`scopeguard.devserver.app` how to make it misbehave. It needs uvicorn:
``pip install "scopeguard-oauth2[devserver]"``.
"""

from __future__ import annotations

from scopeguard.devserver.app import create_app
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Mode, Outage, Switch, Unreachable
from scopeguard.devserver.google import GoogleServiceAccount
from scopeguard.devserver.keys import KeyRing, SigningKey
from scopeguard.devserver.registry import (
    GOOGLE_TOKEN_AUDIENCE,
    Client,
    ClientAuthMethod,
    ServiceAccount,
    TokenFormat,
)
from scopeguard.devserver.server import DevServer, check_address, serve

__all__ = [
    "GOOGLE_TOKEN_AUDIENCE",
    "Authority",
    "Client",
    "ClientAuthMethod",
    "DevServer",
    "Endpoint",
    "GoogleServiceAccount",
    "KeyRing",
    "Mode",
    "Outage",
    "ServiceAccount",
    "SigningKey",
    "Switch",
    "TokenFormat",
    "Unreachable",
    "check_address",
    "create_app",
    "serve",
]
