"""The Flask extension: checks the token of each request before the app's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from flask.wrappers import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from scopeguard.adapter.cors import expose_headers
from scopeguard.adapter.declarations import EXTENSION, Layer
from scopeguard.adapter.extension_checks import check_extension
from scopeguard.adapter.preflights import PREFLIGHT_KEY, announces_allowed_request
from scopeguard.adapter.route_access import AMBIGUOUS, ViewRules
from scopeguard.adapter.token_removal import remove_from_environ, remove_key
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck
from scopeguard.config.checks import instance, member
from scopeguard.config.cors import Preflight
from scopeguard.core.decision import Adapter, Decision, Granted
from scopeguard.core.engine import Engine
from scopeguard.flask.request_state import (
    STATE_KEY,
    CurrentToken,
    RequestState,
    RouteAccess,
    get_context,
    get_request,
    is_answered_by_flask,
    to_flask_response,
)
from scopeguard.guard import Guard, engine_of
from scopeguard.inbound_tokens import to_serve
from scopeguard.rules import OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.spec.credentials import has_access_token
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.spec.response_headers import add_proof_headers, private_headers, uncached_headers
from scopeguard.tokens import AccessToken, Anonymous
from scopeguard.wsgi import (
    ENVIRON_KEY,
    GUARD_KEY,
    answer_metadata,
    debug_answer,
    decoded_path,
    raw_path,
    read_form,
    recall,
    request_view,
    strip_query_token,
    strip_url,
)

if TYPE_CHECKING:
    from scopeguard.adapter.debug_page import DebugPage


class ScopeGuard:
    """Require a valid access token for every route of *app*, unless a rule or a decorator says otherwise.

    ::

        ScopeGuard(app, guard, public=["/healthz"])

    or, with an app factory, ``extension = ScopeGuard(guard=guard)`` and later ``extension.init_app(app)``.

    * *public*: path templates that need no token, such as ``"/static/{name:path}"``. They do not change what other
      paths need.
    * *rules*: the requirement of each route. Default: the rules of the guard. If there are rules, a route that matches
      none of them is denied, unless its view has a decorator of scopeguard. An empty list denies every route without
      such a decorator.
    * *cors_preflight*: with ``"pass"``, CORS preflights need no token, except those for routes that are denied to
      everyone. Flask answers them. An extension that adds CORS headers to all responses, such as
      ``flask_cors.CORS(app)``, adds them to refusals as well, so that scripts can read them. Default: the setting of
      the guard.
    * *debug*: for development only: serve a page that shows the last decisions of the guard, at ``/_scopeguard`` or at
      the path given here. Only programs on this machine get it; see docs/debug-page.md.

    If both a rule and a view declare something, the stricter one holds: the token must satisfy both requirements, and
    a requirement takes precedence over public and optional. ``public=["/{path:path}"]`` therefore opens all views
    except those with ``@requires``. A route whose rule says ``DENIED`` is denied even if the view is public.

    Not checked: code that Flask runs before the hooks of an app (URL converters, ``url_value_preprocessor``, opening
    the session), and other apps that are mounted beside this one.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for rules that the guard cannot apply, and, at
    the first request, for errors of the audit if the guard was created with ``audit="error"``.
    """

    def __init__(
        self,
        app: Flask | None = None,
        guard: Guard | None = None,
        *,
        public: Iterable[str] = (),
        rules: Rules | Iterable[Rule] | None = None,
        cors_preflight: Preflight | str | None = None,
        debug: bool | str = False,
    ) -> None:
        if guard is not None:
            instance(guard, Guard, "guard", "a scopeguard.Guard, as in ScopeGuard(app, guard)")
        if app is not None:
            instance(app, Flask, "app", "a Flask app")
        if cors_preflight is not None:
            cors_preflight = member(Preflight, cors_preflight, "cors_preflight")
        if debug is not False:
            from scopeguard.adapter.debug_page import check_path  # noqa: PLC0415 - for development only

            check_path(debug)
        self._debug = debug
        self._guard = guard
        self._cors_preflight = cors_preflight
        self._rules = None if rules is None else Rules.of(rules)
        self._public = Rules(public=public).all
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, guard: Guard | None = None) -> None:
        """Protect *app* with *guard* or the guard given to the constructor.

        Raises :class:`ConfigurationError` without a guard, and for an app that has a ScopeGuard already.
        """
        guard = check_extension(guard or self._guard, has_another="scopeguard" in app.extensions)
        engine = engine_of(guard)
        rules = engine.check_rules(Rules.choose(self._rules, guard.rules), blocks=True)
        layer = _Extension(app, guard, rules.with_public(rule.path for rule in self._public))
        layer.passes_preflights = engine.passes_preflights(self._cors_preflight)
        hooks = _Hooks(app, layer, StartCheck(app, guard, check=_source_check(app, engine)))
        if self._debug is not False:
            from scopeguard.adapter.debug_page import open_debug_page  # noqa: PLC0415 - for development only

            hooks.debug = open_debug_page(self._debug, engine)
        if engine.metadata is not None:
            layer.route_requirements = RouteRequirements(app, layer.rules)
            engine.metadata.add(layer.route_requirements)
        app.extensions[EXTENSION] = layer
        app.extensions["scopeguard"] = self
        app.before_request(hooks.check)
        # Run first, so that the hooks of the app do not run for a refused request.
        before = app.before_request_funcs[None]
        before.insert(0, before.pop())
        app.after_request(hooks.finish_response)
        app.teardown_request(hooks.end)


def _source_check(app: Flask, engine: Engine) -> Callable[[], object] | None:
    """Return a check that no view has token sources that the profile of the guard refuses.

    Views are added after the extension, so this waits for the first request.
    """
    if engine.sources.limit is None:
        return None
    return lambda: engine.check_rules(Rules(RouteRequirements(app).declared_rules()))


class _Extension(Layer):
    """The extension in an app, as the audit sees it."""

    default = "extension default"
    views_decide = True
    route_requirements: RouteRequirements | None = None
    """The declarations of the views. The metadata of the resource refers to them weakly."""

    def __init__(self, app: Flask, guard: Guard, rules: Rules) -> None:
        self.app = app
        self.guard = guard
        self.rules = rules


class _Hooks:
    """The functions that Flask calls for each request to one app."""

    def __init__(self, app: Flask, layer: Layer, check: StartCheck) -> None:
        self._app = app
        self._guard = layer.guard
        self._engine = engine_of(layer.guard)
        self._rules = layer.rules
        self._view_rules: ViewRules[RouteAccess] = ViewRules(layer.rules)
        self._passes_preflights = layer.passes_preflights
        self._start_check = check
        self.debug: DebugPage | None = None

    def check(self) -> Response | None:
        """Check the current request and return its refusal, or ``None`` if it may proceed."""
        if self._start_check.pending:
            self._start_check.run()
        flask_request, engine = get_request(), self._engine
        environ = flask_request.environ
        if engine.metadata is not None and environ.get("PATH_INFO", "").startswith(WELL_KNOWN):
            answer = answer_metadata(engine.metadata, environ)
            if answer is not None:
                return to_flask_response(answer)
        rule = self._find_for(flask_request)
        route = self._route(rule, flask_request)
        known: AccessToken | None = None
        if environ.get(GUARD_KEY) is self._guard:
            if route.sources is None and route.dpop is None:  # the layer around the app does not know these two
                known = environ.pop(ENVIRON_KEY, None)
        else:
            environ[GUARD_KEY] = self._guard
        state = environ[STATE_KEY] = RequestState(route)
        if engine.listens:
            answer = None if self.debug is None else debug_answer(self.debug, environ)  # the page is a listener
            if answer is not None:
                return to_flask_response(answer)
            state.own_report = engine.begin_report(
                Adapter.FLASK, flask_request.method, decoded_path(environ), None if rule is None else rule.path
            )
            state.report = engine.current_report()
        token: AccessToken | None = None
        is_options = flask_request.method == environ["REQUEST_METHOD"].upper() == "OPTIONS"
        is_passed = is_options and self._passes(flask_request, rule)
        if route.access is not PUBLIC and not is_passed:
            if route.is_plain:
                token = recall(engine, environ, route.requirement) if known is None else known
                if known is not None and not engine.permits(known, route.requirement):
                    token = None
            if token is None:
                match self._decide(environ, state, known):
                    case Granted(access_token=token):
                        pass
                    case Anonymous():
                        pass
                    case refusal:
                        return to_flask_response(refusal.response)
        else:
            remove_key(environ, engine.key_field)  # a key is also removed on an open route
        state.is_checked = not is_passed
        environ[ENVIRON_KEY] = token
        state.serving = CurrentToken(flask_request, token, to_serve(token) if engine.keeps_inbound else token)
        return None

    def _find(self, method: str, environ: dict[str, Any]) -> Rule | None:
        return self._view_rules.find(method, decoded_path(environ), raw_path(environ))

    def _find_for(self, flask_request: Request) -> Rule | None:
        """Return the rule for *flask_request*.

        A request class of the app may take the method from elsewhere, as from a field that overrides it. Flask routes
        by the method that was sent, and views read the other one. If the two have different rules, the result denies
        the request.
        """
        environ, method = flask_request.environ, flask_request.method
        sent: str = environ["REQUEST_METHOD"]
        rule = self._find(sent, environ)
        if method not in (sent, sent.upper()) and self._find(method, environ) is not rule:
            return AMBIGUOUS
        return rule

    def _route(self, rule: Rule | None, flask_request: Request) -> RouteAccess:
        """Return the combined requirement of *rule* and the view. It is cached for each rule, view and method."""
        endpoint = flask_request.endpoint or ""
        view = self._app.view_functions.get(endpoint)
        # Only the methods of a view class have declarations of their own. Without a view, clients could fill the cache
        # with made-up methods.
        method = "" if view is None or not hasattr(view, "view_class") else flask_request.method
        return self._view_rules.route(
            rule,
            view,
            (endpoint, method),
            lambda: RouteAccess(rule, view, endpoint, flask_request.method, self._engine, self._rules),
        )

    def _decide(self, environ: dict[str, Any], state: RequestState, known: AccessToken | None) -> Decision:
        engine, route = self._engine, state.route
        view = request_view(environ, with_proofs=engine.checks_proofs)
        if known is not None:
            return engine.authorize_again(known, route.requirement, route.policies, view, closed=route.closed)
        if route.token_sources.in_query and has_access_token(view.query):
            state.is_in_query = True
            _strip_query_token()
        state.has_other_field = engine.has_other_field(view.headers)
        decision = engine.check(
            view,
            route.requirement,
            optional=route.access is OPTIONAL,
            closed=route.closed,
            sources=route.token_sources,
            read_form=lambda limit: read_form(environ, limit),
            policies=route.policies,
            dpop=route.dpop,
        )
        state.proofs = view.proofs
        remove_from_environ(environ, route.token_sources)
        return decision

    def _passes(self, flask_request: Request, rule: Rule | None) -> bool:
        """Return whether *flask_request*, with the method OPTIONS, needs no token although its view does.

        This is the case for a preflight, and for a request that a rule for OPTIONS opens and that Flask answers without
        calling the view.
        """
        environ = flask_request.environ
        is_open = rule is not None and rule.access is PUBLIC and "OPTIONS" in (rule.methods or ())
        passed: bool
        passed = environ[PREFLIGHT_KEY] = (is_open and is_answered_by_flask(flask_request)) or (
            self._passes_preflights and "HTTP_ORIGIN" in environ and self._announces(flask_request)
        )
        return passed

    def _announces(self, flask_request: Request) -> bool:
        """Return whether *flask_request* is a preflight for a request that is not denied to everyone."""
        environ = flask_request.environ
        method: str | None = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
        own = self._find("OPTIONS", environ)
        return announces_allowed_request(
            method, None if own is None else own.access, lambda announced: self._is_closed(flask_request, announced)
        )

    def _is_closed(self, flask_request: Request, method: str) -> bool:
        """Return whether requests with *method* to the path of *flask_request* are denied to everyone."""
        rule = self._find(method, flask_request.environ)
        if rule is not None or not self._rules.closes(rule):
            return self._rules.closes(rule)
        adapter = self._app.create_url_adapter(flask_request)
        try:
            endpoint = "" if adapter is None else adapter.match(method=method)[0]
        except HTTPException:
            return True
        view = self._app.view_functions.get(endpoint)
        return RouteAccess(rule, view, endpoint, method, self._engine, self._rules).closed

    def finish_response(self, response: Response) -> Response:
        """Add the headers for caches and for scripts of other origins to *response*."""
        state: RequestState | None = get_request().environ.get(STATE_KEY)
        if state is not None:
            state.report_route()
        if state is not None and state.is_in_query:
            response.headers = Headers(private_headers(list(response.headers)))
        elif state is not None and state.has_other_field:
            response.headers = Headers(uncached_headers(list(response.headers)))
        notes = None if state is None else state.proofs
        if notes is not None and notes.changes_response:
            response.headers = Headers(add_proof_headers(notes.nonce, notes.vary, list(response.headers)))
        if self._passes_preflights and "HTTP_ORIGIN" in get_request().environ:
            response.headers = Headers(expose_headers(response.headers))
        if state is not None and state.is_checked and state.route.access is OPTIONAL:
            response.vary.update(self._engine.vary.split(", "))
        return response

    def end(self, error: BaseException | None) -> None:
        """End the request: its token is no longer the current one.

        Flask also calls this for each copy of the request context (``copy_current_request_context``), in the thread of
        the job, while the request may still be running.
        """
        del error
        state: RequestState | None = get_request().environ.get(STATE_KEY)
        if state is None or state.context is not get_context():
            return
        if state.serving is not None:  # before the report calls a listener of the app, which may raise
            serving, state.serving = state.serving, None
            serving.end()
        state.report_route()
        if state.own_report is not None:
            state.own_report.end()


def _strip_query_token() -> None:
    """Remove the token from the URL that the app reads, and from a redirect that routing has prepared."""
    strip_query_token(request.environ)
    request.query_string = request.environ["QUERY_STRING"].encode("latin-1")
    for cached in ("args", "full_path", "url", "values"):
        request.__dict__.pop(cached, None)
    if isinstance(request.routing_exception, RequestRedirect):
        request.routing_exception.new_url = strip_url(request.routing_exception.new_url)
