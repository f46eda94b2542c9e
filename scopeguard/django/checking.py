"""The check of a request: the arguments for the guard, and what its decision changes in the request."""

from __future__ import annotations

from typing import Any

from scopeguard.adapter.preflights import announces_allowed_request
from scopeguard.adapter.route_access import RouteAccess
from scopeguard.adapter.token_removal import environ_has
from scopeguard.audit.django_routes import distinguishes_methods
from scopeguard.config.token_sources import TokenSource
from scopeguard.core.decision import Decision, Granted
from scopeguard.django.configuration import ProjectLayer
from scopeguard.django.csrf import exempt_from_csrf
from scopeguard.django.request_state import RequestState
from scopeguard.django.requests import hide_key, hide_token, raw_path, read_form, request_view
from scopeguard.django.responses import to_response, with_headers
from scopeguard.django.users import set_user
from scopeguard.flow.credentials import Credential
from scopeguard.request import RequestView
from scopeguard.rules import OPTIONAL, PUBLIC, Rule
from scopeguard.spec.credentials import has_access_token
from scopeguard.tokens import AccessToken, Anonymous


def find_route(layer: ProjectLayer, request: Any, method: str, view: Any) -> tuple[Rule | None, RouteAccess]:
    rule = layer.find_rule(method, request.path_info, raw_path(request))
    return rule, layer.route(rule, view, method)


def check(state: RequestState) -> Any:
    """Check the request for ``state.route``. Return the refusal, or ``None`` if it may proceed."""
    view = _prepare(state)
    if view is None:
        return None
    engine, route, known = state.layer.engine, state.route, _known_token(state)
    decision: Decision
    if known is None:
        decision = engine.check(view, read_form=lambda limit: read_form(state.request, limit), **_arguments(state))
    else:
        decision = engine.authorize_again(known, route.requirement, route.policies, view, closed=route.closed)
    return _conclude(state, view, decision)


async def check_async(state: RequestState) -> Any:
    """:func:`check` in an event loop."""
    view = _prepare(state)
    if view is None:
        return None
    engine, route, known = state.layer.engine, state.route, _known_token(state)

    async def read(limit: int) -> bytes:
        return read_form(state.request, limit)

    decision: Decision
    if known is None or route.policies:  # policies may block
        decision = await engine.acheck(view, read_form=read, **_arguments(state))
    else:
        decision = engine.authorize_again(known, route.requirement, (), view, closed=route.closed)
    return _conclude(state, view, decision)


def _known_token(state: RequestState) -> AccessToken | None:
    """Return the token that a check of the request has found before, unless the route needs a check of its own."""
    return state.token if state.route.sources is None and state.route.dpop is None else None


def _prepare(state: RequestState) -> RequestView | None:
    """Return the request for a check, or ``None`` if none is needed: the route is open, or the token is known."""
    layer, route, request = state.layer, state.route, state.request
    engine = layer.engine
    state.is_passed = layer.passes_preflights and _is_open_preflight(state)
    if route.access is PUBLIC or state.is_passed:
        hide_key(request, engine.key_field)  # a key is also removed on an open route
        _accept(state, state.token, is_checked=False)
        return None
    authorization = request.META.get("HTTP_AUTHORIZATION")
    has_no_key = not environ_has(request.META, engine.key_field)
    if route.is_plain and state.token is None and authorization is not None and has_no_key:
        peer = None if request.is_secure() else request.META.get("REMOTE_ADDR")
        token = engine.recall(
            authorization.encode("latin-1", "replace"),
            route.requirement,
            request.META.get("QUERY_STRING", ""),
            (peer,) if peer else None,
        )
        if token is not None:
            _accept(state, token, is_checked=True)
            return None
    return request_view(request, with_proofs=engine.checks_proofs)


def _arguments(state: RequestState) -> dict[str, Any]:
    """Return the arguments of the check that the route determines."""
    route = state.route

    def note(credential: Credential) -> None:
        if credential.source is TokenSource.API_KEY:  # like Authorization, a field that no browser adds by itself
            state.is_ambient = False
            return
        state.is_ambient = credential.source is not TokenSource.HEADER or credential.header is not None

    return {
        "requirement": route.requirement,
        "optional": route.access is OPTIONAL,
        "closed": route.closed,
        "sources": route.token_sources,
        "on_credential": note,
        "policies": route.policies,
        "dpop": route.dpop,
    }


def _conclude(state: RequestState, view: RequestView, decision: Decision) -> Any:
    """Translate *decision*: set the attributes of the request, or return the refusal."""
    sources = state.route.token_sources
    if view.proofs is not None:
        state.proofs = view.proofs
    state.is_in_query = state.is_in_query or (sources.in_query and has_access_token(view.query))
    state.has_other_field = state.has_other_field or state.layer.engine.has_other_field(view.headers)
    hide_token(state.request, sources, in_query=state.is_in_query)
    match decision:
        case Granted(access_token=token):
            _accept(state, token, is_checked=True)
        case Anonymous():
            _accept(state, None, is_checked=True)
        case refusal:
            return with_headers(state, to_response(refusal.response))
    return None


def _accept(state: RequestState, token: AccessToken | None, *, is_checked: bool) -> None:
    request = state.request
    state.token, state.is_checked = token, is_checked
    request.access_token = token
    if token is None:
        return
    set_user(request, token, state.layer.find_user)
    exempt_from_csrf(state)


def _is_open_preflight(state: RequestState) -> bool:
    """Return whether the request is a CORS preflight for one that is not denied to everyone.

    Middleware may answer a preflight. A view gets it only if it distinguishes methods, because any other view would do
    for it what it does for a request with a token.
    """
    if state.is_at_view and not distinguishes_methods(state.key[2]):
        return False
    request = state.request
    method = request.META.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
    if request.method != "OPTIONS" or method is None or "HTTP_ORIGIN" not in request.META:
        return False
    return announces_allowed_request(
        method,
        state.route.access,
        lambda announced: find_route(state.layer, request, announced, state.key[2])[1].closed,
    )
