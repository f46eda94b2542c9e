"""Decorators of views that need no token, for Flask and Quart, whose views and blueprints are alike."""

from __future__ import annotations

from typing import Final, TypeVar

from scopeguard.adapter.declarations import declare_access
from scopeguard.rules import OPTIONAL, PUBLIC

T = TypeVar("T")

_DECORABLE: Final = "a view, a view class, a method or a blueprint"


def public(view: T) -> T:
    """Serve a view, view class, method or blueprint without a token. A requirement for the same view takes precedence.

    The guard does not look for a token. A public blueprint includes the blueprints that are nested in it. A public view
    class does not include its subclasses; decorate each. A method that a subclass inherits stays public.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, PUBLIC, "public", _DECORABLE)
    return view


def optional(view: T) -> T:
    """Serve a view, view class, method or blueprint with or without a token, and refuse an invalid token.

    The view calls ``access_token_or_none()``. Subclasses are not included, as with :func:`public`.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, OPTIONAL, "optional", _DECORABLE)
    return view
