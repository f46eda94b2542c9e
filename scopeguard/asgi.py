"""ASGI middleware that protects an app without changes to its code.

    from scopeguard import Guard, Issuer
    from scopeguard.asgi import GuardMiddleware

    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
    app = GuardMiddleware(app, guard=guard, public=["/healthz"])

The middleware translates a scope into a :class:`~scopeguard.request.RequestView` and a decision into messages. The
guard decides. ``lifespan`` reaches the app, and responses are streamed as the app sends them. The middleware reads a
request body only if a form may carry the token, or to detect a disconnect while the request waits for an authorization
server. The app then receives the same messages again.

Longer than 400 lines because requests, websockets, lifespan and metadata are parts of one protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict
from urllib.parse import quote

from scopeguard.adapter.asgi_types import ASGIApp, Message, Receive, Scope, Send
from scopeguard.adapter.connection_certificate import certificate_in_scope
from scopeguard.adapter.cors import ask_asgi_app, expose_headers_in_send
from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.inner_check import refuse_inside
from scopeguard.adapter.preflights import announces_allowed_request
from scopeguard.adapter.resource_metadata import first_found, metadata_of
from scopeguard.adapter.token_removal import remove_field, remove_from_scope, select_subprotocol
from scopeguard.config import checks
from scopeguard.config.checks import member, positive
from scopeguard.config.cors import Preflight
from scopeguard.config.streams import RECHECK_INTERVAL, CloseStreams
from scopeguard.config.token_sources import TokenSource
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Report, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.core.starting import aprepare
from scopeguard.errors import ConfigurationError, Forbidden
from scopeguard.flow.credentials import Credential
from scopeguard.guard import Guard, engine_of, silent_copy
from scopeguard.inbound_tokens import hand_over, to_serve
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, ProofNotes, RequestView
from scopeguard.rules import OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.rules.prefix_removal import check_root_path, without_prefix
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import Response
from scopeguard.spec.credentials import has_access_token, without_access_token
from scopeguard.spec.request_uri import PATH_CHARACTERS
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.spec.response_headers import add_proof_headers, private_headers, uncached_headers
from scopeguard.spec.websocket_close import POLICY_VIOLATION
from scopeguard.tokens import ANONYMOUS, AccessToken, Serving, begin_serving, end_serving

if TYPE_CHECKING:
    from scopeguard.adapter.asgi_messages import DisconnectDetector, FormBody
    from scopeguard.adapter.debug_page import DebugPage
    from scopeguard.adapter.streams import Connection
    from scopeguard.core.resource_metadata import ResourceMetadata

__all__ = [
    "GUARD_KEY", "ASGIApp", "CloseStreams", "GuardMiddleware", "Message", "Receive", "ResourceMetadataMiddleware",
    "Scope", "Send", "renew",
]  # fmt: skip

PROOFS_KEY: Final = "scopeguard.proofs"
"""The key in the scope of the :class:`~scopeguard.request.ProofNotes` that all guards of a request share."""

GUARD_KEY: Final = "scopeguard.guard"
"""The key in ``scope["state"]`` of the guard that checked the request. The token has the key ``access_token``."""

CONNECTION_KEY: Final = "scopeguard.connection"
"""The key in ``scope["state"]`` of what :func:`renew` needs, if *close_streams* is set."""

RULE_KEY: Final = "scopeguard.rule"
"""The key in the scope of the pair of the guard and its rule, if the rule has a mode for proofs or a policy.

