"""Those that scopeguard is compared with, one file each, written as the documentation of each says.

A file here is a contestant when it has

* ``NAME``: how tables call it, and ``NEEDS``: the distributions it is made of;
* ``BASE``: the name of the bare contestant it is compared with, in ``benchmarks/contestants.py``;
* ``app(material)``: the ASGI or WSGI app, which answers GET /rows with 200 if signature, issuer, audience, expiry and
  scope of the token are as they should be, and with 4xx if not. The packages are imported in there.

and, where it differs from the rest, ``WSGI = True``, ``ALGORITHMS`` that it knows, and ``claims(scopes)``: what its
tokens need beside the claims of RFC 9068. Nobody is measured who lets a bad token through.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType


def found() -> list[ModuleType]:
    """All of them, installed or not, in the order of their names."""
    return [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


def missing(peer: ModuleType) -> list[str]:
    """What *peer* needs and is not installed."""
    needs = []
    for name in peer.NEEDS:
        try:
            version(name)
        except PackageNotFoundError:
            needs.append(name)
    return needs


def versions() -> dict[str, str]:
    """What is installed of what they need."""
    names = sorted({name for peer in found() for name in peer.NEEDS if name not in missing(peer)})
    return {name: version(name) for name in names}
