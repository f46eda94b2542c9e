"""Decorators of view classes that have a list ``decorators``, as those of Flask and Quart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def decorate_class(view_class: Any, decorate: Callable[[Any], Any]) -> None:
    """Add *decorate* to the decorators of *view_class* and of its subclasses.

    A subclass that sets ``decorators`` itself gets it as well, so that it is not less protected.
    """
    view_class.decorators = [*view_class.decorators, decorate]
    own = vars(view_class).get("__init_subclass__")

    def inherit(cls: type[Any], /, **arguments: Any) -> None:
        (super(view_class, cls).__init_subclass__ if own is None else own.__get__(None, cls))(**arguments)
        if decorate not in cls.decorators:
            cls.decorators = [*cls.decorators, decorate]

    view_class.__init_subclass__ = classmethod(inherit)
