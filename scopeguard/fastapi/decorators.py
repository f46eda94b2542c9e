"""The decorator of FastAPI endpoints that are open on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from scopeguard.adapter.declarations import declare_access
from scopeguard.rules import PUBLIC

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def public(endpoint: Endpoint) -> Endpoint:
    """Declare *endpoint* as public, so that the audit does not report it. Put it below the line ``@app.get``.

    It does not open the route: its dependencies and middleware still check tokens.

    Raises :class:`ConfigurationError` for an object without attributes.
    """
    declare_access(endpoint, PUBLIC, "public", "the function of a route")
    return endpoint
