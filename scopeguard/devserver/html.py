"""Fill HTML templates. :func:`fill` is the only place that escapes.

``string.Template`` fills the pages. Jinja2 would do the same, but the few small pages are not worth a dependency.
"""

from __future__ import annotations

from html import escape
from string import Template


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(template: str, **values: str) -> Html:
    """Return *template* with *values*, each escaped unless it is :class:`Html`."""
    escaped = {name: value if isinstance(value, Html) else escape(value) for name, value in values.items()}
    return Html(Template(template).substitute(escaped))
