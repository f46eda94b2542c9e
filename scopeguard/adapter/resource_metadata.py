"""The metadata documents of several guards, for an adapter in front of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scopeguard.config.checks import items
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.spec.challenge import Response

if TYPE_CHECKING:
    from scopeguard.core.resource_metadata import ResourceMetadata


def metadata_of(guards: Iterable[Guard]) -> list[ResourceMetadata]:
    """Return the documents of *guards*. Raises :class:`ConfigurationError` for a guard without one."""
    found = []
    for guard in items(guards, "guards", "a list of scopeguard.Guard", Guard):
        document = engine_of(guard).metadata
        if document is None:
            raise ConfigurationError(
                'guards: a guard has no metadata; give it a resource, as in Guard(..., resource="https://...")'
            )
        found.append(document)
    if not found:
        raise ConfigurationError("guards: name at least one guard")
    return found


def first_found(answers: Iterable[Response | None]) -> Response | None:
    """Return the first of *answers* that is not a 404, else a 404 if there is one, else ``None``."""
    missing: Response | None = None
    for answer in answers:
        if answer is not None and answer.status != 404:
            return answer
        missing = missing or answer
    return missing
