"""Connects the guard of an app under test to a fake authority, for the length of a ``with`` block."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from scopeguard.config.checks import instance
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.resolver import IssuerResolver
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint
from scopeguard.devserver.issued_tokens import OPAQUE_PREFIX
from scopeguard.devserver.registry import Client
from scopeguard.edge.runtime import Transport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Guard, engine_of
from scopeguard.testing.clock import FakeClock
from scopeguard.testing.transport import FakeTransport, Network


class _Authority(Protocol):
    """The attributes of a ``FakeAuthority`` that are used here, without a circular import."""

    authority: Authority
    api: Client
    clock: FakeClock
    transport: FakeTransport

    @property
    def url(self) -> str: ...

    @property
    def audience(self) -> str: ...


@contextmanager
def take_over(authority: _Authority, guard: Guard) -> Iterator[None]:
    """Implement :meth:`scopeguard.testing.FakeAuthority.takes_over`."""
    instance(guard, Guard, "takes_over", "a scopeguard.Guard, the one that the app under test uses")
    issuers = [_issuer_of(authority, issuer) for issuer in guard.issuers]
    engine = engine_of(guard)
    resolved = engine.issuers.resolved
    if resolved is None and authority.url not in {issuer.url for issuer in issuers}:
        known = " or ".join(repr(issuer.url) for issuer in issuers)
        raise ConfigurationError(
            f"takes_over: the guard trusts {known}, and this authority is {authority.url!r}; give it the same URL, as "
            f"in FakeAuthority({issuers[0].url!r}, audience=...)"
        )
    # A copy of the engine is connected first, so that a single update changes the guard.
    connected = copy.copy(engine)
    connected.connect(
        issuers,
        None if resolved is None else _resolver_of(authority, resolved.resolver),
        _Chain(authority.transport, engine.runtime.transport),
        authority.clock,
        None,
    )
    connected.runtime.watchers = engine.runtime.watchers
    attributes = vars(engine)
    changed = {name: value for name, value in vars(connected).items() if attributes.get(name) is not value}
    previous = {name: attributes[name] for name in changed}
    attributes.update(changed)
    try:
        yield
    finally:
        attributes.update(previous)
        connected.runtime.close()


class _Chain:
    """Sends requests for this authority to it, and others to the authority of the enclosing block, if any."""

    def __init__(self, transport: FakeTransport, previous: Transport) -> None:
        self._transport = transport
        self._previous = previous if isinstance(previous, _Chain | FakeTransport | Network) else None

    def send(self, request: Send, /) -> Answer:
        if self._previous is None or self._transport.serves(request.url):
            return self._transport.send(request)
        return self._previous.send(request)

    def close(self) -> None:
        """Do nothing: no connection is open."""


def _issuer_of(authority: _Authority, issuer: Issuer) -> Issuer:
    """Return *issuer* with the keys and the introspection of *authority*, if it has the same URL.

    The settings for the checks of tokens are kept.
    """
    if issuer.url != authority.url:
        return issuer
    if issuer.audiences is not None and authority.audience not in issuer.audiences:
        known = " or ".join(map(repr, sorted(issuer.audiences)))
        raise ConfigurationError(
            f"takes_over: the guard requires the audience {known}, and this authority issues tokens for "
            f"{authority.audience!r}; use FakeAuthority(..., audience=...)"
        )
    algorithm = authority.authority.keys.algorithm
    if algorithm not in issuer.algorithms:
        raise ConfigurationError(
            f"takes_over: the guard accepts {', '.join(issuer.algorithms)}, and this authority signs with {algorithm}; "
            f"use FakeAuthority(..., algorithm={issuer.algorithms[0]!r})"
        )
    introspection = issuer.introspection
    return replace(
        issuer,
        keys=None,
        jwks_file=None,
        jwks_seed=None,
        jwks_uri=authority.authority.url(Endpoint.JWKS),
        key_url_template=None,
        metadata_url=None,
        jwks_ca_file=None,
        jwks_bearer_file=None,
        introspection=None if introspection is None else _introspection_of(authority, introspection),
        opaque_prefixes=(OPAQUE_PREFIX,) if issuer.opaque_prefixes else (),
    )


def _introspection_of(authority: _Authority, introspection: Introspection) -> Introspection:
    return replace(
        introspection,
        endpoint=authority.authority.url(Endpoint.INTROSPECTION),
        auth=ClientAuthentication.CLIENT_SECRET_BASIC,
        client_id=authority.api.client_id,
        client_secret=authority.api.secret,
        private_key=None,
        bearer_token=None,
        signed=False,
        dialect=Dialect.RFC7662,
    )


def _resolver_of(authority: _Authority, resolver: IssuerResolver) -> IssuerResolver:
    """Return *resolver* with its results changed by :func:`_issuer_of`."""

    def change(found: Issuer | None) -> Issuer | None:
        return None if found is None else _issuer_of(authority, found)

    async def change_awaited(found: Awaitable[Issuer | None]) -> Issuer | None:
        return change(await found)

    def resolve(name: str) -> Any:
        found = resolver.resolve(name)
        return change_awaited(found) if inspect.isawaitable(found) else change(found)

    return replace(resolver, resolve=resolve)
