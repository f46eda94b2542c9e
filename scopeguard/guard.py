"""The object users hold: :class:`Guard` checks the access tokens of one API.

A guard is cheap to construct and does nothing then: no thread, no socket, no file. It may be made before a fork and
used from any number of threads and event loops; they share its keys. Its work is done by :mod:`scopeguard.core.engine`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, Self

from scopeguard.access_token import AccessToken
from scopeguard.config.audit import AuditMode
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import checked_url, insecure_hosts, member
from scopeguard.config.cors import Preflight
from scopeguard.config.issuer import Issuer
from scopeguard.config.refusal_log import RefusalLog, checked_refusal_log
from scopeguard.config.resolver import IssuerResolver
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.sources import TokenSource, TokenSources
from scopeguard.config.token_cache import TokenCachePolicy, checked_policy
from scopeguard.core.arguments import check_arguments
from scopeguard.core.decision import Decision, Denied, Granted, Reporter, Unavailable
from scopeguard.core.engine import Engine, Settings
from scopeguard.core.signature_backends import checked_backends
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import SystemClock, Transport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Clock, Store
from scopeguard.request import RequestView
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.signatures import SignatureBackend
from scopeguard.state.revocation import Revoked

__all__ = ["AuditMode", "Decision", "Denied", "Granted", "Guard", "Unavailable"]

log: Final = logging.getLogger("scopeguard")


class Guard:
    """Checks the access tokens of one API.

    * *issuers*: the authorization servers it trusts. At least one, unless there is a *resolver*.
    * *resolver*: finds further issuers when a token names them: :class:`IssuerResolver`.
    * *resource*: the public URL of this API. The default audience of issuers that :meth:`from_file` reads, and the
      default *realm*.
    * *realm*: the realm of challenges.
    * *token_sources*: where tokens may be sent: ``["header"]`` or :class:`TokenSources` for the details.
    * *implies*: which scopes include others at this API, for every issuer: ``{"cloud-platform": ["bigquery"]}``.
    * *catalog*: the scopes of this API: :class:`~scopeguard.ScopeCatalog`. Its implications hold as well, and its
      prefix may be left out of the scopes of every issuer that has no ``scope_prefix`` of its own.
    * *rules*: which route needs which scopes; middleware uses them unless it is given its own.
    * *challenge*: the whole style of challenges, instead of *realm*.
    * *require_https*: refuse tokens sent in cleartext from another host (400). Off by default, because behind a proxy
      the server does not know; the first such token is logged.
    * *store*: shared by processes and hosts: introspection answers and revocations.
    * *revocation*: how long revocations are kept and shared: :class:`RevocationPolicy`.
    * *transport*: the HTTP client for every exchange: :class:`~scopeguard.HttpxTransport` with a private certificate
      authority or an outbound proxy, or an object of your own. *clock*: tells the time. Replace it in tests.
    * *on_decision*: called once for each request with its decision, when the response begins. It cannot change the
      decision; an exception in it is logged.
    * *refusal_log*: how refused requests are logged: :class:`RefusalLog`, or ``"off"``.
    * *token_cache*: how many verified tokens are remembered: :class:`TokenCachePolicy`, or ``"off"``.
    * *signature_backends*: libraries that verify signatures in place of ``cryptography``, tried in this order: names
      known to :mod:`scopeguard.core.signature_backends`, or objects with the methods of
      :class:`~scopeguard.spec.signatures.SignatureBackend`.
    * *audit*: what middleware and extensions do when their app starts and the checks of ``scopeguard audit`` find
      something in its routes: ``"warn"`` logs findings, ``"error"`` refuses to start, ``"off"`` skips the checks.
    * *cors_preflight*: ``"pass"`` hands CORS preflights to the app, and lets scripts read refusals where the app's own
      CORS middleware lets them read its responses. ``"guard"`` requires a token, which no preflight has. Middleware
      and extensions use this unless they are given their own.
    * *insecure_http_dangerously*: hosts with their ports (``["keycloak:8080"]``) that *resource* and every issuer's
      metadata may name with http. An :class:`Issuer` checks its own URLs when it is made: if one of them is http,
      give that issuer the setting of this name.

    Raises :class:`ConfigurationError`. Does not check that an authorization server answers: the first request that
    needs its keys does, or :meth:`warm`.
    """

    __slots__ = ("__weakref__", "_engine")

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
        insecure = insecure_hosts(insecure_http_dangerously)
        if resource is not None:
            checked_url(resource, "resource", insecure=insecure)
        # An iterator can be read only once, and several adapters read the rules.
        rules = None if rules is None else Rules.of(rules)
        settings = Settings(
            resource=resource,
            sources=token_sources if isinstance(token_sources, TokenSources) else TokenSources().only(token_sources),
            style=challenge or ChallengeStyle(realm=realm or resource or "api", body=Rules.of(rules).error_body),
            rules=rules,
            catalog=(catalog or ScopeCatalog()) | ScopeCatalog(implies=implies or {}),
            require_https=require_https,
            revocation=revocation or RevocationPolicy(),
            token_cache=None if token_cache == "off" else checked_policy(token_cache),
            backends=checked_backends(signature_backends),
            audit=AuditMode.of(audit),
            cors_preflight=member(Preflight, cors_preflight, "cors_preflight"),
            insecure_hosts=insecure,
        )
        self._engine = Engine(settings, Reporter(on_decision, checked_refusal_log(refusal_log)))
        self._engine.connect(issuers, resolver, transport or HttpxTransport(), clock or SystemClock(), store)
        settings.sources.check_senders()
        if settings.sources.in_query:
            log.warning("access tokens are accepted in the query string of every route: URLs end up in logs")

    @classmethod
    def from_file(cls, path: str, **overrides: Any) -> Self:
        """Read a guard, its rules included, from the TOML file at *path*. docs/settings.md lists the keys.

        *overrides* replace arguments of the constructor (``transport``, ``clock``, ...). Raises
        :class:`ConfigurationError` that names the key, its place and the nearest known key.
        """
        from scopeguard.config.file import read_settings

        issuers, arguments = read_settings(path)
        return cls(*issuers, **{**arguments, **overrides})

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers it was given. Those that a resolver finds are not included."""
        return tuple(record.issuer for record in self._engine.issuers.all)

    @property
    def resource(self) -> str | None:
        """The public URL of the API."""
        return self._engine.settings.resource

    @property
    def rules(self) -> Rules | None:
        """The rules that middleware and extensions use unless they are given their own."""
        return self._engine.settings.rules

    @property
    def sources(self) -> TokenSources:
        """Where tokens may be sent: the argument *token_sources*."""
        return self._engine.settings.sources

    @property
    def style(self) -> ChallengeStyle:
        """How challenges are written: the argument *challenge*, or one made from *realm*."""
        return self._engine.settings.style

    @property
    def catalog(self) -> ScopeCatalog:
        """The scopes of the API, with what the argument *implies* adds."""
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
        """Check the token of *request*, and whether it satisfies *requirement*.

        * *optional*: a request without credentials is :class:`Anonymous` instead of denied. A bad token, and
          credentials of another scheme, are denied all the same.
        * *closed*: no rule opens this route, so a valid token is denied as well.
        * *sources*: where this route takes tokens, instead of the guard's own setting.
        * *read_form*: returns the body of the request, at most the given number of bytes. Without it, no form is read.

        May wait for an authorization server. Never raises for anything that a request contains.
        """
        return self._engine.check(
            request, requirement, optional=optional, closed=closed, sources=sources, read_form=read_form
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

        *client_gone* returns when the client has disconnected. It is awaited while the request waits for an
        authorization server, and cancelled when the wait ends. If the client disconnects, the exchange is abandoned
        unless another request waits for it.
        """
        return await self._engine.acheck(
            request,
            requirement,
            optional=optional,
            closed=closed,
            sources=sources,
            read_form=read_form,
            client_gone=client_gone,
        )

    def authorize(
        self,
        token: AccessToken | None,
        requirement: Requirement | None,
        *,
        optional: bool = False,
        closed: bool = False,
        request: RequestView | None = None,
    ) -> Decision:
        """Decide whether *token*, which :meth:`check` returned before, satisfies *requirement*. Does no I/O.

        * *token*: ``None`` for an anonymous caller, which is denied unless authentication is *optional*.
        * *closed*: no rule opens this route, so a valid token is denied as well.
        * *request*: for logs and listeners; the response to HEAD has no body.
        """
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
        """Refuse from now on: one *token*, the token with the ID *jti*, or everything that was issued until now to a
        *subject* or a *client_id*. Name exactly one of the four.

        The ``iat`` of a token is by the clock of its issuer, which may be ahead by the issuer's ``leeway``. So tokens
        are refused up to an ``iat`` of now plus that; tokens issued in the ``leeway`` seconds after the call are
        refused as well. With *at* (seconds since the epoch), tokens with an ``iat`` of *at* or before are refused, and
        nothing is added: give it if you know the time by the clock of the issuer.

        *issuer*: the issuer of the tokens; needed for all but *token* if several issuers are trusted or a resolver
        finds them. With a store, other processes follow within ``RevocationPolicy.max_lag``. The authorization server
        is neither asked nor told.

        Raises :class:`ConfigurationError` for a wrong combination. Raises :class:`AuthorityUnavailable` if the store
        fails: the revocation then holds in this process only; and if the resolver fails: it then holds nowhere.
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
        self._engine.revoke(kind, value, issuer, at)

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

        await aio.in_thread(
            lambda: self.revoke(token=token, jti=jti, subject=subject, client_id=client_id, issuer=issuer, at=at)
        )

    def warm(self) -> None:
        """Fetch the keys of every configured issuer now, instead of at the first request.

        Tries all issuers, then raises :class:`AuthorityUnavailable` for the first that did not answer.
        """
        self._engine.warm()

    async def awarm(self) -> None:
        """:meth:`warm` for asyncio and trio."""
        await self._engine.awarm()

    def stop_waiting(self) -> None:
        """Give exchanges with authorization servers a moment to end, and answer 503 to every request that still waits.

        For servers that are told to stop. Takes less than a second. The guard may be used again.
        """
        self._engine.runtime.end()

    def close(self) -> None:
        """Close connections, within a second, and answer 503 to requests that still wait, as :meth:`stop_waiting`.

        The guard may be used again; it opens what it needs.
        """
        self._engine.runtime.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        await self._engine.aclose()

    def __repr__(self) -> str:
        return f"Guard({', '.join(repr(issuer.url) for issuer in self.issuers)})"


def engine_of(guard: Guard) -> Engine:
    """Return the engine of *guard*, for adapters and endpoints of this package. It stays the same for life."""
    return guard._engine
