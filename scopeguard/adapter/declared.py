"""What adapters leave to be read: marks on decorated functions, and the types of what stands around an app."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from scopeguard.config.sources import TokenSource
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Access, Rules
from scopeguard.scopes import Requirement

REQUIREMENT: Final = "__scopeguard_requirement__"
"""The attribute in which a decorated endpoint shows what it requires, to audits and to documentation."""
ACCESS: Final = "__scopeguard_access__"
"""The attribute in which a view, view class or blueprint shows that it is public or optional."""
SOURCES: Final = "__scopeguard_token_sources__"
"""The attribute in which a decorated view shows where it takes tokens."""
PASSED_BY: Final = "__scopeguard_decorated__"
"""The attribute of a function that was decorated: a route which has the function itself passes its decorator by."""

EXTENSION: Final = "scopeguard.audit"
"""Where the Flask extension leaves, in ``app.extensions``, the layer that it is."""


def declare_access(item: object, access: Access, decorator: str, wanted: str) -> None:
    """Mark *item*, which *decorator* decorates, with *access*.

    Raises :class:`ConfigurationError` for something that takes no mark. *wanted* describes what does.
    """
    try:
        setattr(item, ACCESS, access)
    except (AttributeError, TypeError):
        raise ConfigurationError(f"{decorator}: must decorate {wanted}, not {type(item).__name__}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What one decorator or dependency says about a route.

    *by*: its name, for people. *guard*: set for what judges tokens itself; without, it needs a :class:`Layer` outside.
    """

    by: str
    access: Requirement | Access
    sources: frozenset[TokenSource] | None = None
    guard: Guard | None = None


class Declares(ABC):
    """A dependency that guards the routes which name it."""

    @abstractmethod
    def declared(self, scopes: Sequence[str]) -> Declared:
        """What it says where the route names *scopes* beside it."""


class Layer:
    """What judges the requests for an app: middleware around it, or an extension in it."""

    app: Any
    guard: Guard
    rules: Rules
    root_path: str | None = None
    """What the operator says that the app takes off paths; ``None`` where it was not said."""
    default: ClassVar[str] = "middleware default"
    views_decide: ClassVar[bool] = False
    """Whether a view may open what no rule opens, and the stricter of both holds."""
    passes_preflights: bool = False
    """Whether preflights of browsers reach the app without a token."""


class Configured(Layer):
    """What ``scopeguard serve`` would put around *app*."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app = app
        self.guard = guard
        self.rules: Rules = Rules.of(guard.rules)
        self.passes_preflights: bool = engine_of(guard).passes_preflights()


def mark(decorated: Any, inner: Any, requirement: Requirement) -> None:
    """Show on *decorated* what it requires; and on *inner*, which it calls, that a route should not have that itself.

    What takes no attributes, such as a bound method, is left as it is: a decorator that is passed by is not found then.
    """
    setattr(decorated, REQUIREMENT, requirement)
    if inner is decorated:
        return
    vars(decorated).pop(PASSED_BY, None)  # functools.wraps has copied it, where *inner* was decorated before
    with suppress(AttributeError, TypeError):
        setattr(inner, PASSED_BY, (*decorators_of(inner), weakref.ref(decorated)))


def access_of(marked: Any) -> Access | None:
    """What ``@public`` or ``@optional`` said of *marked* itself.

    A mark on a class does not hold for its subclasses: they may serve something else, and must say so themselves.
    """
    if isinstance(marked, type):
        found = vars(marked).get(ACCESS)
    else:
        found = getattr(marked, "__dict__", {}).get(ACCESS) or vars(type(marked)).get(ACCESS)
    return found if isinstance(found, Access) else None


def decorators_of(inner: Any) -> tuple[weakref.ref[Any], ...]:
    """What :func:`mark` remembered on *inner*."""
    found = vars(inner).get(PASSED_BY, ()) if hasattr(inner, "__dict__") else ()
    return found if isinstance(found, tuple) else ()
