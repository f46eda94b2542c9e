"""Paths with and without a final slash, such as ``/items`` and ``/items/``.

To a rule they are two paths. To many frameworks they are one. So a rule that matches only one spelling must not open a
path whose other spelling an earlier rule protects.
"""

from __future__ import annotations

from collections.abc import Sequence

from scopeguard.config.token_sources import kinds_of_credentials
from scopeguard.rules.rule import DENIED, Rule
from scopeguard.scopes import Requirement


def other_spelling(segments: Sequence[str]) -> Sequence[str]:
    """Return the segments of the same path with its final slash, or without it."""
    return (*segments, "") if segments[-1] else segments[:-1]


def hides(rule: Rule, first: Rule) -> bool:
    """Return whether *rule* would override *first*, an earlier rule that matches the path with the other spelling."""
    return (
        (isinstance(first.access, Requirement) or first.access is DENIED)
        and (first.access, first.policies, first.dpop, kinds_of_credentials(first.sources))
        != (rule.access, rule.policies, rule.dpop, kinds_of_credentials(rule.sources))
        # Rules for both spellings are intended, so neither is an oversight.
        and first.template.shape.rstrip("/") != rule.template.shape.rstrip("/")
    )


def find_slash_conflicts(rules: Sequence[Rule]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the rules that may hide an earlier one, for paths without and with a final slash.

    These are rules with parameters after a rule that needs something else and matches the other spelling. Only they
    need a second look-up.
    """
    hiding: tuple[set[int], set[int]] = (set(), set())
    needed: tuple[set[object], set[object]] = (set(), set())  # for paths without a final slash, and with one
    for index, rule in enumerate(rules):
        template, access = rule.template, rule.access
        policies = tuple((id(policy.decide), policy.route) for policy in rule.policies)
        wanted = (access, rule.dpop, policies, kinds_of_credentials(rule.sources))
        if not template.literal:
            for kind, matches, others in ((0, template.bare, needed[1]), (1, template.slashed, needed[0])):
                if matches and len(others) > (wanted in others):
                    hiding[kind].add(index)
        if isinstance(access, Requirement) or access is DENIED:
            for kind, matches in ((0, template.bare), (1, template.slashed)):
                if matches:
                    needed[kind].add(wanted)
    return frozenset(hiding[0]), frozenset(hiding[1])
