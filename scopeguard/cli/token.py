"""``scopeguard token``: fetches an access token by client credentials and prints it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Unpack, cast

import click

from scopeguard.client import (
    ClientAuthentication,
    ClientCredentials,
    ClientSettings,
    DPoPKey,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenResponse,
)
from scopeguard.client.dpop import generate_pem
from scopeguard.config.file.place import Place
from scopeguard.config.file.references import resolve
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import ConfigurationError

_OPTION: Final = "--client-secret"
_log: Final = logging.getLogger("scopeguard")


class Output(StrEnum):
    """The output format: the token, a header line, or the response as JSON."""

    TOKEN = "token"
    HEADER = "header"
    JSON = "json"


def run(
    client_id: str,
    *,
    token_url: str | None,
    issuer: str | None,
    output: Output,
    secret: str | None = None,
    method: str | None = None,
    key_file: str | None = None,
    cert: str | None = None,
    cert_key: str | None = None,
    ca_file: str | None = None,
    proxy: str | None = None,
    dpop_key: str | None = None,
    dpop_algorithm: str | None = None,
    proof_for: tuple[str, str] | None = None,
    nonce: str | None = None,
    **settings: Unpack[ClientSettings],
) -> str | None:
    """Print the token and return ``None``. If there is none, return the reason and advice.

    *secret* is the value of ``--client-secret``, *method* that of ``--auth-method``, *key_file* that of
    ``--private-key``. Raises :class:`ConfigurationError` for wrong options.
    """
    if (token_url is None) == (issuer is None):
        raise ConfigurationError("--token-url, --issuer: give exactly one of them")
    _check_proof(output, proof_for, nonce, dpop_key, dpop_algorithm)
    settings = _without_absent(settings)
    settings["auth_method"] = method or _auth_method(secret, key_file, cert)
    if key_file is not None:
        settings["private_key"] = read_private_key(key_file)
    if dpop_key is not None:
        settings["dpop"] = read_or_create_dpop_key(dpop_key, dpop_algorithm or "ES256")
    settings["transport"] = transport = _transport(ca_file, proxy, cert, cert_key)
    read = None if secret is None else read_secret(secret)
    _log.addFilter(_is_other_line)
    try:
        if issuer is not None:
            client = ClientCredentials.from_issuer(issuer, client_id, read, **settings)
        else:
            client = ClientCredentials(token_url or "", client_id, read, **settings)
        fetched = client.token()
    except (TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted) as failure:
        return f"no token: {failure}{_advice(failure)}"
    finally:
        _log.removeFilter(_is_other_line)
        transport.close()
    _print(fetched, output)
    key = settings.get("dpop")
    if proof_for is not None and key is not None and _is_bound(fetched):
        click.echo(f"DPoP: {key.proof(*proof_for, token=fetched.access_token, nonce=nonce)}")
    return None


def _is_other_line(record: logging.LogRecord) -> bool:
    """Return whether *record* is not the client's warning about the failure that the command prints as its error."""
    return not record.getMessage().startswith("no access token: ")


def _without_absent(settings: ClientSettings) -> ClientSettings:
    """Return *settings* without those that the command line leaves out."""
    return cast(ClientSettings, {name: value for name, value in settings.items() if value is not None})


def _auth_method(secret: str | None, key_file: str | None, cert: str | None) -> str:
    """Return the method of client authentication that the options suggest."""
    if secret is not None:
        return ClientAuthentication.CLIENT_SECRET_BASIC
    if key_file is not None:
        return ClientAuthentication.PRIVATE_KEY_JWT
    if cert is not None:
        return ClientAuthentication.TLS_CLIENT_AUTH
    raise ConfigurationError(f"{_OPTION}, --private-key, --cert: give one of them, to authenticate the client")


def _check_proof(
    output: Output, proof_for: tuple[str, str] | None, nonce: str | None, key: str | None, algorithm: str | None
) -> None:
    """Raise :class:`ConfigurationError` for options of proofs that have no effect."""
    if key is None and (proof_for is not None or algorithm is not None):
        option = "--proof-for" if algorithm is None else "--dpop-algorithm"
        raise ConfigurationError(f"{option}: has no effect without --dpop-key")
    if proof_for is not None and output is not Output.HEADER:
        raise ConfigurationError(
            "--proof-for: has no effect without --header, which prints the header lines of a request"
        )
    if nonce is not None and proof_for is None:
        raise ConfigurationError("--nonce: has no effect without --proof-for")


def _is_bound(fetched: TokenResponse) -> bool:
    return fetched.token_type.lower() == "dpop"


