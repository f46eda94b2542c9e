"""Find the rules that may decide about a route.

A route and a rule are both templates. So the audit looks for paths that both match, and asks
:meth:`scopeguard.rules.Rules.find` about each, as requests do. If a parameter of the route may stand for a segment that
a rule names, a path with that segment is one of them.
"""

from __future__ import annotations

import functools
from typing import Final

from scopeguard.rules import Rule, Rules
from scopeguard.rules.overlap import Overlaps, is_narrower
from scopeguard.rules.template_syntax import One, Rest, Step, route_step, sample_path

_step = functools.lru_cache(maxsize=4096)(route_step)
FILLER: Final = "something-else"
"""Replaces the parameters of a template. No rule is likely to name it."""


@functools.lru_cache(maxsize=4096)
def example_path(template: str) -> str:
    """Return a path that *template* matches."""
    return sample_path(template, FILLER)


def _steps(path: str) -> list[Step]:
    return [_step(segment) for segment in path.split("/")]


def _common(one: str, other: str) -> str | None:
    """Return a segment that *one* and *other* both match, or ``None`` if none was found."""
    for candidate in map(example_path, (one, other)):
        literal = One((candidate,))
        if is_narrower(literal, _step(one)) and is_narrower(literal, _step(other)):
            return candidate
    return None


def common_path(route: str, rule: str) -> str | None:
    """Return a path that *route* and *rule* may both match, or ``None`` if none was found."""
    ours, theirs = route.split("/"), rule.split("/")
    path: list[str] = []
    for index in range(max(len(ours), len(theirs))):
        if index >= len(ours) or index >= len(theirs):
            return None
        if isinstance(_step(ours[index]), Rest):
            path += [example_path(segment) for segment in theirs[index:]]
            break
        if isinstance(_step(theirs[index]), Rest):
            path += [example_path(segment) for segment in ours[index:]]
            break
        segment = _common(ours[index], theirs[index])
        if segment is None:
            return None
        path.append(segment)
    return "/".join(path)


class Index:
    """Finds the rules that may match a route, without comparing it with all of them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.all: tuple[Rule, ...] = rules.all
        self._overlaps = Overlaps[int]()
        for number, rule in enumerate(self.all):
            self._overlaps.add(_steps(rule.path), number)

    def candidates(self, route: str) -> list[Rule]:
        """Return the rules that may match some path of *route*, in order."""
        return [self.all[number] for number in sorted(self._overlaps.find_overlaps(_steps(route)))]

    def paths(self, route: str) -> list[tuple[str, Rule | None]]:
        """Return paths of *route* to ask about: one with fillers first, then one for each rule that may match."""
        paths: list[tuple[str, Rule | None]] = [(example_path(route), None)]
        for rule in self.candidates(route):
            path = common_path(route, rule.path)
            if path is not None:
                paths.append((path, rule))
        return paths
