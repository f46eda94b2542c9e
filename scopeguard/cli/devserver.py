"""``scopeguard devserver``: the development authority in the foreground."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable
from typing import Final

import click

from scopeguard.devserver import Authority, Client, serve
from scopeguard.errors import ConfigurationError

DEFAULT_CLIENT: Final = "demo:for development:read write"


def run(*, host: str, port: int, clients: Iterable[str], audience: str, lifetime: int, allow_remote: bool) -> None:
    """Serve until interrupted. *clients* are as of the option ``--client``."""
    registered = [client_from(text, lifetime) for text in tuple(clients) or (DEFAULT_CLIENT,)]
    authority = Authority(audience=audience, clients=registered)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for line in introduction(url, audience, registered):
        click.echo(line)
    try:
        serve(authority, host, port, allow_remote=allow_remote)
    except OSError as problem:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {problem.strerror}") from None
    except KeyboardInterrupt:
        pass


def client_from(text: str, lifetime: int) -> Client:
    """``ID:SECRET:SCOPES``; scopes may hold colons, the two before may not."""
    parts = text.split(":", 2)
    if len(parts) < 3:
        raise ConfigurationError("--client: three parts are needed, ID:SECRET:SCOPES, as in 'loader:any secret:read'")
    client_id, secret, scopes = parts
    return Client(client_id=client_id, secret=secret, scopes=scopes.split(), lifetime=lifetime)


def introduction(url: str, audience: str, clients: Iterable[Client]) -> list[str]:
    """What somebody who started it wants to know."""
    lines = [
        "",
        "*** FOR DEVELOPMENT ONLY: this authorization server gives tokens to everybody who reaches it ***",
        "",
        f"issuer     {url}",
        f"audience   {audience}",
        f"metadata   {url}/.well-known/oauth-authorization-server",
        "",
        "in scopeguard.toml:",
        f'    resource = "{audience}"',
        "    [[issuers]]",
        f'    url = "{url}"',
    ]
    for client in clients:
        lines += [
            "",
            f"client {client.client_id}, scopes: {' '.join(client.scopes) or 'none'}",
            f"    {curl(url, client)}",
        ]
    return [*lines, ""]


def curl(url: str, client: Client) -> str:
    """A line for a shell that puts a token of *client* into the variable TOKEN."""
    user = shlex.quote(f"{client.client_id}:{client.secret}")
    scope = f" -d {shlex.quote('scope=' + ' '.join(client.scopes))}" if client.scopes else ""
    answer = f"curl -s -u {user} -d grant_type=client_credentials{scope} {url}/token"
    return f"""TOKEN=$({answer} | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')"""
