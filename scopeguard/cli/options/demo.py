"""The options and the help of ``scopeguard demo``."""

from __future__ import annotations

import click


@click.command()
@click.option("--serve", is_flag=True, help="Leave the servers running afterwards, with lines for curl, until Ctrl-C.")
@click.option("--no-color", is_flag=True, help="Plain text.")
def demo(*, serve: bool, no_color: bool) -> None:
    """Watch a client, an authorization server and a protected API, all on loopback.

    Every exchange is shown and compared with the expected one. The exit status is 1 if one differs.
    """
    from scopeguard.cli.demo.run import run

    raise SystemExit(run(serve=serve, color=not no_color))
