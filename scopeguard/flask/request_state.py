"""The requirement for a request to a Flask app, and the state that its hooks and decorators share."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any, Final, cast

import flask.globals
from flask import current_app, has_request_context, request
from flask.wrappers import Request, Response
from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, access_of
from scopeguard.audit.flask_routes import blueprint_names
from scopeguard.config.dpop import DPoPMode
from scopeguard.config.policy import Policy
from scopeguard.config.sources import TokenSource, TokenSources
from scopeguard.core.decision import Report
from scopeguard.core.engine import Engine
from scopeguard.inbound import InboundToken
from scopeguard.request import ProofNotes
from scopeguard.rules import DENIED, Access, Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import Requirement, all_of
from scopeguard.spec import challenge
from scopeguard.tokens import AccessToken, Serving, begin_serving, end_serving
from scopeguard.wsgi import ENVIRON_KEY

STATE_KEY: Final = "scopeguard.flask"
"""The key of the :class:`RequestState` in the environ."""

get_request: Final = cast("LocalProxy[Request]", request)._get_current_object
"""Returns the request behind Flask's proxy, which repeats the look-up for each attribute."""

get_context: Final[Callable[[], object]] = (
    vars(flask.globals).get("request_ctx", flask.globals.app_ctx)._get_current_object
)
"""Returns the current request context, which Flask 3.2 merges with the app context.

A copy (``copy_current_request_context``) is another context with the same request.
"""


class RouteAccess:
    """The combined requirement of a rule and a view for a request.

    *closed*: every request is denied. *is_plain*: a valid token in one of the guard's places that satisfies
    *requirement* suffices. *policies*: what decides after the token.
    """

    __slots__ = (
        "access", "closed", "dpop", "is_plain", "policies", "requirement", "requirements", "sources",
        "token_sources", "view",
    )  # fmt: skip

    def __init__(self, rule: Rule | None, view: Any, endpoint: str, method: str, engine: Engine, rules: Rules) -> None:
        self.view: Any = view
        marked = _decorables(view, endpoint, method)
        requirements = tuple(getattr(item, REQUIREMENT) for item in marked if hasattr(item, REQUIREMENT))
        accesses = {access_of(item) for item in marked}
        sources = [found for item in marked if (found := getattr(item, SOURCES, None)) is not None]
        if rule is not None:
            if rule.requirement is not None:
                requirements = (rule.requirement, *requirements)
            elif isinstance(rule.access, Access):
                accesses.add(rule.access)
            if rule.sources is not None:
                sources.append(rule.sources)
        self.requirements = requirements
        self.requirement = all_of(*requirements) if requirements else None
        declared = (*requirements, *(access for access in accesses if access is not None))
        self.access: Requirement | Access | None = strictest(*declared) if declared else None
        self.closed: bool = self.access is DENIED or (self.access is None and rules.closes(rule))
        self.sources: frozenset[TokenSource] | None = sources[0] if sources else None
        self.token_sources: TokenSources = engine.sources if self.sources is None else engine.sources.only(self.sources)
        self.policies: tuple[Policy, ...] = () if rule is None else rule.policies
        self.dpop: DPoPMode | None = None if rule is None else rule.mode
        has_more = self.sources is not None or self.policies or self.dpop is not None
        self.is_plain: bool = not self.closed and not has_more
        self._add(_hooks(endpoint))

    def _add(self, hooks: list[Any]) -> None:
        """Add the requirements of the functions given to before_request, so that one challenge names all scopes."""
        later = tuple(getattr(hook, REQUIREMENT) for hook in hooks if hasattr(hook, REQUIREMENT))
        if later and not self.closed and not isinstance(self.access, Access):
            self.requirements += later
            self.access = self.requirement = all_of(*self.requirements)


class RequestState:
    """The state that the hooks and decorators of one request share."""

    __slots__ = ("context", "is_checked", "is_in_query", "own_report", "proofs", "report", "route", "serving")

    def __init__(self, route: RouteAccess) -> None:
        self.route: RouteAccess = route
        self.context: object = get_context()
        self.is_checked: bool = False
        self.is_in_query: bool = False
        self.serving: CurrentToken | None = None
        self.proofs: ProofNotes | None = None
        self.report: Report | None = None  # the report of middleware around the app, if it has begun one
        self.own_report: Report | None = None

    def report_route(self) -> None:
        """Add the route that Flask has matched to the report."""
        rule = get_request().url_rule
        if self.report is not None:
            self.report.publish(None if rule is None else rule.rule)


class CurrentToken:
    """Makes *token* the current one while Flask's current request is *flask_request*.

    Flask may end a request in another thread. It skips the teardown of scopeguard if a teardown function of the app
    raises. In both cases, the token must not stay current for the next request of the thread.
    """

    __slots__ = ("_before", "_request", "_serving", "_token")

    def __init__(self, flask_request: Request, token: AccessToken | None, serving: Serving) -> None:
        self._request = flask_request
        self._token = token
        self._serving = serving
        self._before: Token[Serving] = begin_serving(self)

    def __call__(self) -> AccessToken | None:
        if has_request_context() and get_request() is self._request:
            return self._token
        return find_token()

    def inbound_token(self) -> InboundToken | None:
        """Return the token with its text if it is current and the guard holds the text."""
        return self._serving if isinstance(self._serving, InboundToken) and self() is not None else None

    def end(self) -> None:
        """Restore the token that was current before."""
        if not end_serving(self._before):
            self._token = self._serving = None


def find_token() -> AccessToken | None:
    """Return the token of Flask's current request.

    The request may be current in a thread of its own (``copy_current_request_context``), or again after its end
    (``stream_with_context``, the test client in a ``with`` statement).
    """
    return get_request().environ.get(ENVIRON_KEY) if has_request_context() else None


def _decorables(view: Any, endpoint: str, method: str) -> list[Any]:
    """Return the objects that decorators may have marked for *view*, the most specific first."""
    known = current_app.blueprints
    found: list[Any] = [known[name] for name in blueprint_names(endpoint) if name in known]
    if view is None:
        return found
    view_class = getattr(view, "view_class", None)
    function = getattr(view_class, method.lower(), None)
    if function is None and method == "HEAD":
        function = getattr(view_class, "get", None)
    return [function, view_class, view, *found]


def _hooks(endpoint: str) -> list[Any]:
    """Return the functions given to before_request that Flask calls before the view of *endpoint*."""
    return [
        hook for name in (None, *blueprint_names(endpoint)) for hook in current_app.before_request_funcs.get(name, ())
    ]


def is_answered_by_flask(flask_request: Request) -> bool:
    """Return whether Flask answers *flask_request*, which has the method OPTIONS, without calling a view."""
    return bool(getattr(flask_request.url_rule, "provide_automatic_options", False))


def to_flask_response(answer: challenge.Response) -> Response:
    """Return *answer*, a refusal or a document of the guard, as a Flask response."""
    response = Response(answer.body, answer.status)
    # The constructor would replace the Content-Length of a response to HEAD, which has no body, by 0.
    response.headers = Headers(list(answer.headers))
    return response
