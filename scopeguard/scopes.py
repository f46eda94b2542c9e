"""Scopes, and the requirements of routes.

Scopes are compared as a whole. RFC 6749 section 3.3: they are "expressed as a list of space-delimited, case-sensitive
strings". Separators in a scope (``rows.read``, ``rows:read``) have no meaning: that ``cloud-platform`` includes
``bigquery`` must be configured (``implies``).

A :class:`Requirement` is a set of alternatives, each a set of scopes that a token must have. ``all_of``, ``any_of``,
``|`` and ``&`` build it. One requirement is used for the check, the challenge and the documentation of a route.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from scopeguard.errors import ConfigurationError

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). Always with ``fullmatch``: "$" also matches
# before a line feed.
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")

# A vocabulary caches the effective scopes of this many lists of granted scopes, and of lists of this length at most.
_MAX_CACHED: Final = 256
_MAX_CACHED_LENGTH: Final = 1024

# More alternatives than real APIs need. ``(a|b) & (c|d) & ...`` doubles their number with each term.
_MAX_ALTERNATIVES: Final = 1024


def check_scope(scope: str, setting: str) -> str:
    """Return *scope* if it is one scope token. Otherwise raise :class:`ConfigurationError` that names *setting*."""
    if not isinstance(scope, str):
        raise ConfigurationError(f"{setting}: a scope is a string, not {type(scope).__name__}")
    if " " in scope:
        raise ConfigurationError(f"{setting}: {scope!r} holds several scopes; pass each as its own argument")
    if not _SCOPE_TOKEN.fullmatch(scope):
        raise ConfigurationError(
            f"{setting}: {scope!r} is not a scope: RFC 6749 section 3.3 requires at least one character, and allows "
            "printable ASCII without space, quote and backslash"
        )
    return scope


def is_scope(text: object) -> bool:
    """Return whether *text* is one scope token (RFC 6749 section 3.3)."""
    return isinstance(text, str) and _SCOPE_TOKEN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Requirement:
    """The scopes that a route requires: all scopes of any one of ``alternatives``.

    Build it with :func:`all_of`, :func:`any_of` and the operators ``&`` and ``|``; strings are scopes::

        all_of("rows.read", "rows.write")           # both
        any_of("rows.read", "admin")                # at least one
        all_of("rows.read") & "billing" | "admin"   # both, or admin alone

    * ``alternatives``: sets of scopes. Requirements are equal if these are equal.
    * ``first``: the scopes of the first alternative, in the order in which the challenge names them.

    Raises :class:`ConfigurationError` for a string that is not one scope, for no alternatives (no token could satisfy
    the requirement), and for an alternative without scopes among others (any token would satisfy it). For a route
    that needs a valid token and no scope, use :data:`AUTHENTICATED`.
    """

    alternatives: tuple[frozenset[str], ...]
    first: tuple[str, ...] = field(compare=False)

    def __post_init__(self) -> None:
        if not self.alternatives:
            raise ConfigurationError("a requirement needs at least one scope; use AUTHENTICATED to require none")
        if len(self.alternatives) > _MAX_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MAX_ALTERNATIVES} alternatives; simplify it")
        if not all(self.alternatives) and self.alternatives != (frozenset(),):
            raise ConfigurationError("an alternative without a scope admits any token; use AUTHENTICATED alone")
        for scope in self.scopes:
            check_scope(scope, "a requirement")  # no token could contain anything else, and no challenge name it
        if frozenset(self.first) != self.alternatives[0]:
            raise ConfigurationError("a requirement: first must list the scopes of the first alternative")

    def allows(self, scopes: frozenset[str]) -> bool:
        """Return whether *scopes* satisfy this requirement: :attr:`AccessToken.scopes <scopeguard.AccessToken>`.

        No implication is applied here: the scopes of a token already include the implied ones.
        """
        for needed in self.alternatives:  # noqa: SIM110 - any() over a generator takes four times as long
            if needed <= scopes:
                return True
        return False

    @property
    def challenge_scopes(self) -> tuple[str, ...]:
        """The scopes that a challenge names: those of the first alternative, in the order in which they were written.

        RFC 6750 section 3: "The "scope" attribute MUST NOT appear more than once", and it has no syntax for
        alternatives.
        """
        return self.first

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of all alternatives."""
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
"""The requirement of a valid access token, whatever its scopes."""


