"""OAuth 2.0 resource-server middleware: is the access token on this request good enough for this route?

A request carries a **credential**. Judging it gives an **access token**, or a refusal. What a route requires is
**decided** against the access token. A refusal is written as an HTTP **challenge**.

This module is the face: names, and no logic. Adapters are imported by those who use their framework
(``scopeguard.asgi``, ``.wsgi``, ``.starlette``, ``.fastapi``, ``.flask``) and never from here.

The laws of the house; tests/test_architecture.py holds those that can be read off the source:

1.  ``spec/``, ``state/`` and ``flow/`` compute. They do no I/O, read no clock and log nothing: time, keys and the
    answers of others reach them as arguments.
2.  Generators live in ``flow/``. No lock of ``state/`` is held across I/O. One lock is, the single flight for a
    key; it lives in ``edge/`` and waits no longer than its deadline.
3.  What has not been verified has a type of its own, and no scope, audience or policy is decided on it.
4.  An outage is not a denial. A token that was never judged is answered 503 with ``Retry-After``, one that was judged
    and found bad 4xx; the two exceptions share no base but ``Exception``.
5.  Doubt closes the door. A missing audience or issuer, an empty set of scopes, a missing setting is a
    ``ConfigurationError`` where the object is constructed, never an "allow" later. A bad token is not "no token".
6.  Clients read constants. Details go to reason codes and logs; a token goes nowhere, at most its fingerprint.
7.  Where two booleans could contradict each other there is an enum. An option that is dangerous says so by its name.
8.  Adapters translate and decide nothing.
9.  Whoever has no valid token can cause one outbound request per cooldown at the most: cheap checks come first.
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
from scopeguard.config.cors import Preflight
from scopeguard.config.introspection import ClientAuthentication, Introspection, Validation
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
