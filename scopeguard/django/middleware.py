"""The entry for ``MIDDLEWARE``: checks the token of each request before the view, and before middleware behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve

from scopeguard.core.decision import Adapter
from scopeguard.django.checking import check, check_async, find_route
from scopeguard.django.configuration import get_layer
from scopeguard.django.request_state import RequestState, state_of
from scopeguard.django.requests import debug_answer, outer_guard
from scopeguard.django.responses import Refused, finish, refuse_permission, to_response
from scopeguard.django.users import set_user
from scopeguard.inbound_tokens import to_serve
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.tokens import Serving, begin_serving, end_serving

GetResponse = Callable[[HttpRequest], Any]


class GuardMiddleware:
    """Require a valid access token for every request, unless a rule or a decorator says otherwise.

    ::

        MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "scopeguard.django.GuardMiddleware", ...]
        SCOPEGUARD = {"GUARD": guard, "PUBLIC": ["/admin/{path:path}"]}

    The request gets ``access_token``, which is ``None`` for an anonymous caller, and, with a token, ``user``. A refusal
    is a finished response: no view runs, and no error handler changes it.

    If both a rule and a view declare something, the stricter one holds: the token must satisfy both requirements, and
    a requirement takes precedence over public and optional. If there are rules, a route that matches none of them is
    denied, unless its view has a decorator of scopeguard.

    The view is looked up before the middleware behind this one runs. If that changes the path, the method or the URL
    configuration, the request is checked again for the view that Django calls.

    Not checked: responses of middleware in front of this one.
    """

    sync_capable = True
    async_capable = True
    scopeguard_layer: Final = staticmethod(get_layer)

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        self._is_async: bool = iscoroutinefunction(get_response)
        self.process_view: Callable[..., Any] = self._check_view_async if self._is_async else self._check_view
        if self._is_async:
            markcoroutinefunction(self)
        layer = get_layer()  # an error in the setting prevents the start
        layer.engine.check_rules(layer.rules, blocks=not self._is_async)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._serve_async(request)
        state = _begin(request)
        if isinstance(state, HttpResponse):
            return state
        try:
            refusal = check(state)
            if refusal is not None:
                return refusal
            before = begin_serving(_token_to_serve(state))
            try:
                return finish(state, self._get_response(request))
            finally:
                end_serving(before)
        finally:
            _end(state)

    async def _serve_async(self, request: HttpRequest) -> Any:
        state = _begin(request)
        if isinstance(state, HttpResponse):
            return state
        try:
            refusal = await check_async(state)
            if refusal is not None:
                return refusal
            before = begin_serving(_token_to_serve(state))
            try:
                return finish(state, await self._get_response(request))
            finally:
                end_serving(before)
        finally:
            _end(state)

    def _check_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        del args, kwargs
        state = _changed_state(request, view)
        return None if state is None else _serve_again(state, check(state))

    async def _check_view_async(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        del args, kwargs
        state = _changed_state(request, view)
        return None if state is None else _serve_again(state, await check_async(state))

    def process_exception(self, request: HttpRequest, exception: Exception) -> Any:
        """Replace ``PermissionDenied`` of a view that is not public with the refusal of the guard.

        Otherwise Django would send a page of HTML, without a challenge for a caller without a token.
        """
        if isinstance(exception, Refused):
            return exception.response
        state = state_of(request)
        if state is None or not state.is_checked or not isinstance(exception, PermissionDenied):
            return None
        return refuse_permission(state)


def _begin(request: Any) -> RequestState | HttpResponse:
    """Return the state of a new request, or the response if it asks for a page or a document of the guard."""
    layer = get_layer()
    engine = layer.engine
    if layer.start_check.pending:
        layer.start_check.run()
    if layer.debug is not None:
        page = debug_answer(layer.debug, request)
        if page is not None:
            return to_response(page)
    if engine.metadata is not None and request.path.startswith(WELL_KNOWN):
        answer = engine.metadata.answer(
            request.method,
            request.path,
            request.META.get("QUERY_STRING", ""),
            if_none_match=request.META.get("HTTP_IF_NONE_MATCH", ""),
            is_preflight="HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META,
        )
        if answer is not None:
            return to_response(answer)
    view = _find_view(request)
    rule, route = find_route(layer, request, request.method, view)
    state = RequestState(layer, request, (request.method, request.path_info, view), route)
    guard, token = outer_guard(request)
    if guard is layer.guard and token is not None:
        state.token, state.is_ambient = token, True
        # The token may have been in a field or a parameter that the outer layer has removed. Django's cache would store
        # one page for all callers.
        state.has_other_field = True
    if engine.listens:
        path = None if rule is None else rule.path
        state.own_report = engine.begin_report(Adapter.DJANGO, request.method, request.path_info, path)
        state.report = engine.current_report()
    return state


def _changed_state(request: Any, view: Any) -> RequestState | None:
    """Return the state for another check if Django calls an unexpected view, with the route of that view.

    A preflight that has passed is checked again as well. In any case, set what the middleware behind this one has
    replaced, such as ``request.user``.
    """
    state = state_of(request)
    if state is None:
        return None
    key = (request.method, request.path_info, view)
    state.is_at_view = True
    if key != state.key or state.is_passed:
        state.key = key
        state.route = find_route(state.layer, request, request.method, view)[1]
        return state
    if state.token is not None:
        set_user(request, state.token, state.layer.find_user)
    return None


def _token_to_serve(state: RequestState) -> Serving:
    """Return the token that is current while the request of *state* is served, with its text if the guard holds it."""
    return to_serve(state.token) if state.layer.engine.keeps_inbound else state.token


def _serve_again(state: RequestState, refusal: Any) -> Any:
    """Make the token of another check current. The middleware restores the state before the request."""
    if refusal is None:
        begin_serving(_token_to_serve(state))
    return refusal


def _find_view(request: Any) -> Any:
    """Return the view that Django will call for *request*, or ``None`` if no route matches."""
    try:
        return resolve(request.path_info, getattr(request, "urlconf", None)).func
    except Resolver404:
        return None


def _end(state: RequestState) -> None:
    state.report_route()
    if state.own_report is not None:
        state.own_report.end()
