"""The requirements of routes, as decorators, dependencies and middleware declare them for the audit."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Access, Rules
from scopeguard.scopes import Requirement, all_of

if TYPE_CHECKING:
    from scopeguard.rules.mcp import McpPolicy

REQUIREMENT: Final = "__scopeguard_requirement__"
"""The attribute of a decorated endpoint with its :class:`~scopeguard.scopes.Requirement`."""
ACCESS: Final = "__scopeguard_access__"
"""The attribute of a view, view class or blueprint that is public or optional."""
SOURCES: Final = "__scopeguard_token_sources__"
"""The attribute of a decorated view with its token sources."""
DECORATED_VERSIONS: Final = "__scopeguard_decorated__"
"""The attribute of a plain function with references to its decorated versions.

The audit thereby finds a route that calls the plain function, so that its decorator has no effect.
"""

EXTENSION: Final = "scopeguard.audit"
"""The key in ``app.extensions`` of the :class:`Layer` that stands for the Flask extension."""

FIND_LAYER: Final = "scopeguard_layer"
"""The attribute of a middleware class of Django with a function that returns the project's :class:`Layer`."""


def declare_access(item: object, access: Access, decorator: str, wanted: str) -> None:
    """Mark *item*, which *decorator* decorates, with *access*.

    Raises :class:`ConfigurationError` for an object that cannot have new attributes. *wanted* describes for the error
    message what can be decorated.
    """
    try:
        setattr(item, ACCESS, access)
    except (AttributeError, TypeError):
        raise ConfigurationError(f"{decorator}: must decorate {wanted}, not {type(item).__name__}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The requirement that one decorator or dependency declares for a route.

    *by*: its name for reports. *guard*: the guard of a dependency, which checks tokens itself. A decorator has none: it
    compares scopes, and a :class:`Layer` around the app must check the token first.
    """

    by: str
    access: Requirement | Access
    sources: frozenset[TokenSource] | None = None
    guard: Guard | None = None


class DeclaringDependency(ABC):
    """A FastAPI dependency that guards the routes that name it."""

    @abstractmethod
    def declare(self, scopes: Sequence[str]) -> Declaration:
        """Return the declaration for a route that names the dependency with *scopes*."""


class Layer:
    """Checks the tokens of all requests for an app: middleware around it, or an extension in it."""

    app: Any
    guard: Guard
    rules: Rules
    root_path: str | None = None
    """The configured prefix that the app removes from paths before it routes; ``None`` if not configured."""
    default: ClassVar[str] = "middleware default"
    """The name in reports of the requirement of a route that matches no rule."""
    views_decide: ClassVar[bool] = False
    """True if a view may open a route that no rule opens. If a rule and a view decide, the stricter one holds."""
    policy: McpPolicy | None = None
    """What an MCP server inside the layer requires for each operation. It decides if no rule matches."""
    passes_preflights: bool = False
    """True if CORS preflights reach the app without a token."""


def refuse_instance(middleware: object) -> None:
    """Raise :class:`ConfigurationError` if *middleware*, an item of Starlette's list, is a layer and not its class.

    Starlette would call it like a class, with the app, and fail with a :class:`TypeError` when the app starts.
    """
    if isinstance(middleware, Layer):
        name = type(middleware).__name__
        raise ConfigurationError(
            f"add_middleware: pass the class {name} and its arguments, not an instance, as in "
            f"app.add_middleware({name}, guard=guard)"
        )


class ServeLayer(Layer):
    """The layer that ``scopeguard serve`` would put around *app*, for an audit without a server."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app = app
        self.guard = guard
        self.policy: McpPolicy | None = guard.mcp
        # Middleware for an MCP server has no rule for its endpoint.
        self.rules: Rules = Rules.of(guard.rules if guard.mcp is None else Rules.of(guard.rules).all)
        self.passes_preflights: bool = engine_of(guard).passes_preflights()


def add_inner(requirement: Requirement, inner: Requirement | None) -> Requirement:
    """Return *requirement*, that of a decorator, together with that of the decorators further *inner*, if any.

    The outermost decorator refuses first, so its challenge names the scopes of the inner ones, too.
    """
    return requirement if inner is None else all_of(requirement, inner)


def mark(decorated: Any, inner: Any, requirement: Requirement) -> None:
    """Mark *decorated* with its *requirement*, and *inner*, which it calls, with a reference to *decorated*.

    An *inner* that cannot have new attributes, such as a bound method, is not marked. The audit then cannot find a
    route that calls it without the decorator.
    """
    setattr(decorated, REQUIREMENT, requirement)
    if inner is decorated:
        return
    vars(decorated).pop(DECORATED_VERSIONS, None)  # functools.wraps copies the mark if *inner* is already decorated
    with suppress(AttributeError, TypeError):
        setattr(inner, DECORATED_VERSIONS, (*decorated_versions_of(inner), weakref.ref(decorated)))


def access_of(marked: Any) -> Access | None:
    """Return the access that ``@public`` or ``@optional`` declares for *marked* itself.

    The mark of a class does not hold for its subclasses, because they may serve something else.
    """
    if isinstance(marked, type):
        found = vars(marked).get(ACCESS)
    else:
        found = getattr(marked, "__dict__", {}).get(ACCESS) or vars(type(marked)).get(ACCESS)
    return found if isinstance(found, Access) else None


def decorated_versions_of(inner: Any) -> tuple[weakref.ref[Any], ...]:
    """Return references to the decorated versions of *inner*, which :func:`mark` has recorded."""
    found = vars(inner).get(DECORATED_VERSIONS, ()) if hasattr(inner, "__dict__") else ()
    return found if isinstance(found, tuple) else ()
