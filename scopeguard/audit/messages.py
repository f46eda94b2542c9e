"""The messages of findings. A pair is the message and its fix."""

from __future__ import annotations

from typing import Final

NO_RULE: Final = "no rule matches"
MCP_RULES: Final = "rules for messages"
TOOL_WITHOUT_RULE: Final = ("no rule matches it, so every call is denied", "add a Tool rule, or remove the tool")
RULE_WITHOUT_TOOL: Final = ("the server has no such tool", "check the name in the rule, or remove the rule")
UNGUARDED: Final = (
    "no middleware, decorator or dependency guards it, and it is not declared public",
    "guard it, or declare it public",
)
OPEN_DOCUMENTATION: Final = (
    "FastAPI's documentation is open to everyone: it shows the routes, their scopes and their parameters",
    "declare it with --public, switch it off with FastAPI(openapi_url=None), or guard it with GuardMiddleware",
)
OPTIONAL_TOKEN: Final = (
    "requests without a token are accepted as anonymous",
    "make sure that the code of the route expects them",
)
ROUTE_WITHOUT_RULE: Final = ("no rule matches it, so every request is denied", "add a rule, or remove the route")
QUERY_TOKENS: Final = (
    "takes tokens in the query string: URLs end up in logs, histories and Referer headers",
    'remove "query" from its token_sources if clients can send a header',
)
DECORATOR_PASSED_BY: Final = (
    "its function has a decorator, but the route calls the plain function: the decorator has no effect",
    "put the decorator below the line that makes the route",
)
DECORATOR_WITHOUT_GUARD: Final = (
    "a decorator compares scopes, but no guard checks the token, so every request fails",
    "guard the app: with GuardMiddleware; in Flask, Quart, Litestar: ScopeGuard; in Falcon: protect; in aiohttp: setup",
)
DECORATOR_ON_PUBLIC: Final = "keeps the middleware from looking for a token, so the decorator refuses every request"
UNGRANTABLE_FIX: Final = (
    "check its spelling, and the catalog; servers may omit scopes from scopes_supported (RFC 8414 section 2)"
)
OPERATION_FIX: Final = "implement it, or remove it from the contract"
RULE_FIX: Final = "check its path and methods against the routes, or remove it"
CORS_INSIDE_GUARD: Final = (
    "it is inside the guard, which refuses preflights before they reach it, and scripts cannot read refusals",
    'set cors_preflight="pass" in the guard; or put it around the guard: call add_middleware for it last',
)
ANY_TOKEN: Final = (
    "nothing declares what these routes require, so every client with a token for this API may call them",
    "name their scopes; or declare that any token suffices, with AUTHENTICATED or a rule with authenticated = true",
)
ANY_AUDIENCE: Final = ("accepts tokens for any audience", "name the audience, or keep expected_claims narrow")
