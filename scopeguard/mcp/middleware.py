"""ASGI middleware that checks each request to an MCP server: :class:`McpMiddleware`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from scopeguard.adapter.asgi_types import ASGIApp, Receive, Scope, Send
from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.token_removal import has_key, remove_from_scope
from scopeguard.asgi import GuardMiddleware, add_proof_headers_in_send, change_headers_in_send, recall, request_view
from scopeguard.config.checks import instance
from scopeguard.config.cors import Preflight
from scopeguard.config.streams import CloseStreams
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Unavailable
from scopeguard.errors import AccessDenied, ConfigurationError, Forbidden, InvalidRequest, MalformedMessage
from scopeguard.flow.credentials import Credential
from scopeguard.guard import Guard
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.rules import DENIED, OPTIONAL, Access, Rule, Rules
from scopeguard.rules.mcp import BODY_TIMEOUT, MAX_BODY_BYTES, McpPolicy, OperationRule, browser_origin
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import uncached_headers
from scopeguard.spec.mcp import (
    Fields,
    Message,
    check_agreement,
    message_in_fields,
    parse_message,
    read_fields,
    write_json_rpc,
)
from scopeguard.tokens import AccessToken

if TYPE_CHECKING:
    from scopeguard.adapter.asgi_messages import RequestBody

_MAX_UNAUTHENTICATED_BYTES: Final = 16_384
"""The greatest length of a body that is read for the challenge of a request without a valid token."""


class McpMiddleware(GuardMiddleware):
    """Require a valid access token for every request to an MCP server, and what *rules* say for each operation.

    *app* is any MCP server that is an ASGI app: of the official SDK (``streamable_http_app()``), of fastmcp
    (``http_app()``), or written by hand. Every request is treated as one to the MCP endpoint, unless *routes* or
    *public* name its path, with any method. If a path can be read in two ways and they name only one of them, the
    request is denied.

    * *rules*: :class:`Tool`, :class:`Prompt`, :class:`ResourceUri` and :class:`Method` rules. The first of a kind that
      matches decides. An operation that no rule names is denied. Default: the policy of the guard (``[mcp]`` in the
      file).
    * *allowed_origins*, *max_body_bytes*, *body_timeout*: see :class:`McpPolicy`. They belong to *rules*, and do not
      change the policy of the guard.
    * *routes*: :class:`~scopeguard.Rule` for other paths of *app*, such as an upload. Default: the rules of the guard.
    * *public*, *cors_preflight*, *close_streams*, *recheck_streams*, *root_path*, *debug*: as for
      :class:`~scopeguard.asgi.GuardMiddleware`.

    A POST carries one JSON-RPC message. The message in the body decides. Since version 2026-07-28 of the protocol the
    headers ``Mcp-Method`` and ``Mcp-Name`` must agree with it; for older versions they are not used. The app receives
    the same body, and its responses are streamed as it sends them. A GET (the stream of older versions) and a DELETE
    (the end of a session) need a valid token and nothing else. Other HTTP methods are denied. A session ID does not
    replace a token: each request is checked.

    Refusals are HTTP responses: 401 and 403 with a challenge that names all scopes of the operation, 400 with a
    JSON-RPC error for a message that is malformed or differs from the headers, 403 for an ``Origin`` that is not
    allowed, 413 and 408 for a body that is too long or too slow.

    Not checked: JSON schemas, the identifiers inside arguments, and the contents of lists that the server returns. A
    server that talks over standard input and output cannot be wrapped.

    Raises :class:`ConfigurationError` without rules, if the guard takes tokens from the query string, and as
    :class:`~scopeguard.asgi.GuardMiddleware` does.
    """

    _adapter = Adapter.MCP

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard,
        rules: Iterable[OperationRule] | None = None,
        allowed_origins: Collection[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout: float = BODY_TIMEOUT,
        routes: Rules | Iterable[Rule] | None = None,
        public: Iterable[str] = (),
        cors_preflight: Preflight | str | None = None,
        close_streams: CloseStreams | str = CloseStreams.NEVER,
        recheck_streams: float = 30.0,
        root_path: str | None = None,
        debug: bool | str = False,
    ) -> None:
        instance(guard, Guard, "McpMiddleware: guard", "a scopeguard.Guard")
        policy = guard.mcp
        if rules is not None:
            policy = McpPolicy(
                rules=rules, allowed_origins=allowed_origins, max_body_bytes=max_body_bytes, body_timeout=body_timeout
            )
        elif allowed_origins or max_body_bytes != MAX_BODY_BYTES or body_timeout != BODY_TIMEOUT:
            raise ConfigurationError(
                "McpMiddleware: allowed_origins, max_body_bytes and body_timeout belong to rules; give rules as well, "
                "or set them in the policy of the guard"
            )
        if policy is None:
            raise ConfigurationError(
                "McpMiddleware: rules are missing here and in the guard; an empty list denies every operation"
            )
        self.policy: McpPolicy | None = policy
        self._policy = policy
        others = Rules.of(guard.rules if routes is None else routes).with_public(public)
        check_routes(others)
        super().__init__(
            app,
            guard=guard,
            rules=Rules(others.all),
            cors_preflight=cors_preflight,
            close_streams=close_streams,
            recheck_streams=recheck_streams,
            root_path=root_path,
            debug=debug,
        )
        sources = self._engine.sources
        if sources.in_query or not sources.in_header:
            # MCP: "Access tokens MUST NOT be included in the URI query string", and clients MUST use the header.
            raise ConfigurationError("McpMiddleware: token_sources: MCP clients send tokens in the header only")
        resource = guard.resource
        self._origins = self._policy.allowed_origins | ({browser_origin(resource.url)} if resource else set())
        self._operations = _Operations(policy)
        self._endpoint = _Endpoint(self) if others.all else None
        if self._metadata is not None:
            self._metadata.add(self._operations)

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, method: str, rule: Rule | None
    ) -> tuple[Receive, Send, AccessToken | None, Credential | None] | None:
        if rule is not None or scope["type"] != "http" or not (self._endpoint is None or self._endpoint.has(scope)):
            return await super()._admit(scope, receive, send, method, rule)
        return await self._admit_message(scope, receive, send, method)

    async def _admit_message(
        self, scope: Scope, receive: Receive, send: Send, method: str
    ) -> tuple[Receive, Send, AccessToken | None, Credential | None] | None:
        """Check a request to the MCP endpoint: its header fields, its token, its message, and the rule for that."""
        view = request_view(scope, method, with_proofs=self._engine.checks_proofs)
        try:
            fields = read_fields(scope.get("headers") or ())
            self._check_origin(fields)
        except AccessDenied as error:
            await self._send_refusal(self._engine.refuse(error, request=view), scope, send)
            return None
        detector = self._messages.DisconnectDetector(scope, receive)
        body = self._messages.RequestBody(scope, detector.receive_next, self._policy.body_timeout)
        found: list[Credential] = []
        token = recall(self._engine, scope, None)
        if token is None:
            if has_key(view.headers, self._engine.sources):
                send = change_headers_in_send(send, uncached_headers)
            remove_from_scope(scope, self._engine.sources)
            decision = await self._engine.acheck(
                view,
                client_gone=detector.wait,
                find_requirement=lambda: self._find_challenge(fields, body, method),
                on_credential=found.append if self._closes_streams else None,
            )
            if not isinstance(decision, Granted):
                await self._send_refusal(decision, scope, send)
                return None
            token = decision.access_token
            if view.proofs is not None and view.proofs.changes_response:
                send = add_proof_headers_in_send(send, view.proofs)
        if method in ("GET", "DELETE"):
            return detector.receive, send, token, found[0] if found else None
        try:
            refusal = await self._refuse_message(token, view, fields, body)
        except AccessDenied as error:
            refusal = self._engine.refuse(error, request=view)
        if refusal is not None:
            await self._send_refusal(refusal, scope, send)
            return None
        return body.receive, send, token, found[0] if found else None

    def _check_origin(self, fields: Fields) -> None:
        # MCP: "Servers MUST validate the Origin header on all incoming connections to prevent DNS rebinding attacks".
        if fields.origin is not None and fields.origin.decode("latin-1") not in self._origins:
            raise Forbidden(Reason.ORIGIN_REFUSED, origin=fields.origin.decode("latin-1"))

    async def _refuse_message(
        self, token: AccessToken, view: RequestView, fields: Fields, body: RequestBody
    ) -> Decision | None:
        """Return the refusal of a request with a valid *token*; ``None`` if the rules allow its message.

        Raises :class:`AccessDenied` for a message that is malformed, and if the function of a rule fails.
        """
        if view.method != "POST":
            return self._engine.authorize(token, None, closed=True, request=view)
        message = read_message(await body.read(self._policy.max_body_bytes), fields)
        if message.method is None:
            return None  # a response to a request that the server sent on a stream of this client
        access = self._find_access(message)
        if not isinstance(access, Requirement):
            operation = " ".join(filter(None, (message.method, message.name)))
            return self._engine.refuse(Forbidden(Reason.NO_RULE, operation=operation), request=view, token=token)
        if self._engine.permits(token, access):
            return None
        decision = self._engine.authorize(token, access, request=view)
        return None if isinstance(decision, Granted) else decision

    def _find_access(self, message: Message) -> Requirement | Access:
        rule = self._policy.find(message)
        return DENIED if rule is None else rule.find_requirement(message)

    async def _find_challenge(self, fields: Fields, body: RequestBody, method: str) -> Requirement | None:
        """Return the requirement for the challenge of a request without a valid token.

        Reads the body only if the header fields do not name the operation, or a function needs the arguments. Raises
        :class:`AccessDenied` for an ambiguous message. A body without a method is not a message, but a probe: some
        clients know only the URL, and send anything to get the challenge.
        """
        if method != "POST":
            return None
        message = message_in_fields(fields)
        rule = None if message is None else self._policy.find(message)
        if message is None or (rule is not None and rule.decide is not None):
            limit = min(_MAX_UNAUTHENTICATED_BYTES, self._policy.max_body_bytes)
            try:
                data = await body.read(limit)
            except InvalidRequest:  # too long, too slow or incomplete
                return None
            if b'"method"' not in data:
                return None
            message = read_message(data, fields)
        try:
            access = None if message.method is None else self._find_access(message)
        except Forbidden:
            return None
        return access if isinstance(access, Requirement) else None

    async def _send_refusal(self, refusal: Decision, scope: Scope, send: Send) -> None:
        if isinstance(refusal, Denied) and isinstance(refusal.error, MalformedMessage):
            refusal = replace(refusal, response=write_json_rpc(refusal.error))
        if isinstance(refusal, Denied | Unavailable):
            await self._refuse(refusal, scope, send)


def read_message(body: bytes, fields: Fields) -> Message:
    """Return the message in *body*, which agrees with *fields*. Raises :class:`MalformedMessage`."""
    message = parse_message(body)
    check_agreement(fields, message)
    return message


def check_routes(routes: Rules) -> None:
    """Raise :class:`ConfigurationError` if one of *routes* matches every path, and so hides the MCP endpoint."""
    for rule in routes.all:
        if rule.matches("POST", "/-/any/-path/-below/"):
            raise ConfigurationError(
                f"McpMiddleware: routes: {rule.path!r} matches every path, so that no request would reach the "
                "rules for tools; name the paths beside the MCP endpoint only"
            )


class _Endpoint(Layer):
    """The paths of the MCP endpoint: those that no rule of *routes* matches, with any method and in any reading.

    It is not enough that no rule decides about a request: two readings of its path may lead to different rules.
    """

    def __init__(self, middleware: McpMiddleware) -> None:
        from scopeguard.audit.app_rules import AppRules  # noqa: PLC0415 - as in GuardMiddleware

        self.app: Any = middleware.app
        self.guard: Guard = middleware.guard
        self.root_path: str | None = middleware.root_path
        self._rest = Rule("/{rest:path}", OPTIONAL)
        named = dict.fromkeys(rule.path for rule in middleware.rules.all)
        self.rules: Rules = Rules([*map(Rule, named), self._rest])
        self._find = AppRules(self).find

    def has(self, scope: Scope) -> bool:
        """Return whether the path of *scope* belongs to the endpoint, however it is read."""
        raw, root_path = scope.get("raw_path"), scope.get("root_path") or ""
        return self._find("POST", scope["path"], raw, root_path) is self._rest


class _Operations:
    """What the rules for operations require, for the metadata of the resource."""

    __slots__ = ("__weakref__", "_policy", "rules")

    def __init__(self, policy: McpPolicy) -> None:
        self.rules = Rules()
        self._policy = policy

    def declared_rules(self) -> tuple[Rule, ...]:
        return tuple(Rule("/", requirement) for requirement in self._policy.requirements)
