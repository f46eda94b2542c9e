"""The commands and their options. What they do is in a module of each, imported when it is asked for."""

# ruff: noqa: PLC0415 - help should not wait for servers, frameworks and HTTP clients to be imported
# ruff: noqa: D301 - in help texts, click looks for the character \b, which a raw string would not hold

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
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead; the umask says who may connect.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 512),
    help="Processes, each with an app of its own. One that crashes is replaced after a pause.",
)
@click.option(
    "--threads",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Requests that a worker answers at once, with --wsgi.",
)
@click.option(
    "--connections",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Connections that a worker holds open at once. Beyond, those that have been idle longest are closed.",
)
@click.option(
    "--grace",
    default=30,
    show_default=True,
    metavar="SECONDS",
    type=click.IntRange(1, 86400),
    help="How long requests and streams that have begun may take to end when the server is told to stop.",
)
@click.option(
    "--access-log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "off"]),
    help="A line for each request on standard output, when it has ended.",
)
@click.option(
    "--log-subjects", is_flag=True, help="Name the subject of tokens in the access log: often a person, so off."
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe X-Forwarded-For and X-Forwarded-Proto from this IP address, network, or unix (whoever may use the "
    "socket of --uds). May be given several times. Without it nobody is believed.",
)
@click.option(
    "--root-path",
    metavar="PREFIX",
    help="The prefix that the app itself takes off paths before it routes, as in /api; an empty one for none. "
    "Needed only where that cannot be seen: scopeguard audit says so.",
)
def serve(app: str, *, access_log: str, **options: Any) -> None:
    """Run an app behind a guard, without touching its code.

    APP is found from the current directory, as in example.main:app.

    SIGHUP reads FILE again: what is wrong with it is logged, and the old configuration stays; a right one holds for
    requests that begin from then on, as soon as the keys of new issuers are there. SIGTERM and Ctrl-C stop accepting,
    let requests end, and exit with status 0; Ctrl-C twice stops at once.

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


@cli.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--config", metavar="FILE", help="Audit what serve would build of APP and this TOML file.")
@click.option("--factory", is_flag=True, help="APP is a function without arguments that returns the app.")
@click.option(
    "--format",
    "format_name",
    default="table",
    show_default=True,
    type=click.Choice(["table", "json", "markdown", "html"]),
    help="How it is written; html is one page that shows scopes against routes.",
)
@click.option("--output", metavar="FILE", help="Write it there, and one line on standard error.")
@click.option(
    "--public",
    multiple=True,
    metavar="PATH",
    help="A path that nobody guards and that is meant to be open, as in /docs/{rest:path}. May be given several times.",
)
@click.option("--online", is_flag=True, help="Ask the issuers for the scopes that they can grant.")
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings too.")
def audit(app: str, **options: Any) -> None:
    """Show what each route of an app requires, and what is wrong with that.

    APP is found from the current directory, as in example.main:app. Its module is imported, and no request is sent.

    \b
    Exit status:
      0  nothing is wrong
      1  something is, or the app cannot be imported
      2  the command line or the configuration is wrong
    """
    from scopeguard.cli.audit import run

    raise SystemExit(run(app, **options))


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
    "--service-account",
    "service_accounts",
    multiple=True,
    metavar="FILE:EMAIL:SCOPES",
    help="A service account for Google's client libraries. FILE is made with a new key, unless it is there.",
)
@click.option(
    "--audience",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The API that tokens are for: resource or audience of its guard.",
)
@click.option("--lifetime", default=3600, show_default=True, type=click.IntRange(1), help="Of tokens, in seconds.")
@click.option(
    "--catalog",
    metavar="FILE",
    help="The scopes there are, others are refused: TOML, or an OpenAPI or Google discovery document.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Listen on an address that other machines can reach, with --issuer: all of them get tokens.",
)
@click.option(
    "--issuer",
    metavar="URL",
    help="The issuer, by which guards and clients reach this server, as in http://devserver:9000. Unless given, the "
    "address it listens on.",
)
def devserver(
    *,
    host: str,
    port: int,
    clients: tuple[str, ...],
    service_accounts: tuple[str, ...],
    audience: str,
    lifetime: int,
    allow_remote: bool,
    issuer: str | None,
    catalog: str | None,
) -> None:
    """Run an authorization server. FOR DEVELOPMENT ONLY.

    It keeps everything in memory, and its signing key is new with every start.
    """
    from scopeguard.cli.devserver import run

    run(
        host=host,
        port=port,
        clients=clients,
        service_accounts=service_accounts,
        audience=audience,
        lifetime=lifetime,
        allow_remote=allow_remote,
        issuer=issuer,
        catalog=catalog,
    )


@cli.command()
@click.option("--token-url", metavar="URL", help="The token endpoint of the authorization server.")
@click.option("--issuer", metavar="URL", help="Or the authorization server itself, whose metadata name the endpoint.")
@click.option("--client-id", required=True, metavar="ID", help="Who asks.")
@click.option(
    "--client-secret",
    required=True,
    metavar="WHERE",
    help="env:NAME, file:PATH, or - for standard input. Not the secret itself: other users see command lines.",
)
@click.option("--scope", "scopes", multiple=True, help="What it should allow. May be given several times.")
@click.option("--resource", multiple=True, metavar="URI", help="The API it is for (RFC 8707).")
@click.option("--audience", multiple=True, help="The API it is for, as Auth0 and others want it.")
@click.option(
    "--auth-method",
    default="client_secret_basic",
    show_default=True,
    type=click.Choice(["client_secret_basic", "client_secret_post"]),
    help="Whether the secret goes into a header or into the form.",
)
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A further form parameter.")
@click.option(
    "--token-type",
    "token_types",
    multiple=True,
    metavar="NAME",
    help="How this server calls bearer tokens, if not Bearer.",
)
@click.option("--token-type-optional", is_flag=True, help="Accept an answer that does not say the type of the token.")
@click.option("--scope-list", is_flag=True, help="Accept an answer with scopes as an array.")
@click.option(
    "--ca-file",
    metavar="FILE",
    help="Verify the authorization server with the certificates in this PEM file instead of the usual ones.",
)
@click.option("--proxy", metavar="URL", help="Go through this proxy; env:NAME or file:PATH where it has a password.")
@click.option(
    "--insecure-http-dangerously",
    multiple=True,
    metavar="HOST:PORT",
    help="Send the secret to this host by http. For networks where every machine is "
    "trusted. May be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON instead of the token alone.")
@click.option("--header", is_flag=True, help="Print the header line that carries it, for curl -H @-.")
def token(
    *, client_id: str, client_secret: str, as_json: bool, header: bool, parameters: tuple[str, ...], **settings: Any
) -> None:
    """Fetch one access token by client credentials and print it, and nothing else, on standard output.

    Its scopes and lifetime are told on standard error.

    \b
    Exit status:
      0  here it is
      1  the authorization server refused, or did not answer
      2  the command line is wrong, or the secret is not where it should be
    """
    from scopeguard.cli.token import Output, run

    if as_json and header:
        raise Refused("--json and --header: give one of them")
    output = Output.JSON if as_json else Output.HEADER if header else Output.TOKEN
    pairs = [pair.partition("=") for pair in parameters]
    if not all(name and separator for name, separator, _ in pairs):
        raise Refused("--parameter: write NAME=VALUE")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise Refused("--parameter: a name occurs twice")
    further = {name: value for name, _, value in pairs}
    problem = run(client_id, client_secret, output=output, parameters=further, **settings)
    if problem is not None:
        raise Failed(problem)
