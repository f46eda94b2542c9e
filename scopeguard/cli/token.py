"""``scopeguard token``: fetches an access token by client credentials and prints it."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final, Unpack

import click

from scopeguard.client import (
    ClientCredentials,
    ClientSettings,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenResponse,
)
from scopeguard.config.file.kinds import Place, resolve
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import ConfigurationError

_OPTION: Final = "--client-secret"


class Output(StrEnum):
    """The output format: the token, a header line, or the response as JSON."""

    TOKEN = "token"
    HEADER = "header"
    JSON = "json"


def run(
    client_id: str,
    where: str,
    *,
    token_url: str | None,
    issuer: str | None,
    output: Output,
    ca_file: str | None = None,
    proxy: str | None = None,
    **settings: Unpack[ClientSettings],
) -> str | None:
    """Print the token and return ``None``. If there is none, return the reason and advice.

    *where* is the value of ``--client-secret``. Raises :class:`ConfigurationError`.
    """
    settings["transport"] = transport = _transport(ca_file, proxy)
    if token_url is not None and issuer is None:
        client = ClientCredentials(token_url, client_id, read_secret(where), **settings)
    elif issuer is not None and token_url is None:
        client = ClientCredentials.from_issuer(issuer, client_id, read_secret(where), **settings)
    else:
        raise ConfigurationError("--token-url, --issuer: give exactly one of them")
    try:
        fetched = client.token()
    except (TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted) as failure:
        return f"no token: {failure}{_advice(failure)}"
    finally:
        transport.close()
    if output is Output.JSON:
        click.echo(json.dumps(_response_members(fetched)))
        return None
    lifetime = "no lifetime" if fetched.expires_in is None else f"{fetched.expires_in:.0f} seconds"
    scopes = "as requested" if fetched.scope is None else " ".join(fetched.scope) or "none"
    click.echo(f"scopes: {scopes}; {lifetime}", err=True)
    click.echo(f"Authorization: Bearer {fetched.access_token}" if output is Output.HEADER else fetched.access_token)
    return None


def _transport(ca_file: str | None, proxy: str | None) -> HttpxTransport:
    """Return a transport with ``--ca-file`` and ``--proxy``, which may be ``env:NAME`` or ``file:PATH``."""
    place = Place("scopeguard token", "command line", Path(), os.environ)
    transport = HttpxTransport(verify=ca_file, proxy=None if proxy is None else resolve(proxy, place, "--proxy"))
    transport.check("--ca-file")
    return transport


def _response_members(fetched: TokenResponse) -> dict[str, str | int]:
    """Return the response with the member names of RFC 6749 section 5.1."""
    members: dict[str, str | int | None] = {
        "access_token": fetched.access_token,
        "token_type": fetched.token_type,
        "expires_in": None if fetched.expires_in is None else int(fetched.expires_in),
        "scope": None if fetched.scope is None else " ".join(fetched.scope),
    }
    return {name: value for name, value in members.items() if value is not None}


_ADVICE: Final = {
    "invalid_client": "check --client-id and the secret, and try the other --auth-method",
    "unauthorized_client": "allow the grant client_credentials for this client at the authorization server",
    "unsupported_grant_type": "check that this is the token endpoint, and that the server supports client_credentials",
    "invalid_scope": "request fewer scopes with --scope, or register the client for them",
    "invalid_target": "check --resource: it must be the identifier of the API at the authorization server",
    "invalid_request": "try --audience, --resource or --scope, which some servers require",
}


def _advice(failure: Exception) -> str:
    if isinstance(failure, TokenEndpointUnavailable):
        return "; check the URL, and that this machine can reach it"
    advice = _ADVICE.get(failure.error or "") if isinstance(failure, TokenEndpointError) else None
    return "" if advice is None else f"; {advice}"


def read_secret(where: str) -> str:
    """Return the secret at *where*: ``env:NAME``, ``file:PATH``, or ``-`` for standard input.

    Raises :class:`ConfigurationError` for anything else, which may be the secret itself.
    """
    if where == "-":
        if sys.stdin.isatty():
            return str(click.prompt("client secret", hide_input=True, err=True))
        return sys.stdin.read().rstrip("\r\n")
    if not where.startswith(("env:", "file:")):
        raise ConfigurationError(
            f"{_OPTION}: write env:NAME, file:PATH or -, not the secret itself: every user of this machine can read "
            "the command line"
        )
    return resolve(where, Place("scopeguard token", "command line", Path(), os.environ), _OPTION)
