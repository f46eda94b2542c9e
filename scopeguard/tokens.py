"""Access tokens: :class:`Unverified` before the checks, :class:`AccessToken` after them.

The two types share no base, so that a type checker rejects code that uses unverified claims as if they were verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from scopeguard.errors import ConfigurationError
from scopeguard.numeric_date import LATEST_DATE

# The types of JSON values other than objects and arrays.
_ATOMS: Final = frozenset((str, int, float, bool, type(None)))

LATE: Final = ("subject", "client_id", "issued_at", "roles", "machine", "sender_constrained")
"""The fields of an access token that are computed when one of them is first read."""


def freeze_json(value: Any) -> Any:
    """Return a read-only form of *value*, a parsed JSON value: objects become proxies, arrays become tuples.

    Requests with the same token share its claims: an app must not be able to change them for the next request.
    """
    if isinstance(value, dict):
        return MappingProxyType(
            {
                # Most values are strings, and comparing one type is faster than a look-up in a set.
                name: item if type(item) is str or type(item) in _ATOMS else freeze_json(item)
                for name, item in value.items()
            }
        )
    if isinstance(value, list):
        return tuple(item if type(item) in _ATOMS else freeze_json(item) for item in value)
    return value


LateFields = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes the claims of a token; returns the fields of its access token that were left out when it was built."""


