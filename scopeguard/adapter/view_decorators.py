"""The decorators of views that need a token, for Flask and Quart, whose views and blueprints are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, add_inner, mark
from scopeguard.adapter.route_access import RouteAccess
from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import Requirement

GuardView = Callable[[Any, Requirement], Any]
"""Returns a version of a view that refuses a request whose token does not satisfy a requirement."""


def view_decorator(
    requirement: Requirement,
    sources: frozenset[TokenSource] | None,
    guard_view: GuardView,
    *,
    view_class: type,
    blueprint: type,
) -> Callable[[Any], Any]:
    """Return the decorator that replaces a view with what *guard_view* makes of it. It also decorates view classes.

    *sources*: the token sources that the view declares. *view_class* and *blueprint* are classes of the framework.
    """

    def decorate(view: Any) -> Any:
        if isinstance(view, type) and issubclass(view, view_class):
            decorate_class(view, decorate)
            return view
        if isinstance(view, type | blueprint) or not callable(view):
            raise ConfigurationError(
                f"requires: {view!r} is not a view; for a blueprint, decorate a function given to its before_request"
            )
        whole = add_inner(requirement, getattr(view, REQUIREMENT, None))
        guarded = guard_view(view, whole)
        mark(guarded, view, whole)
        if sources is not None:
            setattr(guarded, SOURCES, sources)
        return guarded

    return decorate


def decorate_class(view_class: Any, decorate: Callable[[Any], Any]) -> None:
    """Add *decorate* to the list ``decorators`` of *view_class* and of its subclasses.

    A subclass that sets ``decorators`` itself gets it as well, so that it is not less protected.
    """
    view_class.decorators = [*view_class.decorators, decorate]
    own = vars(view_class).get("__init_subclass__")

    def inherit(cls: type[Any], /, **arguments: Any) -> None:
        (super(view_class, cls).__init_subclass__ if own is None else own.__get__(None, cls))(**arguments)
        if decorate not in cls.decorators:
            cls.decorators = [*cls.decorators, decorate]

    view_class.__init_subclass__ = classmethod(inherit)


def check_sources_hold(sources: frozenset[TokenSource] | None, route: RouteAccess | None) -> None:
    """Raise :class:`ConfigurationError` unless the token was looked for in *sources*, which the view declares.

    *route* is that of the request, as the extension has checked it; ``None`` in an app without the extension.
    """
    if sources is not None and (route is None or route.token_sources.methods != sources):
        raise ConfigurationError(
            "requires: token_sources had no effect; they need ScopeGuard(app, guard), and the decorator must be on the "
            "view itself, where no other decorator hides it"
        )
