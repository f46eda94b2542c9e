"""Authorization servers that vendors run for the APIs of their customers.

Each issuer has the checks that the vendor's tokens need beyond the standard. Its hints, which appear in the log, say
which setting at the vendor is the usual reason for a refusal.

Longer than 400 lines because each vendor has a function of its own, which can be read by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from scopeguard.config.checks import flag
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer, ScopeClaim, ScopeForm
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError
from scopeguard.presets.argument_forms import (
    ANY_JWT,
    AWS_REGION,
    CLIENT_ID,
    GUID,
    JWT_OR_NONE,
    NO_SUBJECT_NO_USER,
    ORGANIZATION,
    PERMISSIONS,
    RFC9068_OR_JWT,
    SCOPE,
    SCOPE_ANY_FORM,
    SCP_LIST,
    Form,
    also_introspect,
    check_introspection,
    check_not_swapped,
    fit,
    fit_all,
    host,
    nonempty,
    segment,
    url,
)

_GRAPH: Final = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
_POOL: Final = Form(
    re.compile(AWS_REGION.pattern.pattern + "_[0-9A-Za-z]+"), "a pool id with its region", "eu-central-1_AbCdEfGhI"
)
_RESOURCE_SERVER: Final = Form(
    re.compile(r"[!#-\[\]-~]+"), "the identifier of a resource server", "https://api.example.com"
)
_PINGONE_DOMAIN: Final = Form(re.compile(r"com|eu|asia|ca|sg|com\.au"), "the end of the domain", "eu", ignore_case=True)
_STYTCH_PROJECT: Final = Form(
    re.compile(r"project-(?:live|test)-[0-9A-Za-z\-]+"), "a project id", "project-live-c60c0abe"
)
_OKTA_HOSTS: Final = (".okta.com", ".oktapreview.com", ".okta-emea.com")
_ENTRA: Final = "https://login.microsoftonline.com"
_TENANT: Final = replace(
    GUID,
    description="the tenant's id (a GUID; not common, organizations or a domain: make one issuer for each tenant)",
)
_AUTH0_SIGNS: Final = (
    MachineSign(machine=True, present={"gty": "client-credentials"}),
    MachineSign(machine=True, present={"sub": ".+@clients"}),
    MachineSign(machine=False, present={"sub": r".+\|.+"}),  # the connection, and the user in it
)
# idtyp is an optional claim; without it, delegated tokens have scp, and apps' own have roles only.
_ENTRA_SIGNS: Final = (
    MachineSign(machine=True, present={"idtyp": "app"}),
    MachineSign(machine=False, present={"scp": ".+"}),
    MachineSign(machine=True, absent=("scp",)),
)
_UNION: Final = ScopeClaim("scp", ScopeForm.SPACE_OR_LIST)


def auth0(domain: str, audience: str | Iterable[str], *, rbac: bool = False) -> Issuer:
    """Return an issuer for both token profiles of the Auth0 tenant *domain*.

    *domain*: ``"tenant.us.auth0.com"``, or a custom domain. *rbac*: set it if "Add Permissions in the Access Token" is
    on; ``permissions`` are then scopes too.
    """
    name, audiences = host(domain, "domain", "tenant.us.auth0.com"), nonempty(audience, "audience")
    check_not_swapped(domain, audiences, "domain", (".auth0.com",))
    flag(rbac, "rbac")
    return Issuer(
        f"https://{name}/",  # the issuer ends with a slash
        audience=audiences,
        algorithms=("RS256",),
        typ=RFC9068_OR_JWT,
        required_claims=("sub", "iat"),
        client_id_claims=("client_id", "azp"),
        machine_signs=_AUTH0_SIGNS,
        scope_claims=(SCOPE, PERMISSIONS) if rbac else (SCOPE,),
        merge_scope_claims=rbac,
        hints={
            "encrypted_token": "Auth0: the client requested no audience, and got a token for /userinfo only; it must "
            "request the audience of this API",
        },
    )


def okta(
    domain: str,
    audience: str | Iterable[str] = "api://default",
    *,
    authorization_server: str = "default",
    introspection: Introspection | None = None,
) -> Issuer:
    """Return an issuer for a custom authorization server of the Okta organization *domain* (``"acme.okta.com"``).

    Only Okta can verify tokens of the organization's own server, because it does not publish their keys.
    *introspection* is for tokens that are not JWTs.
    """
    name, audiences = host(domain, "domain", "acme.okta.com"), nonempty(audience, "audience")
    check_not_swapped(domain, audiences, "domain", _OKTA_HOSTS)
    if name.endswith(tuple(f"-admin{suffix}" for suffix in _OKTA_HOSTS)):
        raise ConfigurationError(
            "domain: needs the organization's domain, not that of its admin console; leave out -admin"
        )
    base = f"https://{name}"
    return Issuer(
        f"{base}/oauth2/{segment(authorization_server, 'authorization_server', 'default')}",
        audience=audiences,
        algorithms=("RS256",),
        typ=ANY_JWT,
        required_claims=("cid", "iat"),
        client_id_claims=("cid",),
        machine_signs=(MachineSign(machine=False, present={"uid": ".+"}), SUBJECT_IS_CLIENT),
        scope_claims=(SCP_LIST,),
        hints={
            f"unknown_issuer:{base}": "Okta: a token of the org authorization server, whose tokens are for Okta "
            "itself; let the client use a custom authorization server, as in /oauth2/default",
            "missing_claim:cid": "Okta: without cid it is not an access token; the client must not send its ID token",
        },
        **also_introspect(introspection),
    )


def _entra_audience(audience: str | Iterable[str], tenant: str) -> tuple[str, ...]:
    """Return the identifiers of the API, with each GUID in lower case and in its ``api://`` form."""
    found: list[str] = []
    for identifier in nonempty(audience, "audience"):
        lowered = identifier.lower()
        if lowered == tenant:
            raise ConfigurationError("audience: needs the application id of this API, not the tenant's id")
        if lowered.rstrip("/") in _GRAPH:
            raise ConfigurationError(
                "audience: needs an identifier of this API, not Microsoft Graph's, whose tokens only Graph can verify"
            )
        if GUID.pattern.fullmatch(lowered):
            found += [lowered, f"api://{lowered}"]
        elif GUID.pattern.fullmatch(lowered.removeprefix("api://")):
            found += [identifier, lowered]
        else:
            found.append(identifier)
    return tuple(dict.fromkeys(found))


