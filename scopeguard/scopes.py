"""Scopes, and the requirements of routes.

Scopes are compared as a whole. RFC 6749 section 3.3: they are "expressed as a list of space-delimited, case-sensitive
strings". Separators in a scope (``rows.read``, ``rows:read``) have no meaning: that ``cloud-platform`` includes
``bigquery`` must be configured (``implies``).

A :class:`Requirement` is a set of alternatives, each a set of scopes and conditions that a token must satisfy.
``all_of``, ``any_of``, ``|`` and ``&`` build it. One requirement is used for the check, the challenge and the
documentation of a route.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from scopeguard.conditions import Condition
from scopeguard.errors import AccessDenied, ConfigurationError, InsufficientScope, InsufficientUserAuthentication
from scopeguard.tokens import AccessToken

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). Use ``fullmatch``, because "$" also matches before
# a line feed.
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")

# More alternatives than real APIs need. ``(a|b) & (c|d) & ...`` doubles their number with each term.
_MAX_ALTERNATIVES: Final = 1024


def check_scope(scope: str, setting: str) -> str:
    """Return *scope* if it is one scope token. Otherwise raise :class:`ConfigurationError` that names *setting*."""
    if not isinstance(scope, str):
        raise ConfigurationError(f"{setting}: a scope must be a string, not {type(scope).__name__}{_fix(scope)}")
    if " " in scope:
        raise ConfigurationError(f"{setting}: {scope!r} holds several scopes; pass each as its own argument")
    if not _SCOPE_TOKEN.fullmatch(scope):
        raise ConfigurationError(
            f"{setting}: {scope!r} is not a scope: RFC 6749 section 3.3 requires at least one character, and allows "
            "printable ASCII without space, quote and backslash"
        )
    return scope


def _fix(value: object) -> str:
    """Return a hint about *value*, which was given as a scope, for the end of a message."""
    if isinstance(value, list | tuple | set | frozenset):
        return "; pass each as its own argument"
    if callable(value):
        return '; a decorator needs its scopes in parentheses, as in @requires("read")'
    if hasattr(value, "headers"):  # a framework called it as if it were the hook or the authentication
        return '; it was called with the request: write the scopes in parentheses first, as in requires("read")'
    return ""


def is_scope(text: object) -> bool:
    """Return whether *text* is one scope token (RFC 6749 section 3.3)."""
    return isinstance(text, str) and _SCOPE_TOKEN.fullmatch(text) is not None


def scopes_in(alternative: frozenset[str | Condition]) -> frozenset[str]:
    """Return the scopes of one alternative of a requirement."""
    return frozenset(item for item in alternative if isinstance(item, str))


def conditions_in(alternative: frozenset[str | Condition]) -> frozenset[Condition]:
    """Return the conditions of one alternative of a requirement."""
    return frozenset(item for item in alternative if isinstance(item, Condition))


def _check_kinds(alternatives: object, first: object) -> None:
    """Raise :class:`ConfigurationError` unless these are the kinds of values that a :class:`Requirement` compares."""
    # A string in place of a set would be a set of characters, and a list could be changed later.
    if not isinstance(alternatives, tuple) or not all(isinstance(item, frozenset) for item in alternatives):
        raise ConfigurationError("a requirement: alternatives must be a tuple of frozensets; use all_of() and any_of()")
    for item in frozenset().union(*alternatives):
        if not isinstance(item, str | Condition):
            raise ConfigurationError(f"a requirement: {type(item).__name__} is neither a scope nor a condition")
    if not isinstance(first, tuple) or not all(isinstance(scope, str) for scope in first):
        raise ConfigurationError("a requirement: first must be a tuple of scopes")


@dataclass(frozen=True, slots=True)
class Requirement:
    """The requirement of a route for an access token: all scopes and conditions of any one of ``alternatives``.

    Build it with :func:`all_of`, :func:`any_of` and the operators ``&`` and ``|``; strings are scopes::

        all_of("rows.read", "rows.write")           # both
        any_of("rows.read", "admin")                # at least one
        all_of("rows.read") & "billing" | "admin"   # both, or admin alone
        all_of("payments", USER)                    # the scope, in the token of a user

    * ``alternatives``: sets of scopes and of objects such as :data:`USER <scopeguard.USER>`
      (:class:`~scopeguard.Condition`). Requirements are equal if these are equal.
    * ``first``: the scopes of the first alternative, in the order in which the challenge names them.

    Raises :class:`ConfigurationError` for a string that is not one scope, for no alternatives (no token could satisfy
    the requirement), and for an empty alternative among others (any token would satisfy it). For a route that needs a
    valid token and nothing else, use :data:`AUTHENTICATED`.
    """

    alternatives: tuple[frozenset[str | Condition], ...]
    first: tuple[str, ...] = field(compare=False)

    def __post_init__(self) -> None:
        _check_kinds(self.alternatives, self.first)
        if not self.alternatives:
            raise ConfigurationError("a requirement needs at least one scope; use AUTHENTICATED to require none")
        if len(self.alternatives) > _MAX_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MAX_ALTERNATIVES} alternatives; simplify it")
        if not all(self.alternatives) and self.alternatives != (frozenset(),):
            raise ConfigurationError("an alternative without a scope admits any token; use AUTHENTICATED alone")
        for scope in self.scopes:
            check_scope(scope, "a requirement")  # no token and no challenge can contain anything else
        if frozenset(self.first) != scopes_in(self.alternatives[0]):
            raise ConfigurationError("a requirement: first must list the scopes of the first alternative")

    def allows(self, scopes: frozenset[str]) -> bool:
        """Return whether *scopes*, those of an access token, satisfy this requirement.

        ``requirement.allows(token.scopes)``: the scopes of a token include those that they imply, so no implication is
        applied here. An alternative with conditions is not satisfied by scopes: :meth:`refuse` considers those.
        """
        for needed in self.alternatives:  # noqa: SIM110 - any() over a generator takes four times as long
            if needed <= scopes:
                return True
        return False

    def refuse(self, token: AccessToken, now: float, leeway: float = 0.0) -> AccessDenied | None:
        """Return the refusal of a *token* that does not satisfy this requirement; ``None`` if it does.

        *now* is in seconds since the epoch; *leeway* is that of the issuer of the token, in seconds. If the token
        satisfies no alternative, the refusal is about the first alternative of which the token has all scopes, or else
        about the first. An insufficient sign-in takes precedence over missing scopes. Its refusal names the scopes as
        well, so that the client needs only one new token.
        """
        chosen: AccessDenied | None = None
        has_scopes = False
        for number, needed in enumerate(self.alternatives):
            scopes = scopes_in(needed)
            is_granted = scopes <= token.scopes
            refusal = _refuse_conditions(needed, token, now, leeway)
            if refusal is None and is_granted:
                return None
            if chosen is None or (is_granted and not has_scopes):
                has_scopes = is_granted
                named = self.first if number == 0 else tuple(sorted(scopes))
                chosen = _with_scopes(refusal, named, token, is_granted=is_granted)
        if isinstance(chosen, InsufficientScope) and len(self.alternatives) > 1:
            chosen.note(alternatives=lambda: {"alternatives": " or ".join(map(" ".join, self.terms))})
        return chosen

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
        return frozenset().union(*map(scopes_in, self.alternatives))

    @property
    def terms(self) -> tuple[tuple[str, ...], ...]:
        """The alternatives as texts for audits and documents: the sorted scopes of each, then its conditions."""
        return tuple(
            (*sorted(scopes_in(needed)), *sorted(map(str, conditions_in(needed)))) for needed in self.alternatives
        )

    def __or__(self, other: Requirement | Condition | str) -> Requirement:
        return any_of(self, other)

    def __ror__(self, other: Condition | str) -> Requirement:
        return any_of(other, self)

    def __and__(self, other: Requirement | Condition | str) -> Requirement:
        return all_of(self, other)

    def __rand__(self, other: Condition | str) -> Requirement:
        return all_of(other, self)

    def __repr__(self) -> str:
        if not self.alternatives[0]:
            return "AUTHENTICATED"
        shown = []
        for needed in self.alternatives:
            items = [*map(repr, sorted(scopes_in(needed))), *sorted(map(repr, conditions_in(needed)))]
            shown.append(items[0] if len(items) == 1 else f"all_of({', '.join(items)})")
        if len(shown) > 1:
            return f"any_of({', '.join(shown)})"
        return shown[0] if shown[0].startswith("all_of") else f"all_of({shown[0]})"


AUTHENTICATED: Final = Requirement(alternatives=(frozenset(),), first=())
"""The requirement of a valid access token with any scopes."""


def _refuse_conditions(
    needed: frozenset[str | Condition], token: AccessToken, now: float, leeway: float
) -> AccessDenied | None:
    conditions = sorted(conditions_in(needed), key=lambda condition: (condition.order, str(condition)))
    refusals = (condition.refuse(token, now, leeway) for condition in conditions)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _with_scopes(
    refusal: AccessDenied | None, scopes: tuple[str, ...], token: AccessToken, *, is_granted: bool
) -> AccessDenied:
    """Return *refusal* with the missing *scopes* added, or the refusal for missing scopes if it takes precedence."""
    if isinstance(refusal, InsufficientUserAuthentication):
        # RFC 9470 section 3: the challenge may have "scope" in addition.
        refusal.scopes = () if is_granted else scopes
        return refusal
    if refusal is not None and is_granted:
        return refusal
    missing = tuple(scope for scope in scopes if scope not in token.scopes)
    facts = {"missing": " ".join(missing)} if missing != scopes else {}
    granted = "no scope claim" if token.granted_scopes is None else " ".join(token.granted_scopes) or "none"
    return InsufficientScope(scopes, granted=granted, **facts, client_id=token.client_id, token=token.fingerprint)


def _to_requirement(item: Requirement | Condition | str, setting: str) -> Requirement:
    if isinstance(item, Requirement):
        return item
    if isinstance(item, Condition):
        return Requirement(alternatives=(frozenset((item,)),), first=())
    scope = check_scope(item, setting)
    if scope == "offline_access":
        warnings.warn(
            "offline_access asks an authorization server for a refresh token; it does not describe what a token may do "
            "at an API, and a challenge should not name it: require another scope",
            stacklevel=3,
        )
    return Requirement(alternatives=(frozenset((scope,)),), first=(scope,))


def _without_duplicates(alternatives: Iterable[frozenset[str | Condition]]) -> tuple[frozenset[str | Condition], ...]:
    return tuple(dict.fromkeys(alternatives))


def all_of(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Requirement:
    """Return the requirement of all *items*, which are scopes, conditions or requirements.

    Each scope is an argument of its own: ``all_of("rows.read", "billing")``.

    *acr* and *max_age* add a :class:`~scopeguard.UserAuthentication`. *acr* lists authentication context class
    references, of which the token must have one: ``["urn:example:gold"]`` or ``any_of("urn:example:gold", ...)``.
    *max_age* is the greatest number of seconds since the user signed in.

    Raises :class:`ConfigurationError` without arguments, and for a string that is not one scope.
    """
    if acr is not None or max_age is not None:
        from scopeguard.user_authentication import UserAuthentication  # few routes need it

        items = (*items, UserAuthentication(acr=() if acr is None else _acr_values(acr), max_age=max_age))
    if not items:
        raise ConfigurationError("all_of() needs at least one scope; use AUTHENTICATED to require none")
    parts = [_to_requirement(item, "all_of") for item in items]
    if len(parts) == 1:
        return parts[0]
    alternatives: tuple[frozenset[str | Condition], ...] = (frozenset(),)
    for part in parts:
        if len(alternatives) * len(part.alternatives) > _MAX_ALTERNATIVES:
            raise ConfigurationError(f"a requirement has more than {_MAX_ALTERNATIVES} alternatives; simplify it")
        alternatives = _without_duplicates(left | right for left in alternatives for right in part.alternatives)
    return Requirement(alternatives=alternatives, first=tuple(dict.fromkeys(s for part in parts for s in part.first)))


def _acr_values(acr: Requirement | Iterable[str]) -> Iterable[str]:
    if not isinstance(acr, Requirement):
        return acr
    if any(len(needed) != 1 or conditions_in(needed) for needed in acr.alternatives):
        raise ConfigurationError("acr: must be any_of(...) of values, or a list: a token has one value")
    return [value for needed in acr.alternatives for value in scopes_in(needed)]


def any_of(*items: Requirement | Condition | str) -> Requirement:
    """Return the requirement of at least one of *items*, which are scopes, conditions or requirements.

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


def require(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Requirement:
    """Return the requirement that ``requires(...)`` states in every adapter: all of *items*, *acr* and *max_age*.

    Raises :class:`ConfigurationError` as :func:`all_of` does.
    """
    if not items and acr is None and max_age is None:
        raise ConfigurationError("requires() needs at least one scope; use requires(AUTHENTICATED) to require none")
    return all_of(*(_to_requirement(item, "requires") for item in items), acr=acr, max_age=max_age)
