"""Token verifiers for MCP servers that use the authentication of the official SDK or of fastmcp.

    from scopeguard.mcp.verifier import FastmcpVerifier, SdkVerifier

    server = MCPServer("files", token_verifier=SdkVerifier(guard), auth=AuthSettings(...))
    server = FastMCP("files", auth=FastmcpVerifier(guard))

The guard validates the token. The library checks the scopes and writes the responses. For requirements by tool and
challenges that name their scopes, use :class:`~scopeguard.mcp.McpMiddleware` instead.
"""

from __future__ import annotations

from typing import Any

from scopeguard.config.checks import instance
from scopeguard.core.decision import Adapter, Granted, Unavailable
from scopeguard.extras import explain_missing
from scopeguard.guard import Guard, engine_of
from scopeguard.request import HeaderList, RequestView

__all__ = ["FastmcpVerifier", "SdkVerifier"]


class SdkVerifier:
    """A ``TokenVerifier`` of the official SDK (package ``mcp``) that validates tokens with *guard*.

    Checked: everything about the token that the guard checks. Not checked: scopes, the origin of the request, and
    proofs, because the library passes the token only. A token that is bound to a key is refused.

    ``verify_token`` returns ``None`` for a token that is not valid, which the library answers with 401. It raises
    :class:`~scopeguard.errors.AuthorityUnavailable` if the authorization server does not answer: a 401 would make the
    client discard a good token.

    Raises :class:`ModuleNotFoundError` if the package is not installed.
    """

    def __init__(self, guard: Guard) -> None:
        instance(guard, Guard, "guard", "a scopeguard.Guard")
        try:
            from mcp.server.auth.provider import AccessToken  # noqa: PLC0415 - an optional dependency
        except ModuleNotFoundError as error:
            raise explain_missing(error, "mcp", needed_by="scopeguard.mcp.verifier") from None
        self._guard = guard
        self._access_token: Any = AccessToken

    async def verify_token(self, token: str) -> Any:
        """Return the ``AccessToken`` of the SDK for *token*; ``None`` if it is not valid."""
        return await verify(self._guard, token, self._access_token)


def FastmcpVerifier(guard: Guard, **settings: Any) -> Any:  # noqa: N802 - it stands for a class
    """Return a ``TokenVerifier`` of fastmcp that validates tokens with *guard*, for ``FastMCP(auth=...)``.

    *settings*: those of fastmcp's class, such as ``base_url`` and ``required_scopes``. See :class:`SdkVerifier` for
    what is checked. Raises :class:`ModuleNotFoundError` if fastmcp is not installed.
    """
    instance(guard, Guard, "guard", "a scopeguard.Guard")
    try:
        from fastmcp.server.auth import AccessToken, TokenVerifier  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        raise explain_missing(error, "fastmcp", needed_by="scopeguard.mcp.verifier") from None
    verifier = TokenVerifier(**settings)

    async def verify_token(token: str) -> Any:
        return await verify(guard, token, AccessToken)

    verifier.verify_token = verify_token
    return verifier


async def verify(guard: Guard, token: str, access_token: Any) -> Any:
    """Return an object of the class *access_token* for a valid *token*, ``None`` for one that is not valid."""
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))])
    engine = engine_of(guard)
    report = engine.begin_report(Adapter.MCP, None, None, None) if engine.listens else None
    try:
        decision = await guard.acheck(RequestView(method="POST", path="/", headers=headers))
    finally:
        if report is not None:
            report.end()
    if isinstance(decision, Unavailable):
        raise decision.error
    if not isinstance(decision, Granted):
        return None
    access = decision.access_token
    return access_token(
        token=token,
        client_id=access.client_id or access.subject or "",
        scopes=sorted(access.scopes),
        expires_at=None if access.expires_at is None else int(access.expires_at),
        resource=None if guard.resource is None else guard.resource.url,
        subject=access.subject,
        claims=dict(access.claims),
    )
