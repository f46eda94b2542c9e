"""Find the rule that is nearest to a request that no rule allows. The log line about the request names it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.rules.rule import DENIED, Rule
from scopeguard.rules.rules import Rules
from scopeguard.rules.template_syntax import One, Step

_MOST_RULES: Final = 500
_MOST_SEGMENTS: Final = 10
_MOST_CHARACTERS: Final = 64
_MOST_MISSPELT: Final = 2
_FAR: Final = 1e9


def describe_nearest(rules: Iterable[Rules], method: str, path: str) -> dict[str, str]:
    """Return facts about the rule that is nearest to a request: ``denied_by``, or ``nearest`` and how it ``differs``.

    Empty if nothing resembles the path. The work is bounded: only the first 500 rules and paths of up to ten segments
    are compared.
    """
    asked = tuple(rules)
    for found in asked:
        rule = found.find(method, path)
        if rule is not None and rule.access is DENIED:
            return {"denied_by": _describe(rule)}
    candidates = [rule for found in asked for rule in found.all[:_MOST_RULES] if rule.access is not DENIED]
    for other in sorted({name for rule in candidates for name in rule.methods or ()}):
        rule = next((rule for found in asked if (rule := found.find(other, path)) in candidates), None)
        if rule is not None:
            return {"nearest": _describe(rule), "differs": "the method"}
    segments = path[1 : _MOST_SEGMENTS * _MOST_CHARACTERS].split("/")
    costs = [(_cost(rule.template.steps, segments), at) for at, rule in enumerate(candidates)]
    cost, at = min(costs, default=(_FAR, 0))
    if cost >= _FAR:
        return {}
    nearest = candidates[at]
    differs = {"differs": "the final slash"} if nearest.path.rstrip("/") == path.rstrip("/") else {}
    return {"nearest": _describe(nearest), **differs}


def _describe(rule: Rule) -> str:
    names = set(rule.methods or ())
    shown = names - {"HEAD"} if "GET" in names else names  # GET includes HEAD
    return f"{','.join(sorted(shown)) or '*'} {rule.path}"


def _cost(steps: Sequence[Step], segments: Sequence[str]) -> float:
    """Return how much *segments* differ from a template with *steps*: one for each segment too many, too few or wrong.

    The result is ``_FAR`` if no literal segment resembles its counterpart, or if more than half of the segments differ.
    """
    length = max(len(steps), len(segments))
    if length > _MOST_SEGMENTS or abs(len(steps) - len(segments)) * 2 > length:
        return _FAR
    # The edit distance of two lists. The second item is 0 if a literal segment resembles its counterpart, else 1.
    row = [(float(at), 1) for at in range(len(segments) + 1)]
    for step in steps:
        above, row = row, [(row[0][0] + 1, 1)]
        for at, segment in enumerate(segments):
            difference, unlike = _difference(step, segment)
            cost, was_unlike = above[at]
            row.append(
                min(
                    (cost + difference, min(was_unlike, unlike)),
                    (above[at + 1][0] + 1, above[at + 1][1]),
                    (row[at][0] + 1, row[at][1]),
                )
            )
    cost, unlike = row[-1]
    return _FAR if unlike or cost * 2 > length else cost


def _difference(step: Step, segment: str) -> tuple[float, int]:
    """Return the difference of *segment* from *step*, from 0 to 1; and 0 if it resembles a literal *step*, else 1."""
    if not isinstance(step, One) or not step.is_literal:
        return (0.1, 1) if segment else (1.0, 1)
    literal = step.literals[0]
    if literal == segment:
        return (0.0, 0) if literal else (0.0, 1)
    if literal.casefold() == segment.casefold():
        return 0.1, 0
    return (0.3, 0) if _is_misspelt(literal, segment) else (1.0, 1)


def _is_misspelt(one: str, other: str) -> bool:
    """Return whether two texts, both longer than two characters, differ by at most two characters in one place."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > _MOST_MISSPELT or len(short) <= _MOST_MISSPELT or len(long) > _MOST_CHARACTERS:
        return False
    before = next((at for at, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    rest = len(short) - before
    behind = next((at for at in range(rest) if short[-1 - at] != long[-1 - at]), rest)
    return len(long) - before - behind <= _MOST_MISSPELT