def _to_requirement(item: Requirement | str, setting: str) -> Requirement:
    if isinstance(item, Requirement):
        return item
    scope = check_scope(item, setting)
    if scope == "offline_access":
        warnings.warn(
            "offline_access asks an authorization server for a refresh token; it does not describe what a token may do "
            "at an API, and a challenge should not name it: require another scope",
            stacklevel=3,
        )
    return Requirement(alternatives=(frozenset((scope,)),), first=(scope,))


def _without_duplicates(alternatives: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    return tuple(dict.fromkeys(alternatives))


def all_of(*items: Requirement | str) -> Requirement:
    """Return the requirement of all *items*, which are scopes or requirements: ``all_of("rows.read", "billing")``.

    Each scope is an argument of its own. Raises :class:`ConfigurationError` without arguments, and for a string that is
    not one scope.
    """
    if not items:
        raise ConfigurationError("all_of() needs at least one scope; use AUTHENTICATED to require none")
    parts = [_to_requirement(item, "all_of") for item in items]
    if len(parts) == 1:
        return parts[0]
    alternatives: tuple[frozenset[str], ...] = (frozenset(),)
    for part in parts:
        if len(alternatives) * len(part.alternatives) > _MAX_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MAX_ALTERNATIVES} alternatives; simplify it")
        alternatives = _without_duplicates(left | right for left in alternatives for right in part.alternatives)
    return Requirement(alternatives=alternatives, first=tuple(dict.fromkeys(s for part in parts for s in part.first)))


def any_of(*items: Requirement | str) -> Requirement:
    """Return the requirement of at least one of *items*, which are scopes or requirements.

    ``any_of("rows.read", "admin")``: the challenge names the scopes of the first item. Raises
    :class:`ConfigurationError` without arguments, for a string that is not one scope, and for :data:`AUTHENTICATED`
    among other items, which would have no effect.
    """
    if not items:
        raise ConfigurationError("any_of() needs at least one scope; without one, it would deny every token")
    parts = [_to_requirement(item, "any_of") for item in items]
    if len(parts) > 1 and AUTHENTICATED in parts:
        raise ConfigurationError("any_of(AUTHENTICATED, ...) admits any token; use AUTHENTICATED alone")
    return Requirement(
        alternatives=_without_duplicates(a for part in parts for a in part.alternatives), first=parts[0].first
    )


def require(*items: Requirement | str) -> Requirement:
    """Return the requirement that ``requires(*items)`` states in every adapter: all of *items*.

    Raises :class:`ConfigurationError` as :func:`all_of` does.
    """
    if not items:
        raise ConfigurationError("requires() needs at least one scope; use requires(AUTHENTICATED) to require none")
    return all_of(*(_to_requirement(item, "requires") for item in items))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeVocabulary:
    """How the granted scopes of one issuer are interpreted.

    * *prefix*: ``https://www.googleapis.com/auth/`` makes ``bigquery`` and
      ``https://www.googleapis.com/auth/bigquery`` the same scope, in tokens and in requirements.
    * *implies*: with ``{"cloud-platform": ["bigquery"]}``, a token with the first scope satisfies a route that requires
      the second. Implications are transitive. They extend the scopes of a token, never a requirement.
    """

    prefix: str = ""
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _closure: Mapping[str, frozenset[str]] = field(init=False, repr=False)
    # Effective scopes by granted scopes. Only verified tokens fill it; most have the same few lists of scopes.
    _known: dict[tuple[str, ...], frozenset[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

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
        found = self._known.get(given)
        if found is None:
            found = self._expand(given)
            if len(given) <= _MAX_CACHED_LENGTH:
                if len(self._known) >= _MAX_CACHED:
                    self._known.clear()
                self._known[given] = found
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
