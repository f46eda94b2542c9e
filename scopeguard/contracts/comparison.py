"""Compare a contract with an app, other rules or another document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias

from scopeguard.config.checks import items
from scopeguard.contracts.contract import Contract, Undeclared
from scopeguard.contracts.openapi_document import openapi
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, Access, Rule, Rules
from scopeguard.rules.template_syntax import sample_path
from scopeguard.scopes import AUTHENTICATED, Requirement

# Fills the parameters of a template to look its rule up. No literal segment is likely to equal it.
_SAMPLE: Final = "~some~value~"
_ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")


class HasDocument(Protocol):
    """An app with an ``openapi`` method, such as a FastAPI app."""

    def openapi(self) -> Mapping[str, Any]: ...


Comparable: TypeAlias = Contract | Rules | Iterable[Rule] | Mapping[str, Any] | HasDocument
"""A contract, rules, a parsed OpenAPI document, or an app that has one.

In a document and in an app, operations without declared security count as public.
"""


class DifferenceKind(StrEnum):
    """How the second description differs from the first."""

    MISSING = "missing"  # only the first allows the operation
    EXTRA = "extra"  # only the second allows the operation
    DIFFERENT = "different"  # both allow it, with different requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference.

    * ``kind``: the kind of the difference.
    * ``method``, ``path``: the operation. *path* is a template.
    * ``expected``: the access in the first description.
    * ``found``: the access in the second description.
    * ``source``: the place that declares the rule, if it is known.
    """

    kind: DifferenceKind
    method: str
    path: str
    expected: Requirement | Access
    found: Requirement | Access
    source: str | None

    def __str__(self) -> str:
        found = f"{describe(self.expected)} is expected, {describe(self.found)} is found"
        return f"{self.kind.value}: {self.method} {self.path}: {found}" + (f" ({self.source})" if self.source else "")


def compare(first: Comparable, second: Comparable) -> tuple[Difference, ...]:
    """Return the differences between *first* and *second* in the order of their rules.

    The result is empty if both allow the same operations to the same tokens. Each description decides about the
    operations of the other, so their rules may be divided differently. Names of parameters do not matter. Token sources
    are not compared, and neither are paths that differ only for some values of a parameter.

    Raises :class:`ConfigurationError` as :func:`openapi` does. If a document needs settings, pass the result of that
    function.
    """
    one, other = _rules(first, "first"), _rules(second, "second")
    found = _differences(one, other, DifferenceKind.MISSING)
    extra = {key: _swap(difference) for key, difference in _differences(other, one, DifferenceKind.EXTRA).items()}
    return (*found.values(), *(difference for key, difference in extra.items() if key not in found))


def _rules(given: Any, argument: str) -> Rules:
    match given:
        case Rules():
            return given
        case Contract():
            return Rules(given.rules)
        case Mapping():
            return Rules(openapi(given, undeclared=Undeclared.PUBLIC).rules)
        case Iterable() if not isinstance(given, str | bytes):
            return Rules(items(given, argument, "a list of Rule", Rule))
    document = getattr(given, "openapi", None)
    if not callable(document):
        raise ConfigurationError(
            f"compare: {argument}: a {type(given).__name__} describes no API; give a contract, rules, a parsed "
            "document or an app"
        )
    return _rules(document(), argument)


def _differences(one: Rules, other: Rules, kind: DifferenceKind) -> dict[tuple[str, str], Difference]:
    """Return the decisions of *other* that differ from those of *one*, by method and sample path.

    *kind* is the kind of a difference if *other* denies the operation.
    """
    found: dict[tuple[str, str], Difference] = {}
    for rule, method in [(each, method) for each in one.all for method in _methods(each)]:
        sample = sample_path(rule.path, _SAMPLE)
        answer = other.find(method, sample)
        access = DENIED if answer is None else answer.access
        if rule.access is DENIED or _same(rule.access, access):
            continue  # found by the comparison in the other direction
        if one.find(method, sample) is rule:
            found[method, sample] = Difference(
                kind=kind if access is DENIED else DifferenceKind.DIFFERENT,
                method=method,
                path=rule.path,
                expected=rule.access,
                found=access,
                source=rule.source,
            )
    return found


def _swap(difference: Difference) -> Difference:
    return replace(difference, expected=difference.found, found=difference.expected)


def _methods(rule: Rule) -> list[str]:
    if rule.methods is None:
        return list(_ANY_METHOD)
    methods = sorted(rule.methods)
    return [method for method in methods if method != "HEAD" or "GET" not in methods]  # a rule for GET covers HEAD


def _same(one: Requirement | Access, other: Requirement | Access) -> bool:
    if isinstance(one, Requirement) and isinstance(other, Requirement):
        return frozenset(one.alternatives) == frozenset(other.alternatives)
    return one is other


def describe(access: Requirement | Access) -> str:
    """Return a short description of *access*."""
    if isinstance(access, Access):
        return access.value
    if access == AUTHENTICATED:
        return "any valid token"
    return " or ".join(map(" and ".join, access.terms))
