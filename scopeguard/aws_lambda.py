"""AWS Lambda: protects a handler of HTTP events, or answers as an authorizer of API Gateway. No framework is needed.

    from scopeguard import Guard, Issuer, access_token
    from scopeguard.aws_lambda import protect

    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))

    @protect(guard)
    def handler(event, context):
        return {"statusCode": 200, "body": access_token().client_id}

Events of API Gateway (HTTP APIs, REST APIs), of function URLs and of load balancers are translated into a WSGI request.
:class:`scopeguard.wsgi.GuardMiddleware` decides about it, as in front of an app. An ASGI app behind an adapter such as
Mangum needs nothing of this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from http import HTTPStatus
from typing import Any, Final

from scopeguard.adapter.lambda_events import (
    Event,
    Headers,
    answer_for,
    environ_of,
    header_pairs,
    policy_for,
    without_credentials,
)
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Rule, Rules
from scopeguard.wsgi import ENVIRON_KEY, GUARD_KEY, Environ, GuardMiddleware, StartResponse

__all__ = ["AuthorizerUnavailable", "Unauthorized", "authorizer", "protect"]

Handler = Callable[[Event, Any], Any]

_CALL: Final = "scopeguard.aws_lambda.call"


class Unauthorized(Exception):
    """Raised by an authorizer for a request without a valid token. API Gateway recognizes its text and answers 401."""


class AuthorizerUnavailable(Exception):
    """Raised by an authorizer if the token cannot be checked. API Gateway answers it with 500: it has no 503."""


def protect(
    guard: Guard, *, public: Iterable[str] = (), rules: Rules | Iterable[Rule] | None = None, base_path: str = ""
) -> Callable[[Handler], Handler]:
    """Return a decorator for a handler: each event needs a valid access token, unless a rule says otherwise.

    *public* and *rules* are those of :class:`scopeguard.wsgi.GuardMiddleware`. *base_path*: a prefix, as in
    ``"/prod"``, that is removed from the path before rules are compared; the name of a stage in the path of an HTTP
    API, or the key of a custom domain. A path without it is compared as it is.

    The handler reads the token from :func:`scopeguard.access_token`. Its event has neither ``Authorization`` nor a
    token in the query, and no API key. A refusal is an answer in the form of the event: 401 or 403 with a challenge, or
    503 with ``Retry-After``. REST APIs rename ``WWW-Authenticate`` in it to ``x-amzn-remapped-www-authenticate``.

    Raises :class:`ConfigurationError` for an argument of the wrong kind. The handler raises :class:`TypeError` for an
    event that is not an HTTP request.
    """
    prefix = _check_base_path(base_path)
    middleware = GuardMiddleware(_call_handler, guard=guard, public=public, rules=rules, root_path="")

    def decorate(handler: Handler) -> Handler:
        def guarded(event: Event, context: Any) -> Any:
            call = _Call(handler, event, context, environ_of(event, prefix))
            body = b"".join(middleware(call.environ, call.start))
            return call.answer_with(body)

        return update_wrapper(guarded, handler)

    return decorate


def authorizer(guard: Guard, *, rules: Rules | Iterable[Rule] | None = None, base_path: str = "") -> Handler:
    """Return the handler of a Lambda authorizer of type REQUEST.

    HTTP APIs with format 2.0 get a simple response. REST APIs, and HTTP APIs with format 1.0, get a policy for exactly
    the method and path of the request. The context has ``issuer``, ``subject``, ``client_id`` and
    ``scopes``, separated by spaces.

    **Switch the cache of the authorizer off** (a TTL of 0), or add the method and the path to its identity sources:
    API Gateway otherwise uses the decision about one route for all others.

    Raises :class:`ConfigurationError` for a guard that needs a body, or that issues nonces for proofs: an authorizer
    cannot send header fields. The handler raises :class:`Unauthorized`, which becomes 401, if the answer is a policy.
    A simple response can only become 403. It raises :class:`AuthorizerUnavailable` in an outage, and
    :class:`TypeError` for an event that is not of type REQUEST.
    """
    prefix = _check_base_path(base_path)
    middleware = GuardMiddleware(_call_handler, guard=guard, rules=rules, root_path="")
    _check_authorizer(guard, middleware.rules)

    def handler(event: Event, _: Any) -> Event:
        if event.get("type") != "REQUEST" or not ("methodArn" in event or "routeArn" in event):
            raise TypeError(
                "not an event for an authorizer of type REQUEST: set this type in API Gateway; the type TOKEN passes "
                "only one field of the request"
            )
        call = _Call(None, event, None, environ_of(event, prefix))
        middleware(call.environ, call.start)
        if call.status >= 500:
            raise AuthorizerUnavailable("the access token cannot be checked now")
        if not call.ran and call.status == HTTPStatus.UNAUTHORIZED and "methodArn" in event:
            raise Unauthorized("Unauthorized")
        return policy_for(event, call.environ.get(ENVIRON_KEY) if call.ran else None, allowed=call.ran)

    return handler


class _Call:
    """One call of a handler, and the response to it. ``ran``: the guard has accepted the request."""

    def __init__(self, handler: Handler | None, event: Event, context: Any, environ: Environ) -> None:
        self.handler, self.event, self.context = handler, event, context
        self.environ: Environ = {**environ, _CALL: self}
        self.ran, self.status = False, 0
        self.headers: Headers = []
        self._own: tuple[Any, Headers] = (None, [])

    def start(self, status: str, headers: Headers, _: Any = None) -> Any:
        self.status, self.headers = int(status[:3]), headers
        return lambda data: None

    def run(self) -> tuple[int, Headers]:
        """Call the handler. The guard has accepted the request."""
        self.ran = True
        if self.handler is None:
            return 200, []
        answer = self.handler(self._event_without_credentials(), self.context)
        has_status = isinstance(answer, Mapping) and "statusCode" in answer
        headers = header_pairs(answer) if has_status else [("content-type", "application/json")]
        self._own = (answer, headers)
        return (int(answer["statusCode"]) if has_status else 200), list(headers)

    def _event_without_credentials(self) -> Event:
        return without_credentials(
            self.event,
            self.environ["QUERY_STRING"],
            has_token=self.environ.get(ENVIRON_KEY) is not None,
            key_field=engine_of(self.environ[GUARD_KEY]).key_field,
        )

    def answer_with(self, body: bytes) -> Any:
        """Return the response: the handler's own unless the guard has refused the request or added header fields."""
        answer, headers = self._own
        if not self.ran:
            return answer_for(self.event, self.status, self.headers) | {"body": body.decode(), "isBase64Encoded": False}
        if self.headers == headers:
            return answer
        if not (isinstance(answer, Mapping) and "statusCode" in answer):  # the short form of format 2.0
            answer = {"body": answer if isinstance(answer, str) else json.dumps(answer)}
        left = {name: answer[name] for name in answer if name not in ("headers", "multiValueHeaders")}
        return {**left, **answer_for(self.event, self.status, self.headers, left.get("cookies", ()))}


def _call_handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    call: _Call | None = environ.get(_CALL)
    # To learn which origins may read a refusal, the middleware sends preflights that no event describes.
    status, headers = (204, []) if call is None or call.environ is not environ else call.run()
    start_response(f"{status} ", headers)
    return ()


def _check_base_path(base_path: str) -> str:
    if not isinstance(base_path, str) or (base_path and (base_path[0] != "/" or base_path[-1] == "/")):
        raise ConfigurationError('base_path: must begin with a slash and not end with one, as in "/prod"')
    return base_path


def _check_authorizer(guard: Guard, rules: Rules) -> None:
    possession = engine_of(guard).context.possession
    if possession is not None and possession.sealer is not None:
        raise ConfigurationError("dpop: nonce_keys: an authorizer cannot send a nonce; leave them out")
    if guard.mcp is not None or guard.sources.in_form or any("form" in (rule.sources or ()) for rule in rules.all):
        raise ConfigurationError("authorizer: sees no bodies; leave out mcp, and the token source form")
