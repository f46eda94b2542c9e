"""Which rules may decide about a route: both are templates, so paths that fit both are made and the rules are asked.

The answer is that of :meth:`scopeguard.rules.Rules.find`, which requests get, for every path that is tried. A route
whose parameter could stand for what an earlier rule names is tried with that name as well.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from scopeguard.rules import Rule, Rules

_PARAMETER: Final = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_REST: Final = ("path", "segments")
FILLER: Final = "something-else"
"""What parameters stand for where nothing else is asked: no rule should name it."""


@functools.lru_cache(maxsize=4096)
def filled(template: str) -> str:
    """A path that *template* matches."""
    return _PARAMETER.sub(lambda found: f"{FILLER}/{FILLER}" if found[2] in _REST else FILLER, template)


@functools.lru_cache(maxsize=4096)
def _is_open(segment: str) -> bool:
    return any(found[2] in _REST for found in _PARAMETER.finditer(segment))


def _is_literal(segment: str) -> bool:
    return "{" not in segment


@functools.lru_cache(maxsize=4096)
def _pattern(segment: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(re.escape(part) for part in _PARAMETER.split(segment)[::3]))


def _fits(segment: str, text: str) -> bool:
    return segment == text if _is_literal(segment) else _pattern(segment).fullmatch(text) is not None


def _common(one: str, other: str) -> str | None:
    """A segment that fits both, ``None`` where none was found."""
    for candidate in (filled(one), filled(other)):
        if _fits(one, candidate) and _fits(other, candidate):
            return candidate
    return None


def common_path(route: str, rule: str) -> str | None:
    """A path that *route* and *rule* may both match, for the rules to say; ``None`` where they are apart."""
    ours, theirs = route.split("/"), rule.split("/")
    path: list[str] = []
    for index in range(max(len(ours), len(theirs))):
        if index >= len(ours) or index >= len(theirs):
            return None
        if _is_open(ours[index]):
            path += [filled(segment) for segment in theirs[index:]]
            break
        if _is_open(theirs[index]):
            path += [filled(segment) for segment in ours[index:]]
            break
        segment = _common(ours[index], theirs[index])
        if segment is None:
            return None
        path.append(segment)
    return "/".join(path)


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    patterns: dict[str, _Node] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    def everything(self) -> list[int]:
        found = [*self.ends, *self.open]
        for node in (*self.literals.values(), *self.patterns.values()):
            found += node.everything()
        return found


class Index:
    """Rules by the segments of their templates, so that a route meets only those that could match it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.all: tuple[Rule, ...] = rules.all
        self._root = _Node()
        for number, rule in enumerate(self.all):
            self._add(rule.path.split("/"), number)

    def _add(self, segments: list[str], number: int) -> None:
        node = self._root
        for segment in segments:
            if _is_open(segment):
                node.open.append(number)
                return
            children = node.literals if _is_literal(segment) else node.patterns
            node = children.setdefault(segment, _Node())
        node.ends.append(number)

    def candidates(self, route: str) -> list[Rule]:
        """The rules that could match some path of *route*, in order."""
        return [self.all[number] for number in sorted(set(_found(self._root, route.split("/"))))]

    def paths(self, route: str) -> list[tuple[str, Rule | None]]:
        """Paths of *route* to ask about: the plain one first, then one for each rule that could match."""
        paths: list[tuple[str, Rule | None]] = [(filled(route), None)]
        for rule in self.candidates(route):
            path = common_path(route, rule.path)
            if path is not None:
                paths.append((path, rule))
        return paths


def _found(node: _Node, segments: list[str]) -> list[int]:
    if not segments:
        return [*node.open, *node.ends]
    first, rest = segments[0], segments[1:]
    if _is_open(first):
        return node.everything()
    if _is_literal(first):
        inner: Iterable[_Node] = [node.literals[first]] if first in node.literals else []
        patterns = [child for pattern, child in node.patterns.items() if _fits(pattern, first)]
    else:
        inner = [child for literal, child in node.literals.items() if _fits(first, literal)]
        patterns = [child for pattern, child in node.patterns.items() if _common(first, pattern) is not None]
    found = list(node.open)
    for child in (*inner, *patterns):
        found += _found(child, rest)
    return found
