"""Sign-in services, whose session and ID tokens are used as access tokens for the app's own API.

Most of these tokens have few scopes, or none, and no audience. Each preset says what binds a token to the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.presets.argument_forms import (
    ALWAYS_A_MACHINE,
    ALWAYS_A_USER,
    JWT_OR_NONE,
    ORGANIZATION,
    PERMISSIONS,
    SCOPE,
    SCP_LIST,
    Form,
    binding_settings,
    fit,
    fit_all,
    host,
    nonempty,
    subdomain,
    url,
)

_WORKOS: Final = "https://api.workos.com"
_WORKOS_CLIENT: Final = Form(re.compile(r"client_[0-9A-Za-z]+"), "a client id of WorkOS", "client_01EXAMPLE")
_MACHINE: Final = Form(re.compile(r"mch_[0-9A-Za-z_]+"), "a machine id of Clerk", "mch_2vYVtestTESTtest")
_SUPABASE_REF: Final = Form(re.compile(r"[a-z0-9]{6,40}"), "a project's reference", "abcdefghijklmnopqrst")
# It has a letter: a value without letters is the number of the project, which tokens do not contain.
_FIREBASE_PROJECT: Final = Form(
    re.compile(r"[a-z][a-z0-9\-]{4,28}[a-z0-9]"), "a project id, not its number", "acme-prod"
)
# A bundle id or a Services ID.
_APPLE_CLIENT: Final = Form(
    re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*"), "an app's or a service's id", "com.example.app"
)
_ORIGIN: Final = Form(
    re.compile(r"[a-z][a-z0-9+.\-]*://[a-z0-9.\-]+(?::[0-9]{1,5})?"),
    "an origin",
    "https://app.example.com",
    ignore_case=True,
)


def _clerk_url(frontend_api: str) -> str:
    """Return the issuer of all tokens of the Clerk instance *frontend_api*."""
    return f"https://{host(frontend_api, 'frontend_api', 'clerk.example.com')}"


def _origin(value: str) -> str:
    return fit(value.removesuffix("/"), "origins", _ORIGIN)


def workos_session(client_id: str, organizations: str | Iterable[str], *, issuer: str = _WORKOS) -> Issuer:
    """Return an issuer for WorkOS session tokens, which have **no audience**.

    They are bound to the keys of the environment *client_id* and to *organizations*. Their ``permissions`` are the
    scopes.
    """
    return Issuer(
        url(issuer, "issuer", _WORKOS),
        audience=ANY_AUDIENCE_DANGEROUSLY,
        jwks_uri=f"{_WORKOS}/sso/jwks/{fit(client_id, 'client_id', _WORKOS_CLIENT)}",
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        expected_claims={"org_id": fit_all(organizations, "organizations", ORGANIZATION)},
        required_claims=("sid", "sub"),
        scope_claims=(PERMISSIONS,),
        role_claims=("role", "roles"),
        client_id_claims=(),
        machine_signs=ALWAYS_A_USER,
    )


def clerk(
    frontend_api: str,
    audience: str | Iterable[str] | None = None,
    *,
    client_ids: str | Iterable[str] | None = None,
) -> Issuer:
    """Return an issuer for Clerk OAuth access tokens (``at+jwt``) of *frontend_api* (``"clerk.example.com"``).

    They have an ``aud`` only if the client requests a resource. If not, set *client_ids* to the clients that may call.
    """
    return Issuer(
        _clerk_url(frontend_api),
        algorithms=("RS256",),
        typ="at+jwt",
        required_claims=("client_id", "sub"),
        scope_claims=(SCP_LIST, SCOPE),
        client_id_claims=("client_id",),
        machine_signs=(SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": "user_.+"})),
        **binding_settings(audience, client_ids),
    )


def clerk_session(frontend_api: str, origins: str | Iterable[str]) -> Issuer:
    """Return an issuer for Clerk session tokens. They have no ``aud``; their ``azp`` must be one of *origins*."""
    return Issuer(
        _clerk_url(frontend_api),
        audience=tuple(_origin(origin) for origin in nonempty(origins, "origins")),
        audience_claims=("azp",),
        algorithms=("RS256",),
        typ="JWT",
        required_claims=("sub", "sid"),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_USER,
        role_claims=("org_role",),
        accept_id_tokens_dangerously=True,  # sid and azp distinguish them from ID tokens
    )


def clerk_m2m(frontend_api: str, machine_id: str) -> Issuer:
    """Return an issuer for Clerk machine tokens. *machine_id* is the machine of this API.

    Their ``scopes`` claim lists the machines that may be called. It has no permissions, so it is ignored.
    """
    return Issuer(
        _clerk_url(frontend_api),
        audience=fit(machine_id, "machine_id", _MACHINE),
        algorithms=("RS256",),
        typ="JWT",
        claim_prefixes={"sub": ("mch_",)},
        required_claims=("sub",),
        scope_claims=(),
        client_id_claims=("sub",),
        machine_signs=ALWAYS_A_MACHINE,
    )


def supabase(project_ref: str) -> Issuer:
    """Return an issuer for the users of a Supabase project, which must have asymmetric signing keys.

    All APIs of the project have the same audience, so tokens are bound to the project only. Anonymous users and the
    anon key are refused.
    """
    ref = subdomain(project_ref, "project_ref", _SUPABASE_REF, ".supabase.co")
    issuer = f"https://{ref}.supabase.co/auth/v1"
    return Issuer(
        issuer,
        audience="authenticated",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("ES256", "RS256"),
        typ="JWT",
        expected_claims={"role": ("authenticated",), "is_anonymous": (False,)},
        required_claims=("sub",),
        scope_claims=(SCOPE,),
        role_claims=("role",),
        client_id_claims=("client_id",),
        machine_signs=ALWAYS_A_USER,
        hints={
            "algorithm_refused": "Supabase: signed with the project's shared secret, with which every API that "
            "verifies tokens could forge them; migrate the project to asymmetric JWT signing keys",
            "unexpected_claim:is_anonymous": "Supabase: an anonymous user",
        },
    )


def firebase(project_id: str) -> Issuer:
    """Return an issuer for the ID tokens of a Firebase project's users.

    They have no scopes. Custom claims are in ``AccessToken.claims``.
    """
    project = fit(project_id, "project_id", _FIREBASE_PROJECT)
    return Issuer(
        f"https://securetoken.google.com/{project}",
        audience=project,
        # Firebase documents a map of certificates. This URL has the same keys as a JWK Set.
        jwks_uri="https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("sub", "auth_time", "iat"),
        past_claims=("auth_time",),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_USER,
        accept_id_tokens_dangerously=True,
    )


def apple(client_id: str | Iterable[str]) -> Issuer:
    """Return an issuer for the ID tokens of Sign in with Apple. They have no scopes.

    *client_id*: the app's bundle id or Services ID. Apple's access tokens cannot be verified by others.
    """
    return Issuer(
        "https://appleid.apple.com",
        audience=fit_all(client_id, "client_id", _APPLE_CLIENT),
        jwks_uri="https://appleid.apple.com/auth/keys",
        algorithms=("RS256",),
        typ=JWT_OR_NONE,
        required_claims=("sub",),
        scope_claims=(),
        client_id_claims=("aud",),
        machine_signs=ALWAYS_A_USER,
        accept_id_tokens_dangerously=True,
    )
