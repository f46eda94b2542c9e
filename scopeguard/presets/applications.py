"""Sign-in services: their session tokens and identity tokens, used as access tokens for the app's own API.

Most of them say little about what a token may do and nothing about where: read what each preset binds a token to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.presets.parts import (
    ALWAYS_A_MACHINE,
    ALWAYS_A_USER,
    JWT_OR_NONE,
    ORGANIZATION,
    PERMISSIONS,
    SCOPE,
    SCP_LIST,
    Form,
    bound,
    fit,
    fit_all,
    host,
    some,
    subdomain,
    url,
)

_WORKOS_CLIENT: Final = Form(re.compile(r"client_[0-9A-Za-z]+"), "a client id of WorkOS", "client_01EXAMPLE")
_MACHINE: Final = Form(re.compile(r"mch_[0-9A-Za-z_]+"), "a machine id of Clerk", "mch_2vYVtestTESTtest")
_SUPABASE_REF: Final = Form(re.compile(r"[a-z0-9]{6,40}"), "a project's reference", "abcdefghijklmnopqrst")
# With a letter: what has none is the project's number, which tokens do not name.
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
    folded=True,
)


def _origin(value: str) -> str:
    return fit(value.removesuffix("/"), "origins", _ORIGIN)


def workos_session(
    client_id: str, organizations: str | Iterable[str], *, issuer: str = "https://api.workos.com"
) -> Issuer:
    """WorkOS session tokens of the environment *client_id*: they have **no audience**, whatever API they are sent to.

    Bound to the keys of the environment and to *organizations*. ``permissions`` are the scopes.
    """
    return Issuer(
        url(issuer, "issuer", "https://api.workos.com"),
        audience=ANY_AUDIENCE_DANGEROUSLY,
        jwks_uri=f"https://api.workos.com/sso/jwks/{fit(client_id, 'client_id', _WORKOS_CLIENT)}",
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
    """Clerk OAuth access tokens (``at+jwt``) of *frontend_api* (``"clerk.example.com"``).

    They have an ``aud`` only where the client named a resource; else give the *client_ids* that may call.
    """
    return Issuer(
        f"https://{host(frontend_api, 'frontend_api', 'clerk.example.com')}",
        algorithms=("RS256",),
        typ="at+jwt",
        required_claims=("client_id", "sub"),
        scope_claims=(SCP_LIST, SCOPE),
        client_id_claims=("client_id",),
        machine_signs=(SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": "user_.+"})),
        **bound(audience, client_ids),
    )


def clerk_session(frontend_api: str, origins: str | Iterable[str]) -> Issuer:
    """Clerk session tokens: no ``aud``, but ``azp``, the origin they were made for, one of *origins*."""
    return Issuer(
        f"https://{host(frontend_api, 'frontend_api', 'clerk.example.com')}",
        audience=tuple(_origin(origin) for origin in some(origins, "origins")),
        audience_claims=("azp",),
        algorithms=("RS256",),
        typ="JWT",
        required_claims=("sub", "sid"),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_USER,
        role_claims=("org_role",),
        accept_id_tokens_dangerously=True,  # sid and azp set them apart
    )


def clerk_m2m(frontend_api: str, machine_id: str) -> Issuer:
    """Clerk machine tokens for the machine *machine_id*, this API. What they call ``scopes`` are the machines that
    may be called, not permissions, and is not read as scopes."""
    return Issuer(
        f"https://{host(frontend_api, 'frontend_api', 'clerk.example.com')}",
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
    """Supabase users of a project with asymmetric signing keys; anonymous users and the anon key are refused.

    The audience is the same word for every API of the project: it is the issuer that binds.
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
            "algorithm_refused": "Supabase: signed with the project's shared secret, with which anybody who can "
            "verify could forge; migrate the project to asymmetric JWT signing keys",
            "unexpected_claim:is_anonymous": "Supabase: an anonymous user",
        },
    )


def firebase(project_id: str) -> Issuer:
    """Firebase Authentication: the ID tokens of a project's users. No scopes; custom claims are in ``claims``."""
    project = fit(project_id, "project_id", _FIREBASE_PROJECT)
    return Issuer(
        f"https://securetoken.google.com/{project}",
        audience=project,
        # Firebase's own document is a map of certificates; this one has the same keys as a JWK Set.
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
    """Sign in with Apple: ID tokens of *client_id*. Identity only: Apple's access tokens are of no use to others."""
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