class _WithLateFields:
    """Computes the fields that :func:`build_access_token` has left out, when one of them is first read."""

    __slots__ = ("_late",)
    _late: LateFields

    if not TYPE_CHECKING:  # a type checker would accept any name

        def __getattr__(self, name: str) -> Any:
            if name not in LATE:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            found = self._late(_read_claims(self))  # not self.claims, which freezes them
            for each in LATE:  # two threads may both do this, with the same result
                object.__setattr__(self, each, found[each])
            return found[name]


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class AccessToken(_WithLateFields):
    """A verified access token.

    Checked: the signature or the introspection response, issuer, audience, times, and that it is an access token and
    not another kind of token (RFC 7519, RFC 7662, RFC 9068). Not checked: whether its scopes suffice. Each route
    checks that::

        @app.get("/rows")
        async def rows(token: Annotated[AccessToken, Security(protected, scopes=["rows.read"])]):
            return rows_of(owner=token.identity)

    * ``issuer``: the URL of the configured issuer whose policy was applied.
    * ``subject``, ``client_id``: ``None`` if the issuer's tokens lack them. A user is the *pair* of issuer and
      subject (``identity``): two issuers may use the same subject.
    * ``audience``: every audience of the token.
    * ``scopes``: the granted scopes, and those that the configuration says they imply, with and without the scope
      prefix of the issuer.
    * ``granted_scopes``: exactly the scopes in the token, in its order; ``None`` if it has no scope claim.
    * ``expires_at``, ``issued_at``: seconds since the epoch. ``expires_at`` is ``None`` only if the issuer's policy
      allows tokens without an expiry, and ``issued_at`` if the token lacks the claim.
    * ``roles``: values of the claims that the issuer's policy names for roles, groups and permissions. They are never
      scopes.
    * ``machine``: whether the token was issued to a client that acts for itself (client credentials) and not for a
      user, according to ``Issuer.machine_signs``; ``None`` if no sign applies. It proves no permission: many providers
      only imply it by a name that the client chose. The conditions :data:`scopeguard.USER` and
      :data:`scopeguard.MACHINE` read it.
    * ``claims``: all claims, read-only at every depth (arrays are tuples). A ``dict`` that is passed to the
      constructor must not be used afterwards.
    * ``fingerprint``: 12 hexadecimal digits of the SHA-256 of the token, to find it in logs.
    * ``sender_constrained``: whether the token is bound to a key or a certificate (``cnf``). The guard checks the proof
      of possession for each request.

    The text of the token is not stored. ``repr`` omits ``claims``.
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
        values = {name: value for name, value in locals().items() if name in _FIELDS}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    # Starlette expects these properties of ``request.user``, and ``scopes`` of ``request.auth``.

    @property
    def is_authenticated(self) -> bool:
        """Always ``True``; :class:`Anonymous` has ``False``."""
        return True

    @property
    def display_name(self) -> str:
        """The subject, or else the client ID, for log lines. It does not identify a user: see ``identity``."""
        return self.subject or self.client_id or ""

    @property
    def identity(self) -> tuple[str, str | None]:
        """The issuer and the subject, which together identify the user (RFC 7519 section 4.1.2)."""
        return self.issuer, self.subject

    # The claims that conditions of a requirement read. They are properties, because most requests need none of them.

    @property
    def acr(self) -> str | None:
        """The authentication context class reference of the user's sign-in; ``None`` if absent or not a string."""
        value = self.claims.get("acr")
        return value if isinstance(value, str) else None

    @property
    def amr(self) -> tuple[str, ...]:
        """The methods by which the user signed in (RFC 8176). No condition considers them."""
        value = self.claims.get("amr")
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, tuple) else ()

    @property
    def auth_time(self) -> float | None:
        """When the user signed in, in seconds since the epoch; ``None`` if absent or not a finite number."""
        value = self.claims.get("auth_time")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -LATEST_DATE < value < LATEST_DATE:
            return None
        return float(value)

    @property
    def authorization_details(self) -> tuple[Mapping[str, Any], ...]:
        """The objects in ``authorization_details`` (RFC 9396), read-only; empty if the claim is absent or malformed."""
        value = self.claims.get("authorization_details")
        return tuple(item for item in value if isinstance(item, Mapping)) if isinstance(value, tuple) else ()

    @property
    def actor(self) -> Actor | None:
        """The party that acts for the subject (RFC 8693 section 4.1); ``None`` if the token has no ``act`` claim."""
        value = self.claims.get("act")
        return Actor(claims=value) if isinstance(value, Mapping) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A party that acts for the subject of a token: the content of an ``act`` claim (RFC 8693 section 4.1).

    An actor may contain the one before it in the delegation (``actor``). Decide on the outermost one only. RFC 8693
    section 4.1: ``exp``, ``nbf`` and ``aud`` have no meaning in an ``act`` claim.
    """

    claims: Mapping[str, Any] = field(repr=False)

    @property
    def subject(self) -> str | None:
        """The ``sub`` of the actor, which identifies it together with :attr:`issuer`."""
        return self._text("sub")

    @property
    def issuer(self) -> str | None:
        """The ``iss`` of the actor; ``None`` if absent: its subject then belongs to the issuer of the token."""
        return self._text("iss")

    @property
    def client_id(self) -> str | None:
        """The ``client_id`` of the actor."""
        return self._text("client_id")

    @property
    def actor(self) -> Actor | None:
        """The actor that delegated to this one, or ``None``."""
        value = self.claims.get("act")
        return Actor(claims=value) if isinstance(value, Mapping) else None

    def _text(self, name: str) -> str | None:
        value = self.claims.get(name)
        return value if isinstance(value, str) else None


_FIELDS: Final = tuple(field.name for field in fields(AccessToken))


class _Unfrozen(_WithLateFields):
    __slots__ = _FIELDS


def build_access_token(
    issuer: str,
    audience: tuple[str, ...],
    scopes: frozenset[str],
    granted_scopes: tuple[str, ...] | None,
    expires_at: float | None,
    claims: Mapping[str, Any],
    fingerprint: str,
    late: LateFields,
) -> AccessToken:
    """Return an :class:`AccessToken` whose other fields *late* computes when one of them is first read.

    *claims* are JSON values as parsed; afterwards they belong to the token. *late* must not raise.

    Most requests read the scopes only. A token takes 0.6 µs to build, with the constructor and all fields 2.0 µs.
    """
    # On a frozen object only object.__setattr__ can assign. Until the fields are assigned, the object therefore has a
    # class with the same slots that is not frozen.
    token: Any = _Unfrozen()
    token.issuer = issuer
    token.audience = audience
    token.scopes = scopes
    token.granted_scopes = granted_scopes
    token.expires_at = expires_at
    token.claims = claims
    token.fingerprint = fingerprint
    token._late = late
    token.__class__ = AccessToken
    built: AccessToken = token
    return built


def _freeze_claims_on_first_use(slot: Any) -> property:
    """Return a property that freezes the claims when they are first read: most requests need the scopes only."""
    read, write = slot.__get__, slot.__set__

    def claims(token: AccessToken) -> Any:
        held = read(token)
        if type(held) is dict:
            held = freeze_json(held)
            write(token, held)
        return held

    return property(claims, write)


_read_claims: Final[Callable[[_WithLateFields], Mapping[str, Any]]] = vars(AccessToken)["claims"].__get__
type.__setattr__(AccessToken, "claims", _freeze_claims_on_first_use(vars(AccessToken)["claims"]))


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The caller of a public route, or of a route with optional authentication if the request has no token.

    It takes the place of an :class:`AccessToken` in ``match`` and in Starlette's ``request.user``. It has no scopes.
    """

    scopes: frozenset[str] = frozenset()
    is_authenticated: bool = False
    display_name: str = ""
    identity: None = None


