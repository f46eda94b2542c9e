"""Settings for real authorization servers. Each provider has a function that returns an ``Issuer``.

    Guard(presets.entra("8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "2f6b7c1e-6f53-4a3c-9d2a-1b1d0f5e9a77"))

The result is a plain ``Issuer``: print it, compare it, or change it with ``dataclasses.replace``. The functions make no
requests. They raise :class:`~scopeguard.errors.ConfigurationError` for malformed arguments.

The issuers of one guard must differ in their URL or in the header field of their tokens. Two presets for the same
issuer and field need two guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from scopeguard.config.issuer import Issuer
from scopeguard.presets.applications import (
    apple,
    clerk,
    clerk_m2m,
    clerk_session,
    firebase,
    supabase,
    workos_session,
)
from scopeguard.presets.clusters import kubernetes, kubernetes_token_review, spiffe
from scopeguard.presets.hosted import (
    auth0,
    cognito,
    entra,
    okta,
    pingam,
    pingfederate,
    pingone,
    salesforce,
    stytch,
    workos,
)
from scopeguard.presets.self_hosted import (
    authelia,
    authentik,
    dex,
    duende,
    generic_rfc9068,
    gitlab,
    hydra,
    keycloak,
    mcp,
    node_oidc_provider,
    spring_as,
    zitadel,
)
from scopeguard.presets.workloads import (
    aws_alb,
    cloudflare_access,
    github_actions,
    gitlab_ci,
    google_iap,
    google_oidc,
    google_self_signed,
    google_tokeninfo,
)

PRESETS: Final[Mapping[str, Callable[..., Issuer]]] = {
    preset.__name__: preset
    for preset in (
        apple, auth0, authelia, authentik, aws_alb, clerk, clerk_m2m, clerk_session, cloudflare_access, cognito, dex,
        duende, entra, firebase, generic_rfc9068, github_actions, gitlab, gitlab_ci, google_iap, google_oidc,
        google_self_signed, google_tokeninfo, hydra, keycloak, kubernetes, kubernetes_token_review, mcp,
        node_oidc_provider, okta, pingam,
        pingfederate, pingone, salesforce, spiffe, spring_as, stytch, supabase, workos, workos_session, zitadel,
    )
}  # fmt: skip
"""All presets by name, as ``preset = "..."`` in a configuration file refers to them."""

__all__ = [
    "PRESETS", "apple", "auth0", "authelia", "authentik", "aws_alb", "clerk", "clerk_m2m", "clerk_session",
    "cloudflare_access", "cognito", "dex", "duende", "entra", "firebase", "generic_rfc9068", "github_actions",
    "gitlab", "gitlab_ci", "google_iap", "google_oidc", "google_self_signed", "google_tokeninfo", "hydra", "keycloak",
    "kubernetes", "kubernetes_token_review", "mcp", "node_oidc_provider", "okta", "pingam", "pingfederate", "pingone",
    "salesforce", "spiffe", "spring_as", "stytch", "supabase", "workos", "workos_session", "zitadel",
]  # fmt: skip
