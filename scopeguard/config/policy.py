"""The setting for decisions about requests with a valid token: a function of the app, or a policy decision point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from scopeguard.request import PolicyRequest
from scopeguard.tokens import AccessToken

if TYPE_CHECKING:
    from scopeguard.config.authzen import AuthZen

Decide: TypeAlias = Callable[[AccessToken, PolicyRequest], bool | Awaitable[bool]]
"""A function, sync or async, that returns ``True`` to allow the request and ``False`` to deny it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The function or decision point that decides about requests to one rule, and the path template of the rule.

    ``is_async``: whether ``decide`` is an async function.
    """

    decide: AuthZen | Decide
    route: str
    is_async: bool = False

    @property
    def title(self) -> str:
        """The name of ``decide`` for reports: a URL, or a module and a function. It has no secret."""
        if not callable(self.decide):
            return self.decide.url
        named = self.decide if hasattr(self.decide, "__qualname__") else type(self.decide)
        return f"{named.__module__}.{named.__qualname__}"