ANONYMOUS: Final = Anonymous()


# Not frozen and not keyword-only: each would double the time to construct it, and every token is parsed into one.
@dataclass(slots=True, eq=False)
class Unverified:
    """A token that is parsed, but not verified. Its content selects a policy and a key, and proves nothing.

    ``signed`` are the exact bytes that the signature covers, ``signature`` is the decoded signature. ``segment`` is
    the encoded text of ``header``, ``payload`` that of ``claims``; both are empty if the claims do not come from a JWT.
    """

    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    fingerprint: str
    segment: bytes = field(default=b"", repr=False)
    payload: bytes = field(default=b"", repr=False)


Serving = AccessToken | Callable[[], AccessToken | None] | None
"""The current token of a context, or a function that returns it at each call."""

_finders: Final[list[Callable[[], AccessToken | None]]] = []


def add_finder(find: Callable[[], AccessToken | None]) -> None:
    """Look for the token with *find* in contexts in which no request is served.

    An adapter calls this when it is imported, if its framework has a request context of its own that outlives the
    call of the app.
    """
    _finders.append(find)


def _find() -> AccessToken | None:
    return next((token for find in _finders if (token := find()) is not None), None)


_current: Final[ContextVar[Serving]] = ContextVar("scopeguard_access_token", default=_find)


def access_token() -> AccessToken:
    """Return the access token of the request that is being served.

    Works in any function that the app calls, without passing the request on, and in threads that run in a copy of the
    request's context (``anyio.to_thread``, ``asyncio.to_thread``)::

        def audit(action: str) -> None:
            log.info("%s by %s", action, access_token().display_name)

    In Flask it also works in a generator with ``stream_with_context`` and in a job with
    ``copy_current_request_context``.

    The token is that of the context, even in code that runs after the response: background tasks of Starlette and
    FastAPI, and tasks that the app has started. It may have expired or been revoked by then, and is not checked again.

    Raises :class:`ConfigurationError` outside a guarded request, and for an anonymous caller: use
    :func:`access_token_or_none` there.
    """
    token = access_token_or_none()
    if token is None:
        raise ConfigurationError(
            "no access token here: the code runs outside a guarded request, or the route is public or allows "
            "anonymous callers; guard the route, or use access_token_or_none()"
        )
    return token


def access_token_or_none() -> AccessToken | None:
    """Return the access token of the request that is being served, or ``None``.

    It is ``None`` for an anonymous caller and outside a guarded request.
    """
    serving = _current.get()
    return serving if serving is None or isinstance(serving, AccessToken) else serving()


# Adapters call this to make a token the current one, until they pass the result to end_serving().
begin_serving: Final = _current.set
current_serving: Final = _current.get


def end_serving(before: Token[Serving]) -> bool:
    """Restore the state before :data:`begin_serving`, which returned *before*.

    In a context other than that of :data:`begin_serving`, it does nothing and returns ``False``. Another thread or task
    may close a coroutine or a request context, and the token was never current there. An exception here would hide the
    exception of the app.
    """
    try:
        _current.reset(before)
    except ValueError:
        return False
    return True
