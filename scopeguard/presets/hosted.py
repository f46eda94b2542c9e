"""Authorization servers that are run by their vendors, for the APIs of their customers.

Each function checks what the vendor's tokens need to have checked beyond the standard, and says in a hint what to
change where the vendor's own settings are the usual reason of a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from scopeguard.config import Issuer, ScopeClaim, ScopeForm
from scopeguard.errors import ConfigurationError
from scopeguard.introspection import Introspection, Validation
from scopeguard.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.presets.parts import (
    ANY_JWT,
    JWT_OR_NONE,
    NO_SUBJECT_NO_USER,
    PERMISSIONS,
    RFC9068_OR_JWT,
    SCOPE,
    SCOPE_ANY_FORM,
    SCP_LIST,
    asked,
    host,
    segment,
    some,
)

_GUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENTRA: Final = "https://login.microsoftonline.com"
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
    """Auth0 tenant *domain* (``"tenant.us.auth0.com"``, or a custom domain), both of its token profiles.

    *rbac*: "Add Permissions in the Access Token" is on: ``permissions`` count as scopes too.
    """
    return Issuer(
        f"https://{host(domain, 'domain')}/",  # the slash is part of it
        audience=some(audience, "audience"),
        algorithms=("RS256",),
        typ=RFC9068_OR_JWT,
        required_claims=("sub", "iat"),
        client_id_claims=("client_id", "azp"),
        machine_signs=_AUTH0_SIGNS,
        scope_claims=(SCOPE, PERMISSIONS) if rbac else (SCOPE,),
        merge_scope_claims=rbac,
        hints={
            "encrypted_token": "Auth0: the client requested no audience, and got a token for /userinfo only; it must "
            "send audience with the identifier of this API",
        },
    )


def okta(
    domain: str,
    audience: str | Iterable[str] = "api://default",
    *,
    authorization_server: str = "default",
    introspection: Introspection | None = None,
) -> Issuer:
    """A *custom* authorization server of Okta organisation *domain* (``"acme.okta.com"``).

    Tokens of the organisation's own server cannot be verified by anybody but Okta: it does not publish their keys.
    *introspection*: for tokens that are no JWTs.
    """
    base = f"https://{host(domain, 'domain')}"
    return Issuer(
        f"{base}/oauth2/{segment(authorization_server, 'authorization_server')}",
        audience=some(audience, "audience"),
        algorithms=("RS256",),
        typ=ANY_JWT,
        required_claims=("cid", "iat"),
        client_id_claims=("cid",),
        machine_signs=(MachineSign(machine=False, present={"uid": ".+"}), SUBJECT_IS_CLIENT),
        scope_claims=(SCP_LIST,),
        hints={
            f"unknown_issuer:{base}": "Okta: the token is of the org authorization server, whose tokens are for Okta "
            "itself; let the client ask a custom authorization server, as in /oauth2/default",
            "missing_claim:cid": "Okta: no cid, so this is not an access token; the client must not send its ID token",
        },
        **asked(introspection),
    )


def entra(
    tenant: str,
    audience: str | Iterable[str],
    *,
    version: str = "any",
    app_roles: bool = False,
    authority: str = _ENTRA,
) -> Issuer:
    """Microsoft Entra ID, one *tenant* (its GUID); make one issuer for each tenant that is trusted.

    * *audience*: the API's application id (its ``api://`` form is accepted with it), or another identifier.
    * *version*: ``"1.0"``, ``"2.0"`` or ``"any"``: of the tokens, which the API's registration decides
      (``accessTokenAcceptedVersion``), not the client.
    * *app_roles*: the roles of a token without any ``scp``, which an app got for itself, count as scopes. A user's
      roles never do.
    * *authority*: of another cloud, with version ``"2.0"``.

    A token with neither ``scp`` nor ``roles`` is refused: Entra issues such tokens to any app that asks. Keys are
    used for the tenant they are published for only.
    """
    if not isinstance(tenant, str) or not _GUID.fullmatch(tenant):
        raise ConfigurationError(
            "tenant: the tenant's id, a GUID in lower case; not common, organizations or a domain: "
            "make one issuer for each tenant"
        )
    if version not in ("any", "1.0", "2.0"):
        raise ConfigurationError('version: "any", "1.0" or "2.0"')
    if authority != _ENTRA and version != "2.0":
        raise ConfigurationError('authority: other clouds are known with version = "2.0" only')
    names = {"1.0": f"https://sts.windows.net/{tenant}/", "2.0": f"{authority}/{tenant}/v2.0"}
    accepted = ("2.0", "1.0") if version == "any" else (version,)
    ids = some(audience, "audience")
    hints = {
        "header_refused:nonce": "Entra: a token for Microsoft Graph, which nobody else can verify; let the client "
        "request the scope of this API, as in api://<application id>/.default",
        "missing_claim:scp or roles": "Entra: the app has no permission for this API; assign it an app role, or let "
        "it ask for a scope",
        "wrong_audience": "Entra: the token is for another API; let the client request the scope of this one",
    }
    if version == "2.0":
        hints[f"unknown_issuer:{names['1.0']}"] = (
            "Entra: a token of version 1.0; set accessTokenAcceptedVersion to 2 in the API's manifest, or accept any"
        )
    return Issuer(
        names[accepted[0]],
        audience=(*ids, *(f"api://{audience}" for audience in ids if _GUID.fullmatch(audience))),
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
    """A user pool of Amazon Cognito. Its access tokens have no ``aud``: they are bound to *client_ids*.

    *resource_server*: the identifier of this API's resource server; its scopes can then be written without it.
    """
    return Issuer(
        f"https://cognito-idp.{segment(region, 'region')}.amazonaws.com/{segment(pool_id, 'pool_id')}",
        audience=some(client_ids, "client_ids"),
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
            "wrong_audience": "Cognito: of an app client that is not in client_ids",
        },
    )


def pingone(environment_id: str, audience: str | Iterable[str], *, region: str = "com") -> Issuer:
    """A PingOne environment. *region*: what its domain ends with (``"com"``, ``"eu"``, ``"asia"``, ``"ca"``)."""
    return Issuer(
        f"https://auth.pingone.{segment(region, 'region')}/{segment(environment_id, 'environment_id')}/as",
        audience=some(audience, "audience"),
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("client_id",),
        scope_claims=(SCOPE,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
    )


def pingfederate(issuer: str, audience: str | Iterable[str], introspection: Introspection) -> Issuer:
    """PingFederate with reference tokens. What its JWTs look like is each operator's own: describe those in an
    ``Issuer``. ``scope`` and ``client_id`` must be in the answer, because it calls ID tokens active too."""
    return Issuer(
        issuer,
        audience=some(audience, "audience"),
        validate=Validation.INTROSPECTION,
        introspection=introspection,
        required_claims=("client_id", "scope"),
        scope_claims=(SCOPE_ANY_FORM,),
        client_id_claims=("client_id",),
        machine_signs=NO_SUBJECT_NO_USER,
    )


def pingam(issuer: str, audience: str | Iterable[str], *, jwks_uri: str | None = None) -> Issuer:
    """PingAM (ForgeRock AM) with client-based JWTs. Its ``aud`` names the client that asked, and *issuer* has a port
    (``"https://am.example.com:443/am/oauth2"``)."""
    return Issuer(
        issuer,
        audience=some(audience, "audience"),
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


def salesforce(my_domain: str, audience: str | Iterable[str], *, introspection: Introspection | None = None) -> Issuer:
    """Salesforce: JWT access tokens of *my_domain* (``"acme.my.salesforce.com"``); *introspection* for opaque ones."""
    return Issuer(
        f"https://{host(my_domain, 'my_domain')}",
        audience=some(audience, "audience"),
        algorithms=("RS256",),
        typ="JWT",
        expected_headers={"tty": ("sfdc-core-token",)},
        required_claims=("client_id",),
        scope_claims=(_UNION, SCOPE_ANY_FORM),
        client_id_claims=("client_id",),
        machine_signs=(),
        **asked(introspection),
    )


def stytch(project_id: str, *, jwks_uri: str | None = None) -> Issuer:
    """Stytch machine-to-machine tokens of a project. ``scope`` must be there: session JWTs have none.

    *jwks_uri*: unless it is the one of a consumer project.
    """
    name = segment(project_id, "project_id")
    api = "test.stytch.com" if name.startswith("project-test-") else "api.stytch.com"
    return Issuer(
        f"stytch.com/{name}",
        audience=name,
        jwks_uri=jwks_uri or f"https://{api}/v1/sessions/jwks/{name}",
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
    """WorkOS AuthKit: OAuth and machine tokens. *organizations*: the ``org_id`` values that may call, if not all."""
    return Issuer(
        f"https://{host(authkit_domain, 'authkit_domain')}",
        audience=some(audience, "audience"),
        algorithms=("RS256",),
        typ=ANY_JWT,
        expected_claims={} if organizations is None else {"org_id": some(organizations, "organizations")},
        required_claims=("client_id",),
        scope_claims=(SCOPE,),
        role_claims=("permissions",),
        client_id_claims=("client_id",),
        machine_signs=(SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": "user_.+"})),
    )
