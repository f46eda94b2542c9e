"""WSGI middleware (PEP 3333) that protects an app without changes to its code.

    from scopeguard import Guard, Issuer
    from scopeguard.wsgi import GuardMiddleware

    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
    application = GuardMiddleware(application, guard=guard, public=["/healthz"])

The middleware translates an environ into a :class:`~scopeguard.request.RequestView` and a decision into a response. The
guard decides. The server gets the app's own iterable, so that streaming, ``close()`` and ``write()`` work as they do
without the middleware.

Longer than 400 lines because the middleware and the reading of an environ are parts of one protocol.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from scopeguard.adapter.connection_certificate import certificate_in_environ
from scopeguard.adapter.cors import Headers, ask_wsgi_app, expose_headers
from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.preflights import PREFLIGHT_KEY, announces_allowed_request
from scopeguard.adapter.resource_metadata import first_found, metadata_of
from scopeguard.adapter.token_removal import environ_has, remove_from_environ, remove_key
from scopeguard.config import checks
from scopeguard.config.cors import Preflight
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import InvalidRequest, RequestTooLarge
from scopeguard.guard import Guard, engine_of, silent_copy
from scopeguard.inbound_tokens import to_serve
from scopeguard.reasons import Reason
from scopeguard.request import ProofNotes, RequestView
from scopeguard.rules import OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.rules.prefix_removal import check_root_path
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import Response
from scopeguard.spec.credentials import declared_length, has_access_token, without_access_token
from scopeguard.spec.request_uri import PATH_CHARACTERS
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.spec.response_headers import add_proof_headers, private_headers, uncached_headers
from scopeguard.tokens import AccessToken, Anonymous, begin_serving, end_serving

if TYPE_CHECKING:
    from scopeguard.adapter.debug_page import DebugPage
    from scopeguard.core.resource_metadata import ResourceMetadata

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ENVIRON_KEY: Final = "scopeguard.access_token"
"""The key of the token in the environ. No header can set it, because its name has a dot and no prefix ``HTTP_``."""

PROOFS_KEY: Final = "scopeguard.proofs"
"""The key in the environ of the :class:`~scopeguard.request.ProofNotes` that all guards of a request share."""

GUARD_KEY: Final = "scopeguard.guard"
"""The key in the environ of the guard that checked the request, for adapters in the app."""


class EnvironHeaders:
    """The header fields in an environ.

    The server has joined repeated fields with a comma, and a dash in a name looks like an underscore.
    Decisions therefore use only ``Authorization``, the content fields, and the fields of token sources.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def get_all(self, name: str, /) -> Sequence[bytes]:
        key = name.upper().replace("-", "_")
        value = self._environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
        if value is None:
            return ()
        # PEP 3333: strings "must contain only code points representable in ISO-8859-1 encoding".
        return (value.encode("latin-1", "replace"),)


