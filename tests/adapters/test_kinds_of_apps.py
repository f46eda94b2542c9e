"""Middleware for an interface other than that of the app raises an error, which names the right one."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette

from scopeguard import ConfigurationError, Guard, Issuer, asgi, wsgi

GUARD = Guard(Issuer("https://as.example", audience="https://api.example"), audit="off")


async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_function(environ: Any, start_response: Any) -> list[bytes]:
    return []


class Callables:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def serve(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class SyncAsgi:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


def app_with_varargs(*args: Any) -> Any: ...


def with_default(scope: Any, receive: Any = None) -> Any: ...


@pytest.mark.parametrize(
    "app",
    [
        asgi_function,
        Callables(),
        SyncAsgi(),
        SyncAsgi().__call__,
        Starlette(),
        FastAPI(),
        Quart("x"),
        Litestar(logging_config=None),  # the default configures the logging of the process
        asgi.GuardMiddleware(Starlette(), guard=GUARD),
    ],
)
def test_wsgi_middleware_around_an_asgi_app_names_the_other(app: Any):
    with pytest.raises(ConfigurationError, match=r"^app: it is an ASGI app: use scopeguard\.asgi\.GuardMiddleware"):
        wsgi.GuardMiddleware(app, guard=GUARD)
    asgi.GuardMiddleware(app, guard=GUARD)


@pytest.mark.parametrize(
    "app", [wsgi_function, Callables().serve, Flask("x"), wsgi.GuardMiddleware(wsgi_function, guard=GUARD)]
)
def test_asgi_middleware_around_a_wsgi_app_names_the_wsgi_middleware(app: Any):
    with pytest.raises(ConfigurationError, match=r"^app: it is a WSGI app: use scopeguard\.wsgi\.GuardMiddleware, or"):
        asgi.GuardMiddleware(app, guard=GUARD)
    wsgi.GuardMiddleware(app, guard=GUARD)


def test_handlers_of_django_are_told_apart():
    cases: list[tuple[Any, Any, Any]] = [(ASGIHandler, asgi, wsgi), (WSGIHandler, wsgi, asgi)]
    for handler, right, wrong in cases:
        app = object.__new__(handler)
        right.GuardMiddleware(app, guard=GUARD)
        with pytest.raises(ConfigurationError, match=r"^app: it is a"):
            wrong.GuardMiddleware(app, guard=GUARD)


@pytest.mark.parametrize("app", [app_with_varargs, with_default, functools.partial(app_with_varargs), Callables, len])
def test_apps_that_do_not_tell_are_accepted(app: Any):
    asgi.GuardMiddleware(app, guard=GUARD)
    wsgi.GuardMiddleware(app, guard=GUARD)


@pytest.mark.parametrize("app", [functools, GUARD, None, "module:app", 7, object()])
def test_object_that_cannot_be_called_is_no_app(app: Any):
    """Fault: guard and app in the wrong order, or the module in the place of its app."""
    for interface, name in ((asgi, "an ASGI"), (wsgi, "a WSGI")):
        with pytest.raises(ConfigurationError, match=rf"^app: must be {name} app, not {type(app).__name__}$"):
            interface.GuardMiddleware(app, guard=GUARD)
