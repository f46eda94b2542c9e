"""The options and the help of ``scopeguard serve``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@click.argument("app", metavar="MODULE:APP")
@shared.config
@click.option(
    "--wsgi", is_flag=True, help="APP is a WSGI app and runs on waitress. Without this it is ASGI and runs on uvicorn."
)
@shared.factory
@shared.host
@shared.port(8000)
@shared.uds
@shared.workers
@click.option(
    "--threads",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Requests that a worker serves at once (with --wsgi).",
)
@click.option(
    "--connections",
    default=shared.CONNECTIONS,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Open connections of a worker. At the limit the longest-idle ones are closed.",
)
@click.option(
    "--grace",
    default=shared.GRACE,
    show_default=True,
    metavar="SECONDS",
    type=click.IntRange(1, 86400),
    help="Time for requests and streams in progress to finish when the server stops.",
)
@shared.access_log
@click.option("--log-subjects", is_flag=True, help="Write the subject of tokens, often a person, into the access log.")
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Trust X-Forwarded-For and X-Forwarded-Proto from this IP address or network, or unix for the socket of "
    "--uds. May be given several times. Without it these fields are removed.",
)
@click.option(
    "--root-path",
    metavar="PREFIX",
    help="The prefix that the app removes from paths before it routes, as in /api; empty for none. "
    "Needed only where scopeguard audit asks for it.",
)
@shared.readyz
def serve(app: str, *, access_log: str, **options: Any) -> None:
    """Run an app behind a guard, without changing its code.

    APP is found from the current directory, as in example.main:app.

    SIGHUP reads FILE again. If it is wrong, the error is logged and the old configuration stays. If it is right, it
    applies to new requests as soon as the keys of new issuers are fetched. SIGTERM and Ctrl-C stop accepting, let
    requests finish and exit with status 0. A second Ctrl-C stops at once.

    \b
    Exit status:
      0  stopped by a signal
      1  the app cannot be imported
      2  the command line or the configuration is wrong
      3  the lifespan of the app failed
    """
    from scopeguard.server.access_log import Format
    from scopeguard.server.serve import Options, run

    run(Options(target=app, access_log=Format(access_log), **options))
