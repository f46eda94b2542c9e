"""Which scopes imply others: the setting ``implies``, and the set of scopes that a token has with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from scopeguard.errors import ConfigurationError
from scopeguard.scopes import check_scope

# How many lists of granted scopes a vocabulary caches, and the greatest length of such a list.
_MAX_CACHED: Final = 256
_MAX_CACHED_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ScopeVocabulary:
    """The interpretation of the scopes that one issuer grants.

    * *prefix*: ``https://www.googleapis.com/auth/`` makes ``bigquery`` and
      ``https://www.googleapis.com/auth/bigquery`` the same scope, in tokens and in requirements.
    * *implies*: with ``{"cloud-platform": ["bigquery"]}``, a token with the first scope satisfies a route that requires
      the second. Implications are transitive. They extend the scopes of a token, never a requirement.
    """

    prefix: str = ""
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _closure: Mapping[str, frozenset[str]] = field(init=False)
    # Effective scopes by granted scopes. Only verified tokens fill it; most have the same few lists of scopes.
    _cache: dict[tuple[str, ...], frozenset[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.prefix != "":
            check_scope(self.prefix, "scope_prefix")
        implies = _check_implies(self.implies)
        object.__setattr__(self, "implies", implies)
        direct: dict[str, set[str]] = {}
        for scope, implied in implies.items():
            direct.setdefault(self._short(scope), set()).update(map(self._short, implied))
        object.__setattr__(self, "_closure", {scope: frozenset(_find_implied(scope, direct)) for scope in direct})

    def _short(self, scope: str) -> str:
        short = scope.removeprefix(self.prefix) if self.prefix else scope
        # A URL is not a short name: "https://mail.google.com/" stays as it is.
        return scope if not short or "://" in short else short

    def effective(self, granted: Iterable[str]) -> frozenset[str]:
        """Return *granted* and all scopes that it implies, each with and without the prefix."""
        given = tuple(granted)
        found = self._cache.get(given)
        if found is None:
            found = self._expand(given)
            if len(given) <= _MAX_CACHED_LENGTH:
                if len(self._cache) >= _MAX_CACHED:
                    self._cache.clear()
                self._cache[given] = found
        return found

    def _expand(self, granted: tuple[str, ...]) -> frozenset[str]:
        names = {self._short(scope) for scope in granted}
        for scope in tuple(names):
            names |= self._closure.get(scope, frozenset())
        if self.prefix:
            long = {self.prefix + scope for scope in names if "://" not in scope}
            # The short form of a scope with the prefix twice begins with the prefix, and would name another scope.
            names = {scope for scope in names if self._short(scope) == scope} | long
        return frozenset(names)

    def with_implications(self, implies: Mapping[str, Iterable[str]]) -> Self:
        """Return a vocabulary with the implications of the API, *implies*, added to those of the issuer."""
        merged = dict(_check_implies(self.implies))
        for scope, implied in _check_implies(implies).items():
            merged[scope] = (*merged.get(scope, ()), *implied)
        return type(self)(prefix=self.prefix, implies=merged)


def _check_implies(implies: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(implies, Mapping):
        raise ConfigurationError('implies: must map scopes to the scopes that they include, as in {"write": ["read"]}')
    checked: dict[str, tuple[str, ...]] = {}
    for scope, implied in implies.items():
        if isinstance(implied, str | Mapping) or not isinstance(implied, Iterable):
            raise ConfigurationError(f"implies[{scope!r}]: must be a list of scopes, as in ['read']")
        checked[check_scope(scope, "implies")] = tuple(check_scope(item, f"implies[{scope!r}]") for item in implied)
    return checked


def _find_implied(start: str, direct: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(direct[start])
    while todo:
        scope = todo.pop()
        if scope not in seen:
            seen.add(scope)
            todo.extend(direct.get(scope, ()))
    return seen
