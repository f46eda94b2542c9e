"""The dependency of FastAPI that checks tokens, and describes itself in the OpenAPI document."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from fastapi import Response
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection, Request

from scopeguard.adapter.declarations import Declaration, DeclaringDependency
from scopeguard.asgi import GUARD_KEY, recall, request_view, require_of_renewals
from scopeguard.conditions import Condition
from scopeguard.config.checks import flag, instance, text
from scopeguard.core.decision import Decision, Granted
from scopeguard.errors import ConfigurationError
from scopeguard.fastapi.application import VARY_KEY, rule_of_middleware, wrap_fastapi
from scopeguard.fastapi.openapi import (
    SchemeSettings,
    has_forbidding_condition,
    make_dependencies,
    make_responses,
    make_schemes,
    make_signature,
)
from scopeguard.fastapi.overrides import call_override, find_override
from scopeguard.fastapi.query_and_form_tokens import hide_fields, keep_private, make_form_reader, strip_query_token
from scopeguard.fastapi.refusals import IN_QUERY_KEY, make_refusal
from scopeguard.fastapi.reports import REQUEST_STACK, begin_report
from scopeguard.guard import Guard, engine_of
from scopeguard.inbound_tokens import to_serve
from scopeguard.rules import OPTIONAL
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, require
from scopeguard.spec.credentials import has_access_token
from scopeguard.tokens import AccessToken, Anonymous, access_token_or_none, begin_serving, end_serving

_Tokens = dict[object, AccessToken | None]
_TOKENS_KEY: Final = "scopeguard.fastapi.tokens"
"""The key in the scope of the checked tokens. Each is found by the guard and the token sources of its dependency."""

_all_of: Final = functools.lru_cache(maxsize=1024)(all_of)  # an app has few lists of scopes


class Protected(DeclaringDependency):
    """A dependency that checks the token of a request and returns it as an :class:`AccessToken`.

    ::

        protected = Protected(guard)

        @app.get("/tables")
        async def tables(token: Annotated[AccessToken, Security(protected, scopes=["tables.read"])]): ...

    * *guard*: checks the token. Several dependencies with the same guard check a request once. A guard with rules needs
      ``GuardMiddleware`` in front of the app, because a dependency applies no rules: without it, every request to a
      route with this dependency raises :class:`ConfigurationError`.
    * *optional*: return ``None`` for a request without credentials. Invalid credentials are refused.
    * *token_sources*: where these routes take tokens, as in ``("header", "form")``. Default: the setting of the guard.
      In an app with ``GuardMiddleware`` set it in a :class:`~scopeguard.rules.Rule` instead. The middleware marks every
      response to a token in the query as private; a dependency cannot do this if the endpoint returns a ``Response``.
      A form needs a ``Content-Length``.
    * *token_url*, *authorization_url*: the token endpoint and the authorization endpoint for Swagger UI, which gets
      tokens with client credentials and, if both are given, with authorization codes and PKCE.
    * *scopes*: the descriptions of scopes. Default: those in the guard's catalog. The document always declares the
      scopes that operations need.
    * *openid_connect_url*: the URL of the discovery document, for tools that read it, such as Swagger UI.
    * *scheme_prefix*: a prefix for the names of the security schemes, for an app with several different ``Protected``.

    A request without a token gets 401. One whose token lacks a scope gets 403, and the challenge has all scopes of this
    dependency, but not those of others: name all scopes of an operation in one dependency. A websocket is refused
    before it is accepted.

    Raises :class:`ConfigurationError` for an argument of the wrong kind. ``Security(protected, scopes=...)`` raises it
    if *scopes* is not a list of scopes.
    """

    __module__ = "scopeguard.fastapi"  # where apps import it from

    def __init__(
        self,
        guard: Guard,
        *,
        optional: bool = False,
        token_sources: Iterable[str] | None = None,
        token_url: str | None = None,
        authorization_url: str | None = None,
        scopes: Mapping[str, str] | None = None,
        openid_connect_url: str | None = None,
        scheme_prefix: str = "",
    ) -> None:
        instance(guard, Guard, "guard", "a scopeguard.Guard, as in Protected(guard)")
        flag(optional, "optional")
        text(scheme_prefix, "scheme_prefix")
        if scopes is not None and token_url is None:
            raise ConfigurationError("Protected: scopes needs token_url, which issues tokens with them; set both")
        self._guard = guard
        self._engine = engine = engine_of(guard)
        self._optional = optional
        self._has_own_sources = token_sources is not None
        self._sources = engine.sources if token_sources is None else engine.sources.with_methods(token_sources)
        self._sources.check_senders()
        self._recalls = guard.rules is None  # else _decide() first looks for the middleware that applies the rules
        self._place = (engine, self._sources.methods)  # dependencies with an equal place check a request once
        self._requirement: Requirement | None = None
        self._origin = self  # the dependency on which requires() was called
        settings = SchemeSettings(
            token_url=token_url,
            authorization_url=authorization_url,
            openid_connect_url=openid_connect_url,
            scopes=guard.catalog.descriptions if scopes is None else scopes,
            prefix=scheme_prefix,
        )
        proofs = engine.settings
        self._schemes = make_schemes(settings, self._sources, proofs.dpop, certificates=proofs.mutual_tls is not None)
        self._uses_codes = authorization_url is not None
        self._describe()
        wrap_fastapi(Protected)

    @property
    def guard(self) -> Guard:
        """The guard that checks tokens."""
        return self._guard

    @property
    def scheme_names(self) -> tuple[str, ...]:
        """The names of the security schemes of this dependency in the OpenAPI document."""
        return tuple(self._schemes)

    @property
    def uses_codes(self) -> bool:
        """Whether Swagger UI can get tokens with authorization codes."""
        return self._uses_codes

    @property
    def forbids(self) -> bool:
        """Whether a valid token may get 403 for a condition, or for a rule that the middleware applies."""
        return self._guard.rules is not None or has_forbidding_condition(self._requirement)

    def requires(
        self,
        *items: Requirement | Condition | str,
        acr: Requirement | Iterable[str] | None = None,
        max_age: int | None = None,
    ) -> Self:
        """Return this dependency with a requirement, for ``Depends``.

        The token must satisfy all of *items*. Each is a scope, a condition, or a requirement such as
        ``any_of("read", "admin")``::

            Depends(protected.requires(any_of("tables.read", "admin")))

        *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
        :func:`~scopeguard.all_of`. The OpenAPI document shows the alternatives of the scopes. If a route has another
        dependency with scopes, the document shows too few scopes, so put the whole requirement of a route into one
        dependency.

        An entry for this dependency in ``app.dependency_overrides`` holds for the result as well. If it is another
        ``Protected``, that checks the requirement. Any other function replaces the check.

        Raises :class:`ConfigurationError` for an item that is neither a scope, a condition nor a requirement.
        """
        narrowed = self._with(require(*items, acr=acr, max_age=max_age))
        narrowed._describe()
        return narrowed

    def _with(self, requirement: Requirement) -> Self:
        narrowed = copy.copy(self)
        narrowed._requirement = self._and(requirement)
        return narrowed

    def _and(self, requirement: Requirement) -> Requirement:
        return requirement if self._requirement is None else all_of(self._requirement, requirement)

    def declare(self, scopes: Sequence[str]) -> Declaration:
        """Return the declaration of a route that names this dependency with *scopes*, for the audit."""
        requirement = self._and(all_of(*scopes)) if scopes else self._requirement
        return Declaration(
            by="dependency",
            access=OPTIONAL if self._optional else requirement or AUTHENTICATED,
            sources=self._sources.methods if self._has_own_sources else None,
            guard=self._guard,
        )

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The refusals by status, as the OpenAPI document shows them for each guarded operation.

        An app that does not use ``FastAPI.openapi()`` can add them with ``FastAPI(responses=protected.responses)``.
        """
        return make_responses(self._guard.style, self._engine.settings.dpop, self._sources)

    def _describe(self) -> None:
        # FastAPI writes the security schemes of further dependencies into its document, and calls those for each
        # request. So the first scheme is declared without a call, as the dependency that this one wraps.
        schemes = make_dependencies(self._schemes, self._requirement)
        if schemes:
            self.__wrapped__: Any = schemes[0].dependency
        self.__signature__: inspect.Signature = make_signature(schemes[1:] if self._requirement is None else schemes)

    # Not a generator, because FastAPI takes as long to run one as for half of a request.
    async def __call__(
        self, *, connection: HTTPConnection, response: Response, security_scopes: SecurityScopes, **shown: None
    ) -> Any:
        """Return the access token of the request, or ``None``, or the value of the app's override."""
        del shown
        if self._origin is not self:  # FastAPI looks for an override of this object only, not of its origin
            override = find_override(self._origin, connection)
            if override is not None and self._requirement is not None:
                if not isinstance(override, Protected):
                    return await call_override(override, connection, response, security_scopes, self._requirement)
                return await override._with(self._requirement)._admit(connection, response, security_scopes)
        return await self._admit(connection, response, security_scopes)

    async def _admit(
        self, connection: HTTPConnection, response: Response, security_scopes: SecurityScopes
    ) -> AccessToken | None:
        scope, requirement = connection.scope, self._requirement
        if security_scopes.scopes:
            needed = _all_of(*security_scopes.scopes)
            requirement = needed if requirement is None else _all_of(requirement, needed)
        engine, place, token = self._engine, self._place, None
        if engine.listens:
            begin_report(engine, scope)
        tokens: _Tokens | None = scope.get(_TOKENS_KEY)
        if tokens is None:
            tokens = scope[_TOKENS_KEY] = {}
        if not self._has_own_sources and tokens.get(place) is None:
            state = scope.get("state")
            known = state.get("access_token") if state and state.get(GUARD_KEY) is self._guard else None
            if isinstance(known, AccessToken):  # GuardMiddleware has checked it, with the same token sources
                tokens[place] = known
            elif place not in tokens and self._recalls:
                token = recall(engine, scope, requirement)
        if token is None:
            token = tokens.get(place)
            if not engine.permits(token, requirement):
                token = await self._decide(connection, response, requirement, tokens)
        tokens[place] = token
        if type(connection) is not Request and (scope.get("state") or {}).get(GUARD_KEY) is self._guard:
            require_of_renewals(scope, requirement)
        if self._optional:
            # An anonymous caller may see another response. The list is missing if an override made the route optional.
            fields: list[str] | None = scope.get(VARY_KEY)
            if fields is None:
                response.headers.add_vary_header(engine.vary)
            else:
                fields.append(engine.vary)
        # Make it the current token for the rest of the request. FastAPI closes the exit stack in the scope when the
        # request ends. If a later version has no such stack, the token does not become current, because it must not
        # stay current for the next request. The dependency returns it in both cases.
        stack = scope.get(REQUEST_STACK)
        if access_token_or_none() is not token and isinstance(stack, AsyncExitStack):
            stack.callback(end_serving, begin_serving(to_serve(token) if engine.keeps_inbound else token))
        return token

    async def _decide(
        self, connection: HTTPConnection, response: Response, requirement: Requirement | None, tokens: _Tokens
    ) -> AccessToken | None:
        scope, engine = connection.scope, self._engine
        rule = rule_of_middleware(self._guard, scope)
        decision: Decision
        if self._place in tokens:
            view = request_view(scope, scope.get("method", "GET"))
            known = tokens[self._place]
            if known is None and self._optional:
                decision = engine.admit_anonymous(view, again=True)
            else:
                decision = engine.authorize(known, requirement, request=view)
        else:
            view = request_view(scope, scope.get("method", "GET"), with_proofs=engine.checks_proofs)
            read_form = make_form_reader(connection, self._sources) if isinstance(connection, Request) else None
            if self._sources.in_query and has_access_token(view.query):
                scope[IN_QUERY_KEY] = True
                strip_query_token(connection, response)
            keep_private(response, view, engine)
            hide_fields(connection, self._sources)
            decision = await engine.acheck(
                view,
                requirement,
                optional=self._optional,
                sources=self._sources,
                read_form=read_form,
                policies=() if rule is None else rule.policies,
                dpop=None if rule is None else rule.mode,
            )
        match decision:
            case Granted(access_token=token):
                return token
            case Anonymous():
                return None
            case refusal:
                raise make_refusal(refusal, scope, engine)
