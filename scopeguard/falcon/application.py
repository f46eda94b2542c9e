"""The guard around a Falcon app, and the parts inside it that keep error handlers from changing a refusal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import falcon
import falcon.asgi

from scopeguard.adapter.asgi_types import Message, Receive, Scope, Send
from scopeguard.asgi import GUARD_KEY as ASGI_GUARD_KEY
from scopeguard.asgi import GuardMiddleware as ASGIMiddleware
from scopeguard.asgi import encode_headers, send_response
from scopeguard.config.cors import Preflight
from scopeguard.config.streams import CloseStreams
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Rule, Rules
from scopeguard.spec.challenge import Response
from scopeguard.spec.websocket_close import POLICY_VIOLATION
from scopeguard.tokens import AccessToken
from scopeguard.wsgi import ENVIRON_KEY, GUARD_KEY, Environ, StartResponse
from scopeguard.wsgi import GuardMiddleware as WSGIMiddleware

_REFUSAL: Final = "scopeguard.falcon.refusal"
"""The key in the environ or scope of the :class:`Response` with which ``requires`` has refused the request."""


def protect(
    app: falcon.App[Any, Any],
    *,
    guard: Guard,
    public: Iterable[str] = (),
    rules: Rules | Iterable[Rule] | None = None,
    cors_preflight: Preflight | str | None = None,
    close_streams: CloseStreams | str | None = None,
    recheck_streams: float | None = None,
    debug: bool | str = False,
) -> ASGIMiddleware | WSGIMiddleware:
    """Return *app*, a ``falcon.App`` or ``falcon.asgi.App``, with a guard around it. Give the server the result.

    Every request needs a valid token, unless a rule says otherwise. The settings are those of
    :class:`scopeguard.asgi.GuardMiddleware` and :class:`scopeguard.wsgi.GuardMiddleware`; *close_streams* and
    *recheck_streams* are for ASGI only.

    The token is ``req.context.access_token``, ``None`` for an anonymous caller, and :func:`access_token` returns it
    anywhere. Components that the app had before ``protect`` run before ``req.context.access_token`` is set. A generator
    in ``resp.stream`` of a WSGI app runs after the call of the app, so it must read ``req.context.access_token``.

    ``protect`` adds a middleware component and an error handler to *app*, so that no error handler of the app changes a
    refusal.

    Raises :class:`ConfigurationError` for another app, and as the middleware does.
    """
    if not isinstance(app, falcon.App):
        raise ConfigurationError(
            f"protect: app must be a falcon.App or falcon.asgi.App, not {type(app).__name__}; protect another app "
            "with GuardMiddleware of scopeguard.asgi or scopeguard.wsgi"
        )
    given: dict[str, Any] = {"public": public, "rules": rules, "cors_preflight": cors_preflight, "debug": debug}
    streams = {"close_streams": close_streams, "recheck_streams": recheck_streams}
    given |= {name: value for name, value in streams.items() if value is not None}
    guarded: ASGIMiddleware | WSGIMiddleware
    if isinstance(app, falcon.asgi.App):
        guarded = ASGIMiddleware(_AsgiRefusals(app), guard=guard, **given)
        app.add_error_handler(Refused, _refuse_async)
    elif close_streams is not None or recheck_streams is not None:
        raise ConfigurationError(
            "protect: close_streams, recheck_streams: a WSGI app cannot end connections; remove them"
        )
    else:
        guarded = WSGIMiddleware(_WsgiRefusals(app), guard=guard, **given)
        app.add_error_handler(Refused, _refuse)
    app.add_middleware(_Component(engine_of(guard)))
    return guarded


class Refused(falcon.HTTPStatus):
    """Ends a request with the refusal of the guard, even in an app without ``protect``."""

    def __init__(self, refusal: Response) -> None:
        super().__init__(refusal.status, dict(refusal.headers), refusal.body.decode("utf-8", "replace"))
        self.refusal: Response = refusal


def guard_and_token(req: Any) -> tuple[Any, AccessToken | None]:
    """Return the guard that has checked *req*, and the token."""
    scope = getattr(req, "scope", None)
    if scope is None:
        return req.env.get(GUARD_KEY), req.env.get(ENVIRON_KEY)
    state = scope.get("state") or {}
    return state.get(ASGI_GUARD_KEY), state.get("access_token")


class _Component:
    """Middleware inside Falcon: puts the token into the context of a request, and reports its route."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def process_request(self, req: Any, resp: Any) -> None:
        del resp
        req.context.access_token = guard_and_token(req)[1]

    def process_response(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:  # noqa: FBT001
        del resp, resource, req_succeeded
        report = self._engine.current_report() if self._engine.listens else None
        if report is not None:
            report.publish(req.uri_template)

    async def process_request_async(self, req: Any, resp: Any) -> None:
        self.process_request(req, resp)

    async def process_response_async(self, req: Any, resp: Any, resource: Any, req_succeeded: bool) -> None:  # noqa: FBT001
        self.process_response(req, resp, resource, req_succeeded)

    async def process_request_ws(self, req: Any, ws: Any) -> None:
        self.process_request(req, ws)


def _refuse(req: Any, resp: Any, refused: Refused, params: Any) -> None:
    del params
    refusal = refused.refusal
    place = getattr(req, "scope", None)
    (req.env if place is None else place)[_REFUSAL] = refusal
    resp.status = falcon.code_to_http_status(refusal.status)
    resp.data = refusal.body
    resp.set_headers([(name, value) for name, value in refusal.headers if name != "www-authenticate"])


async def _refuse_async(req: Any, resp: Any, refused: Refused, params: Any, ws: Any = None) -> None:
    if ws is None:
        _refuse(req, resp, refused, params)
        return
    if ws.unaccepted:
        req.scope[_REFUSAL] = refused.refusal
    await ws.close(POLICY_VIOLATION, refused.refusal.reason_phrase)


class _WsgiRefusals:
    """Adds the challenges of a refusal to the response of *app*. Falcon would join them in one field."""

    def __init__(self, app: Any) -> None:
        self.app: Any = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            refusal: Response | None = environ.get(_REFUSAL)
            return start_response(status, headers if refusal is None else [*headers, *_challenges(refusal)], *rest)

        answer: Iterable[bytes] = self.app(environ, start)
        return answer


class _AsgiRefusals:
    """:class:`_WsgiRefusals` for ASGI. A websocket that is not accepted yet gets the refusal of the guard."""

    def __init__(self, app: Any) -> None:
        self.app: Any = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_refusal(message: Message) -> None:
            refusal: Response | None = scope.get(_REFUSAL)
            if refusal is not None and message["type"] == "websocket.close":
                await send_response(refusal, encode_headers(refusal.headers), scope, send)
                return
            if refusal is not None and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *encode_headers(_challenges(refusal))]}
            await send(message)

        await self.app(scope, receive, send_refusal)


def _challenges(refusal: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in refusal.headers if name == "www-authenticate"]
