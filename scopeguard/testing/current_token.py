"""Access tokens for code that is called without a request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar
from typing import Any, Final

from scopeguard.config.checks import flag, mapping, number, strings, text
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import check_scope
from scopeguard.tokens import AccessToken, access_token_or_none, begin_serving, current_serving, end_serving

EXPIRES_IN: Final = 3600
"""The lifetime in seconds of a token that :func:`make_token` makes, unless the test says otherwise."""

log: Final = logging.getLogger("scopeguard.testing")
_warned = threading.Event()
# The token of the innermost block of as_token.
_in_block: Final[ContextVar[AccessToken | None]] = ContextVar("scopeguard_as_token", default=None)
_NO_REQUEST: Final = Context().run(current_serving)  # the value in a context in which no guard serves a request


def make_token(
    *scopes: str,
    subject: str | None = "subject",
    client_id: str | None = "client",
    issuer: str = "https://as.test",
    audience: str | Iterable[str] = "https://api.test",
    roles: Iterable[str] = (),
    machine: bool | None = None,
    expires_in: float | None = EXPIRES_IN,
    claims: Mapping[str, Any] | None = None,
) -> AccessToken:
    """Return an access token with *scopes*, for a function that takes one, and for ``app.dependency_overrides``.

        assert await rows(token=make_token("rows.read", subject="alice")) == [...]
        app.dependency_overrides[protected] = lambda: make_token("rows.read")

    It is an :class:`~scopeguard.AccessToken` as a guard returns it, without a text that could be sent in a request: no
    guard accepts it. ``FakeAuthority.mint`` issues tokens for requests.

    * *expires_in*: the lifetime in seconds from now, ``None`` for a token without an expiry.
    * *claims*: replace or add members of ``AccessToken.claims``, but change no other attribute.

    Scopes are not extended by those that a guard's configuration says they imply. Raises :class:`ConfigurationError`
    for a text that is not one scope, and for an argument of the wrong kind.
    """
    granted = tuple(dict.fromkeys(check_scope(scope, "scopes") for scope in scopes))
    for name, value in (("subject", subject), ("client_id", client_id)):
        if value is not None:
            text(value, name, empty=False)
    text(issuer, "issuer", empty=False)
    audiences = strings(audience, "audience", empty=False)
    if machine is not None:
        flag(machine, "machine")
    if expires_in is not None:
        number(expires_in, "expires_in")
    now = int(time.time())
    expires_at = None if expires_in is None else now + expires_in
    given = {} if claims is None else mapping(claims, "claims")
    members = {"iss": issuer, "sub": subject, "client_id": client_id, "exp": expires_at, "scope": " ".join(granted)}
    return AccessToken(
        issuer=issuer,
        subject=subject,
        client_id=client_id,
        audience=audiences,
        scopes=frozenset(granted),
        granted_scopes=granted,
        expires_at=expires_at,
        issued_at=now,
        roles=frozenset(strings(roles, "roles")),
        machine=machine,
        claims={
            **{name: value for name, value in members.items() if value is not None},
            "aud": list(audiences),
            "iat": now,
            **given,
        },
    )


def as_token(
    *scopes: str,
    subject: str | None = "subject",
    client_id: str | None = "client",
    issuer: str = "https://as.test",
    audience: str | Iterable[str] = "https://api.test",
    roles: Iterable[str] = (),
    machine: bool | None = None,
    expires_in: float | None = EXPIRES_IN,
    claims: Mapping[str, Any] | None = None,
) -> AbstractContextManager[AccessToken]:
    """Make a token current for the length of a ``with`` block, so that ``access_token()`` returns it without a request.

        with as_token("rows.read", subject="alice"):
            assert owned_rows() == [...]  # calls access_token()

    The arguments are those of :func:`make_token`, and the block gets the token. Blocks may be nested, even in
    coroutines. A guard is not affected: a request inside the block needs a token of its own, which is then current
    while it is served.

    For tests only: the first use logs a warning. Raises :class:`ConfigurationError` while a guard serves a request, so
    that no app can replace the token of a caller.
    """
    return _make_current(
        make_token(
            *scopes,
            subject=subject,
            client_id=client_id,
            issuer=issuer,
            audience=audience,
            roles=roles,
            machine=machine,
            expires_in=expires_in,
            claims=claims,
        )
    )


@contextmanager
def _make_current(token: AccessToken) -> Iterator[AccessToken]:
    outside = _in_block.get()
    if current_serving() is not (outside or _NO_REQUEST) or access_token_or_none() is not outside:
        raise ConfigurationError(
            "as_token: a guard is serving a request, whose token must not be replaced; use as_token only in tests, "
            "around the call of a function, after the responses of earlier WSGI requests have been closed"
        )
    if not _warned.is_set():
        _warned.set()
        log.warning(
            "FOR TESTS ONLY: as_token is in use; access_token() returns a token that no authorization server issued"
        )
    before, outer = begin_serving(token), _in_block.set(token)
    try:
        yield token
    finally:
        end_serving(before)
        try:
            _in_block.reset(outer)
        except ValueError:
            pass  # a fixture may end in a different context from the one it began in
