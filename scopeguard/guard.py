"""The object users hold: it judges requests, in both colours, and writes refusals.

A :class:`Guard` is cheap to construct and does nothing then: no thread, no socket, no file. It may be made before a
fork and used from any number of threads and event loops; they share its keys.

Longer than 400 lines because both colours of everything stand side by side, and what a route asks for is judged next to
who asks. What it trusts is put together in :mod:`scopeguard.core.wiring`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeVar, overload

from scopeguard.access_token import ANONYMOUS, AccessToken
from scopeguard.config.audit import AuditMode
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import checked_url, insecure_hosts, is_loopback, member
from scopeguard.config.cors import Preflight
from scopeguard.config.issuer import Issuer
from scopeguard.config.refusal_log import RefusalLog, checked_refusal_log
from scopeguard.config.resolver import IssuerResolver
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.config.token_cache import TokenCachePolicy, checked_policy
from scopeguard.core.arguments import check_arguments
from scopeguard.core.decision import Decision, Denied, Granted, Report, Reporter, Unavailable
from scopeguard.core.signature_backends import checked_backends
from scopeguard.core.wiring import build_trusted_issuer, build_trusted_issuers
from scopeguard.edge import sync as blocking
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Runtime, SystemClock, Transport
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    MissingCredentials,
    Reason,
    printable,
)
from scopeguard.flow.authenticate import authenticate
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import Clock, Flow, Store, start
from scopeguard.flow.issuers import resolve_issuer, route
from scopeguard.flow.keys import warm
from scopeguard.flow.revocation import stable_part, sync
from scopeguard.request import RequestView
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle, write_denial, write_outage
from scopeguard.spec.signatures import SignatureBackend
from scopeguard.state.issuers import TrustedIssuer
from scopeguard.state.revocation import Revocation, Revoked, digest_of
from scopeguard.state.token_cache import TokenCache

__all__ = ["AuditMode", "Decision", "Denied", "Granted", "Guard", "Unavailable"]

T = TypeVar("T")

log: Final = logging.getLogger("scopeguard")

_LOOPBACK: Final = ("127.0.0.1", "::1")


class Guard:
    """Judges the access tokens of one API.

    * *issuers*: the authorization servers it trusts. At least one, unless there is a *resolver*.
    * *resolver*: finds further ones when a token names them: :class:`IssuerResolver`.
    * *resource*: the public URL of this API. The default audience of issuers that :meth:`from_file` reads, and the
      default *realm*.
    * *realm*: the realm of challenges.
    * *token_sources*: where tokens may be sent: ``["header"]`` or :class:`TokenSources` for the details.
    * *implies*: what scopes include others at this API, whatever the issuer: ``{"cloud-platform": ["bigquery"]}``.
    * *catalog*: the scopes of this API: :class:`~scopeguard.ScopeCatalog`. What it implies holds as well, and
      its prefix may be left out of the scopes of every issuer that has no ``scope_prefix`` of its own.
    * *rules*: which requirement holds for which route; what middleware uses unless it is given its own.
    * *challenge*: the whole style of challenges, instead of *realm*.
    * *require_https*: refuse tokens that came by cleartext from another host (400). Off by default, because behind a
      proxy the server does not know; then such a token is logged once.
    * *store*: shared by processes and hosts: introspection answers and revocations.
    * *revocation*: how revocations are kept: :class:`RevocationPolicy`.
    * *transport*: how HTTP is done: :class:`~scopeguard.HttpxTransport` with a private certificate authority or an
      outbound proxy, for every exchange, or an object of your own. *clock*: what time it is. Replaced in tests.
    * *on_decision*: called once for each request with its decision, when the response begins. It cannot change it; an
      exception in it is logged.
    * *refusal_log*: how refused requests are logged: :class:`RefusalLog`, or ``"off"``.
    * *token_cache*: how much of what was verified is remembered: :class:`TokenCachePolicy`, or ``"off"``.
    * *signature_backends*: who is asked to compute a signature before ``cryptography``, in this order: names of
      :mod:`scopeguard.core.signature_backends`, or objects with the methods of
      :class:`~scopeguard.spec.signatures.SignatureBackend`.
    * *audit*: what middleware and extensions do with the routes of their app when it starts, by the checks of
      ``scopeguard audit``: ``"warn"`` logs findings, ``"error"`` does not start, ``"off"`` looks at nothing.
    * *cors_preflight*: ``"pass"`` hands preflights of browsers to the app, and lets scripts read refusals where the
      app's own CORS middleware lets them read its responses; ``"guard"`` asks for a token, which no preflight has.
      What middleware and extensions use unless they are given their own.
    * *insecure_http_dangerously*: hosts with their ports (``["keycloak:8080"]``) that *resource* and every issuer's
      metadata may name with http. An :class:`Issuer` checks its own URLs when it is made: where one of them is http,
      give that issuer the setting of this name.

    Raises :class:`ConfigurationError`. Not checked here: that an authority answers; the first request that needs its
    keys, or :meth:`warm`, finds out.
    """

    def __init__(
        self,
        *issuers: Issuer,
        resolver: IssuerResolver | None = None,
        resource: str | None = None,
        realm: str | None = None,
        token_sources: TokenSources | Iterable[str] = (TokenSource.HEADER,),
        implies: Mapping[str, Iterable[str]] | None = None,
        catalog: ScopeCatalog | None = None,
        rules: Rules | Iterable[Rule] | None = None,
        challenge: ChallengeStyle | None = None,
        require_https: bool = False,
        store: Store | None = None,
        revocation: RevocationPolicy | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        on_decision: Callable[[Decision], None] | None = None,
        audit: AuditMode | str = "warn",
        refusal_log: RefusalLog | Literal["off"] = RefusalLog(),  # noqa: B008 - frozen
        token_cache: TokenCachePolicy | Literal["off"] = TokenCachePolicy(),  # noqa: B008 - frozen
        signature_backends: Iterable[SignatureBackend | str] = (),
        cors_preflight: Preflight | str = Preflight.GUARD,
        insecure_http_dangerously: Iterable[str] = (),
    ) -> None:
        check_arguments(
            issuers, resolver=resolver, catalog=catalog, challenge=challenge, require_https=require_https, store=store,
            revocation=revocation, transport=transport, clock=clock, on_decision=on_decision, realm=realm,
            implies=implies,
        )  # fmt: skip
        self._insecure = insecure_hosts(insecure_http_dangerously)
        if resource is not None:
            checked_url(resource, "resource", insecure=self._insecure)
        self.audit: AuditMode = AuditMode.of(audit)
        self.cors_preflight: Preflight = member(Preflight, cors_preflight, "cors_preflight")
        self.resource = resource
        self.sources: TokenSources = (
            token_sources if isinstance(token_sources, TokenSources) else TokenSources().only(token_sources)
        )
        # An iterator can be read only once, and several adapters read the rules.
        self.rules: Rules | None = None if rules is None else Rules.of(rules)
        self.style: ChallengeStyle = challenge or ChallengeStyle(
            realm=realm or resource or "api", body=Rules.of(self.rules).error_body
        )
        self._require_https = require_https
        self._minds_cleartext = True  # to refuse it, or to log it once
        self._reporter = Reporter(on_decision, checked_refusal_log(refusal_log))
        self.listens: bool = on_decision is not None
        self.revocation: RevocationPolicy = revocation or RevocationPolicy()
        self._beside: list[Callable[[], None]] = []
        self.catalog: ScopeCatalog = (catalog or ScopeCatalog()) | ScopeCatalog(implies=implies or {})
        self._backends = checked_backends(signature_backends)
        self._token_cache = None if token_cache == "off" else checked_policy(token_cache)
        self._begin(issuers, resolver, transport or HttpxTransport(), clock or SystemClock(), store)
        self.sources.check_senders()
        if self.sources.in_query:
            log.warning("access tokens are accepted in the query string of every route: URLs end up in logs")

    def _begin(
        self,
        issuers: Iterable[Issuer],
        resolver: IssuerResolver | None,
        transport: Transport,
        clock: Clock,
        store: Store | None,
    ) -> None:
        """Trust *issuers* and know nothing of them yet."""
        self.clock: Clock = clock
        self._wall, self._monotonic = clock.wall, clock.monotonic  # looked up once instead of with every request
        self.store = store
        self._trusts = build_trusted_issuers(
            issuers, resolver, self.catalog, self._backends, self.revocation, store, self._insecure
        )
        self._outside = Runtime(
            transport=transport,
            clock=clock,
            store=store,
            after_fork=(self._trusts.after_fork, self._after_fork),
        )
        self._memory = None if self._token_cache is None else TokenCache(self._token_cache)
        # The short way to a token that was verified before: it looks into Authorization, and nowhere else.
        may_recall = self.sources.methods == {TokenSource.HEADER} and self._trusts.headers == (None,)
        self._recalling = self._memory if may_recall else None
        self._looks_at_queries = self.sources.stray_query_token is StrayQueryToken.REFUSE
        self._most_bytes = self.sources.max_token_bytes + len(b"Bearer ")

    @classmethod
    def from_file(cls, path: str, **overrides: Any) -> Self:
        """The guard that the TOML file at *path* describes, its rules included; docs/settings.md lists the keys.

        *overrides* replace arguments of the constructor (``transport``, ``clock``, ...). Raises
        :class:`ConfigurationError` naming the key, its place and the nearest known one.
        """
        from scopeguard.config.file import read_settings

        issuers, arguments = read_settings(path)
        return cls(*issuers, **{**arguments, **overrides})

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers it was given; those of a resolver are not among them."""
        return tuple(trust.issuer for trust in self._trusts.all)

    def passes_preflights(self, own: Preflight | str | None = None) -> bool:
        """For adapters: whether preflights pass. *own*: the adapter's own setting, if it was given one."""
        chosen = self.cors_preflight if own is None else member(Preflight, own, "cors_preflight")
        return chosen is Preflight.PASS

    @property
    def finds_issuers(self) -> bool:
        """Whether a resolver finds further ones."""
        return self._trusts.resolved is not None

    def check(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        closed: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], bytes] | None = None,
        shown: Callable[[], Requirement | None] | None = None,
    ) -> Decision:
        """Judge the token of *request*, and whether it satisfies *requirement*.

        *optional*: a request without any credentials is :class:`Anonymous` instead of denied; a bad token, and
        credentials of another kind, are denied all the same (B-55). *closed*: no rule opens this route, so that a valid
        token is denied as well (H-07). *sources* replaces the guard's own for a route.
        *read_form* returns the body of the request, at most so many bytes; without it, no form is read. May wait for
        an authority; never raises for anything a request contains. *shown* returns what the challenge of a refusal is
        to name, where other code checks more than *requirement* afterwards.
        """
        chosen = self._sources(sources, can_read=read_form is not None)
        try:
            token = blocking.run(self._judge(request, chosen), self._outside, read_form)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and isinstance(error, MissingCredentials) and error.reason is Reason.NO_CREDENTIALS:
                return self._granted(ANONYMOUS, request)
            return self.refuse(error, requirement if shown is None else shown(), request=request)
        return self._authorized(token, requirement, request, closed=closed, shown=shown)

    async def acheck(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        closed: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], Awaitable[bytes]] | None = None,
        client_gone: Callable[[], Awaitable[None]] | None = None,
        shown: Callable[[], Requirement | None] | None = None,
    ) -> Decision:
        """:meth:`check` for asyncio and trio.

        *client_gone* returns when the client has disconnected. It is awaited while the request waits for an authority,
        and cancelled when the wait ends: a question that no other request waits for is then not asked.
        """
        chosen = self._sources(sources, can_read=read_form is not None)
        flow = self._judge(request, chosen)
        try:
            effect, token = start(flow)
            if effect is not None:
                from scopeguard.edge import aio

                token = await aio.run(flow, self._outside, read_form, effect, client_gone)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and isinstance(error, MissingCredentials) and error.reason is Reason.NO_CREDENTIALS:
                return self._granted(ANONYMOUS, request)
            return self.refuse(error, requirement if shown is None else shown(), request=request)
        return self._authorized(token, requirement, request, closed=closed, shown=shown)

    def recall(
        self,
        authorization: bytes,
        requirement: Requirement | None,
        query: bytes | str,
        in_clear_from: Sequence[Any] | None,
    ) -> AccessToken | None:
        """For adapters, as a way around :meth:`check`: the access token that the one ``Authorization`` field of a
        request holds, if the very same field was verified before and came again, nothing is to be fetched or read, and
        the token satisfies *requirement*.

        *in_clear_from*: the peer, address first, where the request was not encrypted. ``None`` says nothing about the
        request: judge it then. Not for routes with token sources of their own.
        """
        memory = self._recalling
        if (
            memory is None
            or len(authorization) > self._most_bytes
            or (query and self._looks_at_queries)
            or (in_clear_from and self._minds_cleartext and in_clear_from[0] not in _LOOPBACK)
        ):
            return None
        found = memory.lookup_field(authorization)
        # What follows is all that can have changed about it.
        if found is None or not found.since <= self._wall() < found.until:
            return None
        now, held, trusts = self._monotonic(), found.held, self._trusts
        if held is None or found.trust.ring.current is not held or now >= held.refresh_at:
            return None
        if trusts.revocations.changes != found.cleared or (trusts.shared and not trusts.is_caught_up(now)):
            return None
        token = found.access
        if requirement is not None and not requirement.allows(token.scopes):
            return None
        if self.listens:
            self._reporter.decided(Granted(token), None, now)
        return token

    def admits_until(self, token: AccessToken) -> float | None:
        """When requests with *token* begin to be refused for its age: its expiry and the leeway of its issuer later, in
        seconds since the epoch. ``None`` where it does not expire."""
        if token.expires_at is None:
            return None
        return token.expires_at + self._trusts.leeway(token.issuer, self._monotonic())

    def permits(self, token: AccessToken | None, requirement: Requirement | None) -> bool:
        """For adapters, as a way around :meth:`authorize`: whether *token* satisfies *requirement*.

        ``False`` is no decision, and nobody is told: let :meth:`authorize` decide then.
        """
        if token is None or (requirement is not None and not requirement.allows(token.scopes)):
            return False
        if self.listens:
            self._reporter.decided(Granted(token), None, self._monotonic(), again=True)
        return True

    @overload
    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        request: RequestView | None = None,
    ) -> Granted | Denied | Unavailable: ...

    @overload
    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool = ...,
        closed: bool,
        request: RequestView | None = None,
    ) -> Decision: ...

    @overload
    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool,
        request: RequestView | None = None,
    ) -> Decision: ...

    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool = False,
        closed: bool = False,
        request: RequestView | None = None,
    ) -> Decision:
        """Whether *token*, judged before, satisfies *requirement*; ``None`` is an anonymous caller, who satisfies none
        and passes where authentication is *optional*. No I/O in either colour. *request* is for logs and listeners, and
        says whether it is a HEAD."""
        if token is None and optional:
            return self._granted(ANONYMOUS, request, again=True)
        return self._authorized(token, requirement, request, closed=closed, again=True)

    def _authorized(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        request: RequestView | None,
        *,
        closed: bool,
        again: bool = False,
        shown: Callable[[], Requirement | None] | None = None,
    ) -> Decision:
        if token is None:
            return self.refuse(MissingCredentials(Reason.NO_CREDENTIALS), requirement, request=request)
        if closed:
            return self.refuse(Forbidden(Reason.NO_RULE), request=request)
        if requirement is None or requirement.allows(token.scopes):
            if request is None:
                return self._granted(Granted(token), None, again=again)
            return self._granted(Granted(token, method=request.method, path=request.path), request, again=again)
        if shown is not None:
            requirement = shown() or requirement
        denial = InsufficientScope(
            requirement.challenge_scopes,
            client_id=token.client_id,
            token=token.fingerprint,
            scope_claim="absent" if token.granted_scopes is None else "present",
            granted=" ".join(token.granted_scopes or ()),
        )
        return self.refuse(denial, requirement, request=request)

    def _granted(self, decision: Decision, request: RequestView | None, *, again: bool = False) -> Decision:
        if self.listens:
            self._reporter.decided(decision, request, self._monotonic(), again=again)
        return decision

    def refuse(
        self,
        error: AccessDenied | AuthorityUnavailable,
        requirement: Requirement | None = None,
        *,
        request: RequestView | None = None,
    ) -> Denied | Unavailable:
        """*error* as a decision with its response; logs the reason, and never the token."""
        # The traceback's frames hold the token; whoever keeps the decision must not keep them.
        error.__traceback__ = None
        error.__context__ = error.__cause__ = None
        head = request is not None and request.method == "HEAD"
        route = "" if request is None else f"{printable(request.method, 20)} {printable(request.path)}: "
        self._reporter.log_refusal(error, route, self._monotonic())
        asked = {} if request is None else {"method": request.method, "path": request.path}
        refusal: Denied | Unavailable
        if isinstance(error, AuthorityUnavailable):
            refusal = Unavailable(error, write_outage(error, self.style, head=head), **asked)
        else:
            scopes = () if requirement is None else requirement.challenge_scopes
            refusal = Denied(error, write_denial(error, self.style, scopes=scopes, head=head), **asked)
        if refusal.response.body_failure is not None:
            log.error("%sa problem document was sent: %s", route, refusal.response.body_failure)
        if self.listens:
            self._reporter.decided(refusal, request, self._monotonic())
        return refusal

    def report(self, method: str, path: str, route: str | None) -> Report | None:
        """For adapters, where somebody ``listens``: collect what is decided about the request that is served from now
        on into one report. ``None`` where a layer around does so already. *route*: the template of its rule."""
        if self.current_report() is not None:
            return None
        return Report(self._reporter, method, path, route, self._monotonic)

    def checked_rules(self, rules: Rules) -> Rules:
        """For adapters: *rules*, if their token sources can work with the settings of this guard."""
        for rule in rules.all:
            if rule.sources is not None:
                self.sources.only(rule.sources).check_senders()
        return rules

    def current_report(self) -> Report | None:
        """For adapters: what :meth:`report` has begun for the request that is being served."""
        return self._reporter.open_report()

    def _judge(self, request: RequestView, sources: TokenSources) -> Flow[AccessToken]:
        # In the clear, and from another machine (B-56).
        exposed = not request.secure and request.client is not None and not is_loopback(request.client)
        return authenticate(
            request,
            trusts=self._trusts,
            sources=sources,
            clock=self.clock,
            token_cache=self._memory,
            exposed=self._token_was_exposed if exposed else None,
        )

    def _token_was_exposed(self) -> None:
        if self._require_https:
            raise InvalidRequest(Reason.HTTPS_REQUIRED)
        if self._minds_cleartext:
            self._minds_cleartext = False
            log.warning("a token came by cleartext http; put TLS in front, and set require_https")

    def _sources(self, sources: TokenSources | None, *, can_read: bool) -> TokenSources:
        chosen = self.sources if sources is None else sources
        if chosen.in_form and not can_read:
            left = chosen.methods - {TokenSource.FORM}
            if not left:
                raise ConfigurationError("token_sources: only the form is enabled, and this caller cannot read forms")
            return chosen.only(left)
        return chosen

    def revoke(
        self,
        *,
        token: str | None = None,
        jti: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        issuer: str | None = None,
        at: float | None = None,
    ) -> None:
        """Refuse from now on: one *token*, the token called *jti*, or whatever of a *subject* or of a *client_id* was
        issued until now. Exactly one of the four.

        The ``iat`` of a token is by the clock of its issuer, which may be ahead by the issuer's ``leeway``. So tokens
        are refused up to an ``iat`` of now plus that; what is issued in the ``leeway`` seconds after the call is
        refused as well. With *at* (seconds since the epoch), tokens with an ``iat`` of *at* or before are refused, and
        nothing is added: give it where the time is known by the clock of the issuer.

        *issuer*: whose; needed for all but *token* where several issuers are trusted, or a resolver finds them. With
        a store, other processes follow within ``RevocationPolicy.max_lag``. Nothing is asked of the authorization
        server, and nothing told.

        Raises :class:`ConfigurationError` for a wrong combination, and :class:`AuthorityUnavailable` when the store
        does not take it, then it holds in this process only; or when the resolver fails, then it holds nowhere.
        """
        named = {
            Revoked.TOKEN: token,
            Revoked.JTI: jti,
            Revoked.SUBJECT: subject,
            Revoked.CLIENT: client_id,
        }
        chosen = [(kind, value) for kind, value in named.items() if value is not None]
        if len(chosen) != 1:
            raise ConfigurationError("revoke: name exactly one of token, jti, subject and client_id")
        kind, value = chosen[0]
        trust = self._revoking(value if kind is Revoked.TOKEN else None, issuer)
        value = _lasting(value) if kind is Revoked.TOKEN else value
        self.record(kind, trust.issuer.url, value, at, leeway=trust.issuer.leeway)

    def record(self, kind: Revoked, issuer: str, value: str, at: float | None = None, *, leeway: float = 0.0) -> None:
        """For endpoints beside the guard: what :meth:`revoke` does, without asking whether *issuer* is known here; and
        ``Revoked.ANSWERS``, after which introspection is asked again about the subject *value* (about all: ``""``).

        *leeway*: how far the clock of *issuer* may be ahead, in seconds.
        """
        now = self.clock.wall()
        at = now + leeway if at is None else at
        # The last token that is concerned was issued at *at*, and is accepted for the leeway beyond its end.
        until = max(now + leeway, at) + self.revocation.retention + leeway
        entry = Revocation(kind=kind, digest=digest_of(kind, issuer, value), at=at, until=until)
        self._trusts.revocations.add(entry, now)
        log.info("%s: one %s of %s", "asked again" if kind is Revoked.ANSWERS else "revoked", kind.value, issuer)
        if self.store is not None:
            self.store.append(entry.to_bytes(), seconds=until - now)

    def _revoking(self, token: str | None, issuer: str | None) -> TrustedIssuer:
        if token is not None:
            for header in self._trusts.headers:
                credential = Credential(token=token, source=TokenSource.HEADER, header=header)
                try:
                    return blocking.run(route(credential, self._trusts, self.clock), self._outside, None)
                except AccessDenied:
                    pass
            raise ConfigurationError("revoke: the token is of no issuer that is trusted here")
        if issuer is None:
            if len(self._trusts.all) != 1 or self._trusts.resolved is not None:
                raise ConfigurationError("revoke: several issuers are trusted; say whose with issuer")
            return self._trusts.all[0]
        for header in self._trusts.headers:
            trust = self._trusts.by_name(issuer, header)
            if trust is not None:
                return trust
        trust = blocking.run(resolve_issuer(issuer, self._trusts, self.clock), self._outside, None)
        if trust is not None:
            return trust
        raise ConfigurationError(f"revoke: {issuer!r} is not an issuer that is trusted here")

    async def arevoke(self, **what: Any) -> None:
        """:meth:`revoke` for asyncio and trio."""
        from scopeguard.edge import aio

        await aio.in_thread(lambda: self.revoke(**what))

    def configured(self, issuer: str | None = None) -> TrustedIssuer:
        """For endpoints beside the guard: what it knows of *issuer*, or of the only one it was given."""
        found = [trust for trust in self._trusts.all if issuer in (None, trust.issuer.url)]
        if len(found) == 1 or (found and issuer is not None):
            return found[0]
        raise ConfigurationError(f"issuer: name one that was given to the guard, not {issuer!r}")

    def trust_beside(self, issuer: Issuer) -> TrustedIssuer:
        """For endpoints beside the guard: *issuer* with a key ring of its own; its access tokens are not accepted."""
        trust = build_trusted_issuer(issuer, ScopeCatalog(), self._backends)
        self.call_after_fork(trust.after_fork)
        return trust

    def call_after_fork(self, callback: Callable[[], None]) -> None:
        """For endpoints beside the guard: *callback* renews the locks of what it has in a child process."""
        self._beside.append(callback)

    def _after_fork(self) -> None:
        if self._memory is not None:
            self._memory.clear()
        self._reporter.after_fork()
        for callback in self._beside:
            callback()

    def perform(self, flow: Flow[T]) -> T:
        """For endpoints beside the guard: the value of *flow*, by this guard's transport and store."""
        return blocking.run(flow, self._outside, None)

    async def aperform(self, flow: Flow[T]) -> T:
        """:meth:`perform` for asyncio and trio."""
        from scopeguard.edge import aio

        return await aio.run(flow, self._outside, None)

    def prepare(self) -> None:
        """Get ready to ask authorities, without asking one. For servers, before they take requests: the first exchange
        would otherwise hold the event loop up for the time that it takes to import an HTTP client."""
        prepare = getattr(self._outside.transport, "prepare", None)
        if prepare is not None:
            prepare()

    def warm(self) -> None:
        """Fetch the keys of every configured issuer now, instead of at the first request.

        Raises :class:`AuthorityUnavailable` for the first that did not answer, after trying all.
        """
        failures: list[AuthorityUnavailable] = []
        for trust in self._trusts.all:
            try:
                blocking.run(warm(trust, self.clock), self._outside, None)
            except AuthorityUnavailable as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def awarm(self) -> None:
        """:meth:`warm` for asyncio and trio."""
        from scopeguard.edge import aio

        failures: list[AuthorityUnavailable] = []
        for trust in self._trusts.all:
            try:
                await aio.run(warm(trust, self.clock), self._outside, None)
            except AuthorityUnavailable as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def take_over(self, previous: Guard) -> None:
        """For servers that change their configuration as they go: be as warm as *previous*, whose place this guard is
        to take.

        Issuers with equal settings go on with their keys and answers, and revocations go on to hold; the keys of all
        other issuers are fetched, and the shared log of revocations is read. Raises :class:`AuthorityUnavailable` when
        that fails: keep *previous* and call this again later.
        """
        for trust in self._trusts.take_over(previous._trusts):
            blocking.run(warm(trust, self.clock), self._outside, None)
        if self.store is not None and not self.revocation.fail_open_dangerously:
            blocking.run(sync(self._trusts, self.clock), self._outside, None)

    def stop_waiting(self) -> None:
        """For servers that are told to stop: give exchanges with authorities a moment to end, and answer 503 to every
        request that still waits for one. Takes less than a second. The guard may be used again."""
        self._outside.end()

    def close(self) -> None:
        """Close connections, within a second, and answer 503 to requests that wait for an authority (see
        :meth:`stop_waiting`). The guard may be used again; it opens what it needs."""
        self._outside.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        from scopeguard.edge import aio

        await aio.close(self._outside)

    def __repr__(self) -> str:
        return f"Guard({', '.join(repr(issuer.url) for issuer in self.issuers)})"


def _lasting(token: str) -> str:
    return stable_part(Credential(token=token, source=TokenSource.HEADER))