def entra(
    tenant: str,
    audience: str | Iterable[str],
    *,
    version: str = "any",
    app_roles: bool = False,
    authority: str = _ENTRA,
) -> Issuer:
    """Return an issuer for one *tenant* of Microsoft Entra ID, given by its GUID. Each tenant needs its own issuer.

    * *audience*: the application id of the API, which includes its ``api://`` form, or another identifier.
    * *version*: the token version, ``"1.0"``, ``"2.0"`` or ``"any"``. The registration of the API determines it
      (``accessTokenAcceptedVersion``), not the client.
    * *app_roles*: treat the roles of a token without ``scp`` as scopes. An app gets such tokens for itself. The roles
      of users are never scopes.
    * *authority*: the URL of another cloud, for version ``"2.0"`` only.

    A token with neither ``scp`` nor ``roles`` is refused, because Entra issues such tokens to any app. A key is used
    only for the tenant for which it is published.
    """
    tenant = fit(tenant, "tenant", _TENANT)
    flag(app_roles, "app_roles")
    if version not in ("any", "1.0", "2.0"):
        raise ConfigurationError('version: needs "any", "1.0" or "2.0"')
    authority = url(authority, "authority", _ENTRA).rstrip("/").lower()
    if authority != _ENTRA and version != "2.0":
        raise ConfigurationError('authority: another cloud needs version = "2.0"')
    names = {"1.0": f"https://sts.windows.net/{tenant}/", "2.0": f"{authority}/{tenant}/v2.0"}
    accepted = ("2.0", "1.0") if version == "any" else (version,)
    ids = _entra_audience(audience, tenant)
    hints = {
        "header_refused:nonce": "Entra: a token for Microsoft Graph, which only Graph can verify; let the client "
        "request the scope of this API, as in api://<application id>/.default",
        "missing_claim:scp or roles": "Entra: the app has no permission for this API; assign it an app role, or let "
        "it request a scope",
        "wrong_audience": "Entra: the token is for another API; let the client request the scope of this one",
    }
    if version == "2.0":
        hints[f"unknown_issuer:{names['1.0']}"] = (
            'Entra: a token of version 1.0; set accessTokenAcceptedVersion to 2 in the manifest, or version="any"'
        )
    return Issuer(
        names[accepted[0]],
        audience=ids,
        metadata_url=f"{authority}/{tenant}/.well-known/openid-configuration" if version == "1.0" else None,
        aliases={names[one]: {"ver": one, "tid": tenant} for one in accepted},
        algorithms=("RS256",),
        typ="JWT",
        forbidden_headers=("nonce",),
        required_claims=("tid", "iat", "nbf"),
        any_claims=("scp", "roles"),
        scope_claims=(ScopeClaim("scp"),),
        role_claims=("roles",),
        roles_as_scopes=app_roles,
        client_id_claims=("azp", "appid"),
        machine_signs=_ENTRA_SIGNS,
        hints=hints,
    )


