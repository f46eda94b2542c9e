"""The libraries that scopeguard is compared with. Each has a file, written as its documentation says.

A file needs these names:

* ``NAME``: the name in tables. ``NEEDS``: the distributions that it needs.
* ``BASE``: the name of the bare contestant that it is compared with, in ``benchmarks/contestants.py``.
* ``app(material)``: returns the ASGI or WSGI app. It answers GET /rows with 200 if signature, issuer, audience, expiry
  and scope of the token are valid, else with 4xx. It imports the packages.

Optional names are ``WSGI = True``, ``ALGORITHMS`` for the supported ones, and ``claims(scopes)`` for claims that its
tokens need besides those of RFC 9068. A library that accepts a bad token is not measured.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType


def import_all() -> list[ModuleType]:
    """Return all peers, installed or not, in the order of their names."""
    return [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


def missing_distributions(peer: ModuleType) -> list[str]:
    """Return the distributions that *peer* needs and that are not installed."""
    needs = []
    for name in peer.NEEDS:
        try:
            version(name)
        except PackageNotFoundError:
            needs.append(name)
    return needs


def versions() -> dict[str, str]:
    """Return the versions of the installed distributions that the peers need."""
    names = sorted({name for peer in import_all() for name in peer.NEEDS if name not in missing_distributions(peer)})
    return {name: version(name) for name in names}
