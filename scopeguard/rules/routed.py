"""The rule for a request where a router may see another path than the one that was sent.

An app may take a prefix off the path before it routes: FastAPI its own ``root_path``, also where it is mounted, and
middleware whatever it likes. Then the path has several readings, and all of them count: the rule that the expected
reading meets decides, and whatever another reading needs is needed as well.

A reading that is certain always counts. One that is only possible, because the app cannot be inspected, counts where a
rule names a segment in it that the rule of the expected reading leaves open: ``/{rest:path}`` says nothing of
``/api/admin`` that could outweigh ``/admin``, and ``/users/{id}/admin`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, Access, Rule, Rules
from scopeguard.rules.readings import is_suspicious
from scopeguard.rules.rule import strictest
from scopeguard.rules.template import Many, One, Rest, Template
from scopeguard.scopes import Requirement

_MOST_SEGMENTS: Final = 32  # of a path whose possible readings are tried one by one; a longer one is refused
_MOST_SEGMENTS_MOUNTED: Final = 256  # of a path that is tried below each mount; a longer one is refused
_MOST_BEFORE: Final = 4  # segments that a mount leaves in front of what is taken off
_MOST_COMPARED: Final = 2500  # pairs of what rules ask for
_MOST_JOINED: Final = 1024  # rules that were made of several


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an app is mounted: its paths begin with the text *beginning* and have *depth* segments of the mount."""

    beginning: str = ""
    depth: int = 0

    def holds(self, path: str) -> bool:
        """Whether *path* may reach the app."""
        return path.startswith(self.beginning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """What is taken off paths inside a guard, beside the ``root_path`` that a server tells.

    * *root_path*: what the outermost router takes off. It replaces that of the server.
    * *mounted*: what routers take off that are mounted in it, each with its place.
    * *unknown*: places of apps that cannot be inspected.
    """

    root_path: str = ""
    mounted: tuple[tuple[Place, str], ...] = ()
    unknown: tuple[Place, ...] = ()


def without_prefix(path: str, prefix: str) -> str:
    """*path* without *prefix*, if it lies below it."""
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :]
    return path


def check_root_path(root_path: str | None) -> str | None:
    """*root_path* as operators declare it, or :class:`ConfigurationError`."""
    if root_path is None or root_path == "":
        return root_path
    is_path = isinstance(root_path, str) and root_path.startswith("/") and not root_path.endswith("/")
    if not is_path or is_suspicious(root_path) or set("?#{}") & set(root_path):
        raise ConfigurationError(
            "root_path: must be the prefix that the app takes off paths, as in '/api', or '' for none, "
            f"not {root_path!r}"
        )
    return root_path


