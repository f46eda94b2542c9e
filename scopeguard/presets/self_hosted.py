"""Authorization servers that operators run themselves, and two profiles that any server may follow.

Arguments of most functions:

* *issuer*: the URL exactly as in ``iss``, with its slash and port.
* *jwks_uri*: needed only if the API cannot fetch metadata at that URL, for example behind a gateway.
* *introspection*: for opaque tokens.
* *insecure_http_dangerously*: as in :class:`~scopeguard.Issuer`.

Longer than 400 lines because each server has a function of its own, which can be read by itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from scopeguard.config.checks import flag
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.machines import MachineSign
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError
from scopeguard.presets.argument_forms import (
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
    also_introspect,
    binding_settings,
    check_introspection,
    fit,
    fit_all,
    form_error,
    nonempty,
    segment,
    url,
)

_MAPPER = (
    "Keycloak: the token's aud does not name this API; add an audience mapper for it to a client scope of the calling "
    "client"
)
# Until June 2026, tokens of client credentials had no subject (authelia#12372). Since then it is the client.
_CLIENT_OR_NO_SUBJECT: Final = (*CLIENT_OR_USER, MachineSign(machine=True, absent=("sub",)))
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
    """Return an issuer for a realm of Keycloak.

    * *base_url*: the URL of the server, as in ``"https://sso.example.com"``, with its path if it has one.
    * *audience*: the value that an audience mapper adds to ``aud``. It must not be ``account``, which all tokens have.
    * *roles_from*: the source of roles, ``"realm"`` or ``"client:<client id>"``. ``None`` reads no roles.
    * *introspection*: introspect every token, as lightweight access tokens need.
    * *internal_url*: the URL of the server for this API, if it cannot use *base_url*. In a network of containers, for
      example, the API uses ``"http://keycloak:8080"``, and browsers and tokens have ``"http://localhost:8080"``. Keys
      are fetched and tokens are introspected there.
    """
    base = url(base_url, "base_url", "https://sso.example.com").rstrip("/")
    inside = _KEYCLOAK_PATH.search(base)
    if inside is not None:
        raise ConfigurationError(
            f"base_url: needs the URL of the server, as in 'https://sso.example.com', without {inside[0]}; the realm "
            "is an argument of its own"
        )
    ids = nonempty(audience, "audience")
    if "account" in ids:
        raise ConfigurationError("audience: all tokens of Keycloak have account; add an audience mapper for this API")
    if roles_from is not None and not isinstance(roles_from, str):
        raise form_error(roles_from, "roles_from", "a source of roles", "realm")
    kind, _, client = (roles_from or "").partition(":")
    if roles_from not in (None, "realm") and (kind != "client" or not client or "." in client):
        raise ConfigurationError('roles_from: must be "realm", or "client:" and a client id without dots')
    signs: tuple[MachineSign, ...] = (
        MachineSign(machine=True, present={"preferred_username": "service-account-.+"}),
        MachineSign(machine=False, present={"preferred_username": ".+"}),
    )
    if introspection is None:  # only tokens of service accounts have client_id, but all introspection answers have it
        signs += (MachineSign(machine=True, present={"client_id": ".+"}, absent=("sid",)),)
    roles = {"": (), "realm": ("realm_access.roles",)}.get(roles_from or "", (f"resource_access.{client}.roles",))
    validation: dict[str, Any] = {"required_claims": ("iat", "azp")}
    if introspection is not None:
        validation = {"validate": Validation.INTROSPECTION}
        introspection = check_introspection(introspection)
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
            "missing_claim:aud": f"{_MAPPER}; a lightweight token lacks other claims too, and needs introspection",
            "unexpected_claim:typ": "Keycloak: an ID or refresh token; the client must send its access token",
        },
        **validation,
        **_keycloak_endpoints(internal_url, realm, introspection),
    )


def _keycloak_endpoints(internal_url: str | None, realm: str, introspection: Introspection | None) -> dict[str, Any]:
    """Return the settings of *introspection*, and with *internal_url* those of the endpoints at that URL."""
    settings: dict[str, Any] = {} if introspection is None else {"introspection": introspection}
    if internal_url is None:
        return settings
    base = url(internal_url, "internal_url", "http://keycloak:8080").rstrip("/")
    protocol = f"{base}/realms/{realm}/protocol/openid-connect"
    if introspection is not None:
        endpoint = introspection.endpoint or f"{protocol}/token/introspect"
        settings["introspection"] = replace(introspection, endpoint=endpoint)
    return {**settings, "jwks_uri": f"{protocol}/certs"}


def hydra(
    issuer: str,
    audience: str | Iterable[str] | None = None,
    *,
    client_ids: str | Iterable[str] | None = None,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for Ory Hydra.

    Its ``aud`` is empty unless the client requests an audience. If it is empty, set *client_ids* to the clients that
    may call, instead of *audience*. The introspection endpoint is on the admin port.
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
        **binding_settings(audience, client_ids),
        **also_introspect(introspection, "ory_at_"),
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
    """Return an issuer for Zitadel.

    Its JWTs have no scopes. Opaque tokens have scopes, and need *introspection* with ``private_key_jwt`` and the key
    file of an API application. *roles*: read the roles of the project.
    """
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
            "token_not_active": "Zitadel: a token is also reported as inactive if its aud lacks the project of this "
            f"API; let the client request urn:zitadel:iam:org:project:id:{project_id}:aud",
        },
        **also_introspect(introspection),
    )


def authentik(
    issuer: str,
    client_id: str,
    *,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for a provider of authentik.

    Its access tokens are ID tokens with ``azp`` and ``uid``, and without scopes. With *introspection*, every token is
    introspected, and the answer has its scopes.
    """
    validation: dict[str, Any] = {"required_claims": ("uid", "azp")}
    if introspection is not None:
        validation = {"validate": Validation.INTROSPECTION, "introspection": check_introspection(introspection)}
    return Issuer(
        # The issuer always ends with a slash.
        url(issuer, "issuer", "https://auth.example.com/application/o/api/").rstrip("/") + "/",
        insecure_http_dangerously=insecure_http_dangerously,
        audience=fit(client_id, "client_id", CLIENT_ID),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "ES256"),
        typ="JWT",
        scope_claims=(SCOPE,),
        client_id_claims=("azp",),  # client_id of an introspection answer is the client that introspects
        machine_signs=(),
        accept_id_tokens_dangerously=True,  # uid distinguishes access tokens
        hints={
            "algorithm_refused": "authentik: signed with the client's secret; select a signing key in the provider",
            "encrypted_token": "authentik: remove the encryption key from the provider",
        },
        **validation,
    )


