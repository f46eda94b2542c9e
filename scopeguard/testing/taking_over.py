"""A guard of an app under test, in the hands of a fake authority for a while."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.resolver import IssuerResolver
from scopeguard.devserver.authority import OPAQUE_PREFIX, Authority
from scopeguard.devserver.faults import Endpoint
from scopeguard.devserver.registry import Client
from scopeguard.edge.runtime import Transport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Guard, engine_of
from scopeguard.testing.clock import FakeClock
from scopeguard.testing.transport import FakeTransport, Network


class _Taker(Protocol):
    """What is needed of a ``FakeAuthority``."""

    authority: Authority
    api: Client
    clock: FakeClock
    transport: FakeTransport

    @property
    def url(self) -> str: ...

    @property
    def audience(self) -> str: ...


@contextmanager
def taking_over(authority: _Taker, guard: Guard) -> Iterator[None]:
    """See :meth:`scopeguard.testing.FakeAuthority.takes_over`."""
    if not isinstance(guard, Guard):
        raise ConfigurationError("takes_over: a scopeguard.Guard, the one that the app under test was made with")
    issuers = [_issuer_of(authority, issuer) for issuer in guard.issuers]
    engine = engine_of(guard)
    resolved = engine.issuers.resolved
    if resolved is None and authority.url not in {issuer.url for issuer in issuers}:
        known = " or ".join(repr(issuer.url) for issuer in issuers)
        raise ConfigurationError(
            f"takes_over: the guard trusts {known}, and this authority is {authority.url!r}; give it the same URL, as "
            f"in FakeAuthority({issuers[0].url!r}, audience=...)"
        )
    # Built beside the guard, so that one assignment hands everything over.
    beside = copy.copy(engine)
    beside.connect(
        issuers,
        None if resolved is None else _resolver_of(authority, resolved.resolver),
        _Chain(authority.transport, engine.runtime.transport),
        authority.clock,
        None,
    )
    given = vars(engine)
    taken = {name: value for name, value in vars(beside).items() if given.get(name) is not value}
    before = {name: given[name] for name in taken}
    given.update(taken)
    try:
        yield
    finally:
        given.update(before)
        beside.runtime.close()


class _Chain:
    """Asks the authority for what it serves, and an authority that took over before for the rest."""

    def __init__(self, transport: FakeTransport, before: Transport) -> None:
        self._transport = transport
        self._before = before if isinstance(before, _Chain | FakeTransport | Network) else None

    def send(self, request: Send, /) -> Answer:
        if self._before is None or self._transport.serves(request.url):
            return self._transport.send(request)
        return self._before.send(request)

    def close(self) -> None:
        """Nothing is open."""


def _issuer_of(authority: _Taker, issuer: Issuer) -> Issuer:
    """*issuer* with keys and introspection of *authority*, where it is meant. All that judges a token stays."""
    if issuer.url != authority.url:
        return issuer
    if issuer.audiences is not None and authority.audience not in issuer.audiences:
        known = " or ".join(map(repr, sorted(issuer.audiences)))
        raise ConfigurationError(
            f"takes_over: the guard wants tokens for {known}, and this authority makes them for "
            f"{authority.audience!r}; give it FakeAuthority(..., audience=...)"
        )
    algorithm = authority.authority.keys.algorithm
    if algorithm not in issuer.algorithms:
        raise ConfigurationError(
            f"takes_over: the guard accepts {', '.join(issuer.algorithms)}, and this authority signs with {algorithm}; "
            f"give it FakeAuthority(..., algorithm={issuer.algorithms[0]!r})"
        )
    asked = issuer.introspection
    return replace(
        issuer,
        keys=None,
        jwks_file=None,
        jwks_uri=authority.authority.url(Endpoint.JWKS),
        key_url_template=None,
        metadata_url=None,
        jwks_ca_file=None,
        jwks_bearer_file=None,
        introspection=None if asked is None else _introspection_of(authority, asked),
        opaque_prefixes=(OPAQUE_PREFIX,) if issuer.opaque_prefixes else (),
    )


def _introspection_of(authority: _Taker, asked: Introspection) -> Introspection:
    return replace(
        asked,
        endpoint=authority.authority.url(Endpoint.INTROSPECTION),
        auth=ClientAuthentication.CLIENT_SECRET_BASIC,
        client_id=authority.api.client_id,
        client_secret=authority.api.secret,
        private_key=None,
        bearer_token=None,
        signed=False,
        dialect=Dialect.RFC7662,
    )


def _resolver_of(authority: _Taker, resolver: IssuerResolver) -> IssuerResolver:
    """*resolver*, whose answer about the URL of *authority* leads there."""

    async def wait(found: Awaitable[Issuer | None]) -> Issuer | None:
        return answer(await found)

    def answer(found: Issuer | None) -> Issuer | None:
        return None if found is None else _issuer_of(authority, found)

    def resolve(name: str) -> Any:
        found = resolver.resolve(name)
        return wait(found) if inspect.isawaitable(found) else answer(found)

    return replace(resolver, resolve=resolve)