def _print(fetched: TokenResponse, output: Output) -> None:
    if output is Output.JSON:
        click.echo(json.dumps(_response_members(fetched)))
        return
    lifetime = "no lifetime" if fetched.expires_in is None else f"{fetched.expires_in:.0f} seconds"
    scopes = "as requested" if fetched.scope is None else " ".join(fetched.scope) or "none"
    click.echo(f"scopes: {scopes}; {lifetime}", err=True)
    scheme = "DPoP" if _is_bound(fetched) else "Bearer"
    click.echo(f"Authorization: {scheme} {fetched.access_token}" if output is Output.HEADER else fetched.access_token)


def _transport(ca_file: str | None, proxy: str | None, cert: str | None, cert_key: str | None) -> HttpxTransport:
    """Return the transport of ``--ca-file``, ``--cert`` and ``--proxy``, which may be ``env:NAME`` or ``file:PATH``."""
    if cert is None and cert_key is not None:
        raise ConfigurationError("--cert-key: has no effect without --cert")
    place = Place("scopeguard token", "command line", Path(), os.environ)
    transport = HttpxTransport(
        verify=ca_file,
        cert=cert if cert is None or cert_key is None else (cert, cert_key),
        proxy=None if proxy is None else resolve(proxy, place, "--proxy"),
    )
    transport.check("--ca-file" if cert is None else "--ca-file, --cert")
    return transport


def read_private_key(file: str) -> str | Mapping[str, Any]:
    """Return the key in *file*: PEM text, or a JWK as a mapping.

    Raises :class:`ConfigurationError` if it cannot be read.
    """
    try:
        content = Path(file).read_text("utf-8")
        jwk = json.loads(content) if content.lstrip().startswith("{") else None
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is neither PEM nor a JWK"
        raise ConfigurationError(f"--private-key: {file!r} cannot be read: {problem}") from None
    return content if jwk is None else dict(jwk)


def read_or_create_dpop_key(file: str, algorithm: str) -> DPoPKey:
    """Return the key in the PEM file *file*. If there is no file, write a new key that only its owner can read.

    Raises :class:`ConfigurationError` if the file cannot be read or written.
    """
    if not os.path.exists(file):
        pem = generate_pem(algorithm)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--dpop-key: {file!r} cannot be written: {error.strerror}") from None
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(pem)
        click.echo(f"wrote a new key to {file}", err=True)
    return DPoPKey(file=file, algorithm=algorithm)


def _response_members(fetched: TokenResponse) -> dict[str, str | int]:
    """Return the response with the member names of RFC 6749 section 5.1."""
    members: dict[str, str | int | None] = {
        "access_token": fetched.access_token,
        "token_type": fetched.token_type,
        "expires_in": None if fetched.expires_in is None else int(fetched.expires_in),
        "scope": None if fetched.scope is None else " ".join(fetched.scope),
    }
    return {name: value for name, value in members.items() if value is not None}


_ADVICE: Final = {
    "invalid_client": "check --client-id and the secret, key or certificate, and try another --auth-method",
    "invalid_dpop_proof": "compare the clocks, and try another --dpop-algorithm",
    "unauthorized_client": "allow the grant client_credentials for this client at the authorization server",
    "unsupported_grant_type": "check that this is the token endpoint, and that the server supports client_credentials",
    "invalid_scope": "request fewer scopes with --scope, or register the client for them",
    "invalid_target": "check --resource: it must be the identifier of the API at the authorization server",
    "invalid_request": "try --audience, --resource or --scope, which some servers require",
}


def _advice(failure: Exception) -> str:
    if isinstance(failure, TokenEndpointUnavailable):
        return "; check the URL, and that this machine can reach it"
    advice = _ADVICE.get(failure.error or "") if isinstance(failure, TokenEndpointError) else None
    return "" if advice is None else f"; {advice}"


def read_secret(where: str) -> str:
    """Return the secret at *where*: ``env:NAME``, ``file:PATH``, or ``-`` for standard input.

    Raises :class:`ConfigurationError` for anything else, which may be the secret itself.
    """
    if where == "-":
        if sys.stdin.isatty():
            return str(click.prompt("client secret", hide_input=True, err=True))
        return sys.stdin.read().rstrip("\r\n")
    if not where.startswith(("env:", "file:")):
        raise ConfigurationError(
            f"{_OPTION}: write env:NAME, file:PATH or -, not the secret itself: every user of this machine can read "
            "the command line"
        )
    return resolve(where, Place("scopeguard token", "command line", Path(), os.environ), _OPTION)
