"""A Django app in one file: the middleware denies by default, and ``@requires`` says which scopes a view requires.

    pip install ".[django,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    waitress-serve --listen=127.0.0.1:8000 examples.django_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views import View

from scopeguard import Guard, Issuer, any_of
from scopeguard.django import public, requires

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["scopeguard.django"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "scopeguard.django.GuardMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SCOPEGUARD={"GUARD": guard},
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"),
)
django.setup()
tables: dict[str, list[Any]] = {}


class Rows(View):
    @requires(any_of("bigquery.readonly", "bigquery"))
    def get(self, request: HttpRequest, table: str) -> HttpResponse:
        return JsonResponse(tables.get(table, []), safe=False)

    @requires(any_of("bigquery.insertdata", "bigquery"))
    def post(self, request: HttpRequest, table: str) -> HttpResponse:
        rows = tables.setdefault(table, [])
        rows.append(json.loads(request.body))
        return JsonResponse({"rows": len(rows)}, status=201)


def me(request: HttpRequest) -> HttpResponse:  # without @requires: any valid token
    return JsonResponse({"client": request.access_token.client_id})


@public
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [path("tables/<table>/rows", Rows.as_view()), path("me", me), path("healthz", healthz)]
app = get_wsgi_application()
