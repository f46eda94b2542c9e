"""``preset = "name"`` of an ``[[issuers]]`` table, and the preset's own arguments beside it.

What a preset takes is read off its signature: a new preset needs no line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final

from scopeguard.config.file import kinds
from scopeguard.config.file.kinds import Key, Place, WrongKindError, shown
from scopeguard.config.file.tables import INSECURE, ISSUER, elsewhere
from scopeguard.config.issuer import Issuer
from scopeguard.errors import ConfigurationError
from scopeguard.presets import PRESETS

_KINDS: Final[Mapping[str, Key]] = {
    "str": Key(kinds.reference, '"value"'),
    "str | None": Key(kinds.reference, '"value"'),
    "str | Iterable[str]": Key(kinds.references, '["value"]'),
    "str | Iterable[str] | None": Key(kinds.references, '["value"]'),
    "Iterable[str]": ISSUER[INSECURE],
    "bool": Key(kinds.boolean, "true"),
    "Introspection": ISSUER["introspection"],
    "Introspection | None": ISSUER["introspection"],
}


def arguments_of(preset: Callable[..., Issuer]) -> dict[str, Key]:
    """How each argument of *preset* is read."""
    parameters = inspect.signature(preset).parameters
    return {
        name: ISSUER["jwks_file"] if name == "jwks_file" else _KINDS[parameter.annotation]
        for name, parameter in parameters.items()
    }


def takes(table: Mapping[str, Any], key: str) -> bool:
    """Whether the ``[[issuers]]`` *table* may have *key*: all keys of issuers without a preset, else its arguments."""
    if "preset" not in table:
        return True
    name = table["preset"]
    preset = PRESETS.get(name) if isinstance(name, str) else None
    return preset is not None and key in arguments_of(preset)


def preset_issuer(table: Mapping[str, Any], place: Place, resource: str | None) -> Issuer:
    """The issuer of a *table* that says ``preset``. *resource* is the audience where the preset needs one and the
    table has none. Raises :class:`ConfigurationError`."""
    try:
        name = kinds.string(place, "preset", table["preset"])
    except WrongKindError as needed:
        raise place.error("preset", f'{needed} is needed, as in: preset = "entra"') from None
    preset = PRESETS.get(name)
    if preset is None:
        near = get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        known = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(PRESETS))}"
        raise place.error("preset", f"{shown(name)!r} is not known; {known}")
    arguments = arguments_of(preset)

    def misplaced(key: str) -> str | None:
        if key in ISSUER:
            return f"is not an argument of the preset {name}, which takes {', '.join(arguments)}"
        return elsewhere(key)

    beside = {key: value for key, value in table.items() if key != "preset"}
    given = replace(place, elsewhere=misplaced).read(beside, arguments)
    if "audience" in arguments and "audience" not in given and resource is not None:
        unbound = "client_ids" in arguments and "client_ids" not in given  # one of the two binds tokens to this API
        if unbound or _needs(preset, "audience"):
            given["audience"] = resource
    missing = [key for key in arguments if key not in given and _needs(preset, key)]
    if missing:
        raise place.error(missing[0], f"is missing; the preset {name} needs it: {missing[0]} = ...")
    try:
        return preset(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place.file}: {place.table}: {error}") from None


def _needs(preset: Callable[..., Issuer], key: str) -> bool:
    return inspect.signature(preset).parameters[key].default is inspect.Parameter.empty
