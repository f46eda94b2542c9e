"""Django REST framework behind the guard: authentication, permissions by scope, errors, the browsable API."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver, path

from django_project import project, url_conf
from scopeguard import ConfigurationError, Guard, any_of
from scopeguard.audit.findings import audit_app
from scopeguard.django import optional, public
from scopeguard.django.rest_framework import TokenAuthentication, has_scopes
from scopeguard.testing import FakeAuthority

from drf_spectacular.generators import SchemaGenerator  # isort: skip - needs the settings
from rest_framework.decorators import action, api_view, permission_classes  # isort: skip
from rest_framework.exceptions import AuthenticationFailed  # isort: skip
from rest_framework.permissions import IsAuthenticated  # isort: skip
from rest_framework.response import Response  # isort: skip
from rest_framework.views import APIView  # isort: skip
from rest_framework.viewsets import ViewSet  # isort: skip


def answer(request: Any) -> Response:
    return Response({"user": str(request.user), "auth": request.auth and request.auth.subject})


class Rows(APIView):
    permission_classes = (has_scopes(any_of("read", "admin")),)

    def get(self, request: Any) -> Response:
        return answer(request)

    def post(self, request: Any) -> Response:
        return answer(request)


class Late(APIView):
    """The permissions are known only when the view runs."""

    def get_permissions(self) -> list[Any]:
        return [has_scopes("read")()]

    def get(self, request: Any) -> Response:
        return answer(request)


class Members(APIView):
    permission_classes = (IsAuthenticated,)

    def get(self, request: Any) -> Response:
        return answer(request)


class Tables(ViewSet):
    permission_classes = (has_scopes("read"),)

    def list(self, request: Any) -> Response:
        return answer(request)

    @action(detail=False, permission_classes=[has_scopes("write")])
    def clear(self, request: Any) -> Response:
        return answer(request)


@api_view(["GET"])
@permission_classes([has_scopes("read")])
def function(request: Any) -> Response:
    return answer(request)


class ByMethod(APIView):
    """The permissions depend on the method, and are known only when the view runs."""

    def get_permissions(self) -> list[Any]:
        return [has_scopes("write" if self.request.method == "POST" else "read")()]

    def get(self, request: Any) -> Response:
        return answer(request)

    def post(self, request: Any) -> Response:
        return answer(request)


class WithPage(ByMethod):
    def get_exception_handler(self) -> Any:
        return lambda error, context: Response({"error": str(error)}, status=500)


VIEWS = {
    "/rows": Rows.as_view(),
    "/late": Late.as_view(),
    "/members": optional(Members.as_view()),
    "/open": public(Members.as_view()),
    "/tables": Tables.as_view({"get": "list"}),
    "/tables/clear": Tables.as_view({"post": "clear"}, permission_classes=[has_scopes("write")]),
    "/function": function,
}
BY_METHOD = {"/by-method": ByMethod.as_view(), "/with-page": WithPage.as_view()}


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, **settings)


@pytest.mark.parametrize(
    ("method", "at", "scopes", "status", "named"),
    [
        ("GET", "/rows", "read", 200, ""),
        ("POST", "/rows", "admin", 200, ""),
        ("GET", "/rows", "write", 403, "read"),
        ("GET", "/rows", None, 401, "read"),
        ("GET", "/late", "read", 200, ""),
        ("GET", "/late", "write", 403, "read"),
        ("POST", "/by-method", "read", 403, "write"),
        ("POST", "/with-page", "read", 403, "write"),
        ("GET", "/members", "", 200, ""),
        ("GET", "/members", None, 401, ""),
        ("GET", "/tables", "read", 200, ""),
        ("GET", "/tables", "write", 403, "read"),
        ("POST", "/tables/clear", "read", 403, "write"),
        ("POST", "/tables/clear", "write", 200, ""),
        ("GET", "/function", "read", 200, ""),
        ("GET", "/function", "write", 403, "read"),
    ],
)
def test_refusals_have_the_challenge_and_the_body_of_the_guard(
    authority: FakeAuthority, method: str, at: str, scopes: str | None, status: int, named: str
):
    headers = {} if scopes is None else authority.bearer(scopes, subject="ann")
    events: list[Any] = []
    with project(url_conf(VIEWS | BY_METHOD), {"GUARD": guard_of(authority, on_decision=events.append)}):
        found = Client(enforce_csrf_checks=True).generic(method, at, headers=headers)
    assert found.status_code == status
    assert [event.status for event in events] == [None if status == 200 else status]
    if status == 200:
        assert found.json() == {"user": "ann", "auth": "ann"}
        return
    assert found.headers["Content-Type"] == "application/problem+json"
    assert found.json()["status"] == status
    assert (
        (f'scope="{named}' in found.headers["WWW-Authenticate"])
        if named
        else ("Bearer" in found.headers["WWW-Authenticate"])
    )


def test_public_view_that_needs_a_user_gets_the_challenge(authority: FakeAuthority):
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority, realm="tables")}):
        found = Client().get("/open")
    assert (found.status_code, found.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tables"')


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_question_about_another_method_does_not_refuse_the_request(authority: FakeAuthority, method: str):
    """The browsable API asks which forms to show."""
    events: list[Any] = []
    headers = {"Accept": "text/html", **authority.bearer("read", subject="ann")}
    with project(url_conf(BY_METHOD), {"GUARD": guard_of(authority, on_decision=events.append)}):
        page = Client().generic(method, "/by-method", headers=headers)
    assert (page.status_code, [event.status for event in events]) == (200, [None])
    assert b'name="_content"' not in page.content  # no form to post with
    with project(url_conf(BY_METHOD), {"GUARD": guard_of(authority)}):
        headers = {"Accept": "text/html", **authority.bearer("read write", subject="ann")}
        assert b'name="_content"' in Client().generic(method, "/by-method", headers=headers).content


def test_browsable_api_is_shown_to_callers_with_a_token(authority: FakeAuthority):
    headers = {"Accept": "text/html", **authority.bearer("read", subject="ann")}
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        page = Client().get("/rows", headers=headers)
        assert Client().get("/rows", headers={"Accept": "text/html"}).status_code == 401
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"ann" in page.content


def test_authentication_without_the_middleware_is_refused():
    with pytest.raises(ConfigurationError, match="add scopeguard"):
        TokenAuthentication().authenticate(SimpleNamespace(_request=SimpleNamespace()))


def test_audit_and_challenges_know_the_permission_classes(authority: FakeAuthority):
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        entries = {entry.path: entry.access for entry in audit_app(get_resolver()).entries}
    assert entries == {
        "/rows": "read or admin",
        "/late": "any valid token",
        "/members": "a valid token or none",
        "/open": "public",
        "/tables": "read",
        "/tables/clear": "write",
        "/function": "read",
    }


def test_openapi_document_has_the_bearer_scheme(authority: FakeAuthority):
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        document = SchemaGenerator(patterns=[path("members", Members.as_view())]).get_schema(public=True)
    assert document["components"]["securitySchemes"] == {"accessToken": {"type": "http", "scheme": "bearer"}}
    assert document["paths"]["/members"]["get"]["security"] == [{"accessToken": []}]


def test_error_of_a_view_about_a_caller_with_a_token_is_kept(authority: FakeAuthority):
    class Own(APIView):
        def get(self, request: Any) -> Response:
            raise AuthenticationFailed("second factor")

    with project(url_conf({"/": Own.as_view()}), {"GUARD": guard_of(authority)}):
        found = Client().get("/", headers=authority.bearer())
    assert (found.status_code, found.json()) == (401, {"detail": "second factor"})
