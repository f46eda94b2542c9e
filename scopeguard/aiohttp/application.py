"""The guard of an aiohttp app: middleware that checks each request, and the signal before each response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from aiohttp import web

from scopeguard.adapter.cors import expose_headers
from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.preflights import announces_allowed_request
from scopeguard.adapter.route_access import MOST_ROUTES, RouteAccess
from scopeguard.aiohttp.requests import (
    PROOFS_KEY,
    STATE_KEY,
    TOKEN_KEY,
    RequestState,
    publish_route,
    put,
    query_of,
    raw_path,
    read_form,
    remove_key,
    remove_tokens,
    replace_headers,
    request_view,
    to_response,
)
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck
from scopeguard.config.checks import instance
from scopeguard.config.cors import Preflight
from scopeguard.core.decision import Adapter, Denied, Granted, Report, Unavailable
from scopeguard.core.starting import aprepare
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.inbound_tokens import to_serve
from scopeguard.request import ProofNotes
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.spec.credentials import has_access_token
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.spec.response_headers import add_proof_headers, private_headers, uncached_headers
from scopeguard.tokens import AccessToken, begin_serving, end_serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REST: Final = Rule("/{rest:path}", OPTIONAL)
_AMBIGUOUS: Final = Rule("/{rest:path}", DENIED)
_PREFLIGHT_FIELD: Final = "Access-Control-Request-Method"


def setup(
    app: web.Application,
    guard: Guard,
    *,
    public: Iterable[str] = (),
    rules: Rules | Iterable[Rule] | None = None,
    cors_preflight: Preflight | str | None = None,
) -> None:
    """Require a valid access token for every route of *app*, unless a rule or a decorator says otherwise.

    * *public*: path templates that need no token, such as ``"/static/{name:path}"``. They do not change what other
      paths need. The routes of sub-apps are included; their paths begin with their prefix.
    * *rules*: the requirement of each route. Default: the rules of the guard. A route that matches none of them is
      denied, unless its handler has a decorator of scopeguard.
    * *cors_preflight*: with ``"pass"``, CORS preflights need no token, except those for routes that are denied to
      everyone. A library that adds CORS headers in ``on_response_prepare``, such as aiohttp-cors, adds them to refusals
      as well. Default: the setting of the guard.

    If both a rule and a handler declare something, the stricter one holds. The request gets ``access_token``, ``None``
    for an anonymous caller, and :func:`access_token` returns the token in all code that runs for the request. A refusal
    is a response, not an exception, so that no middleware of the app that catches ``web.HTTPException`` changes it.

    The token is checked when the request begins: a websocket or a stream may outlive it.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for an app that has a guard or has started,
    for rules that the guard cannot apply, and, when the app starts, for errors of the audit if the guard was created
    with ``audit="error"``.
    """
    instance(app, web.Application, "app", "an aiohttp web.Application")
    instance(guard, Guard, "guard", "a scopeguard.Guard, as in setup(app, guard)")
    if LAYER in app or app.frozen:
        raise ConfigurationError(
            "setup: the app has a guard already, or has started; call setup once, before it starts"
        )
    engine = engine_of(guard)
    layer = _AppLayer(app, guard, engine.check_rules(Rules.choose(rules, guard.rules).with_public(public)))
    layer.passes_preflights = engine.passes_preflights(cors_preflight)
    checks = _Checks(layer)
    app[LAYER] = layer

    @web.middleware
    async def check_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await checks.check(request, handler)

    app.middlewares.insert(0, check_request)
    app.on_response_prepare.append(checks.finish_response)
    app.on_startup.append(checks.start)


class _AppLayer(Layer):
    """The guard of an app, as requests and the audit see it."""

    default = "setup default"
    views_decide = True

    def __init__(self, app: web.Application, guard: Guard, rules: Rules) -> None:
        self.app = app
        self.guard = guard
        self.rules = rules
        self.declared: RouteRequirements = RouteRequirements(app, rules)
        metadata = engine_of(guard).metadata
        if metadata is not None:
            metadata.add(self.declared)


LAYER: Final = web.AppKey("scopeguard.layer", Layer)
"""The key in an app of its :class:`Layer`, for the audit."""


class _Checks:
    """The functions that aiohttp calls for each request to one app."""

    def __init__(self, layer: Layer) -> None:
        self._app: web.Application = layer.app
        self._guard = layer.guard
        self._engine = engine_of(layer.guard)
        self._rules = layer.rules
        self._matches_every_path = Rules([*layer.rules.all, _REST])
        self._passes_preflights = layer.passes_preflights
        self._start_check = StartCheck(layer.app, layer.guard)
        self._routes: dict[tuple[int, int, str], RouteAccess] = {}

    async def start(self, app: web.Application) -> None:
        del app
        await aprepare(self._engine)
        self._start_check.run()

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check *request*, and call *handler* or refuse."""
        engine = self._engine
        if engine.metadata is not None and request.path.startswith(WELL_KNOWN):
            answer = engine.metadata.answer(
                request.method,
                request.path,
                query_of(request).decode("latin-1"),
                if_none_match=request.headers.get("If-None-Match", ""),
                is_preflight=_PREFLIGHT_FIELD in request.headers,
            )
            if answer is not None:
                return to_response(answer)
        rule = self._find(request.method, request)
        state = RequestState(self._guard, self._route(rule, request.match_info.handler, request.method))
        put(request, STATE_KEY, state)
        report: Report | None = None
        if engine.listens:
            route = None if rule is None else rule.path
            report = engine.begin_report(Adapter.AIOHTTP, request.method, request.path, route)
            state.report = engine.current_report()
        try:
            return await self._answer(request, handler, state)
        finally:
            if report is not None:
                publish_route(request, report)
                report.end()

    async def _answer(self, request: web.Request, handler: Handler, state: RequestState) -> web.StreamResponse:
        state.is_passed = self._passes_preflights and await self._is_open_preflight(request)
        token: AccessToken | None = None
        if state.route.access is not PUBLIC and not state.is_passed:
            token = self._recall(request, state.route)
            if token is None:
                decision = await self._decide(request, state)
                if isinstance(decision, Denied | Unavailable):
                    refusal = to_response(decision.response)
                    self._finish(request, state, refusal)
                    return refusal
                token = decision.access_token if isinstance(decision, Granted) else None
            state.is_checked = True
        else:
            remove_key(request, self._engine.key_field)  # a key is also removed on an open route
        state.token = token
        put(request, TOKEN_KEY, token)
        before = begin_serving(to_serve(token) if self._engine.keeps_inbound else token)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            self._finish(request, state, error)
            raise
        finally:
            end_serving(before)
        # The signal does not do this: it gets the original request, and middleware may have passed on a copy.
        if not response.prepared:
            self._finish(request, state, response)
        return response

    def _recall(self, request: web.Request, route: RouteAccess) -> AccessToken | None:
        fields = request.headers.getall("Authorization", ())
        key_field = self._engine.key_field
        if key_field is not None and key_field.decode("ascii") in request.headers:
            return None
        if not route.is_plain or len(fields) != 1:
            return None
        peer = None if request.secure or not request.remote else (request.remote,)
        field = fields[0].encode("utf-8", "surrogateescape")
        return self._engine.recall(field, route.requirement, query_of(request), peer)

    async def _decide(self, request: web.Request, state: RequestState) -> Any:
        engine, route = self._engine, state.route
        sources = route.token_sources
        view = request_view(request, with_proofs=engine.checks_proofs)
        state.is_in_query = sources.in_query and has_access_token(view.query)
        state.has_other_field = engine.has_other_field(view.headers)
        decision = await engine.acheck(
            view,
            route.requirement,
            optional=route.access is OPTIONAL,
            closed=route.closed,
            sources=sources,
            read_form=lambda limit: read_form(request, limit, sources.form_timeout),
            policies=route.policies,
            dpop=route.dpop,
        )
        state.subprotocol = remove_tokens(request, sources, in_query=state.is_in_query)
        return decision

    def _find(self, method: str, request: web.Request) -> Rule | None:
        """Return the rule for a request, or ``None`` if no reading of its path matches one. Then the handler decides.

        If the readings lead to different rules, the result denies the request.
        """
        path, raw = request.path, raw_path(request)
        rule = self._rules.find(method, path, raw)
        if rule is None and self._rules.deny_unmatched:
            return None if self._matches_every_path.find(method, path, raw) is _REST else _AMBIGUOUS
        return rule

    def _route(self, rule: Rule | None, handler: Any, method: str) -> RouteAccess:
        """Return the combined requirement of *rule* and *handler*. It is cached for each rule, handler and method."""
        marked: list[Any] = [getattr(handler, "__func__", handler)]
        is_view = isinstance(handler, type)
        if is_view:  # its method for the request may have a decorator, too
            name = "get" if method == "HEAD" and not hasattr(handler, "head") else method.lower()
            marked.insert(0, getattr(handler, name, None) if method.isupper() else None)
        # The handlers for 404 and 405. aiohttp makes one for each request, so they are not cached.
        if getattr(handler, "__module__", "").startswith("aiohttp."):
            return RouteAccess(rule, handler, (), self._engine, self._rules)
        key = (id(rule), id(handler), method if is_view and marked[0] is not None else "")
        route = self._routes.get(key)
        if route is None or route.view is not handler:
            route = RouteAccess(rule, handler, marked, self._engine, self._rules)
            if len(self._routes) < MOST_ROUTES:
                self._routes[key] = route
        return route

    async def _is_open_preflight(self, request: web.Request) -> bool:
        """Return whether *request* is a CORS preflight for a request that is not denied to everyone."""
        announced = request.headers.get(_PREFLIGHT_FIELD)
        if request.method != "OPTIONS" or announced is None or "Origin" not in request.headers:
            return False
        own, rule = self._find("OPTIONS", request), self._find(announced, request)
        is_closed = self._rules.closes(rule)
        if rule is None and is_closed:  # denied unless the handler has a decorator
            match = await self._app.router.resolve(request.clone(method=announced))
            is_closed = self._route(rule, match.handler, announced).closed
        return announces_allowed_request(announced, None if own is None else own.access, lambda _: is_closed)

    async def finish_response(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers of the guard to *response*, if the handler itself begins to send it."""
        state: RequestState | None = request.get(STATE_KEY)
        if state is not None and not state.is_finished:
            if state.report is not None and isinstance(request, web.Request):
                publish_route(request, state.report)
            self._finish(request, state, response)

    def _finish(self, request: web.BaseRequest, state: RequestState, response: web.StreamResponse) -> None:
        """Add the headers for caches, proofs and scripts of other origins to *response*."""
        state.is_finished = True
        if state.is_in_query:
            replace_headers(response, private_headers(list(response.headers.items())))
        elif state.has_other_field:
            replace_headers(response, uncached_headers(list(response.headers.items())))
        notes: ProofNotes | None = request.get(PROOFS_KEY)
        if notes is not None and notes.changes_response:
            replace_headers(response, add_proof_headers(notes.nonce, notes.vary, list(response.headers.items())))
        if self._passes_preflights and "Origin" in request.headers:
            replace_headers(response, expose_headers(response.headers.items()))
        if state.is_checked and state.route.access is OPTIONAL:
            response.headers.add("Vary", self._engine.vary)
        if state.subprotocol is not None and response.status == 101:
            response.headers.setdefault("Sec-WebSocket-Protocol", state.subprotocol)