A check inside the app that reads the token from another place applies the mode and the policy again.
"""

_SECURE: Final = ("https", "wss")
_STARTS: Final = frozenset(
    ("http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start")
)


class Settings(TypedDict, total=False):
    """The settings of :class:`GuardMiddleware`, for extensions that construct it."""

    public: Iterable[str]
    rules: Rules | Iterable[Rule] | None
    cors_preflight: Preflight | str | None
    close_streams: CloseStreams | str
    recheck_streams: float
    debug: bool | str


class GuardMiddleware(Layer):
    """Require a valid access token for every HTTP request and websocket of *app*, unless a rule says otherwise.

    * *public*: path templates that need no token, such as ``"/healthz"`` or ``"/static/{name:path}"``. They do not
      change what other paths need.
    * *rules*: the requirement of each route. Default: the rules of the guard. If there are rules, a route that matches
      none of them is denied, and an empty list denies every route. Without rules here and in the guard, every route
      needs a valid token.
    * *cors_preflight*: with ``"pass"``, CORS preflights reach the app, except those for routes that are denied to
      everyone. For a refused request the middleware sends the app a preflight of its own, and copies the CORS headers
      of the response into the refusal, so that scripts can read it. Default: the setting of the guard.
    * *root_path*: the prefix that the app itself removes from paths before it routes, as in ``"/api"``; ``""`` for
      none. Needed only if the app cannot be inspected: a rule then also holds for every path that ends with its path.
      The ``root_path`` of FastAPI apps is found without this setting.
    * *close_streams*: when to end a response that is still being sent: a :class:`CloseStreams` or its value.
      ``"expiry"`` ends it when its token is no longer accepted, which is its expiry plus the issuer's leeway.
      ``"revocation"`` also ends it when a new request with the token would be refused: for a revocation, a status list,
      an introspection response or a withdrawn key. An outage ends no connection. A websocket is closed with code 1008,
      server-sent events end normally, and any other response is aborted with
      :class:`~scopeguard.errors.ResponseAborted`, so that the client sees that it is incomplete.
    * *recheck_streams*: with ``"revocation"``, the seconds after which the token of a connection is validated again.
      Revocations that the guard knows of take effect without it.
    * *debug*: for development only: serve a page that shows the last decisions of the guard, at ``/_scopeguard`` or at
      the path given here. Only programs on this machine get it; see docs/debug-page.md.

    The app reads the token from ``scope["state"]["access_token"]``. In Starlette and FastAPI that is
    ``request.state.access_token``; ``request.user`` and ``request.auth`` are the token, too. Any code that runs for
    the request, even in a worker thread, may call :func:`scopeguard.access_token`.

    A refusal is a 4xx response, usually 401 or 403 with a challenge (RFC 6750 section 3), or 503 with ``Retry-After``
    when an authorization server cannot be reached. A websocket is refused before it is accepted.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for rules that the guard cannot apply, and,
    when the app starts, for errors of the audit if the guard was created with ``audit="error"``.
    """

    _adapter = Adapter.ASGI

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        public: Iterable[str] = (),
        rules: Rules | Iterable[Rule] | None = None,
        cors_preflight: Preflight | str | None = None,
        close_streams: CloseStreams | str = CloseStreams.NEVER,
        recheck_streams: float = RECHECK_INTERVAL,
        root_path: str | None = None,
        debug: bool | str = False,
    ) -> None:
        # Not at the top of the module, because anyio and the audit would make its import a third slower. Not at the
        # place of use, because an import during a request blocks the event loop.
        from scopeguard.adapter import asgi_messages, streams  # noqa: PLC0415
        from scopeguard.audit.app_rules import AppRules  # noqa: PLC0415
        from scopeguard.audit.route_requirements import RouteRequirements  # noqa: PLC0415
        from scopeguard.audit.startup import StartCheck, is_checked_outside  # noqa: PLC0415

        checks.instance(guard, Guard, "guard", "a scopeguard.Guard, as in GuardMiddleware(app, guard=guard)")
        checks.app(app, "an ASGI app")
        positive(recheck_streams, "recheck_streams")
        self.app: ASGIApp = app
        self.guard = guard
        self._engine = engine = engine_of(guard)
        self.rules: Rules = engine.check_rules(Rules.choose(rules, guard.rules).with_public(public))
        self.passes_preflights: bool = engine.passes_preflights(cors_preflight)
        chosen = member(CloseStreams, close_streams, "close_streams")
        self._closes_streams = chosen is not CloseStreams.NEVER
        self._recheck = recheck_streams if chosen is CloseStreams.REVOCATION else None
        self._opens_unmatched = not self.rules.deny_unmatched
        self._find = self.rules.find
        self.root_path: str | None = check_root_path(root_path)
        self._app_rules = AppRules(self)
        self._check = StartCheck(self, guard)
        self._route_requirements = RouteRequirements(app, self.rules)
        self._metadata = engine.metadata
        if engine.metadata is not None:
            engine.metadata.add(self._route_requirements)
        self._is_checked_outside = is_checked_outside
        self._messages = asgi_messages
        self._streams = streams
        self._debug: DebugPage | None = None
        if debug is not False:
            from scopeguard.adapter.debug_page import open_debug_page  # noqa: PLC0415 - for development only

            self._debug = open_debug_page(debug, engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            method = scope["method"]
        elif kind == "websocket":
            method = "GET"
        elif kind == "lifespan":
            await self._run_lifespan(scope, receive, send)
            return
        else:
            raise RuntimeError(f"scopeguard does not know the ASGI scope type {kind!r} and cannot protect it")
        if self._check.pending:  # a server or an app without lifespan
            self._check.run()
        if self._metadata is not None and kind == "http" and scope["path"].startswith(WELL_KNOWN):
            answer = answer_metadata(self._metadata, scope)
            if answer is not None:
                await send_response(answer, encode_headers(answer.headers), scope, send)
                return
        engine, token, is_passed = self._engine, None, False
        credential = None
        rules = self._app_rules
        if engine.listens:
            report = engine.current_report()
            if report is not None and report.handed_to is self:  # the call by _call_with_report()
                rule, report.handed_to = report.rule, None
            else:
                rule = self._rule(method, scope)
                if await self._is_answered_with_report(method, rule, scope, receive, send):
                    return
        elif rules.is_plain and not scope.get("root_path") and not (rules.watches and rules.has_changed()):
            rule = self._find(method, scope["path"], scope.get("raw_path"))
        else:
            rule = self._rule(method, scope)
        if self.passes_preflights and kind == "http" and _header(scope, "origin") is not None:
            send = expose_headers_in_send(send)
            is_passed = method == "OPTIONS" and self._announces(_header(scope, "access-control-request-method"), scope)
        if (rule is None or rule.access is not PUBLIC) and not is_passed:
            if self._opens_unmatched if rule is None else rule.is_plain:
                token = recall(engine, scope, None if rule is None else rule.requirement)
            if token is None:
                admitted = await self._admit(scope, receive, send, method, rule)
                if admitted is None:
                    return
                receive, send, token, credential = admitted
        elif engine.key_field is not None:  # a key is also removed on an open route
            remove_field(scope, engine.key_field)
        # No header can write these keys. The state is copied, because some servers give every request the same dict.
        # The guard is in the state because one more key doubles the size of the scope of uvicorn and Starlette.
        state = scope.get("state")
        mine = {"access_token": token, GUARD_KEY: self.guard}
        scope["state"] = {**state, **mine} if state else mine
        scope["user"] = scope["auth"] = ANONYMOUS if token is None else token
        if self._closes_streams or (state and CONNECTION_KEY in state):
            await self._run_connection(token, credential, rule, scope, receive, send)
            return
        before = begin_serving(to_serve(token) if engine.keeps_inbound else token)
        try:
            await self.app(scope, receive, send)
        finally:
            end_serving(before)

    async def _run_connection(
        self,
        token: AccessToken | None,
        credential: Credential | None,
        rule: Rule | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        state: dict[str, Any] = scope["state"]
        requirement, policies = (None, ()) if rule is None else (rule.requirement, rule.policies)
        outer: Connection | None = state.pop(CONNECTION_KEY, None)
        own: Connection | None = None
        serving: Serving = token
        if outer is not None and token is not None and outer.joins(self._engine, token):
            # One connection for both layers, so that a renewal holds for both.
            outer.add(token, requirement, policies, self._recheck)
            serving = state[CONNECTION_KEY] = outer
        elif self._closes_streams:
            if token is not None:
                if credential is None:  # a recalled token
                    field = _header(scope, "authorization") or b""
                    credential = Credential(token=field[len(b"Bearer ") :].decode("ascii"), source=TokenSource.HEADER)
                connect = self._streams.Connection
                own = connect(self._engine, credential, token, requirement, self._recheck, policies)
            serving = state[CONNECTION_KEY] = own
        if serving is token and self._engine.keeps_inbound:
            serving = to_serve(token)
        hand_over(None)  # drop the text of the token; the object for the connection holds it where it is needed
        before = begin_serving(serving)
        try:
            if own is None:
                await self.app(scope, receive, send)
            else:
                await self._messages.run_until_ended(own, self.app, scope, receive, send)
        finally:
            end_serving(before)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await aprepare(self._engine)
        before = self._is_checked_outside.set(True)
        try:
            await self.app(scope, receive, check_at_startup(self._check, send) if self._check.pending else send)
        finally:
            with suppress(ValueError):  # an event loop that ends closes its coroutines in another context
                self._is_checked_outside.reset(before)

    def _rule(self, method: str, scope: Scope) -> Rule | None:
        """Return the rule for a request whose path may have several readings."""
        return self._app_rules.find(method, scope["path"], scope.get("raw_path"), scope.get("root_path") or "")

    async def _is_answered_with_report(
        self, method: str, rule: Rule | None, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Begin a report for the listeners and answer the request. Return false if an outer layer has begun one."""
        if self._debug is not None and scope["type"] == "http":  # a debug page always listens
            answer = debug_answer(self._debug, scope)
            if answer is not None:
                await send_response(answer, encode_headers(answer.headers), scope, send)
                return True
        report = self._engine.begin_report(self._adapter, method, scope["path"], None if rule is None else rule.path)
        if report is None:
            return False
        report.handed_to, report.rule = self, rule
        await self._call_with_report(report, scope, receive, send)
        return True

    async def _call_with_report(self, report: Report, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell_and_send(message: Message) -> None:
            if message["type"] in _STARTS:
                report.publish(self._framework_route(scope))
            await send(message)

        try:
            await self(scope, receive, tell_and_send)
        finally:
            report.publish(self._framework_route(scope))
            report.end()

    def _framework_route(self, scope: Scope) -> str | None:
        """Return the path template of the route that the framework has matched, for the report."""
        return framework_route(scope)

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, method: str, rule: Rule | None
    ) -> tuple[Receive, Send, AccessToken | None, Credential | None] | None:
        """Check the request. Return the receive and send functions for the app, the token, and its text if the
        connection may need it; or ``None`` after a refusal."""
        engine = self._engine
        sources = engine.sources_for(None if rule is None else rule.sources)
        if rule is not None and (rule.dpop is not None or rule.policies):
            scope[RULE_KEY] = (self.guard, rule)
        requirement = None if rule is None else rule.requirement
        detector: DisconnectDetector | None = None
        body: FormBody | None = None

        async def wait_for_disconnect() -> None:
            nonlocal detector
            if detector is None:
                detector = self._messages.DisconnectDetector(scope, receive)
            await detector.wait()

        if sources.in_form:
            detector = self._messages.DisconnectDetector(scope, receive)
            body = self._messages.FormBody(scope, detector.receive_next, sources)
        is_in_query = sources.in_query and has_access_token(query_of(scope))
        view = request_view(scope, method, with_proofs=engine.checks_proofs)
        if is_in_query:
            # The scope itself is changed, because the server logs the query string in it.
            scope["query_string"] = without_access_token(scope["query_string"])
            send = change_headers_in_send(send, private_headers)
        elif engine.has_other_field(view.headers):
            send = change_headers_in_send(send, uncached_headers)
        subprotocol = remove_from_scope(scope, sources)
        if subprotocol is not None:
            send = select_subprotocol(send, subprotocol)
        optional = rule is not None and rule.access is OPTIONAL
        found: list[Credential] = []
        decision: Decision = await engine.acheck(
            view,
            requirement,
            optional=optional,
            closed=self.rules.closes(rule),
            sources=sources,
            read_form=None if body is None else body.read,
            client_gone=wait_for_disconnect,
            challenge_requirement=lambda: self._route_requirements.combine(requirement, method, view.path),
            on_credential=found.append if self._closes_streams else None,
            policies=() if rule is None else rule.policies,
            dpop=None if rule is None else rule.mode,
        )
        if isinstance(decision, Denied | Unavailable):
            await self._refuse(decision, scope, send)
            return None
        token = decision.access_token if isinstance(decision, Granted) else None
        if view.proofs is not None and view.proofs.changes_response:
            send = add_proof_headers_in_send(send, view.proofs)
        replaying = body or detector
        receive = replaying.receive if replaying else receive
        if optional:
            send = _add_vary(send, engine.vary)
        return receive, send, token, found[0] if found else None

    async def _refuse(self, refusal: Denied | Unavailable, scope: Scope, send: Send) -> None:
        response = refusal.response
        headers = list(response.headers)
        if self.passes_preflights and scope["type"] == "http":
            origin, method = _header(scope, "origin"), scope["method"]
            # Scripts cannot read the response to a preflight.
            if origin is not None and method != "OPTIONS" and self._announces(method.encode("latin-1"), scope):
                # As for a preflight that passes. Decorators in the app may refuse it, which is no decision to report.
                state = {**(scope.get("state") or {}), "access_token": None, GUARD_KEY: silent_copy(self.guard)}
                asked = {**scope, "state": state, "user": ANONYMOUS, "auth": ANONYMOUS}
                headers += await ask_asgi_app(self.app, asked, origin, self._engine.may_log)
        await send_response(response, encode_headers(headers), scope, send)

    def _announces(self, method: bytes | None, scope: Scope) -> bool:
        """Return whether a preflight for *method* announces a request that is not denied to everyone."""
        if method is None:
            return False
        own = self._rule("OPTIONS", scope)
        return announces_allowed_request(
            method.decode("latin-1"),
            None if own is None else own.access,
            lambda announced: self.rules.closes(self._rule(announced, scope)),
        )


