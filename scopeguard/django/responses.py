"""Responses of Django: those of the guard, and what the guard adds to those of views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseRedirectBase
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.cache import patch_vary_headers

from scopeguard.adapter.cors import expose_headers
from scopeguard.django.request_state import RequestState, state_of
from scopeguard.django.requests import request_view
from scopeguard.errors import MissingCredentials, PolicyDenied
from scopeguard.reasons import Reason
from scopeguard.spec.challenge import Response
from scopeguard.spec.response_headers import add_proof_headers, private_headers, uncached_headers


class _GuardResponse(HttpResponse):
    """The response to a refused request, or a document of the guard: its status, fields and body are the guard's."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.body, status=answer.status)
        for name in list(self.headers):
            del self.headers[name]
        self._challenges = [value for name, value in answer.headers if name == "www-authenticate"]
        for name, value in answer.headers:
            self.headers[name] = value
        if self._challenges:
            self.headers["www-authenticate"] = ", ".join(self._challenges)

    def items(self) -> list[tuple[str, str]]:
        """Return the fields. Each challenge has a field of its own, because not every client parses a list."""
        joined = ", ".join(self._challenges)
        fields: list[tuple[str, str]] = []
        for name, value in super().items():
            is_ours = name.lower() == "www-authenticate" and value == joined
            fields += [(name, challenge) for challenge in self._challenges] if is_ours else [(name, value)]
        return fields


class Refused(Exception):
    """Raised in a view to send *response*, a refusal of the guard, past the error handling of a framework."""

    def __init__(self, response: Any) -> None:
        super().__init__("refused")
        self.response: Any = response


def end_with(refusal: Any, request: Any) -> Refused:
    """Return the exception that ends *request* with *refusal*, the response of the guard.

    An exception handler of the framework may answer it with a page of its own. The middleware replaces that.
    """
    state = state_of(request)
    if state is not None:
        state.refusal = refusal
    return Refused(refusal)


def to_response(answer: Response) -> Any:
    """Return *answer*, a refusal or a document of the guard, as a Django response."""
    return _GuardResponse(answer)


def replace_headers(response: Any, headers: Iterable[tuple[str, str]]) -> None:
    """Replace the fields of *response* with *headers*, which may name ``Vary`` several times."""
    fields: dict[str, tuple[str, str]] = {}
    for name, value in headers:
        key = name.lower()
        known = fields.get(key)
        fields[key] = (name, f"{known[1]}, {value}" if known is not None and key == "vary" else value)
    for name in list(response.headers):
        if name.lower() not in fields:
            del response.headers[name]
    for name, value in fields.values():
        response.headers[name] = value


def finish(state: RequestState, response: Any) -> Any:
    """Return *response* of the view with the headers for caches and scripts, or a refusal in its place."""
    if state.refusal is not None:
        if response is not state.refusal:
            response.close()
        response = state.refusal
    elif state.is_checked and _asks_for_sign_in(state, response):
        response.close()
        response = refuse_permission(state)
    state.report_route()
    return with_headers(state, response)


def _asks_for_sign_in(state: RequestState, response: Any) -> bool:
    """Return whether *response* redirects to the login page, or is the 401 of Django REST framework."""
    if isinstance(response, HttpResponseRedirectBase):
        return _leads_to_login(response.url)
    return response.status_code == 401 and state.token is None and getattr(response, "exception", False)


def _leads_to_login(url: str) -> bool:
    """Return whether *url* is that of ``login_required`` and its like, to which Django redirects a person."""
    parts = urlsplit(url)
    if REDIRECT_FIELD_NAME not in QueryDict(parts.query):
        return False
    try:
        return parts.path == urlsplit(resolve_url(settings.LOGIN_URL)).path
    except NoReverseMatch:
        return False


def refuse_permission(state: RequestState) -> Any:
    """Return the refusal of a request that a check of Django has refused: 401 without a token, else 403."""
    error = MissingCredentials(Reason.NO_CREDENTIALS) if state.token is None else PolicyDenied()
    view = request_view(state.request)
    decision = state.layer.engine.refuse(error, state.route.requirement, request=view, token=state.token)
    return to_response(decision.response)


def with_headers(state: RequestState, response: Any) -> Any:
    request, notes = state.request, state.proofs
    if state.is_in_query:
        replace_headers(response, private_headers(list(response.headers.items())))
    elif state.has_other_field:
        replace_headers(response, uncached_headers(list(response.headers.items())))
    if notes is not None and notes.changes_response:
        replace_headers(response, add_proof_headers(notes.nonce, notes.vary, list(response.headers.items())))
    if state.layer.passes_preflights and "HTTP_ORIGIN" in request.META:
        replace_headers(response, expose_headers(response.headers.items()))
    if state.is_checked:
        # Django's cache stores responses to requests with a token, which RFC 9111 section 3.5 forbids to other caches.
        patch_vary_headers(response, state.layer.engine.vary.split(", "))
    return response
