"""The blocks of docs/guides/django.md make a project that works when they are copied."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.test import AsyncClient, Client
from django.urls import path

from django_project import project, url_conf
from documentation import run
from scopeguard.django import get_guard
from scopeguard.testing import FakeAuthority

AUTHORITY = FakeAuthority("https://auth.example.com", audience="https://api.example.com")


class People:
    """Stands for the table of the reader."""

    def __init__(self, **rows: str) -> None:
        self.objects = self
        self._rows = rows
        self._found: list[str] = []

    def filter(self, *, issuer: str, subject: str) -> People:
        assert issuer == AUTHORITY.url
        self._found = [self._rows[subject]] if subject in self._rows else []
        return self

    def first(self) -> str | None:
        return self._found[0] if self._found else None


@pytest.fixture(params=[False, True], ids=["default user", "own user"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The project of the page, without a table of people and with one."""
    given: dict[str, Any] = {name: value for name, value in run("django_settings").items() if name.isupper()}
    views = run("django_views")
    paths = {f"/{name}": views[name] for name in ("me", "healthz", "greeting")}
    urls = url_conf({**paths, "/rows": views["Rows"].as_view(), "/admin/": login_required(views["me"])})
    if request.param:
        monkeypatch.setitem(sys.modules, "people.models", SimpleNamespace(Person=People(ann="Ann of the table")))
        given["SCOPEGUARD"] |= {"USER": run("django_users")["find_person"]}
    with project(urls, given.pop("SCOPEGUARD"), **given), AUTHORITY.takes_over(get_guard()):
        yield Client(enforce_csrf_checks=True)


def test_the_project_of_the_guide_is_protected(client: Client, request: pytest.FixtureRequest):
    reader, writer = AUTHORITY.bearer("rows.read", subject="ann"), AUTHORITY.bearer("rows.write")
    assert client.get("/rows").status_code == 401
    assert client.get("/rows", headers=reader).json() == {"rows": ["Mendlesham"]}
    assert client.post("/rows", headers=reader).status_code == 403
    assert client.post("/rows", headers=writer).json() == {"by": "client"}
    assert asyncio.run(AsyncClient().get("/me", headers=reader)).json() == {"subject": "ann"}
    assert (client.get("/healthz").content, client.get("/greeting").content) == (b"ok", b"hello")
    named = b"hello Ann of the table" if "own user" in request.node.name else b"hello ann"
    assert client.get("/greeting", headers=reader).content == named
    assert client.get("/admin/").headers["Location"] == "/accounts/login/?next=/admin/"
    assert client.get("/nowhere").status_code == 401


def test_view_of_the_rest_framework_needs_its_scope(client: Client):
    given = {**settings.SCOPEGUARD}
    urls = url_conf({"/tables": run("django_drf_views")["Tables"].as_view()})
    assert run("django_drf_settings")["REST_FRAMEWORK"].items() <= settings.REST_FRAMEWORK.items()
    with project(urls, given):
        assert client.get("/tables", headers=AUTHORITY.bearer("tables.write")).status_code == 403
        answer = client.get("/tables", headers=AUTHORITY.bearer("tables.read", subject="ann"))
        assert answer.json() == {"tables": ["departures"], "for": "ann"}


def test_operation_of_django_ninja_needs_its_scope(client: Client):
    given = {**settings.SCOPEGUARD}
    with project(url_conf({}, path("api/", run("django_ninja")["api"].urls)), given):
        assert client.get("/api/tables", headers=AUTHORITY.bearer("tables.write")).status_code == 403
        answer = client.get("/api/tables", headers=AUTHORITY.bearer("tables.read", subject="ann"))
        assert answer.json() == {"tables": ["departures"], "for": "ann"}
        assert client.get("/api/healthz").json() == {"ok": True}


@pytest.mark.usefixtures("client")
def test_the_test_of_the_guide_passes():
    run("django_testing")["test_rows_need_a_scope"]()