async def renew(scope: Scope, token: str) -> Granted | Denied | Unavailable:
    """Make *token*, which the client of a websocket has sent in a message, the access token of the websocket.

    *scope* is the ASGI scope of the websocket.

    ::

        match await renew(scope, message["token"]):
            case Granted(access_token):
                ...  # the connection now lasts until this token ends
            case Denied() | Unavailable():
                ...  # the connection goes on with the old token, until that ends

    The new token is checked like that of a request, with the requirement of the rule and of the decorators and
    dependencies of the endpoint. In addition, its issuer, subject, client and sender constraint must be those of the
    present token. The new token is then the one of ``scope["state"]["access_token"]``, ``scope["user"]`` and
    :func:`scopeguard.access_token`. A connection has five attempts at once, then one in ten seconds. Refusals
    are logged like those of requests.

    Requirements that the app checks itself, in code of its own, are not known here: check them again.

    Raises :class:`ConfigurationError` without a :class:`GuardMiddleware` that has *close_streams*, and for a request
    that is not a websocket. The content of *token* never causes it: a message may hold anything, and a *token* that is
    not a string is denied.
    """
    state = scope.get("state") or {}
    if scope["type"] != "websocket" or CONNECTION_KEY not in state:
        raise ConfigurationError(
            "renew: the connection must be a websocket below a GuardMiddleware with close_streams; without it, no "
            "connection ends with its token"
        )
    connection: Connection | None = state[CONNECTION_KEY]
    view = request_view(scope, "GET")
    if connection is None:  # an anonymous caller
        return engine_of(state[GUARD_KEY]).refuse(Forbidden(Reason.RENEWAL_MISMATCH), request=view)
    decision = await connection.renew(token, view)
    if isinstance(decision, Granted):
        state["access_token"] = scope["user"] = scope["auth"] = decision.access_token
    return decision


