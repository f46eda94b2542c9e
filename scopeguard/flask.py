"""Flask: an extension that denies by default, decorators for views, an accessor bound to the request.

    ScopeGuard(app, guard, public=["/static/{name:path}"])

    @app.post("/insert")
    @requires(any_of("bigquery.insertdata", "bigquery"))
    def insert():
        return {"subject": access_token().subject}

    @app.get("/healthz")
    @public
    def health(): ...

The extension judges the token of every request once, before the app's own hooks and whatever routing found.
Refusals are ready responses, so that no error handler of the app changes them. ``requires`` also works without the
extension, behind :class:`scopeguard.wsgi.GuardMiddleware`. Without either it raises, and lets nothing through.

Longer than 400 lines because the extension and the decorators share the marks and the state of a request.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextvars import Token
from typing import Any, Final, TypeVar, cast

from scopeguard.config.checks import instance, member
from scopeguard.extras import explain_missing

try:
    from flask import Blueprint, Flask, current_app, has_request_context, request
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "flask") from None

import flask.globals
from flask.views import View
from flask.wrappers import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy
from werkzeug.routing import RequestRedirect

from scopeguard.access_token import AccessToken, Anonymous, Serving, begin_serving, end_serving
from scopeguard.adapter.cors import PREFLIGHT_KEY, exposed
from scopeguard.adapter.declared import EXTENSION, REQUIREMENT, SOURCES, Layer, access_of, declare_access, mark
from scopeguard.adapter.token_places import take_out_of_environ
from scopeguard.audit.startup import StartCheck
from scopeguard.config.cors import Preflight
from scopeguard.config.sources import TokenSource, checked_sources
from scopeguard.core.decision import Decision, Denied, Granted, Report, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import Requirement, all_of, require
from scopeguard.spec.challenge import private_headers
from scopeguard.spec.credentials import has_access_token, without_access_token
from scopeguard.wsgi import (
    ENVIRON_KEY,
    GUARD_KEY,
    decoded_path,
    raw_path,
    read_form,
    recall,
    request_view,
    strip_query_token,
)

__all__ = ["REQUIREMENT", "ScopeGuard", "access_token", "access_token_or_none", "optional", "public", "requires"]

T = TypeVar("T")

_STATE: Final = "scopeguard.flask"
_VIEW: Final = "a view, a view class, a method or a blueprint"
_MOST_ROUTES: Final = 4096
# The request behind Flask's proxy, which looks it up anew with every attribute.
_current_request: Final = cast("LocalProxy[Request]", request)._get_current_object
# What a copy of the request context does not share. Flask 3.2 merges it with the app context.
_current_context: Final[Callable[[], object]] = (
    vars(flask.globals).get("request_ctx", flask.globals.app_ctx)._get_current_object
)


class ScopeGuard:
    """Every route of *app* needs a valid access token unless a rule, ``@public`` or ``@optional`` says otherwise.

    * *public*: path templates that need no token. They do not close any other path.
    * *rules*: which route needs what; the guard's own by default. An empty list closes all whose view says nothing.
    * Where a rule and a view both say something, the stricter holds: all that either requires, and no token is
      optional or unnecessary where either requires one. So ``public=["/{path:path}"]`` opens an app except for the
      views that say ``@requires``.
    * Where rules are given, a route that matches none, and whose view says nothing, is denied; so is one whose rule
      says ``DENIED``, whatever the view says.
    * *cors_preflight*: ``"pass"`` lets preflights through, except those for what no token opens. Flask answers them.
      What adds CORS headers for the whole app (``flask_cors.CORS(app)``, a function given to ``after_request``) does so
      for refusals as well, so that scripts can read them. The guard's own setting by default.

    ``ScopeGuard(app, guard)``, or ``ScopeGuard(guard=guard)`` and later :meth:`init_app`. Not covered: code that Flask
    runs before any hook of an app (URL converters, ``url_value_preprocessor``, opening the session), and whatever is
    mounted beside the app rather than in it.
    """

    def __init__(
        self,
        app: Flask | None = None,
        guard: Guard | None = None,
        *,
        public: Iterable[str] = (),
        rules: Rules | Iterable[Rule] | None = None,
        cors_preflight: Preflight | str | None = None,
    ) -> None:
        if guard is not None:
            instance(guard, Guard, "guard", "a scopeguard.Guard, as in ScopeGuard(app, guard)")
        if app is not None:
            instance(app, Flask, "app", "a Flask app")
        if cors_preflight is not None:
            cors_preflight = member(Preflight, cors_preflight, "cors_preflight")
        self._guard = guard
        self._cors_preflight = cors_preflight
        self._rules = None if rules is None else Rules.of(rules)
        self._public = Rules(public=public).all
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, guard: Guard | None = None) -> None:
        """Guard *app*, with *guard* or the one given at construction.

        Raises :class:`ConfigurationError` when there is none, and for an app that is guarded already.
        """
        guard = guard or self._guard
        if not isinstance(guard, Guard):
            raise ConfigurationError("ScopeGuard: guard is a scopeguard.Guard, as in ScopeGuard(app, guard)")
        if "scopeguard" in app.extensions:
            raise ConfigurationError("ScopeGuard: this app is guarded already; several issuers go into one Guard")
        engine = engine_of(guard)
        rules = engine.check_rules(Rules.chosen(self._rules, guard.rules))
        layer = _Extension(app, guard, rules.with_public(rule.path for rule in self._public))
        layer.passes_preflights = engine.passes_preflights(self._cors_preflight)
        hooks = _Hooks(app, layer, StartCheck(app, guard))
        app.extensions[EXTENSION] = layer
        app.extensions["scopeguard"] = self
        app.before_request(hooks.judge)
        # First, whatever was registered before: nothing of the app runs for a caller who is refused.
        before = app.before_request_funcs[None]
        before.insert(0, before.pop())
        app.after_request(hooks.mark)
        app.teardown_request(hooks.leave)


class _Extension(Layer):
    """What audits see of the extension in an app."""

    default = "extension default"
    views_decide = True

    def __init__(self, app: Flask, guard: Guard, rules: Rules) -> None:
        self.app = app
        self.guard = guard
        self.rules = rules


class _Hooks:
    """What Flask calls for each request of one app."""

    def __init__(self, app: Flask, layer: Layer, check: StartCheck) -> None:
        self._app = app
        self._guard = layer.guard
        self._engine = engine_of(layer.guard)
        self._rules = layer.rules
        self._passes_preflights = layer.passes_preflights
        self._check_of_app = check
        self._routes: dict[tuple[int, str, str], _Route] = {}

    def judge(self) -> Response | None:
        """Before anything else: a response is a refusal, ``None`` lets the request go on."""
        if self._check_of_app.pending:
            self._check_of_app.run()
        asked, engine = _current_request(), self._engine
        environ = asked.environ
        rule = self._rules.find(environ["REQUEST_METHOD"], decoded_path(environ), raw_path(environ))
        route = self._route(rule, asked)
        known: AccessToken | None = None
        if environ.get(GUARD_KEY) is self._guard:
            if route.sources is None:
                known = environ.pop(ENVIRON_KEY, None)
        else:
            environ[GUARD_KEY] = self._guard
        state = environ[_STATE] = _State(route)
        if engine.listens:
            state.own_report = engine.report(asked.method, decoded_path(environ), None if rule is None else rule.path)
            state.report = engine.current_report()
        token: AccessToken | None = None
        is_passed = asked.method == "OPTIONS" and self._passes(asked, rule)
        if route.access is not PUBLIC and not is_passed:
            if route.is_plain:
                token = recall(engine, environ, route.requirement) if known is None else known
                if known is not None and not engine.permits(known, route.requirement):
                    token = None
            if token is None:
                match self._decision(environ, state, known):
                    case Granted(access_token=token):
                        pass
                    case Anonymous():
                        pass
                    case refusal:
                        return _refused(refusal)
        state.decided = not is_passed
        environ[ENVIRON_KEY] = token
        state.serving = _Serving(asked, token)
        return None

    def _route(self, rule: Rule | None, asked: Request) -> _Route:
        """What rule and view say together; remembered, as it is the same for every request to a view."""
        endpoint = asked.endpoint or ""
        view = self._app.view_functions.get(endpoint)
        # Only the methods of a view class have marks of their own. Where there is no view, a method may be any word.
        method = "" if view is None or not hasattr(view, "view_class") else asked.method
        key = (id(rule), endpoint, method)
        route = self._routes.get(key)
        if route is None or route.view is not view:
            route = _Route(rule, view, endpoint, asked.method, self._engine, self._rules)
            if len(self._routes) < _MOST_ROUTES:
                self._routes[key] = route
        return route

    def _decision(self, environ: dict[str, Any], state: _State, known: AccessToken | None) -> Decision:
        engine, route, view = self._engine, state.route, request_view(environ)
        if known is not None:
            return engine.authorize(known, route.requirement, closed=route.closed, request=view)
        if route.token_sources.in_query and has_access_token(view.query):
            state.by_query = True
            _strip_query_token()
        decision = engine.check(
            view,
            route.requirement,
            optional=route.access is OPTIONAL,
            closed=route.closed,
            sources=route.token_sources,
            read_form=lambda limit: read_form(environ, limit),
        )
        take_out_of_environ(environ, route.token_sources)
        return decision

    def _passes(self, asked: Request, rule: Rule | None) -> bool:
        """Whether *asked*, an OPTIONS request, needs no token although its view does: a preflight; or one that a rule
        for OPTIONS opens and Flask answers, so that the view does not run."""
        environ = asked.environ
        is_open = rule is not None and rule.access is PUBLIC and "OPTIONS" in (rule.methods or ())
        passed: bool
        passed = environ[PREFLIGHT_KEY] = (is_open and _is_answered_by_flask(asked)) or (
            self._passes_preflights and "HTTP_ORIGIN" in environ and self._announces(asked)
        )
        return passed

    def _announces(self, asked: Request) -> bool:
        """Whether *asked* is a preflight, and the request that it announces is one that some token opens."""
        environ = asked.environ
        method: str | None = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
        if method is None:
            return False
        path, raw = decoded_path(environ), raw_path(environ)
        closest, rule = self._rules.find("OPTIONS", path, raw), self._rules.find(method, path, raw)
        if closest is not None and closest.access is DENIED:
            return False
        if rule is not None or not self._rules.closes(rule):
            return not self._rules.closes(rule)
        adapter = self._app.create_url_adapter(asked)
        try:
            endpoint = "" if adapter is None else adapter.match(method=method)[0]
        except HTTPException:
            return False
        view = self._app.view_functions.get(endpoint)
        return not _Route(rule, view, endpoint, method, self._engine, self._rules).closed

    def mark(self, response: Response) -> Response:
        """Say to caches what they must know about the response, and to browsers what scripts may
        read of it."""
        if self._passes_preflights and "HTTP_ORIGIN" in _current_request().environ:
            response.headers = Headers(exposed(response.headers))
        state: _State | None = _current_request().environ.get(_STATE)
        if state is not None:
            state.tell()
        if state is not None and state.by_query:
            response.headers = Headers(private_headers(list(response.headers)))
        if state is not None and state.decided and state.route.access is OPTIONAL:
            response.vary.add("Authorization")
        return response

    def leave(self, error: BaseException | None) -> None:
        """End the request: its token is no longer the current one.

        Flask calls this for every copy of the request context as well (``copy_current_request_context``), in the
        thread of the job, and the request may still be running then.
        """
        del error
        state: _State | None = _current_request().environ.get(_STATE)
        if state is None or state.context is not _current_context():
            return
        if state.serving is not None:  # before a listener of the app is called, which may raise
            serving, state.serving = state.serving, None
            serving.end()
        state.tell()
        if state.own_report is not None:
            state.own_report.leave()


class _Serving:
    """Makes *token* the current one, for as long as Flask says that *request* is the current request.

    Flask may end a request in another thread, or not call our teardown because that of the app raised. The token must
    not stay for the next request of the thread then.
    """

    __slots__ = ("_before", "_request", "_token")

    def __init__(self, asked: Request, token: AccessToken | None) -> None:
        self._request = asked
        self._token = token
        self._before: Token[Serving] = begin_serving(self)

    def __call__(self) -> AccessToken | None:
        return self._token if has_request_context() and _current_request() is self._request else None

    def end(self) -> None:
        if not end_serving(self._before):
            self._token = None


class _Route:
    """What the rule and the view of a request say together.

    *closed*: nobody is let in. *is_plain*: a valid token in the usual place that satisfies *requirement* is let in.
    """

    __slots__ = ("access", "closed", "is_plain", "requirement", "requirements", "sources", "token_sources", "view")

    def __init__(self, rule: Rule | None, view: Any, endpoint: str, method: str, engine: Engine, rules: Rules) -> None:
        self.view = view
        marked = _marked(view, endpoint, method)
        requirements = tuple(getattr(item, REQUIREMENT) for item in marked if hasattr(item, REQUIREMENT))
        said = {access_of(item) for item in marked}
        sources = [found for item in marked if (found := getattr(item, SOURCES, None)) is not None]
        if rule is not None:
            if rule.requirement is not None:
                requirements = (rule.requirement, *requirements)
            elif isinstance(rule.access, Access):
                said.add(rule.access)
            if rule.sources is not None:
                sources.append(rule.sources)
        self.requirements = requirements
        self.requirement = all_of(*requirements) if requirements else None
        declared = (*requirements, *(access for access in said if access is not None))
        self.access: Requirement | Access | None = strictest(*declared) if declared else None
        self.closed = self.access is DENIED or (self.access is None and rules.closes(rule))
        self.sources: frozenset[TokenSource] | None = sources[0] if sources else None
        self.token_sources = engine.sources if self.sources is None else engine.sources.only(self.sources)
        self.is_plain = not self.closed and self.sources is None
        self._add(_hooks(endpoint))

    def _add(self, hooks: list[Any]) -> None:
        """Ask at once for what functions given to before_request ask for later, so that a challenge names all."""
        later = tuple(getattr(hook, REQUIREMENT) for hook in hooks if hasattr(hook, REQUIREMENT))
        if later and not self.closed and not isinstance(self.access, Access):
            self.requirements += later
            self.access = self.requirement = all_of(*self.requirements)


class _State:
    """What the hooks of one request tell each other: its route, whether it was admitted, and what made it current."""

    __slots__ = ("by_query", "context", "decided", "own_report", "report", "route", "serving")

    def __init__(self, route: _Route) -> None:
        self.route = route
        self.context = _current_context()
        self.decided = self.by_query = False
        self.serving: _Serving | None = None
        self.report: Report | None = None  # of middleware around, where it has begun one
        self.own_report: Report | None = None

    def tell(self) -> None:
        rule = _current_request().url_rule
        if self.report is not None:
            self.report.tell(None if rule is None else rule.rule)


def _marked(view: Any, endpoint: str, method: str) -> list[Any]:
    """What may carry marks of the decorators below, the most specific first."""
    known = current_app.blueprints
    found: list[Any] = [known[name] for name in _blueprints(endpoint) if name in known]
    if view is None:
        return found
    view_class = getattr(view, "view_class", None)
    function = getattr(view_class, method.lower(), None)
    if function is None and method == "HEAD":
        function = getattr(view_class, "get", None)
    return [function, view_class, view, *found]


def _hooks(endpoint: str) -> list[Any]:
    """The functions given to before_request that Flask calls before the view of *endpoint*."""
    return [hook for name in (None, *_blueprints(endpoint)) for hook in current_app.before_request_funcs.get(name, ())]


def _blueprints(endpoint: str) -> list[str]:
    names = endpoint.split(".")[:-1]
    return [".".join(names[:length]) for length in range(len(names), 0, -1)]


def _is_answered_by_flask(asked: Request) -> bool:
    """Whether no view runs for *asked*, an OPTIONS request."""
    return bool(getattr(asked.url_rule, "provide_automatic_options", False))


def _strip_query_token() -> None:
    """Take the token out of what the app sees of the URL, and of a redirect that routing has prepared."""
    strip_query_token(request.environ)
    request.query_string = request.environ["QUERY_STRING"].encode("latin-1")
    for cached in ("args", "full_path", "url", "values"):
        request.__dict__.pop(cached, None)
    if isinstance(request.routing_exception, RequestRedirect):
        path, mark, query = request.routing_exception.new_url.partition("?")
        left = without_access_token(query.encode("latin-1", "replace")).decode("latin-1")
        request.routing_exception.new_url = f"{path}{mark}{left}" if left else path


def _refused(refusal: Denied | Unavailable) -> Response:
    response = Response(refusal.response.body, refusal.response.status)
    # Not at construction, where the length of a body that HEAD does not have would be replaced by 0.
    response.headers = Headers(list(refusal.response.headers))
    return response


def requires(*items: Requirement | str, token_sources: Iterable[str] | None = None) -> Callable[[T], T]:
    """The view needs an access token that satisfies all of *items*: scopes, or ``any_of(...)`` and its like.

    For view functions, sync and async, methods of a ``MethodView``, whole view classes (or their ``decorators``), and
    functions given to ``Blueprint.before_request``. It stands below the ``@app.route`` line. Several add up, those of
    base classes included.

    *token_sources*: where this view takes tokens, instead of the guard's own setting; it needs :class:`ScopeGuard`.

    A caller without a token gets 401, one whose token does not suffice 403 with all the scopes of the operation.
    Raises :class:`ConfigurationError` for what cannot be decorated, and, at each call, in an app without a guard.
    """
    requirement = require(*items)
    sources = None if token_sources is None else checked_sources(token_sources, "requires: token_sources")

    def decorate(view: Any) -> Any:
        if isinstance(view, type) and issubclass(view, View):
            view.decorators = [*view.decorators, decorate]
            _bequeath(view, decorate)
            return view
        if isinstance(view, type | Blueprint) or not callable(view):
            raise ConfigurationError(
                f"requires: {view!r} is no view; for a blueprint, decorate a function given to its before_request"
            )
        inner = getattr(view, REQUIREMENT, None)
        # Of several decorators the outermost answers first; it names the scopes of all.
        whole = requirement if inner is None else all_of(requirement, inner)

        is_async = inspect.iscoroutinefunction(view)

        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _refusal(whole, sources)
            if refusal is not None:
                return refusal
            # What is no coroutine function Flask runs as it is.
            return (current_app.ensure_sync(view) if is_async else view)(*args, **kwargs)

        mark(guarded, view, whole)
        if sources is not None:
            setattr(guarded, SOURCES, sources)
        return guarded

    return decorate


def _bequeath(view_class: type[View], decorate: Callable[[Any], Any]) -> None:
    """Keep *decorate* among the decorators of subclasses that set ``decorators`` themselves: what closes a class
    closes its subclasses."""
    own = vars(view_class).get("__init_subclass__")

    def inherit(cls: type[Any], /, **arguments: Any) -> None:
        (super(view_class, cls).__init_subclass__ if own is None else own.__get__(None, cls))(**arguments)
        if decorate not in cls.decorators:
            cls.decorators = [*cls.decorators, decorate]

    setattr(view_class, "__init_subclass__", classmethod(inherit))  # noqa: B010 - to type checkers, a method


def _refusal(requirement: Requirement, sources: frozenset[TokenSource] | None) -> Response | None:
    asked = _current_request()
    environ = asked.environ
    guard = environ.get(GUARD_KEY)
    state: _State | None = environ.get(_STATE)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "requires: nothing judged this request; the app needs ScopeGuard(app, guard), or scopeguard.wsgi's "
            "GuardMiddleware around it"
        )
    if sources is not None and (state is None or state.route.token_sources.methods != sources):
        raise ConfigurationError(
            "requires: token_sources had no effect; they need ScopeGuard(app, guard), and the decorator on the view "
            "itself, below no other that hides it"
        )
    if state is not None and state.decided:
        for decided in state.route.requirements:
            if decided is requirement:
                return None
    # A function given to before_request. No view runs: Flask answers such a request itself.
    if environ.get(PREFLIGHT_KEY) and _is_answered_by_flask(asked):
        return None
    token = environ.get(ENVIRON_KEY)
    engine = engine_of(guard)
    if engine.permits(token, requirement):
        return None
    decision = engine.authorize(token, requirement, request=request_view(environ))
    return None if isinstance(decision, Granted) else _refused(decision)


def public(view: T) -> T:
    """The view, view class, method or blueprint needs no token: none is looked for. A requirement beside it wins.

    On a blueprint it holds for all its views, with those of blueprints that are nested in it. It does not hold for
    subclasses of a view class: each says it for itself. A method that a subclass inherits and does not override keeps
    what was said of the method.
    """
    declare_access(view, PUBLIC, "public", _VIEW)
    return view


def optional(view: T) -> T:
    """The view, view class, method or blueprint serves anonymous callers as well, and refuses a bad token:
    only an absent one is forgiven. Subclasses say it for themselves, as with :func:`public`. See
    :func:`access_token_or_none`."""
    declare_access(view, OPTIONAL, "optional", _VIEW)
    return view


def access_token() -> AccessToken:
    """The access token of this request; in a generator under ``stream_with_context`` as well, and in a job under
    ``copy_current_request_context``, where :func:`scopeguard.current_access_token` knows none.

    Raises :class:`ConfigurationError` outside a guarded request and for an anonymous caller.
    """
    token = access_token_or_none()
    if token is None:
        raise ConfigurationError(
            "no access token here: the code runs outside a guarded request, or the view is public or lets anonymous "
            "callers in; guard the view, or use access_token_or_none()"
        )
    return token


def access_token_or_none() -> AccessToken | None:
    """The access token of this request, ``None`` for an anonymous caller and outside a guarded request."""
    return request.environ.get(ENVIRON_KEY) if has_request_context() else None
