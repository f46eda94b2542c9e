"""Django Ninja behind the guard: decorators and authentication of operations, alone and among those of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from django.test import AsyncClient, Client
from django.urls import get_resolver, path

from django_project import project, url_conf
from scopeguard import ConfigurationError, Guard
from scopeguard.audit.findings import audit_app
from scopeguard.django import access_token, optional, public, requires
from scopeguard.django.ninja import TokenAuth
from scopeguard.testing import FakeAuthority

from ninja import NinjaAPI, Router  # isort: skip - needs the settings
from ninja.security import APIKeyHeader  # isort: skip


class Key(APIKeyHeader):
    param_name = "X-Key"

    def authenticate(self, request: Any, key: str | None) -> str | None:
        return key if key == "good" else None


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


@contextmanager
def run_project(authority: FakeAuthority, api: Any, **settings: Any) -> Iterator[None]:
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    with project(url_conf({}, path("api/", api.urls)), {"GUARD": guard}, **settings):
        yield


def existing_api() -> Any:
    """Return an API as its authors wrote it, but for ``auth`` and the decorators."""
    api = NinjaAPI(urls_namespace="test", auth=TokenAuth())
    people = Router()

    @api.get("/rows")
    @requires("read")
    def rows(request: Any, limit: int = 5) -> Any:
        return {"limit": limit, "subject": access_token().subject}

    @api.post("/rows", auth=TokenAuth("write"))
    def add(request: Any) -> Any:
        return {"by": request.auth.subject}

    @api.get("/any")
    def anything(request: Any) -> Any:
        return {"subject": request.auth.subject, "user": str(request.user)}

    @api.get("/open", auth=None)
    @public
    def open_to_all(request: Any) -> Any:
        return {"token": access_token_of(request)}

    @api.get("/greeting", auth=None)
    @optional
    def greeting(request: Any) -> Any:
        return {"token": access_token_of(request)}

    @api.get("/later")
    @optional
    def later(request: Any) -> Any:
        return {"subject": request.auth.subject}

    @api.get("/either", auth=[Key(), TokenAuth("write")])
    @optional
    def either(request: Any) -> Any:
        return {"auth": str(request.auth)}

    @people.get("/{int:number}")
    async def person(request: Any, number: int) -> Any:
        return {"number": number, "for": request.auth.subject}

    api.add_router("/people", people, auth=TokenAuth("people.read"))
    return api


def access_token_of(request: Any) -> str | None:
    return request.access_token and str(request.access_token.subject)


CASES: list[tuple[str, str, str | None, int, Any]] = [
    ("GET", "/api/rows?limit=7", "read", 200, {"limit": 7, "subject": "ann"}),
    ("GET", "/api/rows", "write", 403, 'scope="read"'),
    ("GET", "/api/rows", None, 401, 'scope="read"'),
    ("POST", "/api/rows", "write", 200, {"by": "ann"}),
    ("POST", "/api/rows", "read", 403, 'scope="write"'),
    ("POST", "/api/rows", None, 401, 'scope="write"'),
    ("PUT", "/api/rows", None, 401, "Bearer"),
    ("GET", "/api/any", "", 200, {"subject": "ann", "user": "ann"}),
    ("GET", "/api/any", None, 401, "Bearer"),
    ("GET", "/api/open", None, 200, {"token": None}),
    ("GET", "/api/greeting", None, 200, {"token": None}),
    ("GET", "/api/greeting", "", 200, {"token": "ann"}),
    ("GET", "/api/later", None, 401, "Bearer"),
    ("GET", "/api/either", None, 401, 'scope="write"'),
    ("GET", "/api/either", "read", 403, 'scope="write"'),
    ("GET", "/api/people/5", "people.read", 200, {"number": 5, "for": "ann"}),
    ("GET", "/api/people/5", "", 403, 'scope="people.read"'),
    ("GET", "/api/people/5", None, 401, 'scope="people.read"'),
]


@pytest.mark.parametrize("debug", [False, True], ids=["", "DEBUG"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["wsgi", "asgi"])
def test_operations_require_what_they_declare(authority: FakeAuthority, asynchronous: bool, debug: bool):
    wrong = []
    with run_project(authority, existing_api(), DEBUG=debug):
        for method, at, scopes, status, expected in CASES:
            headers = {} if scopes is None else authority.bearer(scopes, subject="ann")
            if asynchronous:

                async def send(method: str = method, at: str = at, headers: Any = headers) -> Any:
                    return await AsyncClient().generic(method, at, headers=headers)

                found = anyio.run(send)
            else:
                found = Client(enforce_csrf_checks=True).generic(method, at, headers=headers)
            if status == 200:
                good = found.status_code == 200 and found.json() == expected
            else:
                good = found.status_code == status and found.headers["Content-Type"] == "application/problem+json"
                good = good and expected in found.headers["WWW-Authenticate"]
            if not good:
                wrong.append(f"{method} {at} {scopes}: {found.status_code} {found.headers} {found.content!r}")
    assert not wrong, "\n".join(wrong)


def test_authentication_of_others_counts_where_a_token_is_optional(authority: FakeAuthority):
    with run_project(authority, existing_api()):
        found = Client().get("/api/either", headers={"X-Key": "good"})
    assert (found.status_code, found.json()) == (200, {"auth": "good"})


def test_audit_lists_each_operation(authority: FakeAuthority):
    with run_project(authority, existing_api()):
        entries = {entry.where: entry.access for entry in audit_app(get_resolver()).entries if entry.method != "*"}
    assert entries == {
        "GET /api/rows": "read",
        "POST /api/rows": "write",
        "GET /api/any": "any valid token",
        "GET /api/open": "public",
        "GET /api/greeting": "a valid token or none",
        "GET /api/later": "any valid token",
        "GET /api/either": "a valid token or none",
        "GET /api/people/{number}": "people.read",
    }


def test_openapi_document_has_the_bearer_scheme(authority: FakeAuthority):
    api = existing_api()
    with run_project(authority, api):
        document = api.get_openapi_schema()
    assert document["components"]["securitySchemes"]["TokenAuth"] == {"type": "http", "scheme": "bearer"}
    assert document["paths"]["/api/rows"]["post"]["security"] == [{"TokenAuth": []}]


def test_authentication_without_the_middleware_is_refused():
    with pytest.raises(ConfigurationError, match="add scopeguard"):
        TokenAuth("read")(SimpleNamespace())
