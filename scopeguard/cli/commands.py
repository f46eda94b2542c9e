"""The commands and their options. Each command imports its implementation when it runs.

Longer than 400 lines because the help texts of all commands are here.
"""

# ruff: noqa: PLC0415 - help should not wait for servers, frameworks and HTTP clients to be imported
# ruff: noqa: D301 - in help texts, click looks for the character \b, which a raw string would not hold

from __future__ import annotations

from typing import Any

import click

from scopeguard import __version__
from scopeguard.errors import ConfigurationError


class Refused(click.ClickException):
    """Usage error: one line on stderr, exit status 2."""

    exit_code = 2


class Failed(click.ClickException):
    """Runtime failure: one line on stderr, exit status 1."""

    exit_code = 1


class Commands(click.Group):
    """Reports a :class:`ConfigurationError` as one line, with exit status 2, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise Refused(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scopeguard")
def cli() -> None:
    """Protect an API with OAuth 2.0 access tokens, and try it out."""


@cli.command()
@click.option("--serve", is_flag=True, help="Leave the servers running afterwards, with lines for curl, until Ctrl-C.")
@click.option("--no-color", is_flag=True, help="Plain text.")
def demo(*, serve: bool, no_color: bool) -> None:
    """Watch a client, an authorization server and a protected API, all on loopback.

    Every exchange is shown and compared with the expected one. The exit status is 1 if one differs.
    """
    from scopeguard.cli.demo import run

    raise SystemExit(run(serve=serve, color=not no_color))


@cli.command()
@click.argument("app", metavar="MODULE:APP")
@click.option(
    "--config",
    required=True,
    metavar="FILE",
    help="The TOML file with issuers and rules; docs/settings.md lists its keys.",
)
@click.option(
    "--wsgi", is_flag=True, help="APP is a WSGI app and runs on waitress. Without this it is ASGI and runs on uvicorn."
)
@click.option("--factory", is_flag=True, help="APP is a function without arguments that returns the app.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead; the umask sets its permissions.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 512),
    help="Number of processes. One that crashes is replaced after a pause.",
)
@click.option(
    "--threads",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Requests that a worker serves at once (with --wsgi).",
)
@click.option(
    "--connections",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Open connections of a worker. At the limit the longest-idle ones are closed.",
)
@click.option(
    "--grace",
    default=30,
    show_default=True,
    metavar="SECONDS",
    type=click.IntRange(1, 86400),
    help="Time for requests and streams in progress to finish when the server stops.",
)
@click.option(
    "--access-log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "off"]),
    help="Write a line for each finished request to standard output.",
)
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
@click.option(
    "--readyz",
    metavar="PATH",
    help="Answer GET requests for this path, as in /readyz, without a token: 200 when tokens can be checked, else 503.",
)
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


@cli.command()
@click.option("--config", required=True, metavar="FILE", help="The TOML file with issuers and rules.")
@click.option(
    "--proxy",
    required=True,
    type=click.Choice(["nginx", "haproxy", "traefik", "caddy", "envoy"]),
    help="The proxy that asks. It determines where the original method, host and path are.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    help="The IP address or network of the proxy, or unix for --uds. May be given several times. Others get 403.",
)
@click.option(
    "--claim-header",
    "claim_headers",
    multiple=True,
    metavar="CLAIM=NAME",
    help="The field for subject, client, scopes or issuer, instead of X-Auth-Subject and so on.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead; the umask sets its permissions.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 512), help="Number of processes.")
@click.option("--readyz", metavar="PATH", help="Answer GET requests for this path: 200 when tokens can be checked.")
@click.option(
    "--access-log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "off"]),
    help="Write a line for each answer to standard output.",
)
def authorize(
    *, proxy: str, trusted_proxies: tuple[str, ...], claim_headers: tuple[str, ...], access_log: str, **options: Any
) -> None:
    """Answer a proxy that has to know whether a request may reach an API, in any language.

    For auth_request of nginx, a Lua action of HAProxy, ForwardAuth of Traefik, forward_auth of Caddy and ext_authz of
    Envoy (HTTP). The answer is 200 with the claims of the token, or the refusal. Reload, stop and exit status are those
    of serve.
    """
    from scopeguard.server.access_log import Format
    from scopeguard.server.authorize import Proxy, Settings
    from scopeguard.server.serve import Options, run

    settings = Settings(proxy=Proxy[proxy.upper()], trusted=trusted_proxies, claim_headers=claim_headers)
    fixed: dict[str, Any] = {
        "wsgi": False,
        "factory": False,
        "threads": 1,
        "grace": 30,
        "connections": 1000,
        "log_subjects": False,
    }
    log = Format(access_log)
    run(Options(target=proxy, access_log=log, trusted_proxies=trusted_proxies, authorize=settings, **fixed, **options))


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
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings as well.")
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


@cli.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option(
    "--config", required=True, metavar="FILE", help="The TOML file to examine; docs/settings.md lists its keys."
)
@click.option("--factory", is_flag=True, help="APP is a function without arguments that returns the app.")
@click.option("--offline", is_flag=True, help="Leave out the checks that need a network.")
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings as well.")
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


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
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
@click.option(
    "--lifetime", default=3600, show_default=True, type=click.IntRange(1), help="Lifetime of tokens in seconds."
)
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
def devserver(
    *,
    host: str,
    port: int,
    clients: tuple[str, ...],
    redirect_uris: tuple[str, ...],
    users: tuple[str, ...],
    service_accounts: tuple[str, ...],
    audience: str,
    lifetime: int,
    allow_remote: bool,
    issuer: str | None,
    catalog: str | None,
) -> None:
    """Run an authorization server. FOR DEVELOPMENT ONLY.

    It keeps everything in memory and makes a new signing key at every start.
    """
    from scopeguard.cli.devserver import run

    run(
        host=host,
        port=port,
        clients=clients,
        redirect_uris=redirect_uris,
        users=users,
        service_accounts=service_accounts,
        audience=audience,
        lifetime=lifetime,
        allow_remote=allow_remote,
        issuer=issuer,
        catalog=catalog,
    )


@cli.command()
@click.option("--token-url", metavar="URL", help="The token endpoint of the authorization server.")
@click.option(
    "--issuer",
    metavar="URL",
    help="The authorization server, whose metadata names the token endpoint; instead of --token-url.",
)
@click.option("--client-id", required=True, metavar="ID", help="The client identifier.")
@click.option(
    "--client-secret",
    "secret",
    metavar="WHERE",
    help="env:NAME, file:PATH, or - for standard input. Never the secret itself: other users can see command lines.",
)
@click.option("--scope", "scopes", multiple=True, help="A scope to request. May be given several times.")
@click.option("--resource", multiple=True, metavar="URI", help="The API that the token is for (RFC 8707).")
@click.option("--audience", multiple=True, help="The API that the token is for, as Auth0 and others expect it.")
@click.option(
    "--auth-method",
    "method",
    type=click.Choice(["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"]),
    help="How the client authenticates. Default: client_secret_basic with --client-secret, private_key_jwt with "
    "--private-key, tls_client_auth with --cert alone.",
)
@click.option(
    "--private-key", "key_file", metavar="FILE", help="The key that signs assertions (private_key_jwt): PEM or a JWK."
)
@click.option("--key-algorithm", metavar="NAME", help="The algorithm of assertions.  [default: RS256]")
@click.option("--key-id", metavar="ID", help="The key identifier (kid) of assertions.")
@click.option(
    "--assertion-audience",
    metavar="URL",
    help="The audience of assertions; needed with --token-url, not with --issuer.",
)
@click.option("--cert", metavar="FILE", help="The client certificate for TLS, and its key unless --cert-key is given.")
@click.option("--cert-key", metavar="FILE", help="The key of the client certificate.")
@click.option(
    "--dpop-key",
    metavar="FILE",
    help="Bind the token to the private key in this PEM file (DPoP, RFC 9449). If there is no such file, it is written "
    "with a new key.",
)
@click.option("--dpop-algorithm", metavar="NAME", help="The algorithm of proofs.  [default: ES256]")
@click.option("--dpop-optional", is_flag=True, help="Accept a token that is not bound to the key as well.")
@click.option(
    "--proof-for",
    nargs=2,
    metavar="METHOD URL",
    help="With --header and --dpop-key, print a proof for one request to the API as a second line.",
)
@click.option("--nonce", metavar="VALUE", help="The DPoP-Nonce of the API, for the proof of --proof-for.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A further form parameter.")
@click.option(
    "--token-type",
    "token_types",
    multiple=True,
    metavar="NAME",
    help="A further token_type that means Bearer at this server.",
)
@click.option("--token-type-optional", is_flag=True, help="Accept a response without token_type.")
@click.option("--scope-list", is_flag=True, help="Accept a response with scope as an array.")
@click.option(
    "--ca-file",
    metavar="FILE",
    help="Verify the authorization server with the certificates in this PEM file instead of the usual ones.",
)
@click.option(
    "--proxy", metavar="URL", help="Use this outbound proxy; env:NAME or file:PATH if its URL holds a password."
)
@click.option(
    "--insecure-http-dangerously",
    multiple=True,
    metavar="HOST:PORT",
    help="Send the secret to this host by http. For networks where every machine is "
    "trusted. May be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as JSON instead of the token alone.")
@click.option("--header", is_flag=True, help="Print a header line with the token, for curl -H @-.")
def token(*, client_id: str, as_json: bool, header: bool, parameters: tuple[str, ...], **settings: Any) -> None:
    """Fetch an access token by client credentials and print it to standard output.

    Its scopes and lifetime are printed to standard error.

    \b
    Exit status:
      0  the token was fetched
      1  the authorization server refused or did not answer
      2  the command line is wrong, or a secret or key is not where it should be
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
    problem = run(client_id, output=output, parameters=further, **settings)
    if problem is not None:
        raise Failed(problem)


@cli.command()
@click.argument("token", required=False, metavar="[TOKEN|-]")
@click.option(
    "--config",
    required=True,
    metavar="FILE",
    help="The TOML file with issuers and rules; docs/settings.md lists its keys.",
)
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
