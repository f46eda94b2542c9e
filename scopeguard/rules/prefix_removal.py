"""Find the rule for a request if a router may see a different path from the one that the client sent.

An app may remove a prefix from the path before it routes. FastAPI removes its ``root_path``, even where it is mounted,
and middleware may remove any prefix. Then the path has several readings. The rule for the expected reading decides, and
the requirements of the other readings must be met as well.

A reading that is certain always counts. A reading that is only possible, because the app cannot be inspected, counts if
its rule names a segment that the rule of the expected reading leaves open. For example, ``/{rest:path}`` leaves all of
``/api/admin`` open, so a rule for ``/admin`` counts. ``/users/{id}/admin`` names the last segment of
``/users/7/admin``, so that rule does not count there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.token_sources import TokenSource, join_sources, kinds_of_credentials
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, Access, Rule, Rules
from scopeguard.rules.path_readings import is_suspicious
from scopeguard.rules.rule import strictest
from scopeguard.rules.template_syntax import Many, One, Rest, Template
from scopeguard.scopes import Requirement

_MOST_SEGMENTS: Final = 32  # in a path whose possible readings are tried one by one; longer paths are denied
_MOST_SEGMENTS_MOUNTED: Final = 256  # in a path that is tried below each mount; longer paths are denied
_MOST_BEFORE: Final = 4  # segments of a mount that may stay before a removed prefix
_MOST_COMPARED: Final = 2500  # pairs of requirements
_MOST_JOINED: Final = 1024  # cached rules that combine several


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """The mount of an app.

    *beginning*: the text that its paths begin with. *depth*: the number of their segments that belong to the mount.
    """

    beginning: str = ""
    depth: int = 0

    def holds(self, path: str) -> bool:
        """Return whether *path* may reach the app."""
        return path.startswith(self.beginning)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Prefixes:
    """The prefixes that routers inside a guard remove from paths, in addition to the ``root_path`` of the server.

    * *root_path*: the prefix that the outermost router removes. It replaces that of the server.
    * *mounted*: the prefixes that routers mounted in it remove, each with its mount.
    * *unknown*: the mounts of apps that cannot be inspected.
    * *loose*: functions of a path and its rule. They say whether a mount gets the path although it does not have the
      segments of the mount, as in ``/filesx`` for the mount at ``/files``.
    """

    root_path: str = ""
    mounted: tuple[tuple[MountPoint, str], ...] = ()
    unknown: tuple[MountPoint, ...] = ()
    loose: tuple[Callable[[str, Rule], bool], ...] = ()


def without_prefix(path: str, prefix: str) -> str:
    """Return *path* without *prefix*, or unchanged if it is not below *prefix*."""
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :]
    return path


def check_root_path(root_path: str | None) -> str | None:
    """Return *root_path*, a setting. Raises :class:`ConfigurationError` unless it is a path without a final slash."""
    if root_path is None or root_path == "":
        return root_path
    is_path = isinstance(root_path, str) and root_path.startswith("/") and not root_path.endswith("/")
    if not is_path or is_suspicious(root_path) or set("?#{}") & set(root_path):
        raise ConfigurationError(
            "root_path: must be the prefix that the app removes from paths, as in '/api', or '' for none, "
            f"not {root_path!r}"
        )
    return root_path


class RoutedRules:
    """*rules* for an app that removes *prefixes* from paths.

    *sources* are those of the guard, which hold for rules without sources of their own; ``None`` if they are unknown.

    * ``is_plain``: unless the server has a ``root_path``, each path has one reading, and :meth:`Rules.find` suffices.
    * ``depends_on_app``: other prefixes could change ``is_plain``.
    """

    __slots__ = ("_joined", "_literal_rules", "_prefixes", "_rules", "depends_on_app", "is_plain")

    def __init__(self, rules: Rules, prefixes: Prefixes, sources: frozenset[TokenSource] | None = None) -> None:
        self._rules = rules
        self._prefixes = prefixes
        self._literal_rules = _LiteralRules(rules.all)
        self._joined: dict[tuple[int, ...], Rule | None] = {}
        self.depends_on_app: bool = self._literal_rules.any
        counts = prefixes.mounted or (prefixes.unknown and _may_differ(rules.all, self._literal_rules, sources))
        self.is_plain: bool = not (prefixes.root_path or prefixes.loose or (counts and self._literal_rules.any))

    def find(self, method: str, path: str, raw_path: bytes | None = None, root_path: str = "") -> Rule | None:
        """Return the rule for a request, or ``None`` if none decides.

        *path* is the whole path, decoded once. *root_path* is that of the server. If *path* contains the prefix but
        does not begin with it, routers disagree: some remove everything up to it, with or without the following slash
        (Litestar, Quart). Then both readings must lead to the same rule.
        """
        rules, prefix = self._rules, self._prefixes.root_path or root_path
        routed = without_prefix(path, prefix)
        rule = rules.find(method, routed, raw_path)
        if rule is not None and any(gets(routed, rule) for gets in self._prefixes.loose):
            return None
        if prefix and routed == path and prefix in path:
            cut = path.split(prefix, 1)[1]
            other = rules.find(method, cut if cut.startswith("/") else f"/{cut}")
            if other is not rule:
                return other if other is not None and rules.closes(other) else None
        if rule is None or rule.access is DENIED or not self._literal_rules.any:
            return rule
        others = self._rules_for_known_readings(rule, method, path, routed)
        if others is None:
            return None
        if not rule.template.literal and (routed != path or self._prefixes.unknown):
            possible = self._rules_for_possible_readings(rule, method, path, routed)
            if possible is None:
                return None
            others += possible
        return self._join(rule, others) if others else rule

    def _rules_for_known_readings(self, rule: Rule, method: str, path: str, routed: str) -> list[Rule] | None:
        """Return the rules for the paths that mounted routers are known to see.

        The result is ``None`` if the path has too many segments to try it below each mount.
        """
        if not self._prefixes.mounted:
            return []
        segments = path[1:].split("/")
        if not self._literal_rules.touches(set(segments)):  # each reading consists of these segments
            return []
        if len(segments) > _MOST_SEGMENTS_MOUNTED:
            return None
        found: list[Rule] = []
        for mount, own in self._prefixes.mounted:
            if mount.holds(routed):
                beginning = "/".join(routed.split("/")[: mount.depth + 1])
                other = self._rules.find(method, beginning + without_prefix(path, own))
                if other is not None and other is not rule and self._literal_rules.has(other):
                    found.append(other)
        return found

    def _rules_for_possible_readings(self, rule: Rule, method: str, path: str, routed: str) -> list[Rule] | None:
        """Return the rules for the paths that a router may see, or ``None`` if there are too many to try."""
        whole, expected = path[1:].split("/"), routed[1:].split("/")
        taken = len(whole) - len(expected)
        fixed = {taken + at for at in _literal_places(rule.template, len(expected)) if at is not None}
        if not self._literal_rules.touches(segment for at, segment in enumerate(whole) if at not in fixed):
            return []
        if len(whole) > _MOST_SEGMENTS:
            return None
        found: list[Rule] = []
        for before, behind in self._cuts(routed, len(expected), len(whole)):
            reading = [*expected[:before], *whole[behind:]]
            other = self._rules.find(method, "/" + "/".join(reading))
            if other is None or other is rule or other in found or not self._literal_rules.has(other):
                continue
            places = _literal_places(other.template, len(reading))
            origin = (at if at is None else taken + at if at < before else behind + at - before for at in places)
            if any(at is None or at not in fixed for at in origin):
                found.append(other)
        return found

    def _cuts(self, routed: str, expected: int, whole: int) -> list[tuple[int, int]]:
        """Return the readings to try, as pairs.

        A pair is the number of leading segments of the expected path, and the index of the segment of the whole path
        that follows them.
        """
        depths = [mount.depth for mount in self._prefixes.unknown if mount.holds(routed)]
        if not depths:
            return [(0, 0)] if whole != expected else []
        least = min(depths)
        fronts = range(least, min(least + _MOST_BEFORE, expected))
        return [(before, behind) for before in fronts for behind in range(whole)]

    def _join(self, rule: Rule, others: Sequence[Rule]) -> Rule | None:
        """Return a rule with the requirements of *rule* and all *others*, or ``None``, which denies.

        It is ``None`` if a requirement cannot express the combination.
        """
        key = tuple(map(id, (rule, *others)))
        if key not in self._joined:
            if len(self._joined) >= _MOST_JOINED:
                self._joined.clear()
            self._joined[key] = _join_rules(rule, others)
        return self._joined[key]


def _join_rules(rule: Rule, others: Sequence[Rule]) -> Rule | None:
    access, sources, policies = rule.access, rule.sources, rule.policies
    modes = [each.dpop for each in (rule, *others)]
    # None is the mode of the guard, which may require proofs, so that no other mode may replace it.
    dpop = DPoPMode.REQUIRED if DPoPMode.REQUIRED in modes else None if None in modes else modes[0]
    for other in others:
        if other.access is DENIED:
            return other
        sources = join_sources(sources, other.sources) if isinstance(access, Requirement) else other.sources
        if sources is not None and not sources:  # one takes API keys only, the other tokens only
            return None
        if not _covers(access, other.access):
            try:
                access = strictest(access, other.access)
            except ConfigurationError:  # more alternatives than a requirement may have
                return None
        policies += tuple(policy for policy in other.policies if policy not in policies)
    if access == rule.access and policies == rule.policies and dpop == rule.dpop and sources == rule.sources:
        return rule
    source = " and ".join(dict.fromkeys(each.source or each.path for each in (rule, *others)))
    return Rule(rule.path, access, token_sources=sources, source=source, dpop=dpop).with_policies(policies)


def _covers(one: Requirement | Access, other: Requirement | Access) -> bool:
    """Return whether every request that *one* admits satisfies *other* as well."""
    return one == other or (isinstance(one, Requirement) and isinstance(other, Requirement) and _implies(one, other))


def _implies(one: Requirement, other: Requirement) -> bool:
    """Return whether every token that satisfies *one* satisfies *other* as well."""
    return all(any(less <= each for less in other.alternatives) for each in one.alternatives)


class _LiteralRules:
    """The rules that require or deny something and name a segment or a part of one.

    The names are kept in sets, so that most paths are known quickly to have none of them.
    """

    __slots__ = ("_heads", "_ids", "_middles", "_tails", "_whole", "any")

    def __init__(self, rules: Iterable[Rule]) -> None:
        strict = [rule for rule in rules if isinstance(rule.access, Requirement) or rule.access is DENIED]
        named = [rule for rule in strict if any(map(_has_text, rule.template.steps))]
        self._ids = frozenset(map(id, named))
        self.any: bool = bool(named)
        parts = [_parts(step) for rule in named for step in rule.template.steps if _has_text(step)]
        self._whole = frozenset(literals[0] for literals in parts if len(literals) == 1)
        mixed = [literals for literals in parts if len(literals) > 1]
        self._heads = tuple({literals[0] for literals in mixed if literals[0]})
        self._tails = tuple({literals[-1] for literals in mixed if literals[-1]})
        self._middles = frozenset(literals[1] for literals in mixed if not literals[0] and not literals[-1])

    def has(self, rule: Rule) -> bool:
        """Return whether *rule* is one of these rules."""
        return id(rule) in self._ids

    def touches(self, segments: Iterable[str]) -> bool:
        """Return whether a rule may name one of *segments*; true if in doubt."""
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


def _has_text(step: One | Many | Rest) -> bool:
    """Return whether *step* names a segment or a part of one. A final slash names an empty segment."""
    parts = _parts(step)
    return len(parts) == 1 or any(parts)


def _may_differ(rules: Iterable[Rule], named: _LiteralRules, sources: frozenset[TokenSource] | None) -> bool:
    """Return whether a path without some segments may match a rule with another requirement; true if in doubt.

    *sources* are those of rules without sources of their own.
    """
    strict = [rule for rule in rules if named.has(rule)]
    hiding = [rule for rule in rules if not rule.template.literal and rule.access is not DENIED]
    needed, given = {rule.access for rule in strict}, {rule.access for rule in hiding}
    settings = {
        (rule.dpop, kinds_of_credentials(sources if rule.sources is None else rule.sources))
        for rule in (*strict, *hiding)
    }
    if len(settings) > 1 or any(rule.policies for rule in strict):
        return True
    if len(needed) * len(given) <= _MOST_COMPARED and all(_covers(one, other) for one in given for other in needed):
        return False
    lengths = {_length(rule.template) for rule in strict}
    return any(None in lengths or lengths - {length} for length in map(_length, (rule.template for rule in hiding)))


def _length(template: Template) -> int | None:
    """Return the number of segments that *template* matches, or ``None`` if it varies."""
    return len(template.steps) if all(isinstance(step, One) for step in template.steps) else None


def _literal_places(template: Template, length: int) -> list[int | None]:
    """Return the indexes of the segments that *template* names, in a path with *length* segments.

    A segment whose place varies has ``None`` in place of its index.
    """
    steps = template.steps
    varies = next((at for at, step in enumerate(steps) if not isinstance(step, One)), len(steps))
    is_open = isinstance(steps[-1], Rest)
    return [
        at if at < varies else None if is_open else length - len(steps) + at
        for at, step in enumerate(steps)
        if _has_text(step)
    ]
