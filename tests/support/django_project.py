"""A Django project in this process. Django reads its settings once, so every test overrides those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import clear_url_caches, path

GUARD_MIDDLEWARE = "scopeguard.django.GuardMiddleware"
USUAL_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    GUARD_MIDDLEWARE,
]


def set_up_django() -> None:
    """Configure Django, unless it is configured already."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "rest_framework",
            "drf_spectacular",
            "scopeguard.django",
        ],
        STATIC_URL="/static/",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        MIDDLEWARE=USUAL_MIDDLEWARE,
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": ["scopeguard.django.rest_framework.TokenAuthentication"],
            "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
        },
        ROOT_URLCONF=[],
        SECRET_KEY="made-up",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )
    django.setup()


set_up_django()

from django.contrib.auth.mixins import LoginRequiredMixin  # noqa: E402 - needs the settings

__all__ = [
    "GUARD_MIDDLEWARE", "USUAL_MIDDLEWARE", "LoginRequiredMixin", "handler", "project", "serving", "set_up_django",
    "url_conf",
]  # fmt: skip


def url_conf(views: dict[str, Any], *more: Any) -> ModuleType:
    """Return a URL configuration with *views* by path."""
    module = ModuleType("urls")
    vars(module)["urlpatterns"] = [*(path(at.removeprefix("/"), view) for at, view in views.items()), *more]
    return module


@contextmanager
def project(urls: ModuleType | str, scopeguard: Any, **others: Any) -> Iterator[None]:
    """Use *urls* and the setting *scopeguard* for the length of a ``with`` block."""
    with override_settings(ROOT_URLCONF=urls, SCOPEGUARD=scopeguard, **others):
        clear_url_caches()
        yield
    clear_url_caches()


def handler(*, asynchronous: bool = False) -> Any:
    """Return the application object of the project as it is set now."""
    return ASGIHandler() if asynchronous else WSGIHandler()


def serving(
    urls: ModuleType, scopeguard: dict[str, Any], *, asynchronous: bool = False, **others: Any
) -> Callable[..., Any]:
    """Return the application object of the project. The settings hold during each call."""
    with project(urls, scopeguard, **others):
        app = handler(asynchronous=asynchronous)

    if asynchronous:

        async def call_async(scope: Any, receive: Any, send: Any) -> None:
            with project(urls, scopeguard, **others):
                await app(scope, receive, send)

        return call_async

    def call(environ: Any, start_response: Any) -> Any:
        with project(urls, scopeguard, **others):
            return app(environ, start_response)

    return call
