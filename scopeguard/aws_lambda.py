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

import io
import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, unquote_plus, unquote_to_bytes, urlencode

from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Rule, Rules
from scopeguard.spec.credentials import has_access_token
from scopeguard.tokens import AccessToken
from scopeguard.wsgi import ENVIRON_KEY, GUARD_KEY, Environ, GuardMiddleware, StartResponse

__all__ = ["AuthorizerUnavailable", "Unauthorized", "authorizer", "protect"]

Event = dict[str, Any]
Handler = Callable[[Event, Any], Any]
Headers = list[tuple[str, str]]

# The event of a handler lacks them, and the field for API keys, because events are often logged.
_TOKEN_FIELDS: Final = ("authorization", "x-forwarded-authorization")
_CALL: Final = "scopeguard.aws_lambda.call"
_PATH_CHARACTERS: Final = "/%!$&'()*+,;=:@~"


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
            call = _Call(handler, event, context, _environ_of(event, prefix))
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
            raise TypeError("not an event for an authorizer of type REQUEST")
        call = _Call(None, event, None, _environ_of(event, prefix))
        middleware(call.environ, call.start)
        if call.status >= 500:
            raise AuthorizerUnavailable("the access token cannot be checked now")
        if not call.ran and call.status == HTTPStatus.UNAUTHORIZED and "methodArn" in event:
            raise Unauthorized("Unauthorized")
        return _policy(event, call.environ.get(ENVIRON_KEY) if call.ran else None, allowed=call.ran)

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
        answer = self.handler(_without_credentials(self.event, self.environ), self.context)
        has_status = isinstance(answer, Mapping) and "statusCode" in answer
        headers = _pairs(answer) if has_status else [("content-type", "application/json")]
        self._own = (answer, headers)
        return (int(answer["statusCode"]) if has_status else 200), list(headers)

    def answer_with(self, body: bytes) -> Any:
        """Return the response: the handler's own unless the guard has refused the request or added header fields."""
        answer, headers = self._own
        if not self.ran:
            return _answer(self.event, self.status, self.headers) | {"body": body.decode(), "isBase64Encoded": False}
        if self.headers == headers:
            return answer
        if not (isinstance(answer, Mapping) and "statusCode" in answer):  # the short form of format 2.0
            answer = {"body": answer if isinstance(answer, str) else json.dumps(answer)}
        left = {name: answer[name] for name in answer if name not in ("headers", "multiValueHeaders")}
        return {**left, **_answer(self.event, self.status, self.headers, left.get("cookies", ()))}


def _call_handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    call: _Call | None = environ.get(_CALL)
    # To learn which origins may read a refusal, the middleware sends preflights that no event describes.
    status, headers = (204, []) if call is None or call.environ is not environ else call.run()
    start_response(f"{status} ", headers)
    return ()


def _environ_of(event: Event, prefix: str) -> Environ:
    """Return the WSGI environ of the request that *event* describes. Raises :class:`TypeError` for other events."""
    context = event.get("requestContext") or {}
    if "http" in context:  # format 2.0, also of function URLs
        method, client, path = context["http"]["method"], context["http"].get("sourceIp"), event["rawPath"]
        query, certificate = event.get("rawQueryString") or "", context.get("authentication")
    elif "httpMethod" in event:
        method, path, identity = event["httpMethod"], event["path"], context.get("identity") or {}
        client, certificate = identity.get("sourceIp"), identity
        multiple = event.get("multiValueQueryStringParameters")
        pairs = list((multiple or event.get("queryStringParameters") or {}).items())
        # API Gateway has decoded the parameters, a load balancer has not.
        query = (
            "&".join(f"{name}={value}" for name, values in pairs for value in _list(values))
            if "elb" in context
            else urlencode(pairs, doseq=True)
        )
    else:
        raise TypeError(
            "not an HTTP event of API Gateway, a function URL or a load balancer: it has neither requestContext.http "
            "nor httpMethod; handle other events in a function without the guard"
        )
    body = event.get("body") or ""
    content = b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
    if path == prefix or path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix) or "/"
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": quote(path, safe=_PATH_CHARACTERS),
        "QUERY_STRING": _latin(query),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(content),
        **_fields(event),
    }
    if "elb" in context:  # it overwrites X-Forwarded-Proto, and appends the client to X-Forwarded-For
        environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO", "https")
        client = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
    environ["REMOTE_ADDR"] = client or ""
    environ["CONTENT_LENGTH"] = str(len(content)) if content else ""
    pem = ((certificate or {}).get("clientCert") or {}).get("clientCertPem")
    return {**environ, "SSL_CLIENT_CERT": pem} if pem else environ


