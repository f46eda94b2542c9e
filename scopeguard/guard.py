"""The guard of an API: :class:`Guard`.

This module checks and documents the settings. :mod:`scopeguard.core.engine` does the work.

Longer than 400 lines because each setting and each method is described here for users.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from scopeguard.config.audit import AuditMode
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import member
from scopeguard.config.cors import Preflight
from scopeguard.config.hosts import insecure_hosts
from scopeguard.config.issuer import Issuer
from scopeguard.config.refusal_log import RefusalLog, check_refusal_log
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.token_cache import TokenCachePolicy, check_policy
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.core import starting
from scopeguard.core.arguments import (
    Settings,
    apply_profile,
    challenge_style,
    check_api_keys,
    check_arguments,
    check_call,
    check_requirement,
    check_resource,
    choose_backends,
    choose_dpop,
    choose_profile,
    choose_sources,
    warn_of_dangers,
)
from scopeguard.core.decision import Adapter, Decision, DecisionEvent, Denied, Granted, Reporter, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.core.fast_base64 import load_segment_decoder
from scopeguard.core.fast_json import load_claims_parser
from scopeguard.edge.clocks import choose_clock
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Transport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Clock, Store
from scopeguard.flow.observation import CredentialKind, TokenCheck
from scopeguard.request import RequestView
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.signatures import SignatureBackend
from scopeguard.tokens import AccessToken

if TYPE_CHECKING:
    from scopeguard.config.api_keys import ApiKeys
    from scopeguard.config.dpop import DPoP
    from scopeguard.config.mutual_tls import MutualTLS
    from scopeguard.config.profiles import Profile
    from scopeguard.config.resolver import IssuerResolver
    from scopeguard.config.resource import Resource
    from scopeguard.explanation.explainer import Explainer
    from scopeguard.explanation.result import Explanation
    from scopeguard.rules.mcp import McpPolicy
    from scopeguard.state.readiness import Readiness

__all__ = [
    "Adapter", "AuditMode", "CredentialKind", "Decision", "DecisionEvent", "Denied", "Granted", "Guard",
    "TokenCheck", "Unavailable",
]  # fmt: skip


class Guard:
    """Checks the access tokens of one API.

    ::

        guard = Guard(Issuer("https://login.example.com", audience="https://api.example.com"))
        app = GuardMiddleware(app, guard=guard)

    For each request, it finds the token, verifies it (as a JWT or by introspection), looks for a revocation, and
    compares the token with the requirement of the route. A token that is bound to a key needs a
    proof of possession.

    One guard serves any number of threads and event loops; they share its keys and caches. It may be constructed before
    a fork. The constructor does no I/O and starts no thread: the keys of an issuer are fetched when the first request
    needs them, or by :meth:`warm`.

    *profile*: a standard whose demands the settings must meet: ``"oauth21"``, ``"fapi2"`` or ``"mcp"``
    (:class:`Profile`). It tightens settings that have their default, and refuses those that contradict it;
    docs/profiles.md lists them. ``"fapi2"`` needs a *dpop* that requires proofs.

    Tokens:

    * *issuers*: the trusted authorization servers. At least one, unless there is a *resolver*.
    * *resolver*: finds further issuers when a token names them (:class:`IssuerResolver`).
    * *token_sources*: where requests may carry a token: ``["header"]``, or :class:`TokenSources` for details.
    * *api_keys*: the API keys of this API (:class:`ApiKeys`). A route accepts them if its token sources name
      ``"api_key"``.
    * *require_https*: deny tokens that come in cleartext from another host (400). Off by default, because a server
      behind a proxy cannot tell. The first such token is then logged.
    * *token_cache*: how many verified tokens to cache: :class:`TokenCachePolicy`, or ``"off"``.
    * *revocation*: how long revocations are kept and how processes share them: :class:`RevocationPolicy`.
    * *signature_backends*: libraries that verify signatures instead of ``cryptography``, in order of preference: names
      that :mod:`scopeguard.core.signature_backends` knows, or objects with the methods of
      :class:`~scopeguard.spec.signatures.SignatureBackend`.
    * *fast*: use all libraries of the extra ``fast``: its signature backends, after those of *signature_backends*, and
      ``orjson`` and ``pybase64`` for the claims of new tokens. The same tokens are accepted. Each of them must be
      installed.
    * *keep_token_for_exchange*: hold the text of each accepted token while its request is served, for
      :class:`scopeguard.client.TokenExchange`. Otherwise it is dropped.
    * *forward_token_dangerously*: also let the app read it (``inbound_token().text``). Another API that gets it
      can act as the user here. A warning is logged at every start.

    * *dpop*, *mutual_tls*: which proofs of possession are accepted (:class:`DPoP`), and where client certificates are
      found (:class:`MutualTLS`). Without them, tokens that are bound to a key are denied.

    The API:

    * *resource*: its identifier, which is its public URL, or a :class:`Resource` with more about it. Tokens of issuers
      without an ``audience`` must name it. Adapters serve its metadata (RFC 9728), and every challenge names the URL
      of the metadata. The identifier is the default *realm*.
    * *rules*: which route requires which scopes. Adapters use them unless they get rules of their own.
    * *mcp*: what the tools, prompts, resources and methods of an MCP server require (:class:`McpPolicy
      <scopeguard.mcp.McpPolicy>`). :class:`McpMiddleware <scopeguard.mcp.McpMiddleware>` uses it unless it gets rules
      of its own.
    * *implies*: which scopes include others, for every issuer: ``{"cloud-platform": ["bigquery"]}``.
    * *catalog*: the scopes of the API (:class:`ScopeCatalog`). Its implications are added to *implies*. Its prefix
      applies to every issuer that has no ``scope_prefix``.
    * *audit*: what adapters do if the checks of ``scopeguard audit`` find a problem in the routes when the app starts:
      ``"warn"`` logs it, ``"error"`` keeps the app from starting, ``"off"`` skips the checks.

    Responses:

    * *realm*: the realm of challenges.
    * *challenge*: the whole style of challenges, instead of *realm* (:class:`ChallengeStyle`).
    * *cors_preflight*: ``"pass"`` passes CORS preflights to the app, and lets scripts read refusals wherever the CORS
      middleware of the app lets them read its responses. ``"guard"`` requires a token, which no preflight has.
      Adapters use this unless they get a setting of their own.

    Logs:

    * *on_decision*: a function that is called once for each request with a :class:`DecisionEvent`, when the response
      begins. It cannot change the decision. An exception in it is logged. It runs in the thread or event loop of the
      request, so it should not block.
    * *refusal_log*: how refused requests are logged: :class:`RefusalLog`, or ``"off"``.

    Connections:

    * *store*: shares introspection answers and revocations between processes and hosts.
    * *transport*: sends all outbound requests: :class:`HttpxTransport`, for example with a private certificate
      authority or a proxy, or an object with its methods.
    * *clock*: provides the time; for tests.
    * *insecure_http_dangerously*: hosts with ports (``["keycloak:8080"]``) for which *resource* and the metadata of any
      issuer may have http URLs. An :class:`Issuer` checks its own URLs, and has a setting of the same name for them.

    Raises :class:`ConfigurationError` if a setting is missing, contradictory or unsafe.
    """

    __slots__ = ("__weakref__", "_engine")

    def __init__(
        self,
        *issuers: Issuer,
        profile: Profile | str | None = None,
        resolver: IssuerResolver | None = None,
        resource: Resource | str | None = None,
        realm: str | None = None,
        token_sources: TokenSources | Iterable[str] = (TokenSource.HEADER,),
        implies: Mapping[str, Iterable[str]] | None = None,
        catalog: ScopeCatalog | None = None,
        rules: Rules | Iterable[Rule] | None = None,
        mcp: McpPolicy | None = None,
        challenge: ChallengeStyle | None = None,
        require_https: bool = False,
        store: Store | None = None,
        revocation: RevocationPolicy | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        on_decision: Callable[[DecisionEvent], None] | None = None,
        audit: AuditMode | str = "warn",
        refusal_log: RefusalLog | Literal["off"] = RefusalLog(),  # noqa: B008 - frozen
        token_cache: TokenCachePolicy | Literal["off"] = TokenCachePolicy(),  # noqa: B008 - frozen
        signature_backends: Iterable[SignatureBackend | str] = (),
        fast: bool = False,
        cors_preflight: Preflight | str = Preflight.GUARD,
        insecure_http_dangerously: Iterable[str] = (),
        keep_token_for_exchange: bool = False,
        forward_token_dangerously: bool = False,
        dpop: DPoP | None = None,
        mutual_tls: MutualTLS | None = None,
        api_keys: ApiKeys | None = None,
    ) -> None:
        check_arguments(
            issuers, resolver=resolver, catalog=catalog, challenge=challenge, require_https=require_https, store=store,
            revocation=revocation, transport=transport, clock=clock, on_decision=on_decision, realm=realm,
            implies=implies, mcp=mcp, mutual_tls=mutual_tls, keep_token_for_exchange=keep_token_for_exchange,
            forward_token_dangerously=forward_token_dangerously, fast=fast, api_keys=api_keys,
        )  # fmt: skip
        insecure = insecure_hosts(insecure_http_dangerously)
        resource = check_resource(resource, issuers, insecure)
        rules = None if rules is None else Rules.of(rules)  # several adapters read them, and an iterator only once
        policy = choose_dpop(dpop, issuers, resource, rules, store)
        settings = Settings(
            resource=resource, rules=rules, mcp=mcp, require_https=require_https, insecure_hosts=insecure,
            sources=choose_sources(token_sources, check_api_keys(api_keys, issuers, resource)),
            style=challenge_style(challenge, realm, resource, Rules.of(rules), policy),
            catalog=(catalog or ScopeCatalog()) | ScopeCatalog(implies=implies or {}),
            keep_token_for_exchange=keep_token_for_exchange, forward_token_dangerously=forward_token_dangerously,
            revocation=revocation or RevocationPolicy(),
            token_cache=None if token_cache == "off" else check_policy(token_cache),
            backends=choose_backends(signature_backends, fast=fast),
            parse_claims=load_claims_parser(fast=fast), decode_segment=load_segment_decoder(fast=fast),
            cors_preflight=member(Preflight, cors_preflight, "cors_preflight"),
            profile=choose_profile(profile),
            revocable=store is not None or revocation is not None,
            dpop=policy, mutual_tls=mutual_tls, audit=AuditMode.of(audit),
        )  # fmt: skip
        settings = warn_of_dangers(apply_profile(settings, issuers, revocation=revocation, transport=transport))
        self._engine = Engine(settings, Reporter(on_decision, check_refusal_log(refusal_log)))
        self._engine.connect(issuers, resolver, transport or HttpxTransport(), clock or choose_clock(), store)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Return the guard that the TOML file at *path* describes, with its rules. docs/settings.md lists the keys.

        *overrides* replace arguments of the constructor: ``Guard.from_file("scopeguard.toml", transport=transport)``.
        Raises :class:`ConfigurationError`, which names the key, its place in the file, and the nearest known key.
        """
        from scopeguard.config.file import read_settings

        issuers, arguments = read_settings(path)
        return cls(*issuers, **{**arguments, **overrides})

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The configured issuers. Issuers that a resolver finds are not included."""
        return tuple(record.issuer for record in self._engine.issuers.all)

    @property
    def resource(self) -> Resource | None:
        """The protected resource: its identifier and the settings of its metadata."""
        return self._engine.settings.resource

    @property
    def profile(self) -> Profile | None:
        """The standard whose demands the guard follows: the argument *profile*."""
        return self._engine.settings.profile

    @property
    def rules(self) -> Rules | None:
        """The rules that adapters use unless they get rules of their own; ``None`` if the guard has none."""
        return self._engine.settings.rules

    @property
    def mcp(self) -> McpPolicy | None:
        """The requirements of an MCP server: the argument *mcp*."""
        return self._engine.settings.mcp

    @property
    def sources(self) -> TokenSources:
        """The places in which requests may carry a token: the argument *token_sources*."""
        return self._engine.settings.sources

    @property
    def style(self) -> ChallengeStyle:
        """The style of challenges: the argument *challenge*, or a style with the *realm*."""
        return self._engine.settings.style

    @property
    def catalog(self) -> ScopeCatalog:
        """The scopes of the API: the argument *catalog*, extended by *implies*."""
        return self._engine.settings.catalog

    def check(
        self,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        optional: bool = False,
        closed: bool = False,
        sources: TokenSources | None = None,
        read_form: Callable[[int], bytes] | None = None,
    ) -> Decision:
        """Check the token of *request*, and whether it satisfies *requirement*. Return the decision.

        Adapters call this. Code of your own takes the decision apart with ``match``::

            match guard.check(request, all_of("rows.read")):
                case Granted(access_token):
                    return rows_of(access_token.identity)
                case Denied(response=response) | Unavailable(response=response):
                    return send(response.status, response.headers, response.body)

        * *requirement*: the scopes and conditions of the route; ``None`` if any valid token suffices.
        * *optional*: return :class:`Anonymous` for a request without credentials. A bad token, and credentials of
          another scheme, are denied all the same.
        * *closed*: deny valid tokens as well, because no rule describes this route.
        * *sources*: where this route takes tokens, instead of the setting of the guard. The profile of the guard
          limits them: other places raise :class:`ConfigurationError`.
        * *read_form*: returns the body of the request; its argument is the greatest number of bytes to return. Without
          it, a token in a form body is not found (RFC 6750 section 2.2).

        May block while it waits for an authorization server; the result is then :class:`Unavailable` if that fails.
        Never raises because of the content of a request. Raises :class:`ConfigurationError` for arguments of other
        kinds, such as a header in place of the request.
        """
        check_call(request, requirement)
        return self._engine.check(
            request, requirement, optional=optional, closed=closed, sources=self._limit(sources), read_form=read_form
        )

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
    ) -> Decision:
        """:meth:`check` for asyncio and trio.

        *client_gone* is a coroutine function that returns when the client has disconnected. It is awaited while the
        request waits for an authorization server, and cancelled when the wait ends. If the client disconnects, the
        exchange with the authorization server is cancelled, unless another request waits for it.
        """
        check_call(request, requirement)
        return await self._engine.acheck(
            request,
            requirement,
            optional=optional,
            closed=closed,
            sources=self._limit(sources),
            read_form=read_form,
            client_gone=client_gone,
        )

    def explain(self, request: RequestView, requirement: Requirement | None = None) -> Explanation:
        """Return every check of *request* and its token, passed or failed, with what was found and what is wanted.

        It is for developers and support::

            explanation = guard.explain(request, all_of("rows.read"))
            print(explanation.verdict, explanation.reason)
            for check in explanation.failed:
                print(check.title, check.found, check.wanted)

        The verdict is that of :meth:`check`. The checks go on after the first fault. The result has no token, and only
        the claims that a check reads.

        *requirement*: the scopes and conditions of the route. By default, the rules of the guard decide. The guard does
        not know the rules of an adapter.

        Keys may be fetched and opaque tokens introspected, and policies of the rule are applied. Nothing is logged or
        reported, and a DPoP proof does not count as used. Not checked: whether the proof was used before, and a token
        in a form. May block; see :meth:`aexplain`. Raises :class:`ConfigurationError` for arguments of other kinds, and
        if an async function decides about the route.
        """
        return self._explainer(request, requirement).explain()

    async def aexplain(self, request: RequestView, requirement: Requirement | None = None) -> Explanation:
        """:meth:`explain` for asyncio and trio."""
        return await self._explainer(request, requirement).aexplain()

    def _explainer(self, request: RequestView, requirement: Requirement | None) -> Explainer:
        from scopeguard.explanation.explainer import Explainer

        check_call(request, requirement)
        return Explainer(self._engine, request, requirement, rules=self.rules if requirement is None else None)

    def _limit(self, sources: TokenSources | None) -> TokenSources | None:
        limit = self.sources.limit
        return sources if sources is None or limit is None else sources.limit_to(limit)

    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool = False,
        closed: bool = False,
        request: RequestView | None = None,
    ) -> Decision:
        """Decide whether *token*, which an earlier :meth:`check` returned, satisfies *requirement*.

        Use it in layers within a guarded app that require more than the outer layer did. It does no I/O, and does not
        check the token again.

        * *token*: ``None`` for an anonymous caller, which is denied unless authentication is *optional*.
        * *closed*: deny valid tokens as well, because no rule describes this route.
        * *request*: the request, for logs and listeners, and because a response to HEAD has no body.
        """
        check_requirement(requirement)
        if token is None and optional:
            return self._engine.admit_anonymous(request, again=True)
        return self._engine.authorize(token, requirement, closed=closed, request=request)

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
        """Deny tokens from now on, even if they have not expired.

        Pass exactly one of these:

        * *token*: the text of one token.
        * *jti*: the ID of one token.
        * *subject* or *client_id*: all tokens that were issued to it until now::

            guard.revoke(subject="alice")  # alice signed out everywhere

        *issuer* is the URL of the issuer of the tokens. It may be omitted with *token*, and if the guard trusts one
        issuer only.

        *at* (seconds since the epoch): deny tokens whose ``iat`` is *at* or earlier, instead of now. An ``iat`` is
        written by the clock of the issuer. Without *at*, the ``leeway`` of the issuer is added, because its clock may
        be ahead: tokens that it issues within ``leeway`` seconds after the call are denied as well. With *at*, nothing
        is added: pass it if you know the time by the clock of the issuer.

        With a store, other processes follow within ``RevocationPolicy.max_lag`` seconds. The authorization server does
        not take part: it may go on issuing tokens.

        Raises :class:`ConfigurationError` for another combination or another kind of arguments, for an *at* in
        milliseconds, and for a *token* or an *issuer* that is not trusted. Raises :class:`AuthorityUnavailable` if the
        store fails (the revocation is then effective in this process only), or if the resolver fails (it is then not
        effective).
        """
        from scopeguard.core.revoking import revoke
        from scopeguard.state.revocation import Revoked

        named = {
            Revoked.TOKEN: token,
            Revoked.JTI: jti,
            Revoked.SUBJECT: subject,
            Revoked.CLIENT: client_id,
        }
        chosen = [(kind, value) for kind, value in named.items() if value is not None]
        if len(chosen) != 1:
            raise ConfigurationError("revoke: pass exactly one of token, jti, subject and client_id")
        kind, value = chosen[0]
        revoke(self._engine, kind, value, issuer, at)

    async def arevoke(
        self,
        *,
        token: str | None = None,
        jti: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        issuer: str | None = None,
        at: float | None = None,
    ) -> None:
        """:meth:`revoke` for asyncio and trio."""
        from scopeguard.edge import aio

        await aio.run_in_thread(
            lambda: self.revoke(token=token, jti=jti, subject=subject, client_id=client_id, issuer=issuer, at=at)
        )

    def warm(self) -> None:
        """Fetch the keys of every configured issuer now, instead of when the first request needs them.

        Tries all issuers, then raises :class:`AuthorityUnavailable` for the first one that failed.
        """
        starting.warm(self._engine)

    async def awarm(self) -> None:
        """:meth:`warm` for asyncio and trio."""
        await starting.awarm(self._engine)

    def ready(self) -> Readiness:
        """Return whether tokens can be checked now, and why not. Does no I/O.

        Checked: the keys have been fetched and are not too old, the introspection endpoint did not fail a moment ago,
        and neither did the shared store. Not checked: whether the authorization server answers now. Before the first
        request no key has been fetched, so call :meth:`warm` when the app starts, and again while an obstacle
        is ``no_keys``.
        """
        from scopeguard.state.readiness import assess  # no token check needs it

        return assess(self._engine.issuers, self._engine.clock.monotonic())

    def stop_waiting(self) -> None:
        """Stop waiting for authorization servers: requests that still wait are answered with 503.

        Call it when the server shuts down. Exchanges get a moment to complete; the call takes less than a second. The
        guard stays usable.
        """
        self._engine.runtime.end()

    def close(self) -> None:
        """Close all connections, to authorization servers and to the store, after :meth:`stop_waiting`.

        Takes less than a second. The guard stays usable: it opens connections again when it needs them.
        """
        self._engine.runtime.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        await self._engine.aclose()

    def __repr__(self) -> str:
        return f"Guard({', '.join(repr(issuer.url) for issuer in self.issuers)})"


def engine_of(guard: Guard) -> Engine:
    """Return the engine of *guard*, for adapters and endpoints of this package. It is always the same object."""
    return guard._engine


def silent_copy(guard: Guard) -> Guard:
    """Return a guard with the issuers and caches of *guard* whose decisions leave no trace outside the caches."""
    copied: Guard = object.__new__(Guard)
    copied._engine = guard._engine.without_effects()
    return copied
