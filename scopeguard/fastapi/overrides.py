"""``app.dependency_overrides`` for ``protected.requires(...)``.

FastAPI looks for an override of the object that a route names, which is not ``protected`` itself. This module looks for
an override of ``protected`` and calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from fastapi import Response, Security
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from scopeguard.scopes import Requirement

_NAME: Final = "overridden"


def find_override(dependency: object, connection: HTTPConnection) -> Any:
    """Return the override of *dependency* in the app of *connection*, or ``None``."""
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", None)
    return overrides.get(dependency) if overrides else None


async def call_override(
    override: Callable[..., Any],
    connection: Any,
    response: Response,
    security_scopes: SecurityScopes,
    requirement: Requirement,
) -> Any:
    """Call *override* with its own dependencies, which may include ``SecurityScopes``, and return its value."""
    scopes = list(dict.fromkeys((*security_scopes.scopes, *requirement.first)))

    def call(**values: Any) -> Any:
        return values

    parameter = inspect.Parameter(_NAME, inspect.Parameter.KEYWORD_ONLY, default=Security(override, scopes=scopes))
    setattr(call, "__signature__", inspect.Signature([parameter]))  # noqa: B010 - type checkers do not know this attribute
    scope = connection.scope
    stack = scope.get("fastapi_inner_astack")
    solved = await solve_dependencies(
        request=connection,
        dependant=get_dependant(path=getattr(scope.get("route"), "path_format", ""), call=call),
        response=response,
        dependency_overrides_provider=scope.get("app"),
        async_exit_stack=stack if isinstance(stack, AsyncExitStack) else AsyncExitStack(),
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values[_NAME]
