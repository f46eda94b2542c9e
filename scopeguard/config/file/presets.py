"""Read ``[[issuers]]`` tables with ``preset = "name"`` and the arguments of the preset.

The arguments come from the signature of the preset, so a new preset needs no change here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from scopeguard.config.file import value_kinds
from scopeguard.config.file.place import Key, Place, WrongKindError, show
from scopeguard.config.file.tables import INSECURE, ISSUER, elsewhere
from scopeguard.config.issuer import Issuer
from scopeguard.config.suggestions import nearest
from scopeguard.errors import ConfigurationError
from scopeguard.presets import PRESETS

_PATHS: Final = ("jwks_file", "bearer_file", "ca_file")
_KINDS: Final[Mapping[str, Key]] = {
    "str": Key(value_kinds.reference, '"value"'),
    "str | None": Key(value_kinds.reference, '"value"'),
    "str | Iterable[str]": Key(value_kinds.references, '["value"]'),
    "str | Iterable[str] | None": Key(value_kinds.references, '["value"]'),
    "Iterable[str]": ISSUER[INSECURE],
    "bool": Key(value_kinds.boolean, "true"),
    "Introspection": ISSUER["introspection"],
    "Introspection | None": ISSUER["introspection"],
}


def arguments_of(preset: Callable[..., Issuer]) -> dict[str, Key]:
    """Return the keys for the arguments of *preset*."""
    parameters = inspect.signature(preset).parameters
    return {
        name: ISSUER["jwks_file"] if name in _PATHS else _KINDS[parameter.annotation]
        for name, parameter in parameters.items()
    }


def takes(table: Mapping[str, Any], key: str) -> bool:
    """Return whether the ``[[issuers]]`` *table* may have *key*. With a preset, its arguments are the allowed keys."""
    if "preset" not in table:
        return True
    name = table["preset"]
    preset = PRESETS.get(name) if isinstance(name, str) else None
    return preset is not None and key in arguments_of(preset)


def preset_issuer(table: Mapping[str, Any], place: Place, resource: str | None) -> Issuer:
    """Return the issuer of a *table* with ``preset``.

    *resource* is the audience if the preset needs one and the table has none. Raises :class:`ConfigurationError` for an
    unknown preset, for an argument that is missing, unknown or wrong, and as the preset itself does.
    """
    try:
        name = value_kinds.string(place, "preset", table["preset"])
    except WrongKindError as needed:
        raise place.error("preset", f'must be {needed}, as in: preset = "entra"') from None
    preset = PRESETS.get(name)
    if preset is None:
        near = nearest(name, PRESETS)
        known = f"did you mean {near}?" if near else f"use one of {', '.join(sorted(PRESETS))}"
        raise place.error("preset", f"{show(name)!r} is not a preset; {known}")
    arguments = arguments_of(preset)

    def explain_misplaced(key: str, keys: Mapping[str, Key]) -> str | None:
        if key in ISSUER:
            return f"is not an argument of the preset {name}, which takes {', '.join(arguments)}"
        return elsewhere(key, keys)

    beside = {key: value for key, value in table.items() if key != "preset"}
    given = replace(place, elsewhere=explain_misplaced).read(beside, arguments)
    if "audience" in arguments and "audience" not in given and resource is not None:
        # Either the audience or the client ids bind tokens to this API.
        unbound = "client_ids" in arguments and "client_ids" not in given
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