def debug_answer(page: DebugPage, scope: Scope) -> Response | None:
    """Return the response to a request for *page*; ``None`` for another path, and for another machine or site."""
    client, server = scope.get("client"), scope.get("server")
    return page.answer(
        method=scope["method"],
        path=route_path(scope),
        query=query_of(scope).decode("latin-1"),
        headers=headers_of(scope),
        peer=client[0] if client else None,
        server=server[0] if server else None,
    )


def require_of_renewals(scope: Scope, requirement: Requirement | None) -> None:
    """Require *requirement* of renewals of the websocket with *scope*. Code inside the app has required it before."""
    connection: Connection | None = (scope.get("state") or {}).get(CONNECTION_KEY)
    if connection is not None and requirement is not None:
        connection.require(requirement)


def permits_in_app(scope: Scope, requirement: Requirement) -> bool:
    """Return whether the token of a request inside the app satisfies *requirement*. A fast path.

    ``False`` is not a decision and is not reported: call :func:`check_in_app` then.
    """
    state = scope.get("state") or {}
    guard, token = state.get(GUARD_KEY), state.get("access_token")
    if type(token) is not AccessToken or type(guard) is not Guard or engine_of(guard).listens:
        return False
    return requirement.allows(token.scopes)


def check_in_app(scope: Scope, requirement: Requirement, adapter: Adapter, needs: str) -> Response | None:
    """Return the refusal of a request inside the app, or ``None`` if its token satisfies *requirement*.

    Raises :class:`ConfigurationError` if no middleware has checked the request. Its message ends with
    *needs*, which says how to add the middleware.
    """
    if permits_in_app(scope, requirement):
        return None
    state = scope.get("state") or {}
    guard, token = state.get(GUARD_KEY), state.get("access_token")
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"requires: no guard has checked this request; {needs}")
    if token is not None and not isinstance(token, AccessToken):
        raise ConfigurationError(
            f"request.state.access_token is set by GuardMiddleware, but the app has replaced it with a "
            f"{type(token).__name__}; use another name"
        )
    return refuse_inside(guard, token, requirement, adapter, lambda: request_view(scope, scope.get("method", "GET")))


