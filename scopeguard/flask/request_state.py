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

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.adapter.route_access import RouteAccess as AnyRouteAccess
from scopeguard.audit.flask_routes import hooks_before, marked_objects
from scopeguard.core.decision import Report
from scopeguard.core.engine import Engine
from scopeguard.inbound_tokens import InboundToken
from scopeguard.request import ProofNotes
from scopeguard.rules import Rule, Rules
from scopeguard.spec import challenge
from scopeguard.tokens import AccessToken, Serving, add_finder, begin_serving, end_serving
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


class RouteAccess(AnyRouteAccess):
    """The combined requirement of a rule and a view for a request to *endpoint*."""

    __slots__ = ()

    def __init__(self, rule: Rule | None, view: Any, endpoint: str, method: str, engine: Engine, rules: Rules) -> None:
        super().__init__(rule, view, marked_objects(current_app, view, endpoint, method), engine, rules)
        # One challenge names all scopes.
        hooks = hooks_before(current_app, endpoint)
        self.add_requirements(getattr(hook, REQUIREMENT) for hook in hooks if hasattr(hook, REQUIREMENT))


class RequestState:
    """The state that the hooks and decorators of one request share."""

    __slots__ = (
        "context",
        "has_other_field",
        "is_checked",
        "is_in_query",
        "own_report",
        "proofs",
        "report",
        "route",
        "serving",
    )

    def __init__(self, route: RouteAccess) -> None:
        self.route: RouteAccess = route
        self.context: object = get_context()
        self.is_checked: bool = False
        self.is_in_query: bool = False
        self.has_other_field: bool = False
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


add_finder(find_token)


def is_answered_by_flask(flask_request: Request) -> bool:
    """Return whether Flask answers *flask_request*, a request with the method OPTIONS, without calling a view."""
    is_automatic = bool(getattr(flask_request.url_rule, "provide_automatic_options", False))
    return is_automatic and flask_request.method == "OPTIONS"  # a request class may override the method that was sent


def to_flask_response(answer: challenge.Response) -> Response:
    """Return *answer*, a refusal or a document of the guard, as a Flask response."""
    response = Response(answer.body, answer.status)
    # The constructor would set the Content-Length of a response to HEAD, which has no body, to 0.
    response.headers = Headers(list(answer.headers))
    return response
