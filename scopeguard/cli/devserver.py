"""``scopeguard devserver``: runs the development authorization server in the foreground."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, MutableMapping
from typing import Final

import click

from scopeguard.config.api_documents import read_document
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.hosts import host_and_port, is_loopback, join_host_port
from scopeguard.config.urls import check_url
from scopeguard.devserver import (
    Authority,
    Client,
    ClientAuthMethod,
    Endpoint,
    GoogleServiceAccount,
    ServiceAccount,
    TokenFormat,
    check_address,
    serve,
)
from scopeguard.devserver.lifetimes import TOKEN_LIFETIME
from scopeguard.errors import ConfigurationError

DEFAULT_CLIENT: Final = "demo:for development:read write"
DEFAULT_USER: Final = "alice"


def run(
    *,
    host: str,
    port: int,
    clients: Iterable[str],
    service_accounts: Iterable[str],
    audience: str,
    lifetime: int | None,
    allow_remote: bool,
    apis: Iterable[str] = (),
    opaque: bool = False,
    issuer: str | None = None,
    catalog: str | None = None,
    redirect_uris: Iterable[str] = (),
    users: Iterable[str] = (),
) -> None:
    """Serve until interrupted.

    *clients*, *apis*, *service_accounts*, *catalog*, *redirect_uris* and *users* are the values of ``--client``,
    ``--api``, ``--service-account``, ``--catalog``, ``--redirect-uri`` and ``--user``. *opaque*: tokens are opaque, not
    JWTs. Raises :class:`ConfigurationError` for wrong values.
    """
    resource_servers = [api_from(text, audience) for text in apis]
    if opaque and not resource_servers:
        raise ConfigurationError(
            "--opaque: an API needs a client to check the tokens by introspection; name it: --api ID:SECRET"
        )
    account_texts = tuple(service_accounts)
    client_texts = tuple(clients) or (() if account_texts else (DEFAULT_CLIENT,))
    uris = redirect_uris_from(redirect_uris)
    registered = [client_from(text, lifetime or TOKEN_LIFETIME, uris, opaque=opaque) for text in client_texts]
    if uris:
        known = ", ".join(client.client_id for client in registered)
        raise ConfigurationError(f"--redirect-uri: {next(iter(uris))!r} is not a client; the clients are {known}")
    scopes = None if catalog is None else catalog_from(catalog)
    url = issuer or (f"http://{join_host_port(host, port)}" if is_loopback(host) else "")
    has_login = any(client.redirect_uris for client in registered)
    subjects = tuple(users) or ((DEFAULT_USER,) if has_login else ())
    authority = Authority(
        url, audience=audience, clients=[*registered, *resource_servers], catalog=scopes, subjects=subjects
    )

    check_address(authority, host, allow_remote=allow_remote)
    accounts: list[tuple[str, ServiceAccount]] = []
    for text in account_texts:
        path, account = service_account_from(text, authority.url(Endpoint.TOKEN))
        authority.registry.add_service_account(account)
        accounts.append((path, account))

    def introduce() -> None:
        for line in introduction(authority, registered, accounts, resource_servers):
            click.echo(line)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        serve(authority, host, port, allow_remote=allow_remote, ready=introduce)
    except OSError as problem:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {problem.strerror}") from None
    except KeyboardInterrupt:
        pass


def service_account_from(text: str, token_uri: str) -> tuple[str, ServiceAccount]:
    """Parse ``FILE:EMAIL:SCOPES``. Return the path and the account of the key file, which is created if it is missing.

    Only the scopes may contain colons.
    """
    parts = text.split(":", 2)
    if len(parts) < 3 or not all(parts[:2]):
        raise ConfigurationError("--service-account: write three parts, FILE:EMAIL:SCOPES")
    path, email, scopes = parts
    if os.path.exists(path):
        return path, GoogleServiceAccount.read(path, email, scopes=scopes.split(), token_uri=token_uri).account
    new = GoogleServiceAccount.generate(email, scopes=scopes.split())
    new.write(path, token_uri=token_uri)
    return path, new.account


def catalog_from(path: str) -> ScopeCatalog:
    """Return the catalog in the file at *path*: TOML, or an OpenAPI or Google discovery document."""
    if path.endswith(".toml"):
        return ScopeCatalog.from_toml(path)
    if "openapi" in read_document(path).content:
        return ScopeCatalog.from_openapi(path)
    return ScopeCatalog.from_google_discovery(path)


def redirect_uris_from(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return the redirect URIs in *texts*, each ``ID=URI``, by client."""
    found: dict[str, list[str]] = {}
    for text in texts:
        client_id, equals, uri = text.partition("=")
        if not client_id or not equals:
            raise ConfigurationError("--redirect-uri: write ID=URI, as in swagger=http://127.0.0.1:8000/callback")
        found.setdefault(client_id, []).append(uri)
    return found