def answer_metadata(metadata: ResourceMetadata, scope: Scope) -> Response | None:
    """Return the response to a request for *metadata*; ``None`` for a request with another path."""
    return metadata.answer(
        scope["method"],
        scope["path"],
        query_of(scope).decode("latin-1"),
        if_none_match=(_header(scope, "if-none-match") or b"").decode("latin-1"),
        is_preflight=_header(scope, "access-control-request-method") is not None,
    )


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* as ASGI messages carry them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def recall(engine: Engine, scope: Scope, requirement: Requirement | None) -> AccessToken | None:
    """Return the token of the request if the guard has verified it before and no other check is due, else ``None``."""
    authorization: bytes | None = None
    for name, value in scope.get("headers") or ():
        # The length is compared first, because most names differ in it.
        if len(name) == 13 and name.lower() == b"authorization":
            if authorization is not None:
                return None
            authorization = value
    if authorization is None or (engine.key_field is not None and _has_field(scope, engine.key_field)):
        return None
    cleartext_peer = None if scope.get("scheme") in _SECURE else scope.get("client")
    return engine.recall(authorization, requirement, scope.get("query_string") or b"", cleartext_peer)


def _has_field(scope: Scope, field: bytes) -> bool:
    return any(len(name) == len(field) and name.lower() == field for name, _ in scope["headers"])


