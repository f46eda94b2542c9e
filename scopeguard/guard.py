"""The object users hold: it judges requests, in both colours, and writes refusals.

A :class:`Guard` is cheap to construct and does nothing then: no thread, no socket, no file. It may be made before a
fork and used from any number of threads and event loops; they share its keys.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, overload

from scopeguard.access_token import ANONYMOUS, AccessToken, Anonymous
from scopeguard.config import Issuer, TokenSource, TokenSources, checked_url, is_loopback
from scopeguard.edge import blocking
from scopeguard.edge.limits import HttpxTransport
from scopeguard.edge.outside import Outside, SystemClock, Transport
from scopeguard.effects import Clock, Flow
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    InsufficientScope,
    InvalidRequest,
    MissingCredentials,
    Reason,
    printable,
)
from scopeguard.flow import authenticate, warmed
from scopeguard.request import RequestView
from scopeguard.rules import Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle, Response, write_denial, write_outage
from scopeguard.spec.jwks import configured_key_set
from scopeguard.state.keyring import KeyRing
from scopeguard.state.trust import Trust

log: Final = logging.getLogger("scopeguard")


@dataclass(frozen=True, slots=True)
class Granted:
    """The request carries a valid access token, and the token satisfies the requirement if there was one."""

    access_token: AccessToken


@dataclass(frozen=True, slots=True)
class Denied:
    """The request was judged and refused; ``response`` is what to send."""

    error: AccessDenied
    response: Response


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The token could not be judged because its authority did not answer; ``response`` is a 503."""

    error: AuthorityUnavailable
    response: Response


Decision = Granted | Anonymous | Denied | Unavailable
"""What :meth:`Guard.check` returns; take it apart with ``match``. ``Anonymous`` comes only where it was asked for."""