def cognito(
    region: str, pool_id: str, client_ids: str | Iterable[str], *, resource_server: str | None = None
) -> Issuer:
    """Return an issuer for a user pool of Amazon Cognito.

    *client_ids*: the app clients that may call. They bind tokens to this API, because access tokens have no ``aud``.
    *resource_server*: the identifier of this API's resource server. It is then removed from the beginning of scopes.
    """
    place, pool = fit(region, "region", AWS_REGION), fit(pool_id, "pool_id", _POOL)
    if pool.partition("_")[0] != place:
        raise ConfigurationError("pool_id: its region is not that of the argument region; correct one of them")
    clients = fit_all(client_ids, "client_ids", CLIENT_ID)
    if any(_POOL.pattern.fullmatch(client) for client in clients):
        raise ConfigurationError("client_ids: needs ids of app clients, not a pool id")
    if resource_server is not None:
        fit(resource_server, "resource_server", _RESOURCE_SERVER)
    return Issuer(
        f"https://cognito-idp.{place}.amazonaws.com/{pool}",
        audience=clients,
        audience_claims=("client_id",),
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        expected_claims={"token_use": ("access",)},
        forbidden_claims=("aud",),
        required_claims=("iat",),
        scope_claims=(SCOPE,),
        scope_prefix="" if resource_server is None else resource_server + "/",
        client_id_claims=("client_id",),
        machine_signs=(MachineSign(machine=False, present={"username": ".+"}), SUBJECT_IS_CLIENT),
        hints={
            "unexpected_claim:token_use": "Cognito: an ID token; the client must send its access token",
            "wrong_audience": "Cognito: a token of an app client that is not in client_ids",
        },
    )


def pingone(environment_id: str, audience: str | Iterable[str], *, region: str = "com") -> Issuer:
    """Return an issuer for a PingOne environment.

    *region*: the end of its domain: ``"com"``, ``"eu"``, ``"asia"``, ``"ca"``, ``"sg"`` or ``"com.au"``.
    """
    ending, environment = fit(region, "region", _PINGONE_DOMAIN), fit(environment_id, "environment_id", GUID)
    return Issuer(
        f"https://auth.pingone.{ending}/{environment}/as",
        audience=nonempty(audience, "audience"),
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("client_id",),
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
    )


