"""Read the tables ``[contract]`` (documents whose operations are enforced) and ``[scopes]`` (scopes of the API)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import or_
from typing import Any

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.file.place import Place, show
from scopeguard.contracts import Contract, google_discovery, openapi
from scopeguard.contracts.contract import check_base_path, undeclared_access
from scopeguard.contracts.openapi_document import security_schemes


def contracts_of(given: Mapping[str, Any], place: Place) -> tuple[Contract, ...]:
    """Read the documents that *given*, the table ``[contract]``, names. OpenAPI documents come first."""
    descriptions, discoveries = given.get("openapi", ()), given.get("google_discovery", ())
    if not descriptions and not discoveries:
        raise place.error("openapi", 'is missing; name a document: openapi = "openapi.json", or google_discovery = ...')
    if "base_path" in given and len(descriptions) + len(discoveries) > 1:
        raise place.error("base_path", "cannot apply to several documents; remove it, or name one document")
    place.construct("base_path", partial(check_base_path, given.get("base_path")))
    place.construct("undeclared", partial(undeclared_access, given.get("undeclared")))
    both = {name: given[name] for name in ("base_path", "undeclared") if name in given}
    ignored = _find_ignored(given.get("ignore_schemes", ()), descriptions, place)
    return (
        *(
            place.construct("openapi", partial(openapi, path, ignore_schemes=ignored[path], **both))
            for path in descriptions
        ),
        *(place.construct("google_discovery", partial(google_discovery, path, **both)) for path in discoveries),
    )


def _find_ignored(names: tuple[str, ...], documents: tuple[str, ...], place: Place) -> dict[str, list[str]]:
    """Return those of *names* that each document declares. Every name must be declared by at least one."""
    declared = {path: place.construct("openapi", partial(security_schemes, path)) for path in documents}
    for name in names:
        if not any(name in schemes for schemes in declared.values()):
            raise place.error("ignore_schemes", f"{show(name)} is not a security scheme of any document in openapi")
    return {path: [name for name in names if name in schemes] for path, schemes in declared.items()}


def catalog_of(scopes: Mapping[str, Any], contracts: tuple[Contract, ...], place: Place) -> ScopeCatalog:
    """Return the scopes of the contracts, of the file ``catalog`` and of the table ``[scopes]``, in this order.

    If a scope has several descriptions, the last one is used.
    """
    catalogs = [contract.catalog for contract in contracts]
    if "catalog" in scopes:
        catalogs.append(place.construct("catalog", lambda: ScopeCatalog.from_toml(scopes["catalog"])))
    own = {name: scopes[name] for name in ("prefix", "descriptions") if name in scopes}
    catalogs.append(place.construct("", lambda: ScopeCatalog(**own)))
    joined = ScopeCatalog()
    for catalog in catalogs:
        joined = place.construct("prefix", partial(or_, joined, catalog))
    return joined