def _fields(event: Event) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in _pairs(event):
        if "_" not in name:  # in an environ, it would be the same field as one with a dash
            key = "CONTENT_TYPE" if name.lower() == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"
            # As in all WSGI servers: a field that occurs twice is joined, and two tokens are refused.
            fields[key] = f"{fields[key]},{_latin(value)}" if key in fields else _latin(value)
    if event.get("cookies"):
        fields["HTTP_COOKIE"] = _latin("; ".join(event["cookies"]))
    return fields


def _pairs(message: Mapping[str, Any]) -> Headers:
    """Return the header fields of an event or an answer. ``headers`` of format 1.0 has only the last of several."""
    multiple, single = message.get("multiValueHeaders") or {}, message.get("headers") or {}
    return [(name, str(value)) for name, values in {**single, **multiple}.items() for value in _list(values)]


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _latin(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def _without_credentials(event: Event, environ: Environ) -> Event:
    """Return a copy of *event* without API keys, and without the token of the request if the guard has accepted one."""
    accepted, key_field = environ.get(ENVIRON_KEY) is not None, engine_of(environ[GUARD_KEY]).key_field
    removed = {*(_TOKEN_FIELDS if accepted else ()), "" if key_field is None else key_field.decode("ascii")}
    copy = {**event}
    for part in ("headers", "multiValueHeaders"):
        if event.get(part):
            left = event[part].items()
            copy[part] = {name: value for name, value in left if name.lower().replace("_", "-") not in removed}
    context = event.get("requestContext") or {}
    if "x-api-key" in removed and context.get("identity"):  # API Gateway copies this field for its usage plans
        identity = {name: value for name, value in context["identity"].items() if name != "apiKey"}
        copy["requestContext"] = {**context, "identity": identity}
    # A parameter that the environ still has is not a token source: the middleware removes tokens.
    if not accepted or has_access_token(environ["QUERY_STRING"].encode("latin-1")):
        return copy
    for part in ("queryStringParameters", "multiValueQueryStringParameters"):
        if event.get(part):
            copy[part] = {name: value for name, value in event[part].items() if unquote_plus(name) != "access_token"}
    return copy | ({"rawQueryString": environ["QUERY_STRING"]} if "rawQueryString" in event else {})


def _answer(event: Event, status: int, headers: Headers, cookies: Iterable[str] = ()) -> Event:
    """Return status and header fields in the form that the service which sent *event* reads."""
    context = event.get("requestContext") or {}
    cookies = [*cookies, *(value for name, value in headers if name.lower() == "set-cookie")]
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    answer: Event = {"statusCode": status}
    if "elb" in context:
        answer["statusDescription"] = f"{status} {HTTPStatus(status).phrase}"
    if "http" not in context and (event.get("multiValueHeaders") is not None or "elb" not in context):
        return {**answer, "multiValueHeaders": fields}
    if "http" in context and cookies:
        del fields["set-cookie"]
        answer["cookies"] = cookies
    return {**answer, "headers": {name: ", ".join(values) for name, values in fields.items()}}


def _policy(event: Event, token: AccessToken | None, *, allowed: bool) -> Event:
    context: dict[str, str] = {}
    if token is not None:
        named = {"issuer": token.issuer, "subject": token.subject, "client_id": token.client_id}
        context = {name: value for name, value in named.items() if value is not None}
        context["scopes"] = " ".join(sorted(token.scopes))
    if "methodArn" not in event:
        return {"isAuthorized": allowed, "context": context}
    # IAM would read these characters of a path as a pattern or a variable, and allow other paths too.
    allowed = allowed and not set(event["methodArn"].split("/", 2)[-1]) & set("*?$")
    effect = {"Action": "execute-api:Invoke", "Effect": "Allow" if allowed else "Deny", "Resource": event["methodArn"]}
    return {
        "principalId": context.get("subject") or context.get("client_id") or "anonymous",
        "policyDocument": {"Version": "2012-10-17", "Statement": [effect]},
        "context": context,
    }


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