def authelia(
    issuer: str,
    audience: str | Iterable[str],
    *,
    introspection: Introspection | None = None,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for Authelia.

    Clients with ``access_token_signed_response_alg`` get JWTs. By default, tokens are opaque and need *introspection*.
    """
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "ES256"),
        typ="at+jwt",
        required_claims=("client_id",),
        scope_claims=(SCOPE, SCP_LIST),
        client_id_claims=("client_id",),
        machine_signs=_CLIENT_OR_NO_SUBJECT,
        **also_introspect(introspection, "authelia_at_"),
    )


def _dex_signs(client_ids: str | Iterable[str]) -> tuple[MachineSign, ...]:
    """Return a sign for tokens of clients themselves.

    The subject is a Protocol Buffers message with a user and a connector, in base64url. For a client, the user is the
    client and the connector is empty.
    """
    names = [name for name in map(str.encode, nonempty(client_ids, "client_ids")) if len(name) < 128]
    users = [bytes((0x0A, len(name))) + name for name in names]
    subjects = [base64.urlsafe_b64encode(user + connector) for user in users for connector in (b"", b"\x12\0")]
    pattern = "|".join(subject.rstrip(b"=").decode() for subject in subjects)
    return (MachineSign(machine=True, present={"sub": pattern}),) if subjects else ()


def dex(
    issuer: str,
    client_ids: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for Dex.

    Its access tokens are ID tokens and cannot be distinguished from others. Register a client id for the API with which
    no application signs users in. The tokens have no scopes; their groups are read as roles.
    """
    return Issuer(
        url(issuer, "issuer", "https://dex.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(client_ids, "client_ids"),
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
    """Return an issuer for the opaque OAuth tokens of the GitLab instance *issuer* (``"https://gitlab.example.com"``).

    The guard introspects them at ``/oauth/token/info``. They have no audience, so *client_ids*, the applications that
    may call, bind them to this API. Personal access tokens belong to no application and are refused.
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
        hints={"wrong_audience": "GitLab: a token of an application that is not in client_ids"},
    )


def duende(
    issuer: str,
    audience: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for Duende IdentityServer. The API must be an API resource: API scopes alone give no ``aud``."""
    return Issuer(
        url(issuer, "issuer", "https://ids.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "PS256", "ES256"),
        typ="at+jwt",
        required_claims=("client_id", "iat"),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
        hints={
            "missing_claim:aud": "Duende: the token has no aud; add the ApiScope to an ApiResource",
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
    """Return an issuer for node-oidc-provider. Its JWTs follow RFC 9068, and it introspects opaque tokens only."""
    return Issuer(
        url(issuer, "issuer", "https://op.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256", "PS256", "ES256", "EdDSA"),
        typ="at+jwt",
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
        machine_signs=CLIENT_OR_USER,
        **also_introspect(introspection),
    )


def spring_as(
    issuer: str,
    clients: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for Spring Authorization Server.

    The ``aud`` of its tokens is the client, so all APIs accept the same tokens. *clients* are the clients that may
    call, or the audience of this API if a token customizer writes it to ``aud``.
    """
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(clients, "clients"),
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
    """Return an issuer for an MCP server at *resource_url*, with any authorization server.

    MCP forbids tokens in the query, so do not change ``token_sources`` of the guard.
    """
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
    """Return an issuer for any authorization server that follows RFC 9068. All its requirements are checked."""
    return Issuer(
        url(issuer, "issuer", "https://auth.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        typ="at+jwt",
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
    )