def headers_of(scope: Scope) -> HeaderList:
    """Return the header fields in *scope*."""
    return HeaderList(scope.get("headers") or ())


def query_of(scope: Scope) -> bytes:
    """Return the raw query string in *scope*, which servers may omit for a websocket."""
    query: bytes = scope.get("query_string") or b""
    return query


def request_view(scope: Scope, method: str, *, with_proofs: bool = False) -> RequestView:
    """Return the request that *scope* describes."""
    client = scope.get("client")
    return RequestView(
        method=method,
        path=route_path(scope),
        headers=headers_of(scope),
        query=query_of(scope),
        secure=scope.get("scheme") in _SECURE,
        client=client[0] if client else None,
        is_websocket=scope["type"] == "websocket",
        raw_path=full_raw_path(scope) if with_proofs else None,
        proofs=scope.setdefault(PROOFS_KEY, ProofNotes()) if with_proofs else None,
        certificate=certificate_in_scope(scope) if with_proofs else None,
    )


def full_raw_path(scope: Scope) -> bytes:
    """Return the path of the URL of *scope*, percent-encoded, with the prefix of the server and without the query."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        path = quote(scope["path"], safe=PATH_CHARACTERS, errors="surrogatepass").encode("ascii")
    else:
        path = raw.partition(b"?")[0]  # some servers add the query
    root = quote(scope.get("root_path") or "", safe=PATH_CHARACTERS, errors="surrogatepass").encode("ascii")
    # The ASGI specification includes root_path in path; some servers do not.
    return path if path == root or path.startswith(root + b"/") else root + path


def framework_route(scope: Scope) -> str | None:
    """Return the path template of the route that Starlette or FastAPI has matched, with the prefix of its mount.

    ``None`` for other apps, before the app has routed the request, and below a mount whose path has parameters.
    """
    route = scope.get("route")
    # Inside a mount, before its router has matched, the route is the mount, which has no endpoint.
    path = getattr(route, "path", None) if hasattr(route, "endpoint") else None
    root: str = scope.get("root_path", "")
    mount = root.removeprefix(scope.get("app_root_path", root))
    if not isinstance(path, str) or (mount and _has_parameter(mount, scope.get("path_params") or {})):
        return None
    return mount + path


def _has_parameter(mount: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether *mount* may contain one of *parameters*: then it is what the client sent, not a template."""
    return any(str(value) in mount for value in parameters.values())


