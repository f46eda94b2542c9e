"""Write token exchange requests and check their responses: RFC 8693, and RFC 7523 for servers that use its grant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from scopeguard.spec.token_endpoint import TokenRefusal, TokenResponse

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

# Token type identifiers (RFC 8693 section 3). A JWT access token has the first two types.
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
"""An identity assertion JWT authorization grant (draft-ietf-oauth-identity-assertion-authz-grant)."""

RESERVED_EXCHANGE_PARAMETERS: Final = frozenset(
    (
        "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
        "assertion", "requested_token_use",
    )
)  # fmt: skip
"""Parameters of an exchange that its settings determine."""

_ACCESS_TOKEN_TYPES: Final = frozenset((ACCESS_TOKEN, JWT))

Form = tuple[tuple[str, str], ...]


def exchange_form(
    subject_token: str,
    subject_token_type: str,
    *,
    actor: tuple[str, str] | None = None,
    requested_token_type: str | None = None,
    resources: Iterable[str] = (),
    audiences: Iterable[str] = (),
    scopes: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> Form:
    """Return the parameters of a token exchange request without client authentication: RFC 8693 section 2.1.

    *actor*: the actor token and its type. Empty values are omitted. Only ``resource`` and ``audience`` may occur more
    than once.
    """
    form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", subject_token),
        ("subject_token_type", subject_token_type),
        *(() if actor is None else (("actor_token", actor[0]), ("actor_token_type", actor[1]))),
        ("requested_token_type", requested_token_type or ""),
        *(("resource", resource) for resource in resources),
        *(("audience", audience) for audience in audiences),
        ("scope", " ".join(scopes)),
        *(parameters or {}).items(),
    ]
    return tuple((name, value) for name, value in form if value)


def assertion_form(
    assertion: str,
    *,
    on_behalf_of: bool = False,
    scopes: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> Form:
    """Return the parameters of a JWT bearer grant without client authentication: RFC 7523 section 2.1.

    *on_behalf_of* adds the parameter by which Microsoft Entra takes an access token as the assertion. Empty values are
    omitted.
    """
    form = [
        ("grant_type", JWT_BEARER),
        ("assertion", assertion),
        ("requested_token_use", "on_behalf_of" if on_behalf_of else ""),
        ("scope", " ".join(scopes)),
        *(parameters or {}).items(),
    ]
    return tuple((name, value) for name, value in form if value)


def check_issued_type(
    response: TokenResponse, requested_token_type: str | None, *, optional: bool = False
) -> TokenRefusal | None:
    """Return why *response* to an exchange cannot be used, or ``None``.

    RFC 8693 section 2.2.1 requires ``issued_token_type``. It must be *requested_token_type*, or that of an access token
    if none was requested. An access token may also be called a JWT, and a JWT an access token. *optional*: it may be
    absent.
    """
    issued = response.issued_token_type
    if issued is None:
        problem = "issued_token_type is missing; if this server does not send it, set issued_token_type_optional"
        return None if optional else TokenRefusal(status=200, problem=problem)
    requested = requested_token_type or ACCESS_TOKEN
    if issued == requested or {issued, requested} <= _ACCESS_TOKEN_TYPES:
        return None
    return TokenRefusal(status=200, problem="issued_token_type is not the type of token that was requested")
