"""Parse path templates into steps, one for each segment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from scopeguard.errors import ConfigurationError
from scopeguard.rules.path_readings import ESCAPE, is_suspicious

_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?::(path|segments))?\}")
_ANY_PARAMETER: Final = re.compile(r"\{[^{}:]*(?::([^{}]*))?\}")
_SEVERAL: Final = ("path", "segments")


@dataclass(frozen=True, slots=True)
class One:
    """One segment: *literals* with a parameter of at least one character between each two.

    A single literal is a literal segment. ``("", "")`` is a parameter alone.
    """

    literals: tuple[str, ...]

    @property
    def is_literal(self) -> bool:
        """True if the step matches a single text."""
        return len(self.literals) == 1

    @property
    def ends(self) -> tuple[str, str]:
        """The texts that a matching segment begins and ends with."""
        return self.literals[0], self.literals[-1]


@dataclass(frozen=True, slots=True)
class Many:
    """One or more whole segments, none of them empty. The last one ends with *tail*, after at least one character."""

    tail: str


@dataclass(frozen=True, slots=True)
class Rest:
    """The rest of the path: one or more segments, which may be empty."""


Step: TypeAlias = One | Many | Rest


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Template:
    """A path template, with one step for each segment. *shape* is the template without the names of its parameters."""

    steps: tuple[Step, ...]
    shape: str

    @property
    def literal(self) -> bool:
        """True if the template matches a single path."""
        return "{" not in self.shape

    @property
    def slashed(self) -> bool:
        """True if the template matches paths with a final slash."""
        return self.shape.endswith(("/", "{*}"))

    @property
    def bare(self) -> bool:
        """True if the template matches paths without a final slash."""
        return not self.shape.endswith("/")

    @classmethod
    def parse(cls, template: str) -> Template:
        """Parse *template*. Raises :class:`ConfigurationError` that names the mistake."""
        if not isinstance(template, str) or not template.startswith("/"):
            raise ConfigurationError(f"rule {template!r}: a path must begin with /")
        if "*" in template:
            raise ConfigurationError(
                f"rule {template!r}: wildcards are not supported; write {{name:path}} at the end for the rest"
            )
        if is_suspicious(template) or ESCAPE.search(template) or "?" in template or "#" in template:
            raise ConfigurationError(
                f"rule {template!r}: must be a decoded path without //, dot segments, query and fragment"
            )
        *segments, last = template[1:].split("/")
        try:
            parsed = [_step_and_shape(segment) for segment in segments]
            parsed.append(_step_and_shape(last, is_last=True))
        except _Mistake as mistake:
            raise ConfigurationError(f"rule {template!r}: {mistake}") from None
        return cls(tuple([step for step, _ in parsed]), "/" + "/".join([shape for _, shape in parsed]))


def route_step(segment: str) -> Step:
    """Return the step of a *segment* of a framework's route.

    Frameworks allow more than rules do: any name, any converter, and several segments anywhere in a path. A segment
    with a parameter for several segments becomes :class:`Rest`, which matches more than the route does.
    """
    pieces = _ANY_PARAMETER.split(segment)
    return Rest() if any(kind in _SEVERAL for kind in pieces[1::2]) else One(tuple(pieces[::2]))


def sample_path(template: str, filler: str) -> str:
    """Return a path that *template* matches, with *filler* in place of each parameter.

    *filler* replaces a parameter for several segments twice, with a slash between. The template may also be that of a
    framework, which may have other names and converters.
    """

    def fill(parameter: re.Match[str]) -> str:
        return f"{filler}/{filler}" if parameter[1] in _SEVERAL else filler

    return _ANY_PARAMETER.sub(fill, template)


class _Mistake(Exception):
    """A segment is no part of a template."""


# The templates of one API consist of the same few segments.
@lru_cache(maxsize=4096)
def _step_and_shape(segment: str, *, is_last: bool = False) -> tuple[Step, str]:
    """Return the step of *segment*, and its part of :attr:`Template.shape`. Raises :class:`_Mistake`."""
    # With one group in the pattern re.split returns text, kind, text, kind, ..., text.
    pieces = _PARAMETER.split(segment)
    literals, kinds = tuple(pieces[::2]), pieces[1::2]
    if any("{" in text or "}" in text for text in literals):
        raise _Mistake("parameters are written {name}, {name:path}, {name:segments}")
    if "path" in kinds:
        if not is_last or literals != ("", ""):
            raise _Mistake("{name:path} must stand alone after the last slash")
        return Rest(), "{*}"
    if "segments" in kinds:
        if literals[0] or len(kinds) > 1:
            raise _Mistake("{name:segments} must begin a segment, and only text may follow it")
        return Many(literals[1]), "{+}" + literals[1]
    return One(literals), "{}".join(literals)