def api_from(text: str, audience: str) -> Client:
    """Return the client in ``ID:SECRET`` as which the API *audience* introspects tokens. Secrets may contain colons."""
    client_id, _, secret = text.partition(":")
    if not client_id or not secret:
        raise ConfigurationError("--api: write two parts, ID:SECRET, as in 'api:another secret'")
    return Client(client_id=client_id, secret=secret, introspects=[audience])


def client_from(
    text: str, lifetime: int, redirect_uris: MutableMapping[str, list[str]], *, opaque: bool = False
) -> Client:
    """Return the client in ``ID:SECRET:SCOPES``. Only the scopes may contain colons. Without a secret it is public.

    Its entry is removed from *redirect_uris*. *opaque*: its tokens are opaque.
    """
    parts = text.split(":", 2)
    if len(parts) < 3:
        raise ConfigurationError("--client: write three parts, ID:SECRET:SCOPES, as in 'loader:any secret:read'")
    client_id, secret, scopes = parts
    uris = redirect_uris.pop(client_id, ())
    if not secret and not uris:
        raise ConfigurationError(
            f"--client: {client_id!r} has no secret and no --redirect-uri, so it cannot get a token; give one of them"
        )
    confidential = (ClientAuthMethod.BASIC, ClientAuthMethod.POST)
    return Client(
        client_id=client_id,
        secret=secret,
        scopes=scopes.split(),
        token_format=TokenFormat.OPAQUE if opaque else TokenFormat.JWT,
        lifetime=lifetime,
        redirect_uris=uris,
        auth_methods=confidential if secret else (ClientAuthMethod.NONE,),
    )


def introduction(
    authority: Authority,
    clients: Iterable[Client],
    accounts: Iterable[tuple[str, ServiceAccount]] = (),
    apis: Iterable[Client] = (),
) -> list[str]:
    """Return lines that show how to use *authority*."""
    url, audience = authority.issuer, authority.audience
    lines = [
        "",
        "*** FOR DEVELOPMENT ONLY: anyone who can reach this authorization server can get tokens ***",
        "",
        f"issuer     {url}",
        f"audience   {audience}",
        f"metadata   {authority.url(Endpoint.METADATA)}",
        "",
        "in scopeguard.toml:",
        f'    resource = "{audience}"',
        *insecure_lines(url),
        "    [[issuers]]",
        f'    url = "{url}"',
    ]
    for api in apis:
        lines += [
            "",
            f"the API may introspect tokens as {api.client_id}; in scopeguard.toml, below the url:",
            '    validate = "auto"',
            "    [issuers.introspection]",
            f'    client_id = "{api.client_id}"',
            '    client_secret = "env:API_SECRET"',
        ]
    for client in clients:
        lines += ["", f"client {client.client_id}, scopes: {' '.join(client.scopes) or 'none'}"]
        lines += [f"    returns to {uri}" for uri in client.redirect_uris]
        lines += [] if client.is_public else [f"    {curl(authority.url(Endpoint.TOKEN), client)}"]
    if authority.registry.subjects:
        lines += ["", f"users, who sign in without a password: {', '.join(sorted(authority.registry.subjects))}"]
    for path, account in accounts:
        lines += ["", f"service account {account.email}, scopes: {' '.join(account.scopes) or 'none'}", f"    {path}"]
    return [*lines, ""]


def insecure_lines(url: str) -> list[str]:
    """Return the setting with which a guard accepts *url* by http. The list is empty if *url* needs no setting."""
    try:
        check_url(url, "issuer")
    except ConfigurationError:
        return [f'    insecure_http_dangerously = ["{host_and_port(url)}"]']
    return []


def curl(token_url: str, client: Client) -> str:
    """Return a shell command that puts a token of *client* into the variable TOKEN."""
    user = shlex.quote(f"{client.client_id}:{client.secret}")
    scope = f" -d {shlex.quote('scope=' + ' '.join(client.scopes))}" if client.scopes else ""
    answer = f"curl -s -u {user} -d grant_type=client_credentials{scope} {token_url}"
    return f"""TOKEN=$({answer} | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')"""
