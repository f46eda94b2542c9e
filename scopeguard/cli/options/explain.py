"""The options and the help of ``scopeguard explain``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@click.argument("token", required=False, metavar="[TOKEN|-]")
@click.option("--config", metavar="FILE", help="The TOML file with issuers and rules; docs/settings.md lists its keys.")
@click.option(
    "--app",
    metavar="MODULE:APP",
    help="The app whose guard decides, and whose decorators and dependencies count with --path. With --config, the "
    "guard is that of the file.",
)
@shared.factory
@click.option("--method", metavar="METHOD", help="The method of the request (with --path). Default: GET.")
@click.option("--path", metavar="PATH", help="The path of the request: which rule decides, and do the scopes suffice?")
@click.option(
    "--proof",
    metavar="WHERE",
    help="The DPoP proof of the request, for a token that is bound to a key: env:NAME, file:PATH or its text.",
)
@click.option(
    "--jwks",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Verify the signature with the JWK Set in this file, instead of the keys that the issuer publishes.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing. Without --jwks, the signature is then not checked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; docs/explain.md lists its members.")
def explain(token: str | None, **options: Any) -> None:
    """Show every check of an access token: what was found, what is wanted, and what to do.

    The token is read from standard input, or from a prompt that does not show it. It may have "Bearer" or
    "Authorization: Bearer" before it. As an argument it would stay in the history of the shell, and every user of this
    machine could read it in the list of processes while the command runs. It is never printed.

    \b
    Exit status:
      0  the token is accepted
      1  it is refused
      2  the command line or the configuration is wrong
      3  it could not be decided: an authorization server did not answer, or --offline
    """
    from scopeguard.cli.explain import run

    raise SystemExit(run(token, **options))
