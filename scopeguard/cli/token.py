"""``scopeguard token``: one access token by client credentials, on standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, Unpack

import click

from scopeguard.client import (
    ClientCredentials,
    ClientSettings,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
)
from scopeguard.errors import ConfigurationError
from scopeguard.settings.kinds import Place, resolved

_OPTION: Final = "--client-secret"


def run(token_url: str, client_id: str, where: str, **settings: Unpack[ClientSettings]) -> str | None:
    """Print the token; or return why there is none. *where* is as of the option ``--client-secret``."""
    client = ClientCredentials(token_url, client_id, read_secret(where), **settings)
    try:
        fetched = client.token()
    except (TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted) as failure:
        return f"no token: {failure}"
    lifetime = "no lifetime" if fetched.expires_in is None else f"{fetched.expires_in:.0f} seconds"
    scopes = "as asked for" if fetched.scope is None else " ".join(fetched.scope) or "none"
    click.echo(f"scopes: {scopes}; {lifetime}", err=True)
    click.echo(fetched.access_token)
    return None


def read_secret(where: str) -> str:
    """The secret that ``env:NAME``, ``file:PATH`` or ``-`` leads to; one that stands there itself is refused."""
    if where == "-":
        if sys.stdin.isatty():
            return str(click.prompt("client secret", hide_input=True, err=True))
        return sys.stdin.read().rstrip("\r\n")
    if not where.startswith(("env:", "file:")):
        raise ConfigurationError(
            f"{_OPTION}: write env:NAME, file:PATH or -, not the secret itself: every user of this machine can read "
            "the command line"
        )
    return resolved(where, Place("scopeguard token", "command line", Path(), os.environ), _OPTION)
