"""Access tokens: :class:`AccessToken` once it is checked, :class:`Unverified` before.

The two share no base. No scope, audience or policy is ever decided on an :class:`Unverified`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from scopeguard.errors import ConfigurationError

# The types of JSON values other than objects and arrays.
_ATOMS: Final = frozenset((str, int, float, bool, type(None)))


def fingerprint(token: str) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of *token*: the only trace of it that a log may contain."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def frozen_json(value: Any) -> Any:
    """Return a parsed JSON *value* as read-only at every depth: objects become proxies, arrays become tuples.

    An app that writes into the claims of one request must not change the claims of the next.
    """
    if isinstance(value, dict):
        return MappingProxyType(
            {
                # Most values are strings, and comparing a type is faster than finding it in a set.
                name: item if type(item) is str or type(item) in _ATOMS else frozen_json(item)
                for name, item in value.items()
            }
        )
    if isinstance(value, list):
        return tuple(item if type(item) in _ATOMS else frozen_json(item) for item in value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class AccessToken:
    """A checked access token: its signature, issuer, audience and times are valid. Each route checks the scopes.

    * ``issuer``: the configured issuer whose policy was applied. ``subject`` and ``client_id`` may be ``None`` where
      that issuer's tokens lack them. A user is the *pair* (issuer, subject), never the subject alone.
    * ``scopes``: the granted scopes and those the operator declared as implied, in both spellings of a scope
      prefix. ``granted_scopes``: exactly the scopes in the token, in its order; ``None`` if it has no scope claim.
    * ``roles``: roles, groups and permissions the policy names. They are never scopes.
    * ``expires_at``: seconds since the epoch, ``None`` only where the policy allows it.
    * ``claims``: every claim, read-only at every depth (arrays are tuples). A ``dict`` passed for it
      belongs to the token afterwards.
    * ``machine``: whether it was issued to a client acting for itself (client credentials) rather than for a user, by
      the signs of its issuer's policy (``Issuer.machine_signs``); ``None`` if they do not tell. For logs and for
      routes that require a user. It proves no permission, and no decision of this library depends on it: many
      providers only imply it by a name that the client chose.
    * ``sender_constrained``: always ``False`` today. No proof of possession is supported yet, and a token that is
      bound to one (``cnf``) is refused.

    The token itself is not kept. ``repr`` shows no claim beyond the names above.
    """

    issuer: str
    subject: str | None
    client_id: str | None
    audience: tuple[str, ...]
    scopes: frozenset[str]
    granted_scopes: tuple[str, ...] | None
    expires_at: float | None
    issued_at: float | None = None
    roles: frozenset[str] = frozenset()
    machine: bool | None = None
    claims: Mapping[str, Any] = field(repr=False)
    fingerprint: str = ""
    sender_constrained: bool = False

    def __init__(
        self,
        *,
        issuer: str,
        subject: str | None,
        client_id: str | None,
        audience: tuple[str, ...],
        scopes: frozenset[str],
        granted_scopes: tuple[str, ...] | None,
        expires_at: float | None,
        issued_at: float | None = None,
        roles: frozenset[str] = frozenset(),
        machine: bool | None = None,
        claims: Mapping[str, Any],
        fingerprint: str = "",
        sender_constrained: bool = False,
    ) -> None:
        if type(self) is not AccessToken:  # a subclass may have further slots
            values = {name: value for name, value in locals().items() if name in _FIELDS}
            for name, value in values.items():
                object.__setattr__(self, name, value)
            return
        # A frozen object takes assignments through object.__setattr__ alone, at three times the cost: 1.2 µs for each
        # new token. So its class is one with the same slots that is not frozen, until it is filled.
        target: Any = self
        object.__setattr__(self, "__class__", _Unfrozen)
        target.issuer = issuer
        target.subject = subject
        target.client_id = client_id
        target.audience = audience
        target.scopes = scopes
        target.granted_scopes = granted_scopes
        target.expires_at = expires_at
        target.issued_at = issued_at
        target.roles = roles
        target.machine = machine
        target.claims = claims
        target.fingerprint = fingerprint
        target.sender_constrained = sender_constrained
        target.__class__ = AccessToken

    # The face that Starlette expects of ``request.user``; ``scopes`` is the one it expects of ``request.auth``.

    @property
    def is_authenticated(self) -> bool:
        """Always true: there is no access token for anonymous callers."""
        return True

    @property
    def display_name(self) -> str:
        """The subject, else the client: something for a log line, not an identity."""
        return self.subject or self.client_id or ""

    @property
    def identity(self) -> tuple[str, str | None]:
        """The issuer and the subject, which together identify the user (RFC 7519 section 4.1.2)."""
        return self.issuer, self.subject


_FIELDS: Final = tuple(field.name for field in fields(AccessToken))


class _Unfrozen:
    __slots__ = _FIELDS


def _freeze_claims_on_first_use(slot: Any) -> property:
    """Claims are frozen when they are read: most requests need no more than the scopes."""
    read, write = slot.__get__, slot.__set__

    def claims(token: AccessToken) -> Any:
        held = read(token)
        if type(held) is dict:
            held = frozen_json(held)
            write(token, held)
        return held

    return property(claims, write)


type.__setattr__(AccessToken, "claims", _freeze_claims_on_first_use(vars(AccessToken)["claims"]))


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Stands for the caller on public routes, and where authentication is optional and no token was sent."""

    scopes: frozenset[str] = frozenset()
    is_authenticated: bool = False
    display_name: str = ""
    identity: None = None
    # Of the request, for listeners: see scopeguard.core.decision.Granted.
    method: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    path: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    route: str | None = field(default=None, repr=False, compare=False, kw_only=True)


