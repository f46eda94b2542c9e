"""WSGI middleware (PEP 3333): any WSGI app, protected without touching its code.

It translates an environ into a :class:`~scopeguard.request.RequestView` and decides nothing. The app's
iterable is returned as it is: the first byte, ``close()`` and ``write()`` stay what they were.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from scopeguard.access_token import AccessToken, Anonymous, begin_serving, end_serving
from scopeguard.adapter.cors import PREFLIGHT_KEY, allowed_by_wsgi_app, exposing_responses
from scopeguard.adapter.declared import Layer
from scopeguard.adapter.token_places import take_out_of_environ
from scopeguard.config import checks
from scopeguard.config.cors import Preflight
from scopeguard.core.decision import Decision, Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError, InvalidRequest, Reason, RequestTooLarge
from scopeguard.guard import Guard, engine_of
from scopeguard.request import RequestView
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.rules.routed import checked_root_path
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import private_headers
from scopeguard.spec.credentials import declared_length, has_access_token, without_access_token

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ENVIRON_KEY: Final = "scopeguard.access_token"
"""Where the app finds the token. A dot cannot come from a header name, so no client can set it."""

GUARD_KEY: Final = "scopeguard.guard"
"""Where adapters below find the guard that judged the request."""


class EnvironHeaders:
    """The header fields in an environ. A server has joined repeated ones with a comma, and dashes and underscores look
    alike, so nothing but ``Authorization`` and the content headers is read for a decision."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def get_all(self, name: str, /) -> Sequence[bytes]:
        key = name.upper().replace("-", "_")
        value = self._environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
        if value is None:
            return ()
        # PEP 3333: text that stands for latin-1 bytes. What does not is no header a client may send.
        return (value.encode("latin-1", "replace"),)


class GuardMiddleware(Layer):
    """*app* behind *guard*: every request needs a valid access token unless a rule says otherwise.

    * *public*: path templates that need no token. They do not close any other path.
    * *rules*: which route needs what; the guard's own by default. A route that matches none of them is denied, and an
      empty list denies every route. Without rules here and in the guard, every route needs a valid token.
    * *cors_preflight*: ``"pass"`` hands preflights to the app, except those for what no token opens, and lets scripts
      read refusals where the app's CORS middleware, inside or outside, lets them read responses: the app is asked with
      a preflight about the origin of each refused request. The guard's own setting by default.
    * *root_path*: the prefix that the app itself takes off ``PATH_INFO`` before it routes, as in ``"/api"``; ``""`` for
      none. Needed only where the app cannot be inspected: without it, what a rule says of a path counts for every path
      that ends like it. ``SCRIPT_NAME`` is the server's and no part of ``PATH_INFO``.

    The app finds the token in ``environ["scopeguard.access_token"]`` and, while it is being called, through
    :func:`scopeguard.current_access_token`. Not in a generator it returns: that runs after the call.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        guard: Guard,
        public: Iterable[str] = (),
        rules: Rules | Iterable[Rule] | None = None,
        cors_preflight: Preflight | str | None = None,
        root_path: str | None = None,
    ) -> None:
        from scopeguard.audit.app_rules import AppRules  # noqa: PLC0415
        from scopeguard.audit.needs import RouteNeeds  # noqa: PLC0415 - as below
        from scopeguard.audit.startup import StartCheck  # noqa: PLC0415 - 10 ms, which an import need not take

        if not isinstance(guard, Guard):
            raise ConfigurationError(
                "GuardMiddleware: guard is a scopeguard.Guard, as in GuardMiddleware(app, guard=guard)"
            )
        checks.app(app, "a WSGI app")
        self.app: WSGIApp = app
        self.guard = guard
        self._engine = engine = engine_of(guard)
        self.rules: Rules = engine.check_rules(Rules.chosen(rules, guard.rules).with_public(public))
        self.root_path: str | None = checked_root_path(root_path)
        self._find: Callable[[str, str, bytes | None], Rule | None] = AppRules(self).find
        self._opens_unmatched = not self.rules.deny_unmatched
        self.passes_preflights: bool = engine.passes_preflights(cors_preflight)
        self._check = StartCheck(self, guard)
        self._needs = RouteNeeds(app)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._check.pending:
            self._check.run()
        environ.pop(ENVIRON_KEY, None)
        environ[GUARD_KEY] = self.guard
        engine = self._engine
        rule = self._find(environ["REQUEST_METHOD"], decoded_path(environ), raw_path(environ))
        if engine.listens:
            route = None if rule is None else rule.path
            report = engine.report(environ["REQUEST_METHOD"], decoded_path(environ), route)
            if report is not None:  # no layer around this one has begun it: come here again with it
                try:
                    return self(environ, start_response)
                finally:
                    report.leave()
        recalled: AccessToken | None = None
        is_open = rule is not None and rule.access is PUBLIC
        if self.passes_preflights and "HTTP_ORIGIN" in environ:
            start_response = exposing_responses(start_response)
            environ[PREFLIGHT_KEY] = environ["REQUEST_METHOD"] == "OPTIONS" and self._announces(
                environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"), environ
            )
            is_open = is_open or environ[PREFLIGHT_KEY]
        if not is_open and (self._opens_unmatched if rule is None else rule.is_plain):
            recalled = environ[ENVIRON_KEY] = recall(engine, environ, None if rule is None else rule.requirement)
        if is_open or recalled is not None:
            before = begin_serving(recalled)
            try:
                return self.app(environ, start_response)
            finally:
                end_serving(before)
        return self._guarded(environ, start_response, rule)

    def _guarded(self, environ: Environ, start_response: StartResponse, rule: Rule | None) -> Iterable[bytes]:
        engine = self._engine
        view = request_view(environ)
        sources = engine.sources if rule is None or rule.sources is None else engine.sources.only(rule.sources)
        if sources.in_query and has_access_token(view.query):
            strip_query_token(environ)
            start_response = private_responses(start_response)
        requirement = None if rule is None else rule.requirement
        optional = rule is not None and rule.access is OPTIONAL
        decision: Decision = engine.check(
            view,
            requirement,
            optional=optional,
            closed=self.rules.closes(rule),
            sources=sources,
            read_form=lambda limit: read_form(environ, limit),
            challenged=lambda: self._needs.beside(requirement, view.method, view.path),
        )
        take_out_of_environ(environ, sources)
        token: AccessToken | None = None
        match decision:
            case Granted(access_token=token):
                pass
            case Anonymous():
                pass
            case refusal:
                return refuse(refusal, start_response, self._allowed(environ))
        if optional:
            start_response = varying_responses(start_response)
        environ[ENVIRON_KEY] = token
        before = begin_serving(token)
        try:
            return self.app(environ, start_response)
        finally:
            end_serving(before)

    def _announces(self, method: str | None, environ: Environ) -> bool:
        """Whether a preflight for *method* announces a request that some token opens."""
        if method is None:
            return False
        path, raw = decoded_path(environ), raw_path(environ)
        closest = self._find("OPTIONS", path, raw)
        if closest is not None and closest.access is DENIED:
            return False
        return not self.rules.closes(self._find(method, path, raw))

    def _allowed(self, environ: Environ) -> list[tuple[str, str]]:
        """The headers by which a script may read a refusal, where the app lets it read responses."""
        origin, method = environ.get("HTTP_ORIGIN"), environ["REQUEST_METHOD"]
        # Scripts never see what answers a preflight.
        if not self.passes_preflights or origin is None or method == "OPTIONS" or not self._announces(method, environ):
            return []
        return allowed_by_wsgi_app(self.app, environ, origin)


def recall(engine: Engine, environ: Environ, requirement: Requirement | None) -> AccessToken | None:
    """The token of the request, where it was verified before and there is nothing else to do."""
    authorization = environ.get("HTTP_AUTHORIZATION")
    if authorization is None:
        return None
    peer = None if environ.get("wsgi.url_scheme") == "https" else environ.get("REMOTE_ADDR")
    return engine.recall(
        authorization.encode("latin-1", "replace"),
        requirement,
        environ.get("QUERY_STRING", ""),
        (peer,) if peer else None,
    )


def decoded_path(environ: Environ) -> str:
    """The path that routers below dispatch on."""
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def request_view(environ: Environ) -> RequestView:
    """The request that *environ* describes."""
    return RequestView(
        method=environ["REQUEST_METHOD"],
        path=decoded_path(environ),
        headers=EnvironHeaders(environ),
        query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        secure=environ.get("wsgi.url_scheme") == "https",
        client=environ.get("REMOTE_ADDR") or None,
    )


def raw_path(environ: Environ) -> bytes | None:
    """The path as it was sent, if the server says: for apps that route on it. It may carry ``SCRIPT_NAME`` and a query.
    The keys are the server's own, no header can set them."""
    uri = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    return uri.encode("latin-1", "replace") if isinstance(uri, str) else None


