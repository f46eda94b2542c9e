"""The options and the help of ``scopeguard audit``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--config", metavar="FILE", help="Audit what serve would build of APP and this TOML file.")
@shared.factory
@click.option(
    "--format",
    "format_name",
    default="table",
    show_default=True,
    type=click.Choice(["table", "json", "markdown", "html"]),
    help="Output format; html is one page with a table of scopes and routes.",
)
@click.option("--output", metavar="FILE", help="Write to this file, and a summary line to standard error.")
@click.option(
    "--public",
    multiple=True,
    metavar="PATH",
    help="A path that is open on purpose, as in /docs/{rest:path}. May be given several times.",
)
@click.option("--online", is_flag=True, help="Ask the issuers for the scopes that they can grant.")
@shared.strict
def audit(app: str, **options: Any) -> None:
    """Show the requirements of each route of an app, and report problems.

    APP is found from the current directory, as in example.main:app. Its module is imported, and no request is sent.

    \b
    Exit status:
      0  no problem was found
      1  a problem was found, or the app cannot be imported
      2  the command line or the configuration is wrong
    """
    from scopeguard.cli.audit import run

    raise SystemExit(run(app, **options))
