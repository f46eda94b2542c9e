"""Protect APIs with OAuth 2.0 access tokens: middleware and guards for a resource server.

A :class:`Guard` checks the access token of each request and compares it with what the route requires. Middleware
around an app uses it::

    from scopeguard import Guard, Issuer, Rule, Rules
    from scopeguard.asgi import GuardMiddleware

    guard = Guard(
        Issuer("https://login.example.com", audience="https://api.example.com"),
        rules=Rules([Rule("/rows/{table}", "rows.write", methods=["POST"])]),
    )
    app = GuardMiddleware(app, guard=guard)

A request without a valid token is answered with 401 and a challenge (RFC 6750), a token without the required scopes
with 403. If a token cannot be checked because the authorization server is unavailable, the answer is 503 with
``Retry-After``, never 401. Requests that no rule describes are denied.

Every public name is importable from here, except those of the adapters. These have modules of their own,
such as ``scopeguard.asgi``, ``scopeguard.fastapi`` and ``scopeguard.django``, so that a framework is imported only
where it is used. docs/architecture.md describes the design.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from scopeguard.conditions import (
    MACHINE,
    NOT_DELEGATED,
    USER,
    Condition,
    DelegatedTo,
)
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.cors import Preflight
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer, ScopeClaim, ScopeForm
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.machines import MachineSign
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.config.token_sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import (
    AccessDenied,
    ApiKeysUnavailable,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientAuthorizationDetails,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidApiKey,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    NonceRequired,
    PolicyDenied,
    PolicyUnavailable,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.guard import (
    Adapter,
    CredentialKind,
    Decision,
    DecisionEvent,
    Denied,
    Granted,
    Guard,
    TokenCheck,
    Unavailable,
)
from scopeguard.inbound_tokens import InboundToken, inbound_token
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, PolicyRequest, RequestView
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of
from scopeguard.spec.challenge import ChallengeStyle, Response
from scopeguard.spec.error_body import ErrorBody, Problem
from scopeguard.tokens import ANONYMOUS, AccessToken, Actor, Anonymous, access_token, access_token_or_none

if TYPE_CHECKING:
    from scopeguard.authorization_details import AuthorizationDetail
    from scopeguard.config.api_keys import ApiKey, ApiKeys
    from scopeguard.config.authzen import AuthZen
    from scopeguard.config.client_authentication import ClientAuthentication
    from scopeguard.config.dpop import DPoP
    from scopeguard.config.introspection import Introspection
    from scopeguard.config.mutual_tls import CertificateSource, MutualTLS
    from scopeguard.config.profiles import Profile
    from scopeguard.config.resolver import IssuerResolver
    from scopeguard.config.resource import Resource
    from scopeguard.config.status_list import StatusListPolicy
    from scopeguard.state.readiness import IssuerReadiness, Obstacle, Readiness
    from scopeguard.user_authentication import UserAuthentication

__version__ = "0.1.0"

__all__ = [
    "ANONYMOUS",
    "ANY_AUDIENCE_DANGEROUSLY",
    "AUTHENTICATED",
    "DENIED",
    "MACHINE",
    "NOT_DELEGATED",
    "OPTIONAL",
    "PUBLIC",
    "USER",
    "Access",
    "AccessDenied",
    "AccessToken",
    "Actor",
    "Adapter",
    "Anonymous",
    "ApiKey",
    "ApiKeys",
    "ApiKeysUnavailable",
    "AuthZen",
    "AuthorityUnavailable",
    "AuthorizationDetail",
    "CertificateSource",
    "ChallengeStyle",
    "ClientAuthentication",
    "Condition",
    "ConfigurationError",
    "CredentialKind",
    "DPoP",
    "DPoPMode",
    "Decision",
    "DecisionEvent",
    "DelegatedTo",
    "Denied",
    "ErrorBody",
    "Forbidden",
    "Granted",
    "Guard",
    "HeaderList",
    "HttpxTransport",
    "InboundToken",
    "InsufficientAuthorizationDetails",
    "InsufficientScope",
    "InsufficientUserAuthentication",
    "Introspection",
    "InvalidApiKey",
    "InvalidProof",
    "InvalidRequest",
    "InvalidToken",
    "Issuer",
    "IssuerReadiness",
    "IssuerResolver",
    "KeySetPolicy",
    "MachineSign",
    "MissingCredentials",
    "MutualTLS",
    "NonceRequired",
    "Obstacle",
    "PolicyDenied",
    "PolicyRequest",
    "PolicyUnavailable",
    "Preflight",
    "Problem",
    "Profile",
    "Readiness",
    "Reason",
    "RefusalLog",
    "RequestTimedOut",
    "RequestTooLarge",
    "RequestView",
    "Requirement",
    "Resource",
    "Response",
    "RevocationPolicy",
    "Rule",
    "Rules",
    "ScopeCatalog",
    "ScopeClaim",
    "ScopeForm",
    "StatusListPolicy",
    "StrayQueryToken",
    "TokenCachePolicy",
    "TokenCheck",
    "TokenSource",
    "TokenSources",
    "Unavailable",
    "UserAuthentication",
    "Validation",
    "access_token",
    "access_token_or_none",
    "all_of",
    "any_of",
    "inbound_token",
]

# Settings that few programs have. Each is imported at its first use, which saves the others a tenth of the time of the
# import.
_LATER: Final = {
    "ApiKey": "config.api_keys",
    "ApiKeys": "config.api_keys",
    "AuthZen": "config.authzen",
    "AuthorizationDetail": "authorization_details",
    "CertificateSource": "config.mutual_tls",
    "ClientAuthentication": "config.client_authentication",
    "DPoP": "config.dpop",
    "Introspection": "config.introspection",
    "IssuerReadiness": "state.readiness",
    "IssuerResolver": "config.resolver",
    "MutualTLS": "config.mutual_tls",
    "Obstacle": "state.readiness",
    "Profile": "config.profiles",
    "Readiness": "state.readiness",
    "Resource": "config.resource",
    "StatusListPolicy": "config.status_list",
    "UserAuthentication": "user_authentication",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that the package has every name

    def __getattr__(name: str) -> Any:
        module = _LATER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
