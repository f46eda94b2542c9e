"""Protect APIs with OAuth 2.0 access tokens: middleware and guards for a resource server.

A request carries a **credential**. scopeguard checks it and builds an **access token**, or refuses the request. It then
compares the access token with what the route requires. A refusal is sent as an HTTP **challenge**.

This module exports the public names and has no logic. Import adapters from their own modules (``scopeguard.asgi``,
``.wsgi``, ``.starlette``, ``.fastapi``, ``.flask``), so that no framework is imported without need.

The design follows these laws. tests/test_architecture.py checks those that can be checked on the source:

1.  ``spec/``, ``state/`` and ``flow/`` compute. They do no I/O, read no clock and log nothing: time, keys and
    responses are arguments.
2.  Generators live in ``flow/``. No lock of ``state/`` is held across I/O. The one lock that is held across I/O, the
    single flight for a key, lives in ``edge/`` and waits no longer than its deadline.
3.  Unverified data has a type of its own. No scope, audience or policy is decided on it.
4.  An outage is not a denial. A token that could not be checked gets 503 with ``Retry-After``, and a bad token gets
    4xx. The two exceptions share no base but ``Exception``.
5.  In doubt, refuse. A missing audience or issuer, an empty set of scopes or a missing setting raises
    ``ConfigurationError`` at construction and never allows a request later. A bad token is not treated as no token.
6.  Clients see constant texts. Details go to reason codes and logs. A token is never logged, only its fingerprint.
7.  An enum replaces two booleans that could contradict each other. The name of a dangerous option says that it is
    dangerous.
8.  Adapters translate and decide nothing.
9.  Requests without a valid token cause at most one outbound request per cooldown: cheap checks come first.
10. Importing a module or constructing an object starts no thread and no event loop, and opens no socket and no file.
"""

from __future__ import annotations

from scopeguard.access_token import (
    ANONYMOUS,
    AccessToken,
    Anonymous,
    current_access_token,
    current_access_token_or_none,
)
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.cors import Preflight
from scopeguard.config.introspection import Introspection, Validation
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer, ScopeClaim, ScopeForm
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.machines import MachineSign
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.config.resolver import IssuerResolver
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.config.status_list import StatusListPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    Reason,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.guard import Decision, Denied, Granted, Guard, Unavailable
from scopeguard.request import HeaderList, RequestView
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of
from scopeguard.spec.challenge import ChallengeStyle, Response
from scopeguard.spec.error_body import ErrorBody, Problem

__version__ = "0.1.0"

__all__ = [
    "ANONYMOUS",
    "ANY_AUDIENCE_DANGEROUSLY",
    "AUTHENTICATED",
    "DENIED",
    "OPTIONAL",
    "PUBLIC",
    "Access",
    "AccessDenied",
    "AccessToken",
    "Anonymous",
    "AuthorityUnavailable",
    "ChallengeStyle",
    "ClientAuthentication",
    "ConfigurationError",
    "Decision",
    "Denied",
    "ErrorBody",
    "Forbidden",
    "Granted",
    "Guard",
    "HeaderList",
    "HttpxTransport",
    "InsufficientScope",
    "Introspection",
    "InvalidRequest",
    "InvalidToken",
    "Issuer",
    "IssuerResolver",
    "KeySetPolicy",
    "MachineSign",
    "MissingCredentials",
    "Preflight",
    "Problem",
    "Reason",
    "RefusalLog",
    "RequestTimedOut",
    "RequestTooLarge",
    "RequestView",
    "Requirement",
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
    "TokenSource",
    "TokenSources",
    "Unavailable",
    "Validation",
    "all_of",
    "any_of",
    "current_access_token",
    "current_access_token_or_none",
]
