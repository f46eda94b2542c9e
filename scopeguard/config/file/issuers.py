"""Read the ``[[issuers]]`` tables, and check them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scopeguard.config.file.place import Place
from scopeguard.config.file.presets import preset_issuer, takes
from scopeguard.config.file.tables import INSECURE, ISSUER
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError


def with_hosts(table: Mapping[str, Any], insecure: frozenset[str]) -> Mapping[str, Any]:
    """Return the ``[[issuers]]`` *table* with the hosts *insecure* of the top level added to its own.

    A preset without such an argument has fixed https URLs, and its table stays as it is.
    """
    own = table.get(INSECURE, [])
    if not insecure or not isinstance(own, list) or not takes(table, INSECURE):
        return table
    return {**table, INSECURE: [*own, *sorted(insecure)]}


def read_issuer(table: Mapping[str, Any], place: Place, resource: str | None) -> Issuer:
    """Return the issuer of an ``[[issuers]]`` *table*. Its audience is *resource* if it names none."""
    if "preset" in table:
        return preset_issuer(table, place, resource)
    given = place.read(table, ISSUER)
    if "url" not in given:
        raise place.error("url", "is missing; set it to the iss of the authorization server's tokens")
    any_audience = given.pop("any_audience_dangerously", False)
    if any_audience and "audience" in given:
        raise place.error("audience", "contradicts any_audience_dangerously; keep one of them")
    if any_audience:
        given["audience"] = ANY_AUDIENCE_DANGEROUSLY
    elif "audience" not in given:
        if resource is None:
            raise place.error(
                "audience", "is missing; set it to the aud of tokens for this API, or set resource at the top level"
            )
        given["audience"] = resource
    url = given.pop("url")
    try:
        return Issuer(url, **given)
    except ConfigurationError as error:
        problem = str(error)
        if problem.startswith("issuer:"):  # the file calls the identifier of an issuer url
            problem = problem.replace("issuer", "url", 1)
        raise ConfigurationError(f"{place.file}: {place.table}: {problem}") from None


def refuse_repeated_urls(issuers: tuple[Issuer, ...], place: Place) -> None:
    """Raise :class:`ConfigurationError` if two issuers have the same URL or alias."""
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for name in (issuer.url, *issuer.aliases):
            if seen.setdefault(name, number) != number:
                raise place.inner(f"[[issuers]] {number}").error(
                    "url", f"{name!r} is already the issuer of [[issuers]] {seen[name]}; merge the two tables"
                )


def refuse_shared_prefixes(issuers: tuple[Issuer, ...], place: Place) -> None:
    """Raise :class:`ConfigurationError` if two issuers introspect the same opaque tokens.

    Otherwise each would see tokens of the other.
    """
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for prefix in (issuer.opaque_prefixes or ("",)) if issuer.validate is not Validation.JWT else ():
            if seen.setdefault(prefix, number) != number:
                what = f"{prefix!r} is already a prefix of" if prefix else "is missing here and in"
                raise place.inner(f"[[issuers]] {number}").error(
                    "opaque_prefixes", f"{what} [[issuers]] {seen[prefix]}; set prefixes that tell their tokens apart"
                )
