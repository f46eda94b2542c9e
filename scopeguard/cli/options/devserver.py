"""The options and the help of ``scopeguard devserver``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@shared.host
@click.option("--port", default=9000, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="ID:SECRET:SCOPES",
    help="A client and its scopes (separated by spaces). Without SECRET, as in 'swagger::read', it is a public client, "
    "such as a browser. May be given several times.",
)
@click.option(
    "--api",
    "apis",
    multiple=True,
    metavar="ID:SECRET",
    help="A client that may introspect the tokens for --audience: the API. May be given several times.",
)
@click.option("--opaque", is_flag=True, help="Give clients opaque tokens; the API introspects them (with --api).")
@click.option(
    "--redirect-uri",
    "redirect_uris",
    multiple=True,
    metavar="ID=URI",
    help="Where users of the client ID return after the login page. May be given several times.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME",
    help="A user who can sign in, without a password. May be given several times.  [default: alice, if there is a "
    "--redirect-uri]",
)
@click.option(
    "--service-account",
    "service_accounts",
    multiple=True,
    metavar="FILE:EMAIL:SCOPES",
    help="A service account for Google's client libraries. FILE is created with a new key if it does not exist.",
)
@click.option(
    "--audience",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The audience of tokens: the resource or audience of the API's guard.",
)
@click.option("--lifetime", type=click.IntRange(1), help="Lifetime of tokens in seconds.  [default: 3600]")
@click.option(
    "--catalog",
    metavar="FILE",
    help="The known scopes; others are refused. TOML, or an OpenAPI or Google discovery document.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Listen on an address that other machines can reach (with --issuer). Any of them can get tokens.",
)
@click.option(
    "--issuer",
    metavar="URL",
    help="The issuer URL by which guards and clients reach this server, as in http://devserver:9000. "
    "Default: the address it listens on.",
)
def devserver(**options: Any) -> None:
    """Run an authorization server. FOR DEVELOPMENT ONLY.

    It keeps everything in memory and makes a new signing key at every start.
    """
    from scopeguard.cli.devserver import run

    run(**options)
