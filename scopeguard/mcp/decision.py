"""The decision about one request to an MCP server: its origin, its message, and the rule for that message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scopeguard.config.body_limits import LARGEST_UNAUTHENTICATED_MCP_MESSAGE
from scopeguard.config.resource import Resource
from scopeguard.core.decision import Decision, Granted
from scopeguard.core.engine import Engine
from scopeguard.errors import Forbidden, InvalidRequest
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.rules import DENIED, Access
from scopeguard.rules.mcp import McpPolicy, browser_origin
from scopeguard.scopes import Requirement
from scopeguard.spec.mcp import Fields, Message, check_agreement, message_in_fields, parse_message
from scopeguard.tokens import AccessToken

if TYPE_CHECKING:
    from scopeguard.adapter.asgi_messages import RequestBody


class Decisions:
    """Decides about requests by *policy*. Pages at the origin of *resource* may send requests, too.

    :class:`~scopeguard.mcp.McpMiddleware` validates the token and calls these methods in order.
    """

    def __init__(self, policy: McpPolicy, engine: Engine, resource: Resource | None) -> None:
        self._policy = policy
        self._engine = engine
        self._origins = policy.allowed_origins | ({browser_origin(resource.url)} if resource else set())

    def check_origin(self, fields: Fields) -> None:
        """Raise :class:`Forbidden` if a web page of another origin sent the request."""
        # MCP: "Servers MUST validate the Origin header on all incoming connections to prevent DNS rebinding attacks".
        if fields.origin is not None and fields.origin.decode("latin-1") not in self._origins:
            raise Forbidden(Reason.ORIGIN_REFUSED, origin=fields.origin.decode("latin-1"))

    async def refuse_message(
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

    async def find_challenge(self, fields: Fields, body: RequestBody, method: str) -> Requirement | None:
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
            limit = min(LARGEST_UNAUTHENTICATED_MCP_MESSAGE, self._policy.max_body_bytes)
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


def read_message(body: bytes, fields: Fields) -> Message:
    """Return the message in *body*, which agrees with *fields*. Raises :class:`MalformedMessage`."""
    message = parse_message(body)
    check_agreement(fields, message)
    return message