def strip_query_token(environ: Environ) -> None:
    """Take the token out of what the app, and the server's access log, see of the URL."""
    query = environ.get("QUERY_STRING", "")
    environ["QUERY_STRING"] = without_access_token(query.encode("latin-1", "replace")).decode("latin-1")
    for name in ("RAW_URI", "REQUEST_URI"):
        path, mark, rest = str(environ.get(name, "")).partition("?")
        if mark:
            left = without_access_token(rest.encode("latin-1", "replace")).decode("latin-1")
            environ[name] = f"{path}?{left}" if left else path


def read_form(environ: Environ, limit: int) -> bytes:
    """The body, at most *limit* bytes, left in ``wsgi.input`` for the app as well."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH", "")
    if length:
        declared = declared_length(length)
        if declared is None:
            raise InvalidRequest(Reason.FORM_INCOMPLETE)
        if declared > limit:
            raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
        wanted = declared
    elif environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        wanted = limit + 1
    else:
        return b""
    body = _read(stream, wanted)
    if len(body) > limit:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
    if length and len(body) < wanted:
        raise InvalidRequest(Reason.FORM_INCOMPLETE)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _read(stream: Any, wanted: int) -> bytes:
    chunks: list[bytes] = []
    while wanted > 0 and (chunk := stream.read(wanted)):  # a server may return less than it was asked for
        chunks.append(chunk)
        wanted -= len(chunk)
    return b"".join(chunks)


def refuse(
    refusal: Denied | Unavailable, start_response: StartResponse, beside: Iterable[tuple[str, str]] = ()
) -> Iterable[bytes]:
    """Send the response of *refusal*, with the headers *beside* its own."""
    response = refusal.response
    start_response(f"{response.status} {response.reason_phrase}", [*response.headers, *beside])
    return [response.body]


def private_responses(start_response: StartResponse) -> StartResponse:
    """Keep responses to a request whose URL carried a token out of shared caches and Referer headers."""

    def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, private_headers(headers), *rest)

    return starting


def varying_responses(start_response: StartResponse) -> StartResponse:
    """What an anonymous caller is shown differs from what others see: tell caches so."""

    def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start_response(status, [*headers, ("Vary", "Authorization")], *rest)

    return starting
