"""The commands and their options. What they do is in a module of each, imported when it is asked for."""

# ruff: noqa: PLC0415 - help should not wait for servers, frameworks and HTTP clients to be imported

from __future__ import annotations

from typing import Any

import click

from scopeguard import __version__
from scopeguard.errors import ConfigurationError


class Refused(click.ClickException):
    """What was asked for cannot work: one line on stderr."""

    exit_code = 2


class Failed(click.ClickException):
    """It could work and did not."""

    exit_code = 1


class Commands(click.Group):
    """A wrong setting is one readable line and exit status 2, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise Refused(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scopeguard")
def cli() -> None:
    """Guard an API with OAuth 2.0 access tokens, and try it out."""


@cli.command()
@click.option("--serve", is_flag=True, help="Leave the servers running afterwards, with lines for curl, until Ctrl-C.")
@click.option("--no-color", is_flag=True, help="Plain text.")
def demo(*, serve: bool, no_color: bool) -> None:
    """Watch a client, an authorization server and a guarded API, all on loopback.

    Every exchange is shown and held against what is expected. Exit status 1: one of them was different.
    """
    from scopeguard.cli.demo import run

    raise SystemExit(run(serve=serve, color=not no_color))


@cli.command()
@click.argument("app", metavar="MODULE:APP")
@click.option(
    "--config", required=True, metavar="FILE", help="The TOML file with issuers and rules; the README has its keys."
)
@click.option("--wsgi", is_flag=True, help="APP is a WSGI app, to be run by waitress. Otherwise ASGI, by uvicorn.")
@click.option("--factory", is_flag=True, help="APP is a function without arguments that returns the app.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def serve(app: str, *, config: str, wsgi: bool, factory: bool, host: str, port: int) -> None:
    """Run an app behind a guard, without touching its code.

    APP is found from the current directory, as in example.main:app. The access log shows paths without query strings.
    Forwarded headers are not believed: the scheme and the address of a caller are those of the connection.
    """
    from scopeguard.cli.serve import run

    run(app, config=config, wsgi=wsgi, factory=factory, host=host, port=port)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9000, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="ID:SECRET:SCOPES",
    help="Who may have tokens, for which scopes (separated by spaces). May be given several times.",
)
@click.option(
    "--audience",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The API that tokens are for: resource or audience of its guard.",
)
@click.option("--lifetime", default=3600, show_default=True, type=click.IntRange(1), help="Of tokens, in seconds.")
@click.option("--allow-remote", is_flag=True, help="Listen on an address that other machines can reach.")
def devserver(
    *, host: str, port: int, clients: tuple[str, ...], audience: str, lifetime: int, allow_remote: bool
) -> None:
    """Run an authorization server. FOR DEVELOPMENT ONLY.

    It keeps everything in memory, and its signing key is new with every start.
    """
    from scopeguard.cli.devserver import run

    run(host=host, port=port, clients=clients, audience=audience, lifetime=lifetime, allow_remote=allow_remote)


@cli.command()
@click.option("--token-url", required=True, metavar="URL", help="The token endpoint of the authorization server.")
@click.option("--client-id", required=True, metavar="ID", help="Who asks.")
@click.option(
    "--client-secret",
    required=True,
    metavar="WHERE",
    help="env:NAME, file:PATH, or - for standard input. Not the secret itself: other users see command lines.",
)
@click.option("--scope", "scopes", multiple=True, help="May be given several times.")
@click.option("--resource", "resources", multiple=True, metavar="URI", help="The API it is for (RFC 8707).")
@click.option("--audience", "audiences", multiple=True, help="The API it is for, as Auth0 and others want it.")
@click.option(
    "--auth-method",
    default="client_secret_basic",
    show_default=True,
    type=click.Choice(["client_secret_basic", "client_secret_post"]),
    help="Whether the secret goes into a header or into the form.",
)
def token(
    *,
    token_url: str,
    client_id: str,
    client_secret: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    audiences: tuple[str, ...],
    auth_method: str,
) -> None:
    """Fetch one access token by client credentials and print it, and nothing else, on standard output."""
    from scopeguard.cli.token import run

    problem = run(
        token_url,
        client_id,
        client_secret,
        scopes=scopes,
        resource=resources,
        audience=audiences,
        auth_method=auth_method,
    )
    if problem is not None:
        raise Failed(problem)
