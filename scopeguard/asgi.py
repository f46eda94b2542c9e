"""ASGI middleware: any ASGI app, protected without touching its code.

It translates a scope into a :class:`~scopeguard.request.RequestView`, a decision into messages, and decides nothing.
``lifespan`` passes through, streaming is not touched, and a request body is read only where a form may carry the token
or while a request waits for an authority, and then replayed.

Longer than 400 lines because the protocol of requests, websockets and lifespan is in one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any, Final, Protocol

from scopeguard.access_token import ANONYMOUS, AccessToken, begin_serving, end_serving
from scopeguard.adapter.cors import allowed_by_asgi_app, exposing
from scopeguard.adapter.declared import Layer
from scopeguard.adapter.token_places import selecting, take_out_of_scope
from scopeguard.config import checks
from scopeguard.config.checks import flag
from scopeguard.config.cors import Preflight
from scopeguard.config.sources import TokenSources
from scopeguard.core.decision import Decision, Denied, Granted, Report, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import (
    ConfigurationError,
    InvalidRequest,
    Reason,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.guard import Guard, engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.rules.routed import checked_root_path, without_prefix
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import Response, private_headers
from scopeguard.spec.credentials import declared_length, has_access_token, without_access_token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

GUARD_KEY: Final = "scopeguard.guard"
"""The key in ``scope["state"]`` of the guard that checked the request, beside its ``access_token``."""


_SECURE: Final = ("https", "wss")
_BEGINNINGS: Final = frozenset(
    ("http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start")
)


class GuardMiddleware(Layer):
    """*app* behind *guard*: every request needs a valid access token unless a rule says otherwise.

    * *public*: path templates that need no token. They do not close any other path.
    * *rules*: which route needs what; the guard's own by default. A route that matches none of them is denied, and an
      empty list denies every route. Without rules here and in the guard, every route needs a valid token.
    * *cors_preflight*: ``"pass"`` hands preflights to the app, except those for what no token opens, and lets scripts
      read refusals where the app's CORS middleware, inside or outside, lets them read responses: the app is asked with
      a preflight about the origin of each refused request. The guard's own setting by default.
    * *root_path*: the prefix that the app itself takes off paths before it routes, as in ``"/api"``; ``""`` for none.
      Needed only where the app cannot be inspected: without it, what a rule says of a path counts for every path that
      ends like it. What FastAPI apps take off is found, wherever they are mounted.
    * *close_on_expiry*: when a token is no longer admitted, that is at its expiry and the issuer's leeway later, end
      what is still sent for it: a websocket with code 1008, server-sent events with a regular end, and any other
      response stream with :class:`~scopeguard.errors.ResponseAborted`, by which the client sees that it is incomplete.

    The app finds the token in ``scope["state"]["access_token"]`` (Starlette: ``request.state.access_token``,
    ``request.user``, ``request.auth``) and through :func:`scopeguard.current_access_token`, in worker threads too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        public: Iterable[str] = (),
        rules: Rules | Iterable[Rule] | None = None,
        cors_preflight: Preflight | str | None = None,
        close_on_expiry: bool = False,
        root_path: str | None = None,
    ) -> None:
        # Here and not above, because anyio and the audit are a quarter of what importing this module would take; and
        # not where they are used, because all requests would wait in their event loop while the first one imports.
        from scopeguard.audit.app_rules import AppRules  # noqa: PLC0415
        from scopeguard.audit.needs import RouteNeeds  # noqa: PLC0415
        from scopeguard.audit.startup import StartCheck, is_checked_outside  # noqa: PLC0415
        from scopeguard.edge.aio import Presence, until  # noqa: PLC0415

        if not isinstance(guard, Guard):
            raise ConfigurationError(
                "GuardMiddleware: guard is a scopeguard.Guard, as in GuardMiddleware(app, guard=guard)"
            )
        checks.app(app, "an ASGI app")
        flag(close_on_expiry, "close_on_expiry")
        self.app: ASGIApp = app
        self.guard = guard
        self._engine = engine = engine_of(guard)
        self.rules: Rules = engine.check_rules(Rules.chosen(rules, guard.rules).with_public(public))
        self.passes_preflights: bool = engine.passes_preflights(cors_preflight)
        self._close_on_expiry = close_on_expiry
        self._opens_unmatched = not self.rules.deny_unmatched
        self._find = self.rules.find
        self.root_path: str | None = checked_root_path(root_path)
        self._app_rules = AppRules(self)
        self._check = StartCheck(self, guard)
        self._needs = RouteNeeds(app)
        self._is_checked = is_checked_outside
        self._until = until
        self._presence = Presence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            method = scope["method"]
        elif kind == "websocket":
            method = "GET"
        elif kind == "lifespan":
            self._engine.prepare()
            unchecked = self._is_checked.set(True)
            try:
                await self.app(scope, receive, checked_start(self._check, send) if self._check.pending else send)
            finally:
                with suppress(ValueError):  # closed in another context, as the last act of an event loop
                    self._is_checked.reset(unchecked)
            return
        else:
            raise RuntimeError(f"scopeguard does not know the ASGI scope type {kind!r} and lets nothing through")
        if self._check.pending:  # a server or an app without lifespan
            self._check.run()
        rules = self._app_rules
        if rules.is_plain and not scope.get("root_path") and not (rules.watches and rules.has_changed()):
            rule = self._find(method, scope["path"], scope.get("raw_path"))
        else:
            rule = self._rule(method, scope)
        engine, token, is_passed = self._engine, None, False
        if engine.listens:
            report = engine.report(method, scope["path"], None if rule is None else rule.path)
            if report is not None:  # no layer around this one has begun it: come here again with it
                await self._reported(report, scope, receive, send)
                return
        if self.passes_preflights and kind == "http" and _header(scope, "origin") is not None:
            send = exposing(send)
            is_passed = method == "OPTIONS" and self._announces(_header(scope, "access-control-request-method"), scope)
        if (rule is None or rule.access is not PUBLIC) and not is_passed:
            if self._opens_unmatched if rule is None else rule.is_plain:
                token = recall(engine, scope, None if rule is None else rule.requirement)
            if token is None:
                admitted = await self._admitted(scope, receive, send, method, rule)
                if admitted is None:
                    return
                receive, send, token = admitted
        # Shown to the app under keys that only the server's own process can write, no header can. A copy: some
        # servers hand every request the same state. The guard is in it too: one key more, and the dict that uvicorn
        # and Starlette fill with theirs grows to twice its size.
        state = scope.get("state")
        mine = {"access_token": token, GUARD_KEY: self.guard}
        scope["state"] = {**state, **mine} if state else mine
        scope["user"] = scope["auth"] = ANONYMOUS if token is None else token
        before = begin_serving(token)
        try:
            ends = engine.admits_until(token) if self._close_on_expiry and token is not None else None
            if ends is not None:
                await self._until(ends - engine.clock.wall(), self.app, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            end_serving(before)

    def _rule(self, method: str, scope: Scope) -> Rule | None:
        """The rule for a request whose path may have several readings."""
        return self._app_rules.find(method, scope["path"], scope.get("raw_path"), scope.get("root_path") or "")

    async def _reported(self, report: Report, scope: Scope, receive: Receive, send: Send) -> None:
        async def telling(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                report.tell(framework_route(scope))
            await send(message)

        try:
            await self(scope, receive, telling)
        finally:
            report.tell(framework_route(scope))
            report.leave()

    async def _admitted(
        self, scope: Scope, receive: Receive, send: Send, method: str, rule: Rule | None
    ) -> tuple[Receive, Send, AccessToken | None] | None:
        """What the app is to receive from and to send to, and whose request it is; ``None`` when it was refused."""
        engine = self._engine
        sources = engine.sources if rule is None or rule.sources is None else engine.sources.only(rule.sources)
        requirement = None if rule is None else rule.requirement
        presence = self._presence(scope, receive)
        body = FormBody(scope, presence.next, sources) if sources.in_form else None
        by_query = sources.in_query and has_access_token(query_of(scope))
        view = request_view(scope, method)
        if by_query:
            # In place: the server logs the query string of this very dict.
            scope["query_string"] = without_access_token(scope["query_string"])
            send = _private(send)
        subprotocol = take_out_of_scope(scope, sources)
        if subprotocol is not None:
            send = selecting(send, subprotocol)
        optional = rule is not None and rule.access is OPTIONAL
        decision: Decision = await engine.acheck(
            view,
            requirement,
            optional=optional,
            closed=self.rules.closes(rule),
            sources=sources,
            read_form=None if body is None else body.read,
            client_gone=presence.gone,
            challenged=lambda: self._needs.beside(requirement, method, view.path),
        )
        if isinstance(decision, Denied | Unavailable):
            await self._refuse(decision, scope, send)
            return None
        token = decision.access_token if isinstance(decision, Granted) else None
        return presence.receive if body is None else body.receive, _varying(send) if optional else send, token

    async def _refuse(self, refusal: Denied | Unavailable, scope: Scope, send: Send) -> None:
        response = refusal.response
        headers = list(response.headers)
        if self.passes_preflights and scope["type"] == "http":
            origin, method = _header(scope, "origin"), scope["method"]
            # Scripts never see what answers a preflight.
            if origin is not None and method != "OPTIONS" and self._announces(method.encode("latin-1"), scope):
                headers += await allowed_by_asgi_app(self.app, scope, origin)
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send_response(response, encoded, scope, send)

    def _announces(self, method: bytes | None, scope: Scope) -> bool:
        """Whether a preflight for *method* announces a request that some token opens."""
        if method is None:
            return False
        closest = self._rule("OPTIONS", scope)
        if closest is not None and closest.access is DENIED:
            return False
        return not self.rules.closes(self._rule(method.decode("latin-1"), scope))


class FormBody:
    """The body of one request: read when the token may be in it, and replayed to the app message by message."""

    __slots__ = ("_receive", "_replay", "_scope", "_timeout", "_was_read")

    def __init__(self, scope: Scope, receive: Receive, sources: TokenSources) -> None:
        self._scope = scope
        self._receive = receive
        self._timeout = sources.form_timeout
        self._replay: deque[Message] = deque()  # a body may come octet by octet
        self._was_read = False

    async def read(self, limit: int) -> bytes:
        """The whole body, at most *limit* bytes; more is :class:`RequestTooLarge` and not held in memory."""
        from scopeguard.edge.aio import TimedOut, time_limit  # noqa: PLC0415 - there since the construction

        for length in headers_of(self._scope).get_all("content-length"):
            if (declared_length(length.decode("latin-1")) or 0) > limit:
                raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
        self._was_read = True
        try:
            async with time_limit(self._timeout):
                return await self._collected(limit)
        except TimedOut:
            raise RequestTimedOut(Reason.FORM_TOO_SLOW, seconds=self._timeout) from None

    async def _collected(self, limit: int) -> bytes:
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise InvalidRequest(Reason.FORM_INCOMPLETE)
            self._replay.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                self._replay.clear()
                raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
            if not message.get("more_body", False):
                return b"".join(part.get("body", b"") for part in self._replay)

    @property
    def receive(self) -> Receive:
        """What the app receives from: the server itself, unless there is something to replay."""
        return self._replayed if self._was_read else self._receive

    async def _replayed(self) -> Message:
        # Behind the body comes whatever the server says next: an app that waits for the disconnect must wait.
        return self._replay.popleft() if self._replay else await self._receive()


def recall(engine: Engine, scope: Scope, requirement: Requirement | None) -> AccessToken | None:
    """The token of the request, where it was verified before and there is nothing else to do."""
    authorization: bytes | None = None
    for name, value in scope.get("headers") or ():
        # As bytes.lower() does, and no other way; most names are not even of that length.
        if len(name) == 13 and name.lower() == b"authorization":
            if authorization is not None:
                return None
            authorization = value
    if authorization is None:
        return None
    cleartext_peer = None if scope.get("scheme") in _SECURE else scope.get("client")
    return engine.recall(authorization, requirement, scope.get("query_string") or b"", cleartext_peer)


def headers_of(scope: Scope) -> HeaderList:
    """The header fields in *scope*."""
    return HeaderList(scope.get("headers") or ())


def query_of(scope: Scope) -> bytes:
    """The raw query string in *scope*, which servers may leave out for a websocket."""
    query: bytes = scope.get("query_string") or b""
    return query


def request_view(scope: Scope, method: str) -> RequestView:
    """The request that *scope* describes."""
    client = scope.get("client")
    return RequestView(
        method=method,
        path=route_path(scope),
        headers=headers_of(scope),
        query=query_of(scope),
        secure=scope.get("scheme") in _SECURE,
        client=client[0] if client else None,
        is_websocket=scope["type"] == "websocket",
    )


def framework_route(scope: Scope) -> str | None:
    """The template of the route that the framework inside has found, with the prefix of its mount.

    Starlette and FastAPI put it into the scope; ``None`` for others.
    """
    path = getattr(scope.get("route"), "path", None)
    root: str = scope.get("root_path", "")
    mount = root.removeprefix(scope.get("app_root_path", root))
    return mount + path if isinstance(path, str) else None


def route_path(scope: Scope) -> str:
    """The path that routers below dispatch on: decoded once, without the mount prefix."""
    return without_prefix(scope["path"], scope.get("root_path") or "")


def _header(scope: Scope, name: str) -> bytes | None:
    """The one field called *name*; ``None`` where there is none, or more than one."""
    values = headers_of(scope).get_all(name)
    return values[0] if len(values) == 1 else None


async def send_response(response: Response, headers: list[tuple[bytes, bytes]], scope: Scope, send: Send) -> None:
    """Send *response* with *headers*, on a websocket as well: before it is accepted it can be answered like HTTP by
    servers that have the extension; others are told to close, which they answer with a 403."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if prefix not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": response.reason_phrase})
            return
    await send({"type": f"{prefix}.start", "status": response.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": response.body})


class _Check(Protocol):
    def run(self) -> None: ...


def checked_start(check: _Check, send: Send) -> Send:
    """Audit the app when it has started, so that what it adds then is seen; a failure is one of its start."""
    failed = False

    async def sending(message: Message) -> None:
        nonlocal failed
        if message["type"] == "lifespan.startup.complete":
            try:
                check.run()
            except ConfigurationError as error:
                failed = True
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise  # the app is to clean up
        if not failed:  # what it says of its own failure then would be the second answer
            await send(message)

    return sending


def _private(send: Send) -> Send:
    """Keep responses to a request whose URL carried a token out of shared caches and Referer headers."""

    async def sending(message: Message) -> None:
        if message["type"].endswith(("http.response.start", "websocket.accept")):
            given = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", ())]
            private = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in private_headers(given)]
            message = {**message, "headers": private}
        await send(message)

    return sending


def _varying(send: Send) -> Send:
    """What an anonymous caller is shown differs from what others see: tell caches so."""

    async def sending(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), (b"vary", b"Authorization")]}
        await send(message)

    return sending