class Guard:
    """Judges the access tokens of one API.

    * *issuers*: the authorization servers it trusts, at least one.
    * *resource*: the public URL of this API. The default audience of issuers that :meth:`from_file` reads, and the
      default *realm*.
    * *realm*: the realm of challenges.
    * *token_sources*: where tokens may be sent: ``["header"]`` or :class:`TokenSources` for the details.
    * *implies*: what scopes include others at this API, whatever the issuer: ``{"cloud-platform": ["bigquery"]}``.
    * *rules*: which requirement holds for which route; what middleware uses unless it is given its own.
    * *challenge*: the whole style of challenges, instead of *realm*.
    * *require_https*: refuse tokens that came by cleartext from another host (400). Off by default, because behind a
      proxy the server does not know; then such a token is logged once.
    * *transport*, *clock*: how HTTP is done and what time it is; replaced in tests.
    * *on_decision*: called with every decision, after it was made; it cannot change it.

    Raises :class:`ConfigurationError`. Not checked here: that an authority answers; the first request that needs its
    keys, or :meth:`warm`, finds out.
    """

    def __init__(
        self,
        *issuers: Issuer,
        resource: str | None = None,
        realm: str | None = None,
        token_sources: TokenSources | Iterable[str] = (TokenSource.HEADER,),
        implies: Mapping[str, Iterable[str]] | None = None,
        rules: Rules | None = None,
        challenge: ChallengeStyle | None = None,
        require_https: bool = False,
        transport: Transport | None = None,
        clock: Clock | None = None,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        if not issuers:
            raise ConfigurationError(
                "Guard needs at least one Issuer: the authorization server whose tokens it accepts"
            )
        if resource is not None:
            checked_url(resource, "resource")
        if challenge is not None and realm is not None:
            raise ConfigurationError("realm and challenge are alternatives; put the realm into the ChallengeStyle")
        self.resource = resource
        self.sources: TokenSources = (
            token_sources if isinstance(token_sources, TokenSources) else TokenSources().only(token_sources)
        )
        self.style: ChallengeStyle = challenge or ChallengeStyle(realm=realm or resource or "api")
        self.rules = rules
        self._require_https = require_https
        self._told_of_cleartext = False
        self._on_decision = on_decision
        self.clock: Clock = clock or SystemClock()
        self._trusts = _trusts(issuers, implies or {})
        self._outside = Outside(
            transport=transport or HttpxTransport(),
            clock=self.clock,
            after_fork=tuple(trust.ring.forget_flights for trust in self._trusts.values()),
        )
        if TokenSource.QUERY in self.sources.methods:
            log.warning("access tokens are accepted in the query string of every route: URLs end up in logs")

    @classmethod
    def from_file(cls, path: str, **overrides: Any) -> Self:
        """The guard that the TOML file at *path* describes, its rules included; see the README for the keys.

        *overrides* replace arguments of the constructor (``transport``, ``clock``, ...). Raises
        :class:`ConfigurationError` naming the key, its place and the nearest known one.
        """
        from scopeguard.settings import read_settings

        issuers, arguments = read_settings(path)
        return cls(*issuers, **{**arguments, **overrides})

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers it trusts."""
        return tuple(trust.issuer for trust in dict.fromkeys(self._trusts.values()))

    def check(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], bytes] | None = None,
    ) -> Decision:
        """Judge the token of *request*, and whether it satisfies *requirement*.

        *optional*: a request without any credentials is :class:`Anonymous` instead of denied; a bad token, and
        credentials of another kind, are denied all the same (B-55). *sources* replaces the guard's own for a route.
        *read_form* returns the body of the request, at most so many bytes; without it, no form is read. May wait for
        an authority; never raises for anything a request contains.
        """
        chosen = self._sources(sources, can_read=read_form is not None)
        try:
            token = blocking.run(self._judge(request, chosen), self._outside, read_form)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and isinstance(error, MissingCredentials) and error.reason is Reason.NO_CREDENTIALS:
                return self._decided(ANONYMOUS)
            return self.refuse(error, requirement, request=request)
        return self.authorize(token, requirement, request=request)

    async def acheck(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], Awaitable[bytes]] | None = None,
    ) -> Decision:
        """:meth:`check` for asyncio and trio."""
        from scopeguard.edge import aio

        chosen = self._sources(sources, can_read=read_form is not None)
        try:
            token = await aio.run(self._judge(request, chosen), self._outside, read_form)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and isinstance(error, MissingCredentials) and error.reason is Reason.NO_CREDENTIALS:
                return self._decided(ANONYMOUS)
            return self.refuse(error, requirement, request=request)
        return self.authorize(token, requirement, request=request)

    @overload
    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        request: RequestView | None = None,
        head: bool = False,
    ) -> Granted | Denied | Unavailable: ...

    @overload
    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool,
        request: RequestView | None = None,
        head: bool = False,
    ) -> Decision: ...

    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool = False,
        request: RequestView | None = None,
        head: bool = False,
    ) -> Decision:
        """Whether *token*, judged before, satisfies *requirement*; ``None`` is an anonymous caller, who satisfies none
        and passes where authentication is *optional*. Pure: no I/O in either colour. *request* is for the log; without
        it, *head* says whether it was a HEAD."""
        if token is None:
            if optional:
                return self._decided(ANONYMOUS)
            return self.refuse(MissingCredentials(Reason.NO_CREDENTIALS), requirement, request=request, head=head)
        if requirement is not None and not requirement.allows(token.scopes):
            denial = InsufficientScope(
                requirement.challenge_scopes,
                client_id=token.client_id,
                token=token.fingerprint,
                scope_claim="absent" if token.granted_scopes is None else "present",
            )
            return self.refuse(denial, requirement, request=request, head=head)
        return self._decided(Granted(token))

    def refuse(
        self,
        error: AccessDenied | AuthorityUnavailable,
        requirement: Requirement | None = None,
        *,
        request: RequestView | None = None,
        head: bool = False,
    ) -> Denied | Unavailable:
        """*error* as a decision with its response; logs the reason, and never the token."""
        # The traceback's frames hold the token; whoever keeps the decision must not keep them.
        error.__traceback__ = None
        error.__context__ = error.__cause__ = None
        head = head or (request is not None and request.method == "HEAD")
        route = "" if request is None else f"{printable(request.method, 20)} {printable(request.path)}: "
        refusal: Denied | Unavailable
        if isinstance(error, AuthorityUnavailable):
            log.warning("not judged: %s%s", route, error)
            refusal = Unavailable(error, write_outage(error, head=head))
        else:
            log.info("denied with %s: %s%s", error.status, route, error)
            scopes = () if requirement is None else requirement.challenge_scopes
            refusal = Denied(error, write_denial(error, self.style, scopes=scopes, head=head))
        self._decided(refusal)
        return refusal

    def _decided(self, decision: Decision) -> Decision:
        if self._on_decision is not None:
            self._on_decision(decision)
        return decision

    def _judge(self, request: RequestView, sources: TokenSources) -> Flow[AccessToken]:
        # In the clear, and from another machine (B-56).
        exposed = not request.secure and request.client is not None and not is_loopback(request.client)
        return authenticate(
            request,
            trusts=self._trusts,
            sources=sources,
            clock=self.clock,
            exposed=self._token_was_exposed if exposed else None,
        )

    def _token_was_exposed(self) -> None:
        if self._require_https:
            raise InvalidRequest(Reason.HTTPS_REQUIRED)
        if not self._told_of_cleartext:
            self._told_of_cleartext = True
            log.warning("a token came by cleartext http; put TLS in front, and set require_https")

    def _sources(self, sources: TokenSources | None, *, can_read: bool) -> TokenSources:
        chosen = self.sources if sources is None else sources
        if TokenSource.FORM in chosen.methods and not can_read:
            left = chosen.methods - {TokenSource.FORM}
            if not left:
                raise ConfigurationError("token_sources: only the form is enabled, and this caller cannot read forms")
            return chosen.only(left)
        return chosen

    def warm(self) -> None:
        """Fetch the keys of every issuer now, instead of at the first request.

        Raises :class:`AuthorityUnavailable` for the first that did not answer, after trying all.
        """
        failures: list[AuthorityUnavailable] = []
        for trust in dict.fromkeys(self._trusts.values()):
            try:
                blocking.run(warmed(trust, self.clock), self._outside, None)
            except AuthorityUnavailable as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def awarm(self) -> None:
        """:meth:`warm` for asyncio and trio."""
        from scopeguard.edge import aio

        failures: list[AuthorityUnavailable] = []
        for trust in dict.fromkeys(self._trusts.values()):
            try:
                await aio.run(warmed(trust, self.clock), self._outside, None)
            except AuthorityUnavailable as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Close connections and threads. The guard may be used again; it opens what it needs."""
        self._outside.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        from scopeguard.edge import aio

        await aio.close(self._outside)

    def __repr__(self) -> str:
        return f"Guard({', '.join(repr(issuer.url) for issuer in self.issuers)})"


def _trusts(issuers: tuple[Issuer, ...], implies: Mapping[str, Iterable[str]]) -> dict[str, Trust]:
    trusts: dict[str, Trust] = {}
    for issuer in issuers:
        static = None if issuer.keys is None else configured_key_set(issuer.keys)
        trust = Trust(
            issuer=issuer,
            vocabulary=issuer.vocabulary.with_implications(implies),
            # Not a secret: it keeps a fleet from refreshing in step.
            ring=KeyRing(issuer.key_set, jitter=random.uniform(-1, 1), static=static),  # noqa: S311
        )
        for name in (issuer.url, *issuer.aliases):
            if name in trusts:
                raise ConfigurationError(f"issuer {name!r} is configured twice; one issuer has one policy")
            trusts[name] = trust
    return trusts