class RoutedRules:
    """*rules* for an app that takes *prefixes* off paths. ``is_plain``: without a ``root_path`` of the server the path
    has one reading, and :meth:`Rules.find` is all there is to it. ``depends_on_app``: with other prefixes, it could be
    otherwise."""

    __slots__ = ("_joined", "_named", "_prefixes", "_rules", "depends_on_app", "is_plain")

    def __init__(self, rules: Rules, prefixes: Prefixes) -> None:
        self._rules = rules
        self._prefixes = prefixes
        self._named = _Named(rules.all)
        self._joined: dict[tuple[int, ...], Rule | None] = {}
        self.depends_on_app: bool = self._named.any
        counts = prefixes.mounted or (prefixes.unknown and _may_differ(rules.all, self._named))
        self.is_plain: bool = not (prefixes.root_path or (counts and self._named.any))

    def find(self, method: str, path: str, raw_path: bytes | None = None, root_path: str = "") -> Rule | None:
        """The rule for a request, ``None`` where none decides. *path*: decoded once, whole. *root_path*: the server's.

        Where *path* does not lie under the prefix but contains it, routers disagree: some cut it off there, and the
        slash behind it may be missing (Litestar, Quart). Then both readings have to meet the same rule.
        """
        rules, prefix = self._rules, self._prefixes.root_path or root_path
        routed = without_prefix(path, prefix)
        rule = rules.find(method, routed, raw_path)
        if prefix and routed == path and prefix in path:
            cut = path.split(prefix, 1)[1]
            other = rules.find(method, cut if cut.startswith("/") else f"/{cut}")
            if other is not rule:
                return other if other is not None and rules.closes(other) else None
        if rule is None or rule.access is DENIED or not self._named.any:
            return rule
        others = self._certain(rule, method, path, routed)
        if others is None:
            return None
        if not rule.template.literal and (routed != path or self._prefixes.unknown):
            possible = self._possible(rule, method, path, routed)
            if possible is None:
                return None
            others += possible
        return self._join(rule, others) if others else rule

    def _certain(self, rule: Rule, method: str, path: str, routed: str) -> list[Rule] | None:
        """Return what other rules say of the paths that routers with a prefix of their own are known to see.

        ``None`` if the path is too long to try it below each mount.
        """
        if not self._prefixes.mounted:
            return []
        segments = path[1:].split("/")
        if not self._named.touches(set(segments)):  # each reading is made of these segments
            return []
        if len(segments) > _MOST_SEGMENTS_MOUNTED:
            return None
        found: list[Rule] = []
        for place, own in self._prefixes.mounted:
            if place.holds(routed):
                mount = "/".join(routed.split("/")[: place.depth + 1])
                other = self._rules.find(method, mount + without_prefix(path, own))
                if other is not None and other is not rule and self._named.has(other):
                    found.append(other)
        return found

    def _possible(self, rule: Rule, method: str, path: str, routed: str) -> list[Rule] | None:
        """What other rules say of paths that a router might see; ``None`` where there are too many to try."""
        whole, expected = path[1:].split("/"), routed[1:].split("/")
        taken = len(whole) - len(expected)
        fixed = {taken + at for at in _literal_places(rule.template, len(expected)) if at is not None}
        if not self._named.touches(segment for at, segment in enumerate(whole) if at not in fixed):
            return []
        if len(whole) > _MOST_SEGMENTS:
            return None
        found: list[Rule] = []
        for before, behind in self._cuts(routed, len(expected), len(whole)):
            reading = [*expected[:before], *whole[behind:]]
            other = self._rules.find(method, "/" + "/".join(reading))
            if other is None or other is rule or other in found or not self._named.has(other):
                continue
            places = _literal_places(other.template, len(reading))
            origin = (at if at is None else taken + at if at < before else behind + at - before for at in places)
            if any(at is None or at not in fixed for at in origin):
                found.append(other)
        return found

    def _cuts(self, routed: str, expected: int, whole: int) -> list[tuple[int, int]]:
        """How many segments of the expected path stay in front, and from which one of the whole path on it goes on."""
        depths = [place.depth for place in self._prefixes.unknown if place.holds(routed)]
        if not depths:
            return [(0, 0)] if whole != expected else []
        least = min(depths)
        fronts = range(least, min(least + _MOST_BEFORE, expected))
        return [(before, behind) for before in fronts for behind in range(whole)]

    def _join(self, rule: Rule, others: Sequence[Rule]) -> Rule | None:
        """A rule that asks what *rule* and all *others* ask; ``None``, which denies, where none can say that."""
        key = tuple(map(id, (rule, *others)))
        if key not in self._joined:
            if len(self._joined) >= _MOST_JOINED:
                self._joined.clear()
            self._joined[key] = _joined(rule, others)
        return self._joined[key]


def _joined(rule: Rule, others: Sequence[Rule]) -> Rule | None:
    access, sources = rule.access, rule.token_sources
    for other in others:
        if other.access is DENIED:
            return other
        if not isinstance(access, Requirement):
            sources = other.token_sources
        if not _covers(access, other.access):
            try:
                access = strictest(access, other.access)
            except ConfigurationError:  # more alternatives than a requirement may have
                return None
    if access == rule.access:
        return rule
    told = " and ".join(dict.fromkeys(each.source or each.path for each in (rule, *others)))
    return Rule(rule.path, access, token_sources=sources, source=told)