class GuardMiddleware(Layer):
    """Require a valid access token for every request to *app*, unless a rule says otherwise.

    * *public*: path templates that need no token, such as ``"/healthz"`` or ``"/static/{name:path}"``. They do not
      change what other paths need.
    * *rules*: the requirement of each route. Default: the rules of the guard. If there are rules, a route that matches
      none of them is denied, and an empty list denies every route. Without rules here and in the guard, every route
      needs a valid token.
    * *cors_preflight*: with ``"pass"``, CORS preflights reach the app, except those for routes that are denied to
      everyone. For a refused request the middleware sends the app a preflight of its own, and copies the CORS headers
      of the response into the refusal, so that scripts can read it. Default: the setting of the guard.
    * *root_path*: the prefix that the app itself removes from ``PATH_INFO`` before it routes, as in ``"/api"``; ``""``
      for none. Needed only if the app cannot be inspected: a rule then also holds for every path that ends with its
      path. It is not ``SCRIPT_NAME``, which the server has removed from ``PATH_INFO`` already.
    * *debug*: for development only: serve a page that shows the last decisions of the guard, at ``/_scopeguard`` or at
      the path given here. Only programs on this machine get it; see docs/debug-page.md.

    The app reads the token from ``environ["scopeguard.access_token"]`` or, during the call of the app, from
    :func:`scopeguard.access_token`. A generator that the app returns runs after the call, so it must read the
    environ.

    A refusal is a 4xx response, usually 401 or 403 with a challenge (RFC 6750 section 3), or 503 with ``Retry-After``
    when an authorization server cannot be reached.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for rules that the guard cannot apply, and, at
    the first request, for errors of the audit if the guard was created with ``audit="error"``.
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
        debug: bool | str = False,
    ) -> None:
        # Not at the top of the module, because the audit takes longer to import than the middleware.
        from scopeguard.audit.app_rules import AppRules  # noqa: PLC0415
        from scopeguard.audit.route_requirements import RouteRequirements  # noqa: PLC0415
        from scopeguard.audit.startup import StartCheck  # noqa: PLC0415

        checks.instance(guard, Guard, "guard", "a scopeguard.Guard, as in GuardMiddleware(app, guard=guard)")
        checks.app(app, "a WSGI app")
        self.app: WSGIApp = app
        self.guard = guard
        self._engine = engine = engine_of(guard)
        self.rules: Rules = engine.check_rules(Rules.choose(rules, guard.rules).with_public(public), blocks=True)
        self.root_path: str | None = check_root_path(root_path)
        self._find: Callable[[str, str, bytes | None], Rule | None] = AppRules(self).find
        self._opens_unmatched = not self.rules.deny_unmatched
        self.passes_preflights: bool = engine.passes_preflights(cors_preflight)
        self._check = StartCheck(self, guard)
        self._route_requirements = RouteRequirements(app, self.rules)
        self._metadata = engine.metadata
        if engine.metadata is not None:
            engine.metadata.add(self._route_requirements)
        self._debug: DebugPage | None = None
        if debug is not False:
            from scopeguard.adapter.debug_page import open_debug_page  # noqa: PLC0415 - for development only

            self._debug = open_debug_page(debug, engine)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._check.pending:
            self._check.run()
        if self._metadata is not None and environ.get("PATH_INFO", "").startswith(WELL_KNOWN):
            answer = answer_metadata(self._metadata, environ)
            if answer is not None:
                start_response(f"{answer.status} {answer.reason_phrase}", list(answer.headers))
                return [answer.body]
        environ.pop(ENVIRON_KEY, None)
        environ[GUARD_KEY] = self.guard
        engine = self._engine
        report = engine.current_report() if engine.listens else None
        if report is not None and report.handed_to is self:  # the call by _answer_with_report()
            rule, report.handed_to = report.rule, None
        else:
            rule = self._find(environ["REQUEST_METHOD"], decoded_path(environ), raw_path(environ))
            if engine.listens:
                body = self._answer_with_report(environ, start_response, rule)
                if body is not None:
                    return body
        recalled: AccessToken | None = None
        is_open = rule is not None and rule.access is PUBLIC
        if self.passes_preflights and "HTTP_ORIGIN" in environ:
            start_response = _change_headers(start_response, expose_headers)
            environ[PREFLIGHT_KEY] = environ["REQUEST_METHOD"] == "OPTIONS" and self._announces(
                environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"), environ
            )
            is_open = is_open or environ[PREFLIGHT_KEY]
        if not is_open and (self._opens_unmatched if rule is None else rule.is_plain):
            recalled = environ[ENVIRON_KEY] = recall(engine, environ, None if rule is None else rule.requirement)
        if is_open or recalled is not None:
            if is_open:
                remove_key(environ, engine.key_field)  # a key is also removed on an open route
            before = begin_serving(to_serve(recalled) if engine.keeps_inbound else recalled)
            try:
                return self.app(environ, start_response)
            finally:
                end_serving(before)
        return self._check_and_call(environ, start_response, rule)

    def _answer_with_report(
        self, environ: Environ, start_response: StartResponse, rule: Rule | None
    ) -> Iterable[bytes] | None:
        """Answer the request and report the decision to the listeners. ``None``: an outer layer reports it."""
        if self._debug is not None:  # a debug page always listens
            answer = debug_answer(self._debug, environ)
            if answer is not None:
                start_response(f"{answer.status} {answer.reason_phrase}", list(answer.headers))
                return [answer.body]
        route = None if rule is None else rule.path
        report = self._engine.begin_report(Adapter.WSGI, environ["REQUEST_METHOD"], decoded_path(environ), route)
        if report is None:
            return None
        report.handed_to, report.rule = self, rule
        try:
            return self(environ, start_response)
        finally:
            report.end()

    def _check_and_call(self, environ: Environ, start_response: StartResponse, rule: Rule | None) -> Iterable[bytes]:
        engine = self._engine
        view = request_view(environ, with_proofs=engine.checks_proofs)
        sources = engine.sources_for(None if rule is None else rule.sources)
        if sources.in_query and has_access_token(view.query):
            strip_query_token(environ)
            start_response = _change_headers(start_response, private_headers)
        elif engine.has_other_field(view.headers):
            start_response = _change_headers(start_response, uncached_headers)
        requirement = None if rule is None else rule.requirement
        optional = rule is not None and rule.access is OPTIONAL
        decision: Decision = engine.check(
            view,
            requirement,
            optional=optional,
            closed=self.rules.closes(rule),
            sources=sources,
            read_form=lambda limit: read_form(environ, limit),
            challenge_requirement=lambda: self._route_requirements.combine(requirement, view.method, view.path),
            policies=() if rule is None else rule.policies,
            dpop=None if rule is None else rule.mode,
        )
        remove_from_environ(environ, sources)
        token: AccessToken | None = None
        match decision:
            case Granted(access_token=token):
                pass
            case Anonymous():
                pass
            case refusal:
                return _refuse(refusal, start_response, self._cors_headers(environ))
        notes = view.proofs
        if notes is not None and notes.changes_response:
            start_response = _change_headers(start_response, partial(add_proof_headers, notes.nonce, notes.vary))
        if optional:
            start_response = _change_headers(start_response, lambda headers: [*headers, ("Vary", engine.vary)])
        environ[ENVIRON_KEY] = token
        before = begin_serving(to_serve(token) if engine.keeps_inbound else token)
        try:
            return self.app(environ, start_response)
        finally:
            end_serving(before)

    def _announces(self, method: str | None, environ: Environ) -> bool:
        """Return whether a preflight for *method* announces a request that is not denied to everyone."""
        path, raw = decoded_path(environ), raw_path(environ)
        own = self._find("OPTIONS", path, raw)
        return announces_allowed_request(
            method,
            None if own is None else own.access,
            lambda announced: self.rules.closes(self._find(announced, path, raw)),
        )

    def _cors_headers(self, environ: Environ) -> list[tuple[str, str]]:
        """Return the headers that let a script read a refusal, if the app lets it read responses."""
        origin, method = environ.get("HTTP_ORIGIN"), environ["REQUEST_METHOD"]
        # Scripts cannot read the response to a preflight.
        if not self.passes_preflights or origin is None or method == "OPTIONS" or not self._announces(method, environ):
            return []
        # As for a preflight that passes. Decorators in the app may refuse it, which is no decision to report.
        added = {GUARD_KEY: silent_copy(self.guard)}
        return ask_wsgi_app(self.app, environ, origin, added, self._engine.may_log)


class ResourceMetadataMiddleware:
    """Serve the metadata (RFC 9728) of the resources of several *guards* in front of *app*.

    Use it for guards whose own middleware sees only a part of the URLs, such as the paths below a mount. The well-known
    paths are at the root of the host (RFC 9728 section 3.1). A :class:`GuardMiddleware` around a whole app needs
    nothing else. Requests with other paths go to *app* without a check.

    Raises :class:`ConfigurationError` for a guard without a resource that serves its metadata.
    """

    def __init__(self, app: WSGIApp, *, guards: Iterable[Guard]) -> None:
        checks.app(app, "a WSGI app")
        self.app: WSGIApp = app
        self._documents = metadata_of(guards)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").startswith(WELL_KNOWN):
            answer = first_found(answer_metadata(document, environ) for document in self._documents)
            if answer is not None:
                start_response(f"{answer.status} {answer.reason_phrase}", list(answer.headers))
                return [answer.body]
        return self.app(environ, start_response)


def answer_metadata(metadata: ResourceMetadata, environ: Environ) -> Response | None:
    """Return the response to a request for *metadata*; ``None`` for a request with another path."""
    return metadata.answer(
        environ["REQUEST_METHOD"],
        environ.get("SCRIPT_NAME", "") + decoded_path(environ),
        environ.get("QUERY_STRING", ""),
        if_none_match=environ.get("HTTP_IF_NONE_MATCH", ""),
        is_preflight="HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ,
    )


def debug_answer(page: DebugPage, environ: Environ) -> Response | None:
    """Return the response to a request for *page*; ``None`` for other paths, and for other machines or sites."""
    return page.answer(
        method=environ["REQUEST_METHOD"],
        path=decoded_path(environ),
        query=environ.get("QUERY_STRING", ""),
        headers=EnvironHeaders(environ),
        peer=environ.get("REMOTE_ADDR") or None,
        server=None,  # SERVER_NAME is the name of the virtual host, not the address of the connection
    )


def recall(engine: Engine, environ: Environ, requirement: Requirement | None) -> AccessToken | None:
    """Return the token of the request if the guard has verified it before and no other check is due, else ``None``."""
    authorization = environ.get("HTTP_AUTHORIZATION")
    if authorization is None or environ_has(environ, engine.key_field):
        return None
    peer = None if environ.get("wsgi.url_scheme") == "https" else environ.get("REMOTE_ADDR")
    return engine.recall(
        authorization.encode("latin-1", "replace"),
        requirement,
        environ.get("QUERY_STRING", ""),
        (peer,) if peer else None,
    )


def decoded_path(environ: Environ) -> str:
    """Return the path that routers in the app dispatch on."""
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def request_view(environ: Environ, *, with_proofs: bool = False) -> RequestView:
    """Return the request that *environ* describes."""
    return RequestView(
        method=environ["REQUEST_METHOD"],
        path=decoded_path(environ),
        headers=EnvironHeaders(environ),
        query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        secure=environ.get("wsgi.url_scheme") == "https",
        client=environ.get("REMOTE_ADDR") or None,
        raw_path=full_raw_path(environ) if with_proofs else None,
        proofs=environ.setdefault(PROOFS_KEY, ProofNotes()) if with_proofs else None,
        certificate=certificate_in_environ(environ) if with_proofs else None,
    )


def full_raw_path(environ: Environ) -> bytes:
    """Return the path of the URL as sent, percent-encoded, with ``SCRIPT_NAME`` and without the query."""
    sent = raw_path(environ)
    if sent is not None:
        return sent.partition(b"?")[0]  # the query may contain a token, and debuggers show the request
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return quote(path.encode("latin-1", "replace"), safe=PATH_CHARACTERS).encode("ascii")


def raw_path(environ: Environ) -> bytes | None:
    """Return the path as the client sent it, for apps that route on it, or ``None`` if the server does not provide it.

    It may begin with ``SCRIPT_NAME`` and end with a query. No header can set the keys, which the server writes.
    """
    uri = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    return uri.encode("latin-1", "replace") if isinstance(uri, str) else None


def strip_query_token(environ: Environ) -> None:
    """Remove the token from the URL that the app and the access log of the server read."""
    environ["QUERY_STRING"] = _strip_query(environ.get("QUERY_STRING", ""))
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = strip_url(str(environ[name]))


def strip_url(url: str) -> str:
    """Return *url* without the token in its query."""
    path, _, query = url.partition("?")
    left = _strip_query(query)
    return f"{path}?{left}" if left else path


def _strip_query(query: str) -> str:
    return without_access_token(query.encode("latin-1", "replace")).decode("latin-1")


def read_form(environ: Environ, limit: int) -> bytes:
    """Return the body, of at most *limit* bytes. The app can read it from ``wsgi.input`` again.

    Raises :class:`~scopeguard.errors.RequestTooLarge` for a longer body and
    :class:`~scopeguard.errors.InvalidRequest` for one that is shorter than its ``Content-Length``.
    """
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
    while wanted > 0 and (chunk := stream.read(wanted)):  # read() may return less than the argument
        chunks.append(chunk)
        wanted -= len(chunk)
    return b"".join(chunks)


def _refuse(
    refusal: Denied | Unavailable, start_response: StartResponse, cors_headers: Iterable[tuple[str, str]]
) -> Iterable[bytes]:
    response = refusal.response
    start_response(f"{response.status} {response.reason_phrase}", [*response.headers, *cors_headers])
    return [response.body]


def _change_headers(start_response: StartResponse, change: Callable[[Headers], Headers]) -> StartResponse:
    """Return a ``start_response`` that applies *change* to the headers of a response."""

    def start(status: str, headers: Headers, *rest: Any) -> Any:
        return start_response(status, change(headers), *rest)

    return start
