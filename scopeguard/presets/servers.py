"""Authorization servers that an operator runs, and the two profiles any of them may follow.

*issuer* is the URL as their tokens spell it, slash and port included. *jwks_uri* is needed only where that URL does
not lead to their metadata from here, as behind a gateway. *insecure_http_dangerously*: as of
:class:`~scopeguard.Issuer`.

Longer than 400 lines because each server has a function of its own, which is read alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from scopeguard.config.checks import flag
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection, Validation
from scopeguard.config.issuer import Issuer
from scopeguard.config.machines import MachineSign
from scopeguard.errors import ConfigurationError
from scopeguard.presets.parts import (
    ANY_JWT,
    CLIENT_ID,
    CLIENT_OR_USER,
    JWT_OR_NONE,
    NO_SUBJECT_NO_USER,
    NUMBER,
    RFC9068_OR_JWT,
    SCOPE,
    SCOPE_ANY_FORM,
    SCOPE_LIST,
    SCP_LIST,
    asked,
    bound,
    checked_introspection,
    fit,
    fit_all,
    misfit,
    segment,
    some,
    url,
)

_MAPPER = (
    "Keycloak: the token's aud does not name this API; add an audience mapper for it to a client scope of the calling "
    "client"
)
# Until June 2026 tokens of client credentials had no subject (authelia#12372); now it is the client.
_CLIENT_OR_NOBODY: Final = (*CLIENT_OR_USER, MachineSign(machine=True, absent=("sub",)))
_KEYCLOAK_PATH: Final = re.compile(r"/(?:realms|admin|protocol)(?:/[^/]+)?(?=/|\Z)")
_ROLES_OF_PROJECT = "urn:zitadel:iam:org:project:roles"


def keycloak(
    base_url: str,
    realm: str,
    audience: str | Iterable[str],
    *,
    roles_from: str | None = None,
    introspection: Introspection | None = None,
    internal_url: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """A realm of Keycloak at *base_url* (``"https://sso.example.com"``, with a path where it has one).

    * *audience*: what an audience mapper puts into ``aud``; never ``account``, which every token has.
    * *roles_from*: ``"realm"`` or ``"client:<client id>"``: whose roles are read.
    * *introspection*: ask about every token, as lightweight access tokens need.
    * *internal_url*: what *base_url* is for this API, where tokens name one that leads elsewhere from here:
      ``"http://keycloak:8080"`` in a network of containers, while browsers use ``"http://localhost:8080"``. Keys are
      fetched and tokens asked about there.
    """
    base = url(base_url, "base_url", "https://sso.example.com").rstrip("/")
    inside = _KEYCLOAK_PATH.search(base)
    if inside is not None:
        raise ConfigurationError(
            f"base_url: needs the URL of the server, as in 'https://sso.example.com', not one with {inside[0]}; leave "
            "that out, the realm is an argument of its own"
        )
    ids = some(audience, "audience")
    if "account" in ids:
        raise ConfigurationError("audience: every token of Keycloak is for account; add an audience mapper for the API")
    if roles_from is not None and not isinstance(roles_from, str):
        raise misfit(roles_from, "roles_from", "whose roles are read", "realm")
    kind, _, client = (roles_from or "").partition(":")
    if roles_from not in (None, "realm") and (kind != "client" or not client or "." in client):
        raise ConfigurationError('roles_from: "realm", or "client:" and a client id without dots')
    signs: tuple[MachineSign, ...] = (
        MachineSign(machine=True, present={"preferred_username": "service-account-.+"}),
        MachineSign(machine=False, present={"preferred_username": ".+"}),
    )
    if introspection is None:  # an answer has client_id always, a token only if it is a service account's
        signs += (MachineSign(machine=True, present={"client_id": ".+"}, absent=("sid",)),)
    roles = {"": (), "realm": ("realm_access.roles",)}.get(roles_from or "", (f"resource_access.{client}.roles",))
    how: dict[str, Any] = {"required_claims": ("iat", "azp")}
    if introspection is not None:
        how = {"validate": Validation.INTROSPECTION}
        introspection = checked_introspection(introspection)
    return Issuer(
        f"{base}/realms/{segment(realm, 'realm', 'acme')}",
        insecure_http_dangerously=insecure_http_dangerously,
        audience=ids,
        typ=RFC9068_OR_JWT,
        expected_claims={"typ": ("Bearer", "DPoP")},
        scope_claims=(SCOPE,),
        role_claims=roles,
        client_id_claims=("client_id", "azp"),
        machine_signs=signs,
        hints={
            "wrong_audience": _MAPPER,
            "missing_claim:aud": f"{_MAPPER}; a lightweight token lacks more, and needs introspection",
            "unexpected_claim:typ": "Keycloak: an ID or refresh token; the client must send its access token",
        },
        **how,
        **_places(internal_url, realm, introspection),
    )


def _places(internal_url: str | None, realm: str, introspection: Introspection | None) -> dict[str, Any]:
    """Return where a realm of Keycloak is asked, if the server is called *internal_url* here."""
    asked: dict[str, Any] = {} if introspection is None else {"introspection": introspection}
    if internal_url is None:
        return asked
    base = url(internal_url, "internal_url", "http://keycloak:8080").rstrip("/")
    protocol = f"{base}/realms/{realm}/protocol/openid-connect"
    if introspection is not None:
        endpoint = introspection.endpoint or f"{protocol}/token/introspect"
        asked["introspection"] = replace(introspection, endpoint=endpoint)
    return {**asked, "jwks_uri": f"{protocol}/certs"}


def hydra(
    issuer: str,
    audience: str | Iterable[str] | None = None,
    *,
    client_ids: str | Iterable[str] | None = None,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Ory Hydra. Its ``aud`` is empty unless the client asked for one: else give the *client_ids* that may call.

    *introspection*: for opaque tokens; its endpoint is on the admin port.
    """
    return Issuer(
        url(issuer, "issuer", "https://hydra.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        jwks_uri=jwks_uri,
        algorithms=("RS256",),
        typ=RFC9068_OR_JWT,
        required_claims=("client_id", "iat"),
        scope_claims=(SCP_LIST, SCOPE),
        client_id_claims=("client_id",),
        machine_signs=CLIENT_OR_USER,
        **bound(audience, client_ids),
        **asked(introspection, "ory_at_"),
    )


def zitadel(
    issuer: str,
    project_id: str,
    *,
    roles: bool = False,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Zitadel. Its JWTs carry no scopes at all; opaque tokens, and so scopes, need *introspection*: by
    ``private_key_jwt`` with the key file of an API application. *roles*: read the roles of the project."""
    flag(roles, "roles")
    return Issuer(
        url(issuer, "issuer", "https://acme.zitadel.cloud").rstrip("/"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=fit(project_id, "project_id", NUMBER),
        jwks_uri=jwks_uri,
        algorithms=("RS256",),
        typ="JWT",
        required_claims=("client_id", "jti"),
        scope_claims=(SCOPE,),
        role_claims=(_ROLES_OF_PROJECT,) if roles else (),
        client_id_claims=("client_id",),
        machine_signs=(MachineSign(machine=True, equal=("username", "client_id")),),
        hints={
            "token_not_active": "Zitadel: it calls a token inactive too when the project of the API that asks is not "
            f"in its aud; let the client request urn:zitadel:iam:org:project:id:{project_id}:aud",
        },
        **asked(introspection),
    )


def authentik(
    issuer: str,
    client_id: str,
    *,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """authentik, one provider of it. Its access token is an ID token with ``azp`` and ``uid``, and has no scopes:
    with *introspection* it is asked about every token, and knows them."""
    how: dict[str, Any] = {"required_claims": ("uid", "azp")}
    if introspection is not None:
        how = {"validate": Validation.INTROSPECTION, "introspection": checked_introspection(introspection)}
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com/application/o/api/").rstrip("/") + "/",
        insecure_http_dangerously=insecure_http_dangerously,  # it has one always
        audience=fit(client_id, "client_id", CLIENT_ID),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "ES256"),
        typ="JWT",
        scope_claims=(SCOPE,),
        client_id_claims=("azp",),  # client_id of an answer is whoever asked
        machine_signs=(),
        accept_id_tokens_dangerously=True,  # uid is what sets an access token apart
        hints={
            "algorithm_refused": "authentik: signed with the client's secret; select a signing key in the provider",
            "encrypted_token": "authentik: remove the encryption key from the provider",
        },
        **how,
    )


def authelia(
    issuer: str,
    audience: str | Iterable[str],
    *,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Authelia: JWTs where ``access_token_signed_response_alg`` is set; *introspection* for its opaque default."""
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "ES256"),
        typ="at+jwt",
        required_claims=("client_id",),
        scope_claims=(SCOPE, SCP_LIST),
        client_id_claims=("client_id",),
        machine_signs=_CLIENT_OR_NOBODY,
        **asked(introspection, "authelia_at_"),
    )


