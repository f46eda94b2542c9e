"""Looks at the files that the settings of a guard name, before the first request waits for one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from scopeguard.config.issuer import Issuer
from scopeguard.edge.files import check_file

if TYPE_CHECKING:
    from scopeguard.config.api_keys import ApiKeys

_FILES: Final = ("jwks_file", "jwks_seed", "jwks_ca_file", "jwks_bearer_file")


def check_named_files(issuers: Iterable[Issuer], api_keys: ApiKeys | None) -> None:
    """Raise :class:`ConfigurationError` if one of the files is a named pipe, a directory or a device.

    No file is opened. A file that does not exist yet is accepted.
    """
    for issuer in issuers:
        for name in _FILES:
            path = getattr(issuer, name)
            if isinstance(path, str):
                check_file(path, f"issuer {issuer.url!r}: {name}")
        if issuer.introspection is not None and issuer.introspection.ca_file is not None:
            check_file(issuer.introspection.ca_file, f"issuer {issuer.url!r}: introspection.ca_file")
    if api_keys is not None and api_keys.keys_file is not None:
        check_file(api_keys.keys_file, "api_keys.keys_file")
