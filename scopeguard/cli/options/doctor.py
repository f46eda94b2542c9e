"""The options and the help of ``scopeguard doctor``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option(
    "--config", required=True, metavar="FILE", help="The TOML file to examine; docs/settings.md lists its keys."
)
@shared.factory
@click.option("--offline", is_flag=True, help="Leave out the checks that need a network.")
@shared.strict
@click.option("--json", "json_output", is_flag=True, help="Print JSON instead of text.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that the server listens on.")
@click.option("--uds", metavar="PATH", help="The Unix socket that the server listens on instead.")
@click.option(
    "--trusted-proxy", "trusted_proxies", multiple=True, metavar="ADDRESS", help="A proxy that the server trusts."
)
def doctor(app: str | None, **options: Any) -> None:
    """Examine a configuration, and what a guard with it depends on.

    Checks the authorization servers and their keys, the clocks, introspection, Redis, the permissions of files, the
    proxies, the metadata of the API, the rules, and the versions of libraries. With APP, audits its routes as well.
    For each problem, says how to fix it. Prints no secret.

    \b
    Exit status:
      0  no error was found
      1  an error was found, or with --strict a warning
      2  the command line is wrong
    """
    from scopeguard.cli.doctor import run

    raise SystemExit(run(app, **options))