def _covers(one: Requirement | Access, other: Requirement | Access) -> bool:
    """Whether whatever satisfies *one* satisfies *other*."""
    return one == other or (isinstance(one, Requirement) and isinstance(other, Requirement) and _implies(one, other))


def _implies(one: Requirement, other: Requirement) -> bool:
    """Whether a token that satisfies *one* satisfies *other* as well."""
    return all(any(less <= each for less in other.alternatives) for each in one.alternatives)


class _Named:
    """The rules that require or deny something and name a segment, or a part of one; and those names, to tell quickly
    that a path has none of them."""

    __slots__ = ("_heads", "_ids", "_middles", "_tails", "_whole", "any")

    def __init__(self, rules: Iterable[Rule]) -> None:
        strict = [rule for rule in rules if isinstance(rule.access, Requirement) or rule.access is DENIED]
        named = [rule for rule in strict if any(map(_bears_text, rule.template.steps))]
        self._ids = frozenset(map(id, named))
        self.any: bool = bool(named)
        parts = [_parts(step) for rule in named for step in rule.template.steps if _bears_text(step)]
        self._whole = frozenset(literals[0] for literals in parts if len(literals) == 1)
        mixed = [literals for literals in parts if len(literals) > 1]
        self._heads = tuple({literals[0] for literals in mixed if literals[0]})
        self._tails = tuple({literals[-1] for literals in mixed if literals[-1]})
        self._middles = frozenset(literals[1] for literals in mixed if not literals[0] and not literals[-1])

    def has(self, rule: Rule) -> bool:
        """Whether *rule* is one of them."""
        return id(rule) in self._ids

    def touches(self, segments: Iterable[str]) -> bool:
        """Whether one of *segments* may be what a rule names. Errs to the side of yes."""
        return any(
            segment in self._whole
            or segment.startswith(self._heads)
            or segment.endswith(self._tails)
            or any(text in segment for text in self._middles)
            for segment in segments
        )


def _parts(step: One | Many | Rest) -> tuple[str, ...]:
    match step:
        case One(literals):
            return literals
        case Many(tail):
            return ("", tail)
        case _:
            return ("", "")


def _bears_text(step: One | Many | Rest) -> bool:
    """Whether *step* names a segment or a part of one. A slash at the end is a segment whose name is empty."""
    parts = _parts(step)
    return len(parts) == 1 or any(parts)


def _may_differ(rules: Iterable[Rule], named: _Named) -> bool:
    """Whether a path without some of its segments could meet another of *rules* that asks for something else. Errs to
    the side of yes."""
    strict = [rule for rule in rules if named.has(rule)]
    hiding = [rule for rule in rules if not rule.template.literal and rule.access is not DENIED]
    asked, given = {rule.access for rule in strict}, {rule.access for rule in hiding}
    if len(asked) * len(given) <= _MOST_COMPARED and all(_covers(one, other) for one in given for other in asked):
        return False
    lengths = {_length(rule.template) for rule in strict}
    return any(None in lengths or lengths - {length} for length in map(_length, (rule.template for rule in hiding)))


def _length(template: Template) -> int | None:
    """How many segments *template* matches, ``None`` for any number of them."""
    return len(template.steps) if all(isinstance(step, One) for step in template.steps) else None


def _literal_places(template: Template, length: int) -> list[int | None]:
    """Which segments of a path with *length* of them *template* names; ``None`` for one whose place varies."""
    steps = template.steps
    varies = next((at for at, step in enumerate(steps) if not isinstance(step, One)), len(steps))
    is_open = isinstance(steps[-1], Rest)
    return [
        at if at < varies else None if is_open else length - len(steps) + at
        for at, step in enumerate(steps)
        if _bears_text(step)
    ]
