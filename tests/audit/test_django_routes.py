"""The URL configuration of a Django project. Each runs in a separate process, since Django allows one per process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from environment import ROOT, plain_environment
from warm_start import WarmInterpreter

PROJECT = """
import django
from django.conf import settings
settings.configure(
    MIDDLEWARE=["project.CorsMiddleware"], ROOT_URLCONF="project", SECRET_KEY="sg-secret-of-django", ALLOWED_HOSTS=["*"]
)
django.setup()
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.views import View
from scopeguard import Guard, Issuer, Rule, all_of, asgi, wsgi

class Rows(View):
    def get(self, request): ...

class CorsMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response
    def __call__(self, request):
        return self.get_response(request)

def view(request, **rest): ...
inner = [path("rows/<int:row>/", Rows.as_view()), path("files/<path:rest>", view), re_path("^old/([0-9]+)$", view)]
urlpatterns = [path("", view), path("v1/<slug:tenant>/", include(inner)), re_path("^legacy/", include(inner))]
guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
rules = [Rule("/v1/{tenant}/rows/{row}/", all_of("write"), ["POST"]), Rule("/v1/{rest:path}")]
ASGI = asgi.GuardMiddleware(get_asgi_application(), guard=guard, rules=rules)
WSGI = wsgi.GuardMiddleware(get_wsgi_application(), guard=guard, rules=rules)
bare = get_wsgi_application()
"""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[WarmInterpreter]:
    modules = ("scopeguard.asgi", "scopeguard.cli.audit", "scopeguard.wsgi", "django.core.wsgi", "django.urls")
    with WarmInterpreter(*modules, environment={**plain_environment(), "PYTHONPATH": str(ROOT)}) as interpreter:
        yield interpreter


def audit(interpreter: WarmInterpreter, folder: Path, target: str) -> tuple[dict[str, str], set[str]]:
    (folder / "project.py").write_text(PROJECT, "utf-8")
    run = interpreter.run("scopeguard", "audit", target, "--format", "json", cwd=folder)
    assert "sg-secret" not in run.stdout + run.stderr
    report = json.loads(run.stdout)
    routes = {f"{route['method']} {route['path']}": route["access"] for route in report["routes"]}
    return routes, {finding["code"] for finding in report["findings"]}


@pytest.mark.parametrize("interface", ["ASGI", "WSGI"])
def test_the_url_configuration_is_read(interpreter: WarmInterpreter, tmp_path: Path, interface: str):
    routes, codes = audit(interpreter, tmp_path, f"project:{interface}")
    assert "cors-inside-guard" in codes
    assert routes == {
        "* /": "denied",
        "POST /v1/{tenant}/rows/{row}/": "scopes",
        "* /v1/{tenant}/rows/{row}/": "authenticated",
        "* /v1/{tenant}/files/{rest:path}": "authenticated",
        "* /v1/{tenant}/{path:path}": "authenticated",
        "* /{path:path}": "denied",
    } | ({"* /v1/{rest:path}": "authenticated"})


def test_a_project_without_a_guard_is_unguarded(interpreter: WarmInterpreter, tmp_path: Path):
    routes, codes = audit(interpreter, tmp_path, "project:bare")
    assert set(routes.values()) == codes == {"unguarded"}