ANONYMOUS: Final = Anonymous()


# Not frozen: that would double what it takes to make one, and there is one for each token that is looked at.
@dataclass(slots=True, kw_only=True)
class Unverified:
    """A token that was parsed and nothing more. Its content selects a policy and a key; it proves nothing.

    ``signed`` are the exact bytes under the signature, ``signature`` the decoded signature. ``segment`` is the text
    that ``header`` was read from, and ``payload`` that of ``claims``, where they come from a token.
    """

    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    segment: bytes = field(default=b"", repr=False)
    payload: bytes = field(default=b"", repr=False)
    fingerprint: str


Serving = AccessToken | Callable[[], AccessToken | None] | None
"""What an adapter makes current: a token, or a function that says whose request is being served when it is asked."""

_current: Final[ContextVar[Serving]] = ContextVar("scopeguard_access_token", default=None)


def current_access_token() -> AccessToken:
    """The access token of the request being served, from anywhere below the adapter, threads included.

    Raises :class:`ConfigurationError` outside a guarded request, and on a route that let an anonymous caller in:
    use :func:`current_access_token_or_none` there.
    """
    token = current_access_token_or_none()
    if token is None:
        raise ConfigurationError(
            "no access token here: the code runs outside a guarded request, or the route is public or lets "
            "anonymous callers in; guard the route, or use current_access_token_or_none()"
        )
    return token


def current_access_token_or_none() -> AccessToken | None:
    """The access token of the request being served, ``None`` for an anonymous caller and outside a request."""
    serving = _current.get()
    return serving if serving is None or isinstance(serving, AccessToken) else serving()


# For adapters: a token is the current one from here to there, and what was before is restored after it.
begin_serving: Final = _current.set


def end_serving(before: Token[Serving]) -> bool:
    """Restore what was current before. ``False`` in another context than that of :data:`begin_serving`.

    A coroutine or a request context may be closed by a thread or task that did not begin it. An error there would
    take the place of the app's own, and nothing is current there that would have to be taken away.
    """
    try:
        _current.reset(before)
    except ValueError:
        return False
    return True
