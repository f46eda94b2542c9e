"""Read what a rule of the file requires: scopes, conditions, or an access without a requirement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from scopeguard.conditions import MACHINE, NOT_DELEGATED, USER, Condition, DelegatedTo
from scopeguard.config.file.place import Place
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of
from scopeguard.user_authentication import UserAuthentication

_ACCESS: Final[Mapping[str, Callable[[Any], Requirement | Access]]] = {
    "any_of": lambda scopes: any_of(*scopes),
    "all_of": lambda scopes: all_of(*scopes),
    "public": lambda _: PUBLIC,
    "optional": lambda _: OPTIONAL,
    "authenticated": lambda _: AUTHENTICATED,
    "denied": lambda _: DENIED,
}


_CONDITIONS: Final = ("acr", "max_age", "authorization_details", "delegated_to", "machine")


def _conditions(given: Mapping[str, Any], place: Place) -> list[Condition]:
    """Return the conditions that a rule requires besides scopes."""
    found: list[Condition] = []
    if "acr" in given or "max_age" in given:
        key = "acr" if "acr" in given else "max_age"
        found.append(
            place.construct(key, lambda: UserAuthentication(acr=given.get("acr", ()), max_age=given.get("max_age")))
        )
    found += given.get("authorization_details", ())
    actor = given.get("delegated_to")
    if actor is not None:
        found.append(NOT_DELEGATED if actor is False else place.construct("delegated_to", lambda: DelegatedTo(actor)))
    if "machine" in given:
        found.append(MACHINE if given["machine"] else USER)
    return found


def read_access(
    given: Mapping[str, Any], place: Place, key: str, keys: Collection[str]
) -> tuple[str, Requirement | Access]:
    """Return the key of the access in *given*, the table of a rule, and the access with all conditions.

    *keys*: the keys that the table may have. Raises :class:`ConfigurationError` unless there is exactly one access. If
    there is none, the message names *key*.
    """
    names = [name for name in _ACCESS if name in given]
    if len(names) != 1:
        one = f"a rule needs exactly one of {', '.join(name for name in _ACCESS if name in keys)}"
        raise place.error(" and ".join(names), f"contradict each other; {one}") if names else place.error(key, one)
    (name,) = names
    access = place.construct(name, lambda: _ACCESS[name](given[name]))
    conditions = _conditions(given, place)
    if conditions:
        if not isinstance(access, Requirement):
            more = ", ".join(key for key in _CONDITIONS if key in given)
            raise place.error(name, f"requires no token, and {more} can only be required of one")
        access = all_of(access, *conditions)
    return name, access
