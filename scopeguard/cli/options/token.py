"""The options and the help of ``scopeguard token``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.errors import Failed, Refused


@click.command()
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