def _dex_signs(client_ids: str | Iterable[str]) -> tuple[MachineSign, ...]:
    """The subject is a message of user and connector in base64url; a client is its own user, of no connector."""
    names = [name for name in map(str.encode, some(client_ids, "client_ids")) if len(name) < 128]
    users = [bytes((0x0A, len(name))) + name for name in names]
    subjects = [base64.urlsafe_b64encode(user + no) for user in users for no in (b"", b"\x12\0")]
    pattern = "|".join(subject.rstrip(b"=").decode() for subject in subjects)
    return (MachineSign(machine=True, present={"sub": pattern}),) if subjects else ()


def dex(
    issuer: str,
    client_ids: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Dex. Its access tokens *are* ID tokens, and nothing tells one from the other: give the API a client id of its
    own, to which no application signs its users in. No scopes; groups are read as roles."""
    return Issuer(
        url(issuer, "issuer", "https://dex.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(client_ids, "client_ids"),
        jwks_uri=jwks_uri,
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("iat",),
        scope_claims=(),
        role_claims=("groups",),
        client_id_claims=("azp", "aud"),
        machine_signs=_dex_signs(client_ids),
        accept_id_tokens_dangerously=True,
    )


def gitlab(issuer: str, client_ids: str | Iterable[str], *, insecure_http_dangerously: Iterable[str] = ()) -> Issuer:
    """GitLab's opaque OAuth tokens of the instance *issuer* (``"https://gitlab.example.com"``), by asking its
    ``/oauth/token/info`` about each.

    They name no API: *client_ids* are the applications that may call, and whose tokens therefore reach this API.
    Personal access tokens belong to no application, and are refused.
    """
    base = url(issuer, "issuer", "https://gitlab.example.com").rstrip("/")
    return Issuer(
        base,
        insecure_http_dangerously=insecure_http_dangerously,
        audience=fit_all(client_ids, "client_ids", CLIENT_ID),
        audience_claims=("client_id",),
        validate=Validation.INTROSPECTION,
        introspection=Introspection(
            endpoint=f"{base}/oauth/token/info", auth=ClientAuthentication.NONE, dialect=Dialect.GITLAB_TOKEN_INFO
        ),
        scope_claims=(SCOPE_LIST,),
        client_id_claims=("client_id",),
        machine_signs=(MachineSign(machine=False, present={"sub": ".+"}), MachineSign(machine=True)),
        hints={"wrong_audience": "GitLab: of an application that is not in client_ids"},
    )


def duende(
    issuer: str,
    audience: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Duende IdentityServer with API *resources*: API scopes alone put no ``aud`` into a token."""
    return Issuer(
        url(issuer, "issuer", "https://ids.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "PS256", "ES256"),
        typ="at+jwt",
        required_claims=("client_id", "iat"),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
        hints={
            "missing_claim:aud": "Duende: no aud; the scope must belong to an ApiResource, not be an ApiScope alone",
        },
    )


def node_oidc_provider(
    issuer: str,
    audience: str | Iterable[str],
    *,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """node-oidc-provider: RFC 9068 to the letter; *introspection* for opaque tokens, it does not answer for JWTs."""
    return Issuer(
        url(issuer, "issuer", "https://op.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "PS256", "ES256", "EdDSA"),
        typ="at+jwt",
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
        machine_signs=CLIENT_OR_USER,
        **asked(introspection),
    )


def spring_as(
    issuer: str,
    clients: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Spring Authorization Server. Its ``aud`` names the *client*, so it does not set one API apart from another;
    with a customizer that writes this API's own audience, give that instead."""
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(clients, "clients"),
        jwks_uri=jwks_uri,
        algorithms=("RS256",),
        typ=ANY_JWT,
        required_claims=("sub", "iat"),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id", "aud"),
    )


def mcp(
    resource_url: str, issuer: str, *, jwks_uri: str | None = None, insecure_http_dangerously: Iterable[str] = ()
) -> Issuer:
    """An MCP server at *resource_url* behind any authorization server. Tokens in the query are not allowed there:
    leave ``token_sources`` as they are."""
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=url(resource_url, "resource_url", "https://mcp.example.com/mcp"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "ES256", "PS256", "EdDSA"),
        typ=RFC9068_OR_JWT,
        required_claims=("sub",),
        scope_claims=(SCOPE,),
        client_id_claims=("client_id", "azp"),
    )


def generic_rfc9068(
    issuer: str,
    audience: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Any authorization server that follows RFC 9068: all of it is checked."""
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=some(audience, "audience"),
        jwks_uri=jwks_uri,
        typ="at+jwt",
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
    )
