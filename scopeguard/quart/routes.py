"""The route of a request, as Quart finds it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

from quart import has_request_context, request, websocket
from quart.wrappers import Request, Websocket
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

from scopeguard.asgi import Scope

ROUTE_KEY: Final = "scopeguard.quart"
"""The key in the scope of the template of Quart's route, the :class:`RouteAccess`, and :func:`route_key`."""
NOT_ROUTED: Final = (None, None, None)
# The objects behind Quart's proxies. A proxy among the local variables breaks Quart's page for an exception.
_get_request: Final = cast("LocalProxy[Request]", request)._get_current_object
_get_websocket: Final = cast("LocalProxy[Websocket]", websocket)._get_current_object


def current_connection() -> Any:
    """Return the request or websocket that Quart is serving."""
    return _get_request() if has_request_context() else _get_websocket()


def look_up_route(app: Any, scope: Scope, method: str, *, is_websocket: bool = False) -> Any:
    """Return the request or websocket that Quart makes of *scope*, after Quart has looked up its route.

    Only the same code as in Quart finds the same view for each spelling of a path.
    """

    async def send(message: object) -> None:
        raise RuntimeError(f"no response may be sent while a route is looked up: {message!r}")

    if is_websocket:
        made = app.asgi_websocket_class(app, scope)._create_websocket_from_scope(send)
    else:
        made = app.asgi_http_class(app, {**scope, "method": method})._create_request_from_scope(send)
    with suppress(HTTPException, UnicodeError):  # a bad host or query: no view runs, because Quart raises it too
        (app.websocket_context if is_websocket else app.request_context)(made).match_request()
    return made


def route_key(made: Any) -> tuple[str, str, str | None]:
    """Return what selects the rule and the view of a request or websocket."""
    return made.method, made.path, made.endpoint


def is_automatic(made: Any) -> bool:
    """Return whether Quart itself answers ``OPTIONS`` for the route of *made*."""
    return bool(getattr(made.url_rule, "provide_automatic_options", False))
