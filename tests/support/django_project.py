"""A Django project in this process. Django reads its settings once, so every test overrides those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import ModuleType
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import clear_url_caches, path

from kept import keep

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
    "GUARD_MIDDLEWARE", "USUAL_MIDDLEWARE", "LoginRequiredMixin", "handler", "make_application", "project",
    "set_up_django", "url_conf",
]  # fmt: skip


def url_conf(views: dict[str, Any], *more: Any) -> ModuleType:
    """Return a URL configuration with *views* by path."""
    module = ModuleType("urls")
    vars(module)["urlpatterns"] = [*(path(at.removeprefix("/"), view) for at, view in views.items()), *more]
    return module


@contextmanager
def project(urls: ModuleType | str, scopeguard: Any, **others: Any) -> Iterator[None]:
    """Use *urls* and the setting *scopeguard* for the length of a ``with`` block."""
    _SERVED.close()
    with override_settings(ROOT_URLCONF=urls, SCOPEGUARD=scopeguard, **others):
        clear_url_caches()
        try:
            yield
        finally:
            _SERVED.close()
    clear_url_caches()


class _Served:
    """The settings of the app that was called last. They stay, because scopeguard reads them anew after each change,
    and audits all routes."""

    def __init__(self) -> None:
        self._settings = ExitStack()
        self._app: Any = None

    def enter(self, app: Any, settings: dict[str, Any]) -> None:
        """Use *settings* until an app with others is called, a block of :func:`project` begins or ends, or the tests of
        the file end."""
        if self._app is app:
            return
        self.close()
        keep(closing(self))
        self._settings.enter_context(override_settings(**settings))
        clear_url_caches()
        self._app = app

    def close(self) -> None:
        if self._app is not None:
            self._app = None
            self._settings.close()
            clear_url_caches()


_SERVED = _Served()


def handler(*, asynchronous: bool = False) -> Any:
    """Return the application object of the project as it is set now."""
    return ASGIHandler() if asynchronous else WSGIHandler()


def make_application(
    urls: ModuleType, scopeguard: dict[str, Any], *, asynchronous: bool = False, **others: Any
) -> Callable[..., Any]:
    """Return the application object of the project. The settings hold during each call."""
    project_settings = {"ROOT_URLCONF": urls, "SCOPEGUARD": scopeguard, **others}
    with project(urls, scopeguard, **others):
        app = handler(asynchronous=asynchronous)

    if asynchronous:

        async def call_async(scope: Any, receive: Any, send: Any) -> None:
            _SERVED.enter(app, project_settings)
            await app(scope, receive, send)

        return call_async

    def call(environ: Any, start_response: Any) -> Any:
        _SERVED.enter(app, project_settings)
        return app(environ, start_response)

    return call
