"""ASGI middleware that checks each request to an MCP server: :class:`McpMiddleware`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from scopeguard.adapter.asgi_types import ASGIApp, Receive, Scope, Send
from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.token_removal import remove_from_scope
from scopeguard.asgi import GuardMiddleware, add_proof_headers_in_send, change_headers_in_send, recall, request_view
from scopeguard.config.body_limits import LARGEST_MCP_MESSAGE, MCP_MESSAGE_TIMEOUT
from scopeguard.config.checks import instance
from scopeguard.config.cors import Preflight
from scopeguard.config.streams import RECHECK_INTERVAL, CloseStreams
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Unavailable
from scopeguard.errors import AccessDenied, ConfigurationError, MalformedMessage
from scopeguard.flow.credentials import Credential
from scopeguard.guard import Guard
from scopeguard.mcp.decision import Decisions
from scopeguard.rules import OPTIONAL, Rule, Rules
from scopeguard.rules.mcp import McpPolicy, OperationRule
from scopeguard.spec.mcp import read_fields, write_json_rpc
from scopeguard.spec.response_headers import uncached_headers
from scopeguard.tokens import AccessToken


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
        max_body_bytes: int = LARGEST_MCP_MESSAGE,
        body_timeout: float = MCP_MESSAGE_TIMEOUT,
        routes: Rules | Iterable[Rule] | None = None,
        public: Iterable[str] = (),
        cors_preflight: Preflight | str | None = None,
        close_streams: CloseStreams | str = CloseStreams.NEVER,
        recheck_streams: float = RECHECK_INTERVAL,
        root_path: str | None = None,
        debug: bool | str = False,
    ) -> None:
        instance(guard, Guard, "McpMiddleware: guard", "a scopeguard.Guard")
        policy = guard.mcp
        if rules is not None:
            policy = McpPolicy(
                rules=rules, allowed_origins=allowed_origins, max_body_bytes=max_body_bytes, body_timeout=body_timeout
            )
        elif allowed_origins or max_body_bytes != LARGEST_MCP_MESSAGE or body_timeout != MCP_MESSAGE_TIMEOUT:
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
        self._decisions = Decisions(policy, self._engine, guard.resource)
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
            self._decisions.check_origin(fields)
        except AccessDenied as error:
            await self._send_refusal(self._engine.refuse(error, request=view), scope, send)
            return None
        detector = self._messages.DisconnectDetector(scope, receive)
        body = self._messages.RequestBody(scope, detector.receive_next, self._policy.body_timeout)
        found: list[Credential] = []
        token = recall(self._engine, scope, None)
        if token is None:
            if self._engine.has_other_field(view.headers):
                send = change_headers_in_send(send, uncached_headers)
            remove_from_scope(scope, self._engine.sources)
            decision = await self._engine.acheck(
                view,
                client_gone=detector.wait,
                find_requirement=lambda: self._decisions.find_challenge(fields, body, method),
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
            refusal = await self._decisions.refuse_message(token, view, fields, body)
        except AccessDenied as error:
            refusal = self._engine.refuse(error, request=view)
        if refusal is not None:
            await self._send_refusal(refusal, scope, send)
            return None
        return body.receive, send, token, found[0] if found else None

    async def _send_refusal(self, refusal: Decision, scope: Scope, send: Send) -> None:
        if isinstance(refusal, Denied) and isinstance(refusal.error, MalformedMessage):
            refusal = replace(refusal, response=write_json_rpc(refusal.error))
        if isinstance(refusal, Denied | Unavailable):
            await self._refuse(refusal, scope, send)


def check_routes(routes: Rules) -> None:
    """Raise :class:`ConfigurationError` if one of *routes* matches every path, and so hides the MCP endpoint."""
    for rule in routes.all:
        if rule.matches("POST", "/-/any/-path/-below/"):
            raise ConfigurationError(
                f"McpMiddleware: routes: {rule.path!r} matches every path, so that no request would reach the "
                "rules for tools; name only paths other than the MCP endpoint"
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