def route_path(scope: Scope) -> str:
    """Return the path that routers in the app dispatch on: decoded once, without the mount prefix."""
    return without_prefix(scope["path"], scope.get("root_path") or "")


def _header(scope: Scope, name: str) -> bytes | None:
    """Return the value of the field *name*, or ``None`` if the request has no such field or several."""
    values = headers_of(scope).get_all(name)
    return values[0] if len(values) == 1 else None


async def send_response(response: Response, headers: list[tuple[bytes, bytes]], scope: Scope, send: Send) -> None:
    """Send *response* with *headers*.

    A websocket must not be accepted yet. A server with the extension ``websocket.http.response`` sends the response.
    Another server gets ``websocket.close``, and sends a plain 403.
    """
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if prefix not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": response.reason_phrase})
            return
    await send({"type": f"{prefix}.start", "status": response.status, "headers": headers})
    # The default of more_body is False, but the test client of Quart 0.23 does not know it.
    await send({"type": f"{prefix}.body", "body": response.body, "more_body": False})


class ResourceMetadataMiddleware:
    """Serve the metadata (RFC 9728) of the resources of several *guards* in front of *app*.

    Use it for guards whose own middleware sees only a part of the URLs, such as the paths below a mount. The well-known
    paths are at the root of the host (RFC 9728 section 3.1). A :class:`GuardMiddleware` around a whole app needs
    nothing else. Requests with other paths go to *app* without a check.

    Raises :class:`ConfigurationError` for a guard without a resource that serves its metadata.
    """

    def __init__(self, app: ASGIApp, *, guards: Iterable[Guard]) -> None:
        checks.app(app, "an ASGI app")
        self.app: ASGIApp = app
        self._documents = metadata_of(guards)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(WELL_KNOWN):
            answer = first_found(answer_metadata(document, scope) for document in self._documents)
            if answer is not None:
                await send_response(answer, encode_headers(answer.headers), scope, send)
                return
        await self.app(scope, receive, send)


class _Check(Protocol):
    def run(self) -> None: ...


def check_at_startup(check: _Check, send: Send) -> Send:
    """Return a send function for ``lifespan`` that runs *check* when the app has started.

    The routes that the app adds during its startup are then included. If the check fails, so does the startup.
    """
    failed = False

    async def check_and_send(message: Message) -> None:
        nonlocal failed
        if message["type"] == "lifespan.startup.complete":
            try:
                check.run()
            except ConfigurationError as error:
                failed = True
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise  # so that the app cleans up
        if not failed:  # the app has not reported the failure itself
            await send(message)

    return check_and_send


def change_headers_in_send(send: Send, change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]) -> Send:
    """Return a send function that applies *change* to the headers of a response."""

    async def send_changed(message: Message) -> None:
        if message["type"].endswith(("http.response.start", "websocket.accept")):
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            message = {**message, "headers": encode_headers(change(headers))}
        await send(message)

    return send_changed


def _add_vary(send: Send, fields: str) -> Send:
    """Return a send function that tells caches that the response depends on *fields*, which hold credentials."""

    async def send_with_vary(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), (b"vary", fields.encode("ascii"))]}
        await send(message)

    return send_with_vary


def add_proof_headers_in_send(send: Send, notes: ProofNotes) -> Send:
    """Return a send function that adds what *notes* have for the response by then: a nonce, and ``Vary``."""

    async def send_headers(message: Message) -> None:
        if notes.changes_response and message["type"].endswith(("http.response.start", "websocket.accept")):
            given = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]
            message = {**message, "headers": encode_headers(add_proof_headers(notes.nonce, notes.vary, given))}
        await send(message)

    return send_headers