def pingfederate(
    issuer: str,
    audience: str | Iterable[str],
    introspection: Introspection,
    *,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for PingFederate with reference tokens.

    The introspection answer must have ``scope`` and ``client_id``, because PingFederate reports ID tokens as active
    too. The operator determines the form of its JWTs: write an ``Issuer`` for those.
    """
    return Issuer(
        url(issuer, "issuer", "https://ping.example.com"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        validate=Validation.INTROSPECTION,
        introspection=check_introspection(introspection),
        required_claims=("client_id", "scope"),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
    )


def pingam(
    issuer: str,
    audience: str | Iterable[str],
    *,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for PingAM (ForgeRock AM) with client-based JWTs.

    The ``aud`` of its tokens is the client: *audience* lists the clients that may call. Its *issuer* has a port, as in
    ``"https://am.example.com:443/am/oauth2"``.
    """
    return Issuer(
        url(issuer, "issuer", "https://am.example.com:443/am/oauth2"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("ES256", "RS256"),
        typ="JWT",
        expected_claims={"tokenName": ("access_token",)},
        required_claims=("iat",),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id", "aud"),
        machine_signs=(
            MachineSign(machine=True, present={"grant_type": "client_credentials"}),
            MachineSign(machine=False, present={"grant_type": ".+"}),
        ),
    )


def salesforce(
    my_domain: str,
    audience: str | Iterable[str] | None = None,
    *,
    client_ids: str | Iterable[str] | None = None,
    introspection: Introspection | None = None,
) -> Issuer:
    """Return an issuer for a Salesforce organization.

    * *my_domain*: its My Domain, as in ``"acme.my.salesforce.com"``.
    * *audience*: the audience of JWT access tokens.
    * *client_ids*: the consumer keys of the apps that may call. With *audience* as well, a JWT must match both.
    * *introspection*: for opaque tokens (``00D...!...``).

    Introspection answers of Salesforce have no ``aud`` and no ``iss``, so only *client_ids* binds opaque tokens.
    Without *client_ids*, every token that the app of *introspection* may introspect is accepted. These are the app's
    own tokens, or those of all apps if an administrator has authorized that: then set *client_ids*.
    """
    name = host(my_domain, "my_domain", "acme.my.salesforce.com")
    if name in ("login.salesforce.com", "test.salesforce.com") or name.endswith(".lightning.force.com"):
        raise ConfigurationError("my_domain: needs the organization's My Domain, as in 'acme.my.salesforce.com'")
    audiences = () if audience is None else nonempty(audience, "audience")
    check_not_swapped(my_domain, audiences, "my_domain", (".salesforce.com",))
    if audience is None and client_ids is None:
        raise ConfigurationError("audience, client_ids: give at least one; it binds tokens to this API")
    bound_by: dict[str, Any] = {"audience": audiences}
    if client_ids is not None:
        clients = fit_all(client_ids, "client_ids", CLIENT_ID)
        bound_by = {"audience": clients, "audience_claims": ("client_id",)}
        if audience is not None:
            bound_by = {"audience": audiences, "expected_claims": {"client_id": clients}}
    if introspection is not None and audience is not None:
        introspection = replace(check_introspection(introspection), require_audience=False)
    return Issuer(
        f"https://{name}",
        algorithms=("RS256",),
        typ="JWT",
        expected_headers={"tty": ("sfdc-core-token",)},
        required_claims=("client_id",),
        scope_claims=(_UNION, SCOPE_ANY_FORM),
        client_id_claims=("client_id",),
        machine_signs=(),
        **bound_by,
        **also_introspect(introspection, "00D"),
    )


def stytch(project_id: str, *, jwks_uri: str | None = None) -> Issuer:
    """Return an issuer for the machine-to-machine tokens of a Stytch project.

    They must have ``scope``, which session JWTs do not have. *jwks_uri*: needed unless it is a consumer project.
    """
    name = fit(project_id, "project_id", _STYTCH_PROJECT)
    api = "test.stytch.com" if name.startswith("project-test-") else "api.stytch.com"
    return Issuer(
        f"stytch.com/{name}",
        audience=name,
        jwks_uri=f"https://{api}/v1/sessions/jwks/{name}" if jwks_uri is None else jwks_uri,
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("iat", "nbf", "sub", "scope"),
        scope_claims=(SCOPE,),
        client_id_claims=("sub",),
        machine_signs=(MachineSign(machine=True, present={"sub": "m2m-client-.+"}),),
    )


def workos(
    authkit_domain: str, audience: str | Iterable[str], *, organizations: str | Iterable[str] | None = None
) -> Issuer:
    """Return an issuer for OAuth and machine tokens of WorkOS AuthKit.

    *organizations*: the ``org_id`` values that may call. ``None`` accepts all organizations.
    """
    name, audiences = host(authkit_domain, "authkit_domain", "acme.authkit.app"), nonempty(audience, "audience")
    check_not_swapped(authkit_domain, audiences, "authkit_domain", (".authkit.app",))
    return Issuer(
        f"https://{name}",
        audience=audiences,
        algorithms=("RS256",),
        typ=ANY_JWT,
        expected_claims={}
        if organizations is None
        else {"org_id": fit_all(organizations, "organizations", ORGANIZATION)},
        required_claims=("client_id",),
        scope_claims=(SCOPE,),
        role_claims=("permissions",),
        client_id_claims=("client_id",),
        machine_signs=(SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": "user_.+"})),
    )
