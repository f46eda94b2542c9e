"""Scopes, and what a route requires of them.

A scope is compared whole and case-sensitively (RFC 6749 section 3.3). No hierarchy is read from separators: that
``cloud-platform`` includes ``bigquery`` is something an operator declares (``implies``), never something guessed.

A :class:`Requirement` is a value: alternatives, each a set of scopes that must all be there. ``all_of``, ``any_of``,
``|`` and ``&`` build it. One object serves the check, the challenge and the documentation of a route.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from scopeguard.errors import ConfigurationError

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). ``fullmatch`` only: "$" would let a line feed
# pass.
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")

# Lists of scopes of which a vocabulary remembers what they come to, and how long such a list may be.
_MOST_KNOWN: Final = 256
_LONGEST_KNOWN: Final = 1024

# More alternatives than any real contract has; a guard against ``(a|b) & (c|d) & ...`` growing without end.
_MOST_ALTERNATIVES: Final = 1024


def checked_scope(scope: str, setting: str) -> str:
    """*scope* itself if it is one scope token, else :class:`ConfigurationError` naming *setting*."""
    if not isinstance(scope, str):
        raise ConfigurationError(f"{setting}: a scope is a string, not {type(scope).__name__}")
    if " " in scope:
        raise ConfigurationError(f"{setting}: {scope!r} holds several scopes; pass each as its own argument")
    if not _SCOPE_TOKEN.fullmatch(scope):
        raise ConfigurationError(
            f"{setting}: {scope!r} is not a scope: RFC 6749 section 3.3 allows printable ASCII without space, quote "
            "and backslash, and at least one character"
        )
    return scope


def is_scope(text: object) -> bool:
    """Whether *text* is one scope token."""
    return isinstance(text, str) and _SCOPE_TOKEN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an access token must carry: any one of ``alternatives``, and all scopes of that one.

    Build it with :func:`all_of`, :func:`any_of` and the operators; the constructor is for those who already hold
    alternatives. An empty set of alternatives is refused (it would mean "nobody"), and so is an empty alternative
    (it would mean "anybody"): say :data:`AUTHENTICATED` for a route that needs a valid token and no scope.
    """

    alternatives: tuple[frozenset[str], ...]
    # The order in which the operator wrote the first alternative: what the challenge shows.
    first: tuple[str, ...] = field(compare=False)

    def __post_init__(self) -> None:
        if not self.alternatives:
            raise ConfigurationError("a requirement needs at least one scope; use AUTHENTICATED to require none")
        if len(self.alternatives) > _MOST_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MOST_ALTERNATIVES} alternatives; simplify it")
        if not all(self.alternatives) and self.alternatives != (frozenset(),):
            raise ConfigurationError("an alternative without a scope lets any token through; use AUTHENTICATED alone")
        for scope in self.scopes:
            checked_scope(scope, "a requirement")  # a challenge could not name it, and no token could carry it
        if frozenset(self.first) != self.alternatives[0]:
            raise ConfigurationError("a requirement: first lists the scopes of the first alternative, in order")

    def allows(self, scopes: frozenset[str]) -> bool:
        """Whether *scopes*, the effective scopes of a token, satisfy this requirement."""
        for needed in self.alternatives:  # noqa: SIM110 - any() over a generator takes four times as long
            if needed <= scopes:
                return True
        return False

    @property
    def challenge_scopes(self) -> tuple[str, ...]:
        """The scopes that a challenge names: all of the first alternative, in the order written."""
        return self.first

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that occurs in any alternative."""
        return frozenset().union(*self.alternatives)

    def __or__(self, other: Requirement | str) -> Requirement:
        return any_of(self, other)

    def __ror__(self, other: str) -> Requirement:
        return any_of(other, self)

    def __and__(self, other: Requirement | str) -> Requirement:
        return all_of(self, other)

    def __rand__(self, other: str) -> Requirement:
        return all_of(other, self)

    def __repr__(self) -> str:
        if not self.alternatives[0]:
            return "AUTHENTICATED"
        shown = [
            repr(next(iter(scopes))) if len(scopes) == 1 else f"all_of({', '.join(map(repr, sorted(scopes)))})"
            for scopes in self.alternatives
        ]
        if len(shown) > 1:
            return f"any_of({', '.join(shown)})"
        return shown[0] if shown[0].startswith("all_of") else f"all_of({shown[0]})"


AUTHENTICATED: Final = Requirement(alternatives=(frozenset(),), first=())
"""A valid access token, whatever its scopes."""


def _single(item: Requirement | str, setting: str) -> Requirement:
    if isinstance(item, Requirement):
        return item
    scope = checked_scope(item, setting)
    if scope == "offline_access":  # asks for a refresh token; no API requires it
        warnings.warn(
            "offline_access asks an authorization server for a refresh token; it says nothing about what a token may "
            "do at an API, and a challenge should not name it: require another scope",
            stacklevel=3,
        )
    return Requirement(alternatives=(frozenset((scope,)),), first=(scope,))


def _unique(alternatives: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    return tuple(dict.fromkeys(alternatives))


def all_of(*items: Requirement | str) -> Requirement:
    """Every one of *items*: scopes or requirements. Raises :class:`ConfigurationError` when empty."""
    if not items:
        raise ConfigurationError("all_of() needs at least one scope; use AUTHENTICATED to require none")
    parts = [_single(item, "all_of") for item in items]
    if len(parts) == 1:
        return parts[0]
    alternatives: tuple[frozenset[str], ...] = (frozenset(),)
    for part in parts:
        if len(alternatives) * len(part.alternatives) > _MOST_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MOST_ALTERNATIVES} alternatives; simplify it")
        alternatives = _unique(left | right for left in alternatives for right in part.alternatives)
    return Requirement(alternatives=alternatives, first=tuple(dict.fromkeys(s for part in parts for s in part.first)))


def any_of(*items: Requirement | str) -> Requirement:
    """At least one of *items*: scopes or requirements. Raises :class:`ConfigurationError` when empty."""
    if not items:
        raise ConfigurationError("any_of() of nothing allows nobody; name at least one scope")
    parts = [_single(item, "any_of") for item in items]
    if len(parts) > 1 and AUTHENTICATED in parts:
        raise ConfigurationError("any_of(AUTHENTICATED, ...) lets any token through; use AUTHENTICATED alone")
    return Requirement(alternatives=_unique(a for part in parts for a in part.alternatives), first=parts[0].first)


def required(*items: Requirement | str) -> Requirement:
    """What ``requires(...)`` means in every adapter: all of *items*; no item is a :class:`ConfigurationError`."""
    if not items:
        raise ConfigurationError("requires() needs at least one scope; use requires(AUTHENTICATED) to require none")
    return all_of(*(_single(item, "requires") for item in items))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeVocabulary:
    """How the scopes granted by one issuer are read: a prefix that may be left out, and what includes what.

    *prefix*: ``https://www.googleapis.com/auth/`` makes ``bigquery`` and ``https://www.googleapis.com/auth/bigquery``
    the same scope, in the token and in the requirement alike.
    *implies*: ``{"cloud-platform": ["bigquery"]}`` lets a token with the first satisfy a route that needs the second;
    closed transitively at construction. It is applied to what the token grants, never to what a route asks.
    """

    prefix: str = ""
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _closure: Mapping[str, frozenset[str]] = field(init=False, repr=False)
    # What the same few lists of scopes come to. Filled with what verified tokens grant, by those who judge them.
    _known: dict[tuple[str, ...], frozenset[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.prefix != "":
            checked_scope(self.prefix, "scope_prefix")
        implies = _checked_implies(self.implies)
        object.__setattr__(self, "implies", implies)
        direct: dict[str, set[str]] = {}
        for scope, implied in implies.items():
            direct.setdefault(self._short(scope), set()).update(map(self._short, implied))
        object.__setattr__(self, "_closure", {scope: frozenset(_reachable(scope, direct)) for scope in direct})

    def _short(self, scope: str) -> str:
        short = scope.removeprefix(self.prefix) if self.prefix else scope
        # A URL is nobody's short name: "https://mail.google.com/" stays as it is.
        return scope if not short or "://" in short else short

    def effective(self, granted: Iterable[str]) -> frozenset[str]:
        """*granted* with everything it implies, each in both spellings of the prefix."""
        given = tuple(granted)
        found = self._known.get(given)
        if found is None:
            found = self._extended(given)
            if len(given) <= _LONGEST_KNOWN:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[given] = found
        return found

    def _extended(self, granted: tuple[str, ...]) -> frozenset[str]:
        names = {self._short(scope) for scope in granted}
        for scope in tuple(names):
            names |= self._closure.get(scope, frozenset())
        if self.prefix:
            long = {self.prefix + scope for scope in names if "://" not in scope}
            # Where the prefix stood twice, what is left of it is not the long form of another scope.
            names = {scope for scope in names if self._short(scope) == scope} | long
        return frozenset(names)

    def with_implications(self, implies: Mapping[str, Iterable[str]]) -> Self:
        """This vocabulary with the API's own implications added."""
        merged = dict(_checked_implies(self.implies))
        for scope, implied in _checked_implies(implies).items():
            merged[scope] = (*merged.get(scope, ()), *implied)
        return type(self)(prefix=self.prefix, implies=merged)


def _checked_implies(implies: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(implies, Mapping):
        raise ConfigurationError('implies: write which scope includes which, as in {"write": ["read"]}')
    checked: dict[str, tuple[str, ...]] = {}
    for scope, implied in implies.items():
        if isinstance(implied, str | Mapping) or not isinstance(implied, Iterable):
            raise ConfigurationError(f"implies[{scope!r}]: write a list of scopes, as in ['read']")
        checked[checked_scope(scope, "implies")] = tuple(checked_scope(item, f"implies[{scope!r}]") for item in implied)
    return checked


def _reachable(start: str, direct: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(direct[start])
    while todo:
        scope = todo.pop()
        if scope not in seen:
            seen.add(scope)
            todo.extend(direct.get(scope, ()))
    return seen
