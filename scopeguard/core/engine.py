"""The implementation of :class:`~scopeguard.guard.Guard`: checks requests, writes refusals, keeps the issuers' state.

Users hold the guard. Adapters and endpoints get the engine with :func:`scopeguard.guard.engine_of`, once, when they are
constructed, and call it for each request.

Longer than 400 lines because the sync and async versions of each operation stand next to each other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import member
from scopeguard.config.cors import Preflight
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.hosts import is_loopback
from scopeguard.config.issuer import Issuer
from scopeguard.config.policy import Policy
from scopeguard.config.token_sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.core.arguments import Settings
from scopeguard.core.cleartext import CleartextTokens
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Listener, Report, Reporter, Unavailable
from scopeguard.core.named_files import check_named_files
from scopeguard.core.wiring import build_context, build_decision_point, build_issuer_record
from scopeguard.edge import sync as blocking
from scopeguard.edge.runtime import Runtime, Transport
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientScope,
    InvalidProof,
    InvalidToken,
    MissingCredentials,
    PolicyDenied,
)
from scopeguard.flow.authenticate import authenticate, validate
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Clock, Flow, Store, start
from scopeguard.flow.immediate import verify_at_once
from scopeguard.flow.observation import CredentialKind, Observation, TokenCheck
from scopeguard.flow.policy import decide
from scopeguard.flow.renewal import renew
from scopeguard.flow.revocation import sync
from scopeguard.inbound_tokens import InboundToken, hand_over
from scopeguard.reasons import Reason
from scopeguard.request import Headers, RequestView, describe_request
from scopeguard.rules import Rule, Rules
from scopeguard.rules.nearest import describe_nearest
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import write_denial, write_outage
from scopeguard.spec.sender_constraint import thumbprint_of
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.tokens import ANONYMOUS, AccessToken, Anonymous

T = TypeVar("T")

if TYPE_CHECKING:
    from scopeguard.config.resolver import IssuerResolver
    from scopeguard.core.resource_metadata import ResourceMetadata

log: Final = logging.getLogger("scopeguard")

_MOST_KNOWN_RULES: Final = 8


class Engine:
    """Checks the access tokens of one API.

    Safe to share between threads and event loops. Construction opens nothing and starts nothing.
    """

    context: Context
    """The issuers, the clock and the token cache."""
    runtime: Runtime
    """Performs the effects that a flow yields."""
    metadata: ResourceMetadata | None
    """The metadata of the resource; ``None`` if there is none to serve."""
    store: Store | None
    vary: str
    """The request fields with credentials, for ``Vary``."""
    other_fields: tuple[str, ...]
    """The request fields with credentials beside ``Authorization``, in lower case."""
    key_field: bytes | None
    """The field for API keys, in lower case. Adapters must not call :meth:`recall` for a request with it."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.settings: Settings = settings
        self.sources: TokenSources = settings.sources
        self._sources_by_methods: dict[frozenset[TokenSource], TokenSources] = {}
        self.reporter: Reporter = reporter
        self.keeps_inbound: bool = settings.keep_token_for_exchange or settings.forward_token_dangerously
        """True if the text of a token is held for its request. Only then does an adapter need :func:`to_serve`."""
        self.listens: bool = bool(reporter.listeners)
        """True if there is a listener for decisions. Only then does an adapter need :meth:`begin_report`."""
        self._cleartext = CleartextTokens(require_https=settings.require_https, certificates=settings.mutual_tls)
        self._rules: tuple[Rules, ...] = ()
        # Called after each revocation in this process, in the thread that revokes.
        self.revocation_listeners: set[Callable[[], None]] = set()

    def connect(
        self,
        issuers: Iterable[Issuer],
        resolver: IssuerResolver | None,
        transport: Transport,
        clock: Clock,
        store: Store | None,
    ) -> None:
        """Trust *issuers*, with empty caches. Opens no connection yet."""
        self.store = store
        keys = self.settings.api_keys
        self.key_field = None if keys is None else keys.header_field.encode("ascii")
        issuers = tuple(issuers)
        check_named_files(issuers, keys)
        self.context = build_context(self.settings, issuers, resolver, clock, shared=store is not None)
        # Avoids attribute look-ups in every request.
        self._wall, self._monotonic = clock.wall, clock.monotonic
        self._revocations, self._shared = self.issuers.revocations, self.issuers.shared
        named = [] if keys is None else [keys.header]
        if self.sources.trusted_proxies:  # no route reads the forwarded field without them
            named.append("X-Forwarded-Authorization")
        named += [header for header in self.issuers.headers if header is not None]
        self.other_fields = tuple(name.lower() for name in named)
        self.vary = ", ".join(("Authorization", *named))
        self.runtime = Runtime(transport=transport, clock=clock, store=store)
        resource = self.settings.resource
        self.metadata = None
        if resource is not None and resource.serve_metadata:
            # A trust domain of SPIFFE is not an authorization server: no client can get a token there.
            urls = [record.issuer.url for record in self.issuers.all if record.issuer.trust_domain is None]
            from scopeguard.core.resource_metadata import ResourceMetadata

            dpop = self.settings.dpop
            self.metadata = ResourceMetadata(
                resource, urls, self.sources.methods, self.settings.rules, dpop,
                binds_certificates=self.settings.mutual_tls is not None,
            )  # fmt: skip
        # recall() reads the Authorization field only, so it cannot serve a guard that reads tokens elsewhere. Adapters
        # do not call it for a request with an API key.
        tokens = self.sources.methods - {TokenSource.API_KEY}
        reads_one_field = tokens == {TokenSource.HEADER} and self.issuers.headers == (None,)
        # recall() knows bearer tokens only, so it cannot serve a guard that takes none.
        takes_bearer = self.settings.dpop is None or self.settings.dpop.mode is not DPoPMode.REQUIRED
        self._recall_from = self.context.token_cache if reads_one_field and takes_bearer else None
        self._checks_queries = self.sources.stray_query_token is StrayQueryToken.REFUSE
        self._max_field_bytes = self.sources.max_token_bytes + len(b"Bearer ")

    @property
    def checks_proofs(self) -> bool:
        """Whether requests may carry proofs of possession, so that adapters describe requests in more detail."""
        return self.context.possession is not None

    @property
    def adds_proof_headers(self) -> bool:
        """Whether responses may carry a nonce for the next proof, or ``Vary`` for the field of a certificate."""
        possession = self.context.possession
        if possession is None:
            return False
        return possession.sealer is not None or (
            possession.certificates is not None and possession.certificates.header is not None
        )

    @property
    def issuers(self) -> Issuers:
        """The run-time state of each trusted issuer: keys, introspection answers, outages, revocations."""
        return self.context.issuers

    @property
    def clock(self) -> Clock:
        """The clock that all decisions use."""
        return self.context.clock

    def sources_for(self, methods: frozenset[TokenSource] | None) -> TokenSources:
        """Return the token sources of a route with *methods* of its own; those of the guard for ``None``.

        They are kept, because checking them takes longer than the rest of a request. Rules and decorators name few.
        """
        if methods is None:
            return self.sources
        found = self._sources_by_methods.get(methods)
        if found is None:
            found = self._sources_by_methods[methods] = self.sources.with_methods(methods)
        return found

    # -- requests

    def check(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        closed: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], bytes] | None = None,
        challenge_requirement: Callable[[], Requirement | None] | None = None,
        on_credential: Callable[[Credential], None] | None = None,
        policies: tuple[Policy, ...] = (),
        dpop: DPoPMode | None = None,
    ) -> Decision:
        """See :meth:`Guard.check <scopeguard.guard.Guard.check>`.

        *policies* decide about a request whose token satisfies *requirement*.

        *challenge_requirement* returns the requirement that the challenge of a refusal names. Adapters give it if code
        inside the app requires more than *requirement*. *dpop*: whether this route needs a proof of possession, instead
        of the mode of the policy. *on_credential* is called with the token when it is found, before it is validated.
        """
        observation = Observation(self._monotonic()) if self.listens else None
        flow = self._authenticate(request, sources, dpop, observation, on_credential, reads_form=read_form is not None)
        try:
            token = blocking.run(flow, self.runtime, read_form)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and _is_anonymous(error):
                return self.admit_anonymous(request, observation)
            wanted = requirement if challenge_requirement is None else challenge_requirement()
            return self.refuse(error, wanted, request=request, observation=observation)
        refusal = self._compare(
            token, requirement, request, observation, closed=closed, challenge_requirement=challenge_requirement
        )
        if refusal is None and policies:
            refusal = self._apply(policies, token, request, observation)
        return self._grant(token, request, observation) if refusal is None else refusal

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
        challenge_requirement: Callable[[], Requirement | None] | None = None,
        find_requirement: Callable[[], Awaitable[Requirement | None]] | None = None,
        on_credential: Callable[[Credential], None] | None = None,
        policies: tuple[Policy, ...] = (),
        dpop: DPoPMode | None = None,
    ) -> Decision:
        """:meth:`check` for asyncio and trio. For *client_gone* see :meth:`scopeguard.guard.Guard.acheck`.

        *on_credential* is called with the token when it is found, before it is validated.

        *find_requirement* is awaited if the token or its proof is missing or invalid, for a requirement that is known
        only after the body was read. It returns what the challenge names, or raises :class:`AccessDenied` to refuse
        otherwise.
        """
        observation = Observation(self._monotonic()) if self.listens else None
        flow = self._authenticate(request, sources, dpop, observation, on_credential, reads_form=read_form is not None)
        token: Any  # an AccessToken, unless there is an effect first
        try:
            effect, token = start(flow)
            if effect is not None:
                from scopeguard.edge import aio

                token = await aio.run(flow, self.runtime, read_form, effect, client_gone)
        except (AccessDenied, AuthorityUnavailable) as error:
            if optional and _is_anonymous(error):
                return self.admit_anonymous(request, observation)
            if find_requirement is not None and isinstance(error, MissingCredentials | InvalidToken | InvalidProof):
                try:
                    wanted = await find_requirement()
                except AccessDenied as other:
                    return self.refuse(other, request=request, observation=observation)
            else:
                wanted = requirement if challenge_requirement is None else challenge_requirement()
            return self.refuse(error, wanted, request=request, observation=observation)
        refusal = self._compare(
            token, requirement, request, observation, closed=closed, challenge_requirement=challenge_requirement
        )
        if refusal is None and policies:
            refusal = await self._aapply(policies, token, request, client_gone, observation)
        return self._grant(token, request, observation) if refusal is None else refusal

    def recall(
        self,
        authorization: bytes,
        requirement: Requirement | None,
        query: bytes | str,
        cleartext_peer: Sequence[Any] | None,
    ) -> AccessToken | None:
        """Return the access token of a request that needs no effect, or ``None`` if the request needs :meth:`check`.

        *authorization* is the only ``Authorization`` field of the request. The token is returned if it was verified
        before or :func:`~scopeguard.flow.immediate.verify_at_once` verifies it, nothing has to be fetched or read, and
        the token satisfies *requirement*. *cleartext_peer* is the peer, address first, of a request that was not
        encrypted. ``None`` is not a decision about the request. Do not call it for routes with token sources of their
        own.
        """
        cache = self._recall_from
        if (
            cache is None
            or len(authorization) > self._max_field_bytes
            or (query and self._checks_queries)
            or (cleartext_peer and self._cleartext.watches and cleartext_peer[0] not in self._cleartext.quiet_peers)
        ):
            return None
        if not authorization.startswith(b"Bearer "):
            return None
        text = authorization[7:]
        digest = sha256(text).digest()
        wall, now = self._wall(), self._monotonic()
        found = cache.recall(digest)
        if found is None:
            new = verify_at_once(text, digest, self.context, cache, wall)
            if new is None:
                return None
            token = new
        else:
            # Everything that can have changed since the token was verified: its age, the keys, revocations.
            if not found.instant or not found.since <= wall < found.until:
                return None
            held = found.held
            if held is None or found.record.ring.current is not held or now >= held.refresh_at:
                return None
            if self._revocations.changes != found.cleared or (self._shared and not self.issuers.is_caught_up(now)):
                return None
            token = found.access
        if requirement is not None and not requirement.allows(token.scopes):
            return None
        if self.listens:
            observation = Observation(None)
            observation.credential = CredentialKind.TOKEN
            observation.note(token.issuer, TokenCheck.VERIFIED if found is None else TokenCheck.CACHED)
            self.reporter.report(Granted(token), None, now, observation=observation)
        if self.keeps_inbound:
            self._hand_over(token, text.decode("ascii"))
        return token

    def has_other_field(self, headers: Headers) -> bool:
        """Return whether *headers* have a field with a credential beside ``Authorization``.

        Then no shared cache may store the response. RFC 9111 section 3.5 forbids shared caches to store responses to
        requests with ``Authorization``. It does not cover other fields.
        """
        return any(headers.get_all(name) for name in self.other_fields)

    def permits(self, token: AccessToken | None, requirement: Requirement | None) -> bool:
        """Return whether *token*, verified before, satisfies *requirement*. A fast path before :meth:`authorize`.

        ``False`` is not a decision and is not reported: call :meth:`authorize` then.
        """
        if token is None or (requirement is not None and not requirement.allows(token.scopes)):
            return False
        if self.listens:
            self.reporter.report(Granted(token), None, self._monotonic(), again=True)
        return True

    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        closed: bool = False,
        request: RequestView | None = None,
    ) -> Granted | Denied | Unavailable:
        """Decide whether *token*, verified before, satisfies *requirement*. Without a token, deny. Does no I/O.

        *closed*: no rule opens the route, so every token is denied. *request* is for logs and listeners.
        """
        if token is None:
            return self.refuse(MissingCredentials(Reason.NO_CREDENTIALS), requirement, request=request)
        refusal = self._compare(token, requirement, request, None, closed=closed)
        return self._grant(token, request, again=True) if refusal is None else refusal

    def authorize_again(
        self,
        token: AccessToken,
        requirement: Requirement | None,
        policies: tuple[Policy, ...],
        request: RequestView,
        *,
        closed: bool,
    ) -> Granted | Denied | Unavailable:
        """:meth:`authorize` for a route with *policies*, which may block."""
        observation = Observation(self._monotonic()) if self.listens else None
        refusal = self._compare(token, requirement, request, observation, closed=closed)
        if refusal is None and policies:
            refusal = self._apply(policies, token, request, observation)
        return self._grant(token, request, observation, again=True) if refusal is None else refusal

    def _compare(
        self,
        token: AccessToken,
        requirement: Requirement | None,
        request: RequestView | None,
        observation: Observation | None,
        *,
        closed: bool,
        challenge_requirement: Callable[[], Requirement | None] | None = None,
    ) -> Denied | Unavailable | None:
        """Return the refusal of a *token* that does not satisfy *requirement*, or ``None``."""
        if closed:
            known = {} if request is None else {"rule": partial(self._describe_nearest_rule, request)}
            no_rule = Forbidden(Reason.NO_RULE, **known)
            return self.refuse(no_rule, request=request, observation=observation, token=token)
        if requirement is None or requirement.allows(token.scopes):
            return None
        leeway = self.issuers.leeway(token.issuer, self._monotonic())
        denial = requirement.refuse(token, self._wall(), leeway)
        if denial is None:
            return None
        if challenge_requirement is not None and isinstance(denial, InsufficientScope):
            # The challenge names what code inside the app requires as well.
            requirement = challenge_requirement() or requirement
            denial.scopes = requirement.challenge_scopes
            denial.note(needed=" ".join(denial.scopes))
        denial.is_dpop = token.sender_constrained and thumbprint_of(token.claims) is not None
        keys = self.settings.api_keys
        denial.is_api_key = keys is not None and token.issuer == keys.issuer
        return self.refuse(denial, requirement, request=request, observation=observation, token=token)

    def _describe_nearest_rule(self, request: RequestView) -> dict[str, str]:
        return describe_nearest(self._rules, request.method, request.path)

    def _grant(
        self,
        token: AccessToken,
        request: RequestView | None,
        observation: Observation | None = None,
        *,
        again: bool = False,
    ) -> Granted:
        granted = Granted(token)
        if self.listens:
            self.reporter.report(granted, request, self._monotonic(), observation=observation, again=again)
        return granted

    def _apply(
        self,
        policies: tuple[Policy, ...],
        token: AccessToken,
        request: RequestView,
        observation: Observation | None,
    ) -> Denied | Unavailable | None:
        """Return the refusal by one of *policies*, or ``None`` if all allow the request."""
        try:
            if blocking.run(decide(policies, token, request, self.context), self.runtime, None):
                return None
        except (AccessDenied, AuthorityUnavailable) as error:
            return self._refuse_by_policy(error, token, request, observation)
        return self._refuse_by_policy(PolicyDenied(), token, request, observation)

    async def _aapply(
        self,
        policies: tuple[Policy, ...],
        token: AccessToken,
        request: RequestView,
        client_gone: Callable[[], Awaitable[None]] | None,
        observation: Observation | None,
    ) -> Denied | Unavailable | None:
        """:meth:`_apply` for asyncio and trio."""
        from scopeguard.edge import aio

        flow = decide(policies, token, request, self.context)
        try:
            if await aio.run(flow, self.runtime, None, None, client_gone):
                return None
        except (AccessDenied, AuthorityUnavailable) as error:
            return self._refuse_by_policy(error, token, request, observation)
        return self._refuse_by_policy(PolicyDenied(), token, request, observation)

    def _refuse_by_policy(
        self,
        error: AccessDenied | AuthorityUnavailable,
        token: AccessToken,
        request: RequestView,
        observation: Observation | None,
    ) -> Denied | Unavailable:
        error.note(token=token.fingerprint)
        return self.refuse(error, request=request, observation=observation, token=token)

    def admit_anonymous(
        self, request: RequestView | None, observation: Observation | None = None, *, again: bool = False
    ) -> Anonymous:
        """Report that a request without credentials is admitted. *again*: an outer layer has reported it already."""
        if self.listens:
            self.reporter.report(ANONYMOUS, request, self._monotonic(), observation=observation, again=again)
        return ANONYMOUS

    def refuse(
        self,
        error: AccessDenied | AuthorityUnavailable,
        requirement: Requirement | None = None,
        *,
        request: RequestView | None = None,
        observation: Observation | None = None,
        token: AccessToken | None = None,
    ) -> Denied | Unavailable:
        """Turn *error* into a decision with a response. Logs the reason; never logs the token.

        *observation* and *token*, which was verified, are for the listeners.
        """
        # The frames of the traceback hold the token. A listener that keeps the decision must not keep the token.
        error.__traceback__ = None
        error.__context__ = error.__cause__ = None
        if self.keeps_inbound:
            hand_over(None)
        style = self.settings.style
        head = request is not None and request.method == "HEAD"
        refusal: Denied | Unavailable
        if isinstance(error, AuthorityUnavailable):
            refusal = Unavailable(error, write_outage(error, style, head=head))
        else:
            scopes = () if requirement is None else requirement.challenge_scopes
            refusal = Denied(error, write_denial(error, style, scopes=scopes, head=head))
        self.reporter.log_refusal(refusal, request, self._monotonic())
        if refusal.response.body_failure is not None and self.may_log("body_failure"):
            log.error("%sa problem document was sent: %s", describe_request(request), refusal.response.body_failure)
        if self.listens:
            self.reporter.report(refusal, request, self._monotonic(), observation=observation, token=token)
        return refusal

    def may_log(self, kind: str) -> bool:
        """Return whether another line of *kind*, which any caller may cause, may be logged. Use few kinds."""
        return self.reporter.may_log(kind, self._monotonic())

    def add_listener(self, listener: Listener) -> None:
        """Call *listener* with the event of each request from now on."""
        self.reporter.listeners += (listener,)
        self.listens = True

    def begin_report(self, adapter: Adapter, method: str | None, path: str | None, route: str | None) -> Report | None:
        """Begin one report for all decisions about the current request.

        Returns ``None`` if an outer layer has begun it; the event then names *adapter*. *route*: the path template of
        the matching rule.
        """
        if self.note_adapter(adapter):
            return None
        return Report(self.reporter, adapter, method, path, route, self._monotonic)

    def note_adapter(self, adapter: Adapter) -> bool:
        """Note that *adapter* decides about the current request. Return false if no report has begun for it."""
        report = self.current_report()
        if report is not None:
            report.adapter = adapter
        return report is not None

    def current_report(self) -> Report | None:
        """Return the report of the current request, if :meth:`begin_report` has begun one."""
        return self.reporter.current_report()

    def admits_until(self, token: AccessToken) -> float | None:
        """Return when *token* expires, leeway included, in seconds since the epoch. ``None`` if it does not expire."""
        if token.expires_at is None:
            return None
        return token.expires_at + self.issuers.leeway(token.issuer, self._monotonic())

    def _authenticate(
        self,
        request: RequestView,
        sources: TokenSources | None,
        dpop: DPoPMode | None,
        observation: Observation | None,
        on_credential: Callable[[Credential], None] | None,
        *,
        reads_form: bool,
    ) -> Flow[AccessToken]:
        sources = sources or self.sources
        if sources.in_form and not reads_form:
            sources = _without_form(sources)
        # RFC 6750 section 5.3: bearer tokens must not be sent in the clear. Loopback never leaves the machine.
        if not request.secure and request.client is not None and not is_loopback(request.client):
            on_credential = self._cleartext.check_before(on_credential, request, sources)
        on_access = self._hand_over if self.keeps_inbound else None
        keys = self.settings.api_keys
        if keys is None:
            if sources.in_api_key:
                sources.check_senders()  # raises ConfigurationError, because the guard has no keys
        elif sources.api_keys is None:  # the caller constructed them without the keys of the guard
            sources = sources.with_api_keys(keys)
        flow = authenticate(
            request,
            sources,
            self.context,
            on_credential=on_credential,
            on_access=on_access,
            dpop=dpop,
            observation=observation,
        )
        if keys is None or not sources.only_api_keys:
            return flow
        from scopeguard.flow.api_key import refuse_with_key_challenge

        return refuse_with_key_challenge(flow, keys.header)

    def _hand_over(self, token: AccessToken, text: str) -> None:
        hand_over(InboundToken(token, text, forwardable=self.settings.forward_token_dangerously))

    def without_effects(self) -> Engine:
        """Return an engine with the same issuers and caches, whose decisions leave no trace outside the caches.

        It logs no refusal, reports no decision, holds no token for its request, and marks no proof of possession as
        used.
        """
        engine = copy(self)
        engine.reporter = Reporter(None, None)
        engine.listens = engine.keeps_inbound = False
        engine._cleartext = self._cleartext.without_logging()
        possession = self.context.possession
        if possession is not None:
            memory = type(possession.memory)(possession.memory.limits)
            engine.context = replace(self.context, possession=replace(possession, memory=memory, shared=False))
        return engine

    # -- connections in progress

    async def arevalidate(self, credential: Credential) -> AccessToken:
        """Validate the token of a connection in progress as for a new request. Nothing is logged or reported.

        Raises :class:`AccessDenied` if the token is no longer accepted, and :class:`AuthorityUnavailable` in an outage.
        """
        return await self.aperform(validate(credential, self.context))

    async def aread_revocations(self) -> None:
        """Read the shared log of revocations. Raises :class:`AuthorityUnavailable` if the store does not answer."""
        await self.aperform(sync(self.context))

    async def arenew(
        self,
        token: str,
        credential: Credential,
        held: AccessToken,
        requirement: Requirement | None,
        request: RequestView,
        policies: tuple[Policy, ...] = (),
    ) -> Granted | Denied | Unavailable:
        """Decide whether *token* may replace *held*, the token of *credential*, in a connection in progress.

        It must belong to the same holder (:mod:`scopeguard.flow.renewal`) and satisfy *requirement*. Then *policies*
        decide.
        """
        observation = Observation(self._monotonic()) if self.listens else None
        if observation is not None:
            is_key = credential.source is TokenSource.API_KEY
            observation.credential = CredentialKind.API_KEY if is_key else CredentialKind.TOKEN
        try:
            access = await self.aperform(renew(token, credential, held, self.sources.max_token_bytes, self.context))
        except (AccessDenied, AuthorityUnavailable) as error:
            return self.refuse(error, requirement, request=request, observation=observation)
        refusal = self._compare(access, requirement, request, observation, closed=False)
        if refusal is None and policies:
            refusal = await self._aapply(policies, access, request, None, observation)
        return self._grant(access, request, observation, again=True) if refusal is None else refusal

    # -- settings that an adapter may override

    def check_rules(self, rules: Rules, *, blocks: bool = False) -> Rules:
        """Return *rules*, after the state for their policy decision points is prepared. The log refers to them.

        Raises :class:`ConfigurationError` if their token sources do not work with the guard's, if one of them needs
        proofs of possession and the guard checks none, and, for an adapter that *blocks*, if one of them decides by an
        async function.
        """
        keys = self.settings.api_keys
        if blocks and keys is not None and keys.is_async:
            raise ConfigurationError(
                "api_keys.lookup: is async, and a WSGI app has no event loop; write a function that blocks"
            )
        for rule in rules.all:
            if rule.sources is not None:
                self.sources_for(rule.sources).check_senders()
            if rule.sources == frozenset((TokenSource.API_KEY,)) and self._needs_proof(rule):
                raise ConfigurationError(
                    f"rule {rule.path!r}: token_sources: takes API keys only, and dpop requires a proof of possession, "
                    'which no key has; set dpop = "off" for this rule'
                )
            if rule.mode not in (None, DPoPMode.OFF) and self.settings.dpop is None:
                raise ConfigurationError(
                    f"rule {rule.path!r}: dpop: the guard checks no proofs; create it with dpop=DPoP()"
                )
            for policy in rule.policies:
                if blocks and policy.is_async:
                    raise ConfigurationError(
                        f"rule {rule.path!r}: decide: {policy.title} is async, and a WSGI app has no event loop; write "
                        "a function that blocks"
                    )
                settings = policy.decide
                if not callable(settings) and id(settings) not in self.context.points:
                    self.context.points[id(settings)] = build_decision_point(settings)
        if rules.all and all(rules is not known for known in self._rules):
            self._rules = (*self._rules, rules)[-_MOST_KNOWN_RULES:]
        return rules

    def _needs_proof(self, rule: Rule) -> bool:
        policy = self.settings.dpop
        return policy is not None and (policy.mode if rule.mode is None else rule.mode) is DPoPMode.REQUIRED

    def passes_preflights(self, own: Preflight | str | None = None) -> bool:
        """Return whether CORS preflights pass without a token. *own*: the adapter's own setting, if it has one."""
        chosen = self.settings.cors_preflight if own is None else member(Preflight, own, "cors_preflight")
        return chosen is Preflight.PASS

    # -- endpoints that work with the same issuers

    def configured_issuer(self, url: str | None = None) -> IssuerRecord:
        """Return the record of the configured issuer *url*, or of the only one.

        Raises :class:`ConfigurationError` if there is no such issuer, or several and no *url*.
        """
        found = [record for record in self.issuers.all if url in (None, record.issuer.url)]
        if len(found) == 1 or (found and url is not None):
            return found[0]
        raise ConfigurationError(f"issuer: name one that was given to the guard, not {url!r}")

    def add_key_source(self, issuer: Issuer) -> IssuerRecord:
        """Return a record of *issuer*, with its own key ring. Access tokens from this issuer are not accepted."""
        return build_issuer_record(issuer, ScopeCatalog(), self.settings.backends)

    def perform(self, flow: Flow[T]) -> T:
        """Run *flow* with the guard's transport, clock and store."""
        return blocking.run(flow, self.runtime, None)

    async def aperform(self, flow: Flow[T]) -> T:
        """:meth:`perform` for asyncio and trio."""
        from scopeguard.edge import aio

        return await aio.run(flow, self.runtime, None)

    # -- closing

    async def aclose(self) -> None:
        """See :meth:`Guard.aclose <scopeguard.guard.Guard.aclose>`."""
        from scopeguard.edge import aio

        await aio.close(self.runtime)


def _without_form(sources: TokenSources) -> TokenSources:
    """Return *sources* for a caller that cannot read forms. Raises :class:`ConfigurationError` if nothing is left."""
    left = sources.methods - {TokenSource.FORM}
    if not left:
        raise ConfigurationError("token_sources: only the form is enabled, and this caller cannot read forms")
    return sources.with_methods(left)


def _is_anonymous(error: AccessDenied | AuthorityUnavailable) -> bool:
    """Return whether the request has no credentials, as opposed to bad ones or those of another scheme."""
    return isinstance(error, MissingCredentials) and error.reason is Reason.NO_CREDENTIALS
