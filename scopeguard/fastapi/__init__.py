"""FastAPI: the ordinary ``Security`` idiom, with the OpenAPI document and Swagger UI's Authorize button.

    protected = Protected(guard, token_url="https://auth.example.com/token", scopes={"bigquery.insertdata": "insert"})

    @app.post("/insert")
    async def insert(token: Annotated[AccessToken, Security(protected, scopes=["bigquery.insertdata"])]): ...

    @app.get("/tables")
    async def tables(token: Annotated[AccessToken, Depends(protected.requires(any_of("bigquery", "admin")))]): ...

The scopes of ``Security`` are all needed. What a flat list cannot say, a requirement says.

A dependency guards the routes that name it: give it to ``FastAPI(dependencies=[Depends(protected)])`` or to a router,
and those guard all of theirs. What no route answers (404, 405), and ``/docs`` and ``/openapi.json``, stay open then;
put :class:`~scopeguard.asgi.GuardMiddleware` in front to deny by default. With the same guard a token is judged once.
Other routes that no dependency guards are found when the app starts (``Guard(audit=...)``).

The OpenAPI document declares the scopes that operations need, and their refusals. For this and for the check at the
start, the first ``Protected`` wraps two methods of the class ``FastAPI``: see :mod:`scopeguard.fastapi.application`.

FastAPI parses a request's body before it asks dependencies: a body that is no JSON at all is answered 400 or 422 to
callers without a token, too. Wrong fields are reported after the token was judged.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

from scopeguard.conditions import Condition
from scopeguard.config.checks import flag, text
from scopeguard.extras import explain_missing

try:
    from fastapi import Response
    from fastapi.security import SecurityScopes
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "fastapi") from None

import anyio
from starlette.requests import HTTPConnection, Request

from scopeguard.access_token import AccessToken, Anonymous, begin_serving, end_serving
from scopeguard.access_token import current_access_token as access_token
from scopeguard.access_token import current_access_token_or_none as access_token_or_none
from scopeguard.adapter.cors import expose_headers
from scopeguard.adapter.declarations import Declaration, DeclaringDependency, declare_access
from scopeguard.adapter.token_places import remove_from_scope
from scopeguard.asgi import GUARD_KEY, GuardMiddleware, Scope, framework_route, recall, request_view
from scopeguard.config.sources import TokenSources
from scopeguard.core.decision import Decision, Denied, Granted, Report, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import (
    ConfigurationError,
    Reason,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.fastapi.application import wrap_fastapi
from scopeguard.fastapi.document import schemes_of, shown
from scopeguard.fastapi.overrides import overridden, override_of
from scopeguard.guard import Guard, engine_of
from scopeguard.request import HeaderList
from scopeguard.rules import OPTIONAL, PUBLIC
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, require
from scopeguard.spec.challenge import private_headers
from scopeguard.spec.credentials import declared_length, has_access_token, without_access_token
from scopeguard.starlette import Refusal

__all__ = ["AccessRefused", "GuardMiddleware", "Protected", "access_token", "access_token_or_none", "public"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_Tokens = dict[object, AccessToken | None]
# In the scope: what the dependencies of one request tell each other. Which tokens were judged, and whether one was in
# the URL.
_JUDGED: Final = "scopeguard.fastapi.judged"
_BY_QUERY: Final = "scopeguard.fastapi.by_query"
_REQUEST_STACK: Final = "fastapi_inner_astack"


class AccessRefused(Exception):
    """Ends the request with the response the guard wrote. Apps need no handler for it; one that they register for this
    class is used instead, and has ``refusal`` and ``response``."""

    def __init__(self, refusal: Denied | Unavailable, response: Refusal) -> None:
        super().__init__(str(refusal.error))
        self.refusal = refusal
        self.response = response


class Protected(DeclaringDependency):
    """A dependency: judges the token of a request, and returns it as an :class:`AccessToken`.

    * *guard*: what judges. A request is judged once, however many dependencies ask.
    * *optional*: return ``None`` for a caller who sent no credentials at all. Bad ones are refused all the same.
    * *token_sources*: where these routes take tokens, instead of the guard's own setting. Behind ``GuardMiddleware``
      let a :class:`~scopeguard.rules.Rule` say it instead: that marks every response to a token in the query private
     , which a dependency cannot do where the endpoint builds a ``Response`` itself. Forms are read up to the
      ``Content-Length`` that they then need.
    * *token_url*, *scopes*: for Swagger UI: the token endpoint, which hands out tokens for client credentials, and what
      scopes mean; by default what the guard's catalog says. Scopes that operations need are declared in any case.
    * *openid_connect_url*: the discovery document, for tools that read it.
    * *scheme_prefix*: begins the names of the security schemes, where an app has several ``Protected`` that differ.

    Raises :class:`ConfigurationError`, also in ``Security(protected, scopes=...)`` for anything that is not a list of
    scopes. A caller without a token gets
    401, one whose token does not suffice 403 with all the scopes that this dependency needs: name all the scopes of an
    operation in one, so that callers read them in one. On websockets the handshake is refused.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        optional: bool = False,
        token_sources: Iterable[str] | None = None,
        token_url: str | None = None,
        scopes: Mapping[str, str] | None = None,
        openid_connect_url: str | None = None,
        scheme_prefix: str = "",
    ) -> None:
        if not isinstance(guard, Guard):
            raise ConfigurationError("Protected: guard is a scopeguard.Guard, as in Protected(guard)")
        flag(optional, "optional")
        text(scheme_prefix, "scheme_prefix")
        for name, url in (("token_url", token_url), ("openid_connect_url", openid_connect_url)):
            if url is not None:
                text(url, name, empty=False)
        if scopes is not None and token_url is None:
            raise ConfigurationError("Protected: scopes describe what token_url hands out; name it as well")
        self._guard = guard
        self._engine = engine = engine_of(guard)
        self._optional = optional
        self._has_own_sources = token_sources is not None
        self._sources = engine.sources if token_sources is None else engine.sources.only(token_sources)
        self._sources.check_senders()
        self._place = (engine, self._sources.methods)  # dependencies that agree in it judge a request once
        self._requirement: Requirement | None = None
        self._whole = self  # what requires() was called of
        described = guard.catalog.descriptions if scopes is None else scopes
        self._schemes = schemes_of(self._sources, token_url, described, openid_connect_url, scheme_prefix)
        self._show()
        wrap_fastapi(Protected)

    @property
    def guard(self) -> Guard:
        """What judges."""
        return self._guard

    @property
    def scheme_names(self) -> tuple[str, ...]:
        """The names of its security schemes in the OpenAPI document."""
        return tuple(self._schemes)

    def requires(
        self,
        *items: Requirement | Condition | str,
        acr: Requirement | Iterable[str] | None = None,
        max_age: int | None = None,
    ) -> Self:
        """Return the same dependency with a requirement, for ``Depends``: all of *items*.

        *items* are scopes, conditions, or ``any_of(...)`` and its like. *acr* and *max_age* require that the user
        signed in strongly and recently enough, as in :func:`~scopeguard.all_of`. The OpenAPI document shows the
        alternatives of the scopes. Beside another dependency with scopes it would show fewer than are needed, so put
        the whole requirement of a route into one dependency.

        ``app.dependency_overrides`` for this dependency holds for the result as well. Another ``Protected`` there is
        asked with the requirement; any other function takes the place of the check."""
        narrowed = self._narrowed(require(*items, acr=acr, max_age=max_age))
        narrowed._show()
        return narrowed

    def _narrowed(self, requirement: Requirement) -> Self:
        narrowed = copy.copy(self)
        narrowed._requirement = self._and(requirement)
        return narrowed

    def _and(self, requirement: Requirement) -> Requirement:
        return requirement if self._requirement is None else all_of(self._requirement, requirement)

    def declare(self, scopes: Sequence[str]) -> Declaration:
        """For audits: what a route says that names this dependency, with *scopes* beside it."""
        requirement = self._and(all_of(*scopes)) if scopes else self._requirement
        return Declaration(
            by="dependency",
            access=OPTIONAL if self._optional else requirement or AUTHENTICATED,
            sources=self._sources.methods if self._has_own_sources else None,
            guard=self._guard,
        )

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The refusals, by status, as the OpenAPI document shows them for each guarded operation.

        An app whose document is not made by ``FastAPI.openapi()`` shows them with
        ``FastAPI(responses=protected.responses)``.
        """
        challenge = {"WWW-Authenticate": {"description": "RFC 6750 section 3", "schema": {"type": "string"}}}
        retry = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
        content: dict[str, Any] = {self._guard.style.media_type: {"schema": {"type": "object"}}}
        return {
            401: {"description": "No valid access token", "headers": challenge, "content": content},
            403: {"description": "The access token lacks a scope", "headers": challenge, "content": content},
            503: {"description": "The access token cannot be judged now", "headers": retry, "content": content},
        }

    def _show(self) -> None:
        # FastAPI reads this signature: what to hand over, and, as dependencies, what to write into its document. Every
        # one of those it runs with every request, so the first scheme is shown in another way: as what this one wraps.
        only = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("connection", only, annotation=HTTPConnection),
            inspect.Parameter("response", only, annotation=Response),
            inspect.Parameter("security_scopes", only, annotation=SecurityScopes),
        ]
        schemes = shown(self._schemes, self._requirement)
        if schemes:
            self.__wrapped__: Any = schemes[0].dependency
        for number, scheme in enumerate(schemes[1:] if self._requirement is None else schemes):
            parameters.append(inspect.Parameter(f"scheme_{number}", only, default=scheme, annotation=None))
        self.__signature__: inspect.Signature = inspect.Signature(parameters)

    # Not a generator: FastAPI takes half a request to run one.
    async def __call__(
        self, *, connection: HTTPConnection, response: Response, security_scopes: SecurityScopes, **shown: None
    ) -> Any:
        """The access token of the request, or ``None``; where the app overrides the dependency, what it wants."""
        del shown
        if self._whole is not self:  # FastAPI looks for an override of the very object that a route names
            override = override_of(self._whole, connection)
            if override is not None and self._requirement is not None:
                if not isinstance(override, Protected):
                    return await overridden(override, connection, response, security_scopes, self._requirement)
                return await override._narrowed(self._requirement)._admit(connection, response, security_scopes)
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
            _begin_report(engine, scope)
        tokens: _Tokens | None = scope.get(_JUDGED)
        if tokens is None:
            tokens = scope[_JUDGED] = {}
        if not self._has_own_sources and tokens.get(place) is None:
            state = scope.get("state")
            known = state.get("access_token") if state and state.get(GUARD_KEY) is self._guard else None
            if isinstance(known, AccessToken):  # GuardMiddleware has judged it, and looked for it in the same places
                tokens[place] = known
            elif place not in tokens:
                token = recall(engine, scope, requirement)
        if token is None:
            token = tokens.get(place)
            if not engine.permits(token, requirement):
                token = await self._judged(connection, response, requirement, tokens)
        tokens[place] = token
        if self._optional:
            response.headers.add_vary_header("Authorization")  # an anonymous caller may see another response
        # The current one for the rest of the request. What ends with a request FastAPI keeps in a stack in its
        # scope, for its own purposes. Should that be gone one day, there is no current token, rather than one that
        # stays for the next request; the dependency still returns it.
        stack = scope.get(_REQUEST_STACK)
        if access_token_or_none() is not token and isinstance(stack, AsyncExitStack):
            stack.callback(end_serving, begin_serving(token))
        return token

    async def _judged(
        self, connection: HTTPConnection, response: Response, requirement: Requirement | None, tokens: _Tokens
    ) -> AccessToken | None:
        scope, engine = connection.scope, self._engine
        decision: Decision
        if self._place in tokens:
            view = request_view(scope, scope.get("method", "GET"))
            known = tokens[self._place]
            if known is None and self._optional:
                decision = engine.admit_anonymous(view, again=True)
            else:
                decision = engine.authorize(known, requirement, request=view)
        else:
            view = request_view(scope, scope.get("method", "GET"))
            read_form = _form_reader(connection, self._sources) if isinstance(connection, Request) else None
            if self._sources.in_query and has_access_token(view.query):
                scope[_BY_QUERY] = True
                _strip_query_token(connection, response)
            if remove_from_scope(scope, self._sources) is not None or self._sources.in_forwarded:
                vars(connection).pop("_headers", None)  # FastAPI has looked at the fields before
            decision = await engine.acheck(
                view, requirement, optional=self._optional, sources=self._sources, read_form=read_form
            )
        match decision:
            case Granted(access_token=token):
                return token
            case Anonymous():
                return None
            case refusal:
                raise _refused(refusal, scope, engine)


def public(endpoint: Endpoint) -> Endpoint:
    """Say of *endpoint* that it is meant to be open, below the line that makes its route. To audits; a dependency that
    the route has all the same goes on to guard it, and so does middleware."""
    declare_access(endpoint, PUBLIC, "public", "the function of a route")
    return endpoint


_all_of: Final = functools.lru_cache(maxsize=1024)(all_of)  # FastAPI hands out the same few lists again and again


def _refused(refusal: Denied | Unavailable, scope: Scope, engine: Engine) -> AccessRefused:
    response = refusal.response
    if engine.passes_preflights() and HeaderList(scope["headers"]).get_all("origin"):
        response = replace(response, headers=tuple(expose_headers(response.headers)))
    if _BY_QUERY in scope:
        response = replace(response, headers=tuple(private_headers(list(response.headers))))
    # The app looks handlers up in this dict when the exception arrives. It need not know of ours beforehand, and one
    # that it has for our exception is left in place. Without the dict the exception ends in a 500, which is a refusal.
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    handlers.setdefault(AccessRefused, _answer)
    return AccessRefused(refusal, Refusal(response))


async def _answer(connection: HTTPConnection, error: AccessRefused) -> Refusal:
    del connection
    return error.response


def _begin_report(engine: Engine, scope: Scope) -> None:
    """What several dependencies decide about one request is told when the request ends."""
    stack = scope.get(_REQUEST_STACK)
    if isinstance(stack, AsyncExitStack):
        report = engine.report(scope.get("method", "GET"), scope["path"], None)
        if report is not None:
            stack.callback(_end_report, report, scope)


def _end_report(report: Report, scope: Scope) -> None:
    report.tell(framework_route(scope))
    report.leave()


def _strip_query_token(connection: HTTPConnection, response: Response) -> None:
    """Take the token out of what the endpoint, and the server's access log, see of the URL, and keep the
    response out of shared caches and the URL out of Referer headers."""
    connection.scope["query_string"] = without_access_token(connection.scope["query_string"])
    for memo in ("_query_params", "_url"):  # FastAPI has looked at the query before it asks any dependency
        vars(connection).pop(memo, None)
    for name, value in private_headers([]):
        response.headers[name] = value


def _form_reader(request: Request, sources: TokenSources) -> Callable[[int], Awaitable[bytes]]:
    async def read(limit: int) -> bytes:
        # Starlette keeps a whole body for everybody who asks later, and offers no way to stop early and put back what
        # was read. So the length must be known beforehand; servers hold a client to what it declared.
        length = declared_length(request.headers.get("content-length", ""))
        if length is None or length > limit:
            raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
        try:
            with anyio.fail_after(sources.form_timeout):
                return await _body(request)
        except TimeoutError:
            raise RequestTimedOut(Reason.FORM_TOO_SLOW, seconds=sources.form_timeout) from None

    return read


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except RuntimeError:
        # An endpoint with Form parameters: FastAPI has parsed the body and kept no copy. Written again it has the same
        # parameters in the same order; what gets lost is which of them were not ASCII on the wire.
        fields = (await request.form()).multi_items()
        return urlencode([(name, value) for name, value in fields if isinstance(value, str)]).encode("ascii")
