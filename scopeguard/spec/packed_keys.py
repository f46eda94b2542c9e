"""A key set that was packed at build time: a JWK Set with its issuer and the time at which it was fetched.

::

    {"issuer": "https://auth.example.com", "fetched_at": 1764000000, "keys": [...]}

RFC 7517 section 5: "Additional members can be present in the JWK Set; if not understood by implementations encountering
them, they MUST be ignored". So any reader of key sets reads the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.numeric_date import LATEST_DATE
from scopeguard.spec.jwks import KeySet, MalformedKeySet, parse_key_set
from scopeguard.spec.signatures import Backends
from scopeguard.spec.strict_json import MalformedJSON, parse_object

_EARLIEST: Final = 1.6e9
"""No key set was packed before 2020. A smaller number is not in seconds, or not a date."""
_KEPT: Final = ("spiffe_sequence",)
"""Members other than the keys that a packed set keeps: a bundle with a smaller number must not replace it."""


def pack_keys(document: Mapping[str, Any], issuer: str, now: float) -> dict[str, Any]:
    """Return the content of the file for *document*, a JWK Set of *issuer* that was fetched at *now*."""
    kept = {name: document[name] for name in _KEPT if name in document}
    return {"issuer": issuer, "fetched_at": int(now), **kept, "keys": document["keys"]}


def parse_packed_keys(
    document: bytes | Mapping[str, Any],
    issuer: str,
    *,
    max_keys: int,
    padded: bool = False,
    backends: Backends = (),
    use: str = "sig",
) -> tuple[KeySet, float]:
    """Return the keys of *document* and the time at which they were fetched, in seconds since the epoch.

    Each key is checked as in a fetched set, for *use* (:func:`~scopeguard.spec.jwks.parse_key_set`). Not checked:
    whether the set is too old, and whether its date is in the future.

    Raises :class:`MalformedKeySet`, for example if the set does not name *issuer* or has no ``fetched_at``: keys of
    another issuer, such as that of a test environment, could sign tokens in the name of this one, and withdrawn keys
    could be used for ever.
    """
    if isinstance(document, bytes):
        try:
            document = parse_object(document, mark_ambiguous=True)
        except MalformedJSON as error:
            raise MalformedKeySet(f"not a JWK Set: {error}") from None
    named, fetched_at = document.get("issuer"), document.get("fetched_at")
    if named != issuer:
        raise MalformedKeySet(f"its member issuer is not {issuer!r}; write the set with scopeguard pack-keys")
    if (
        isinstance(fetched_at, bool)
        or not isinstance(fetched_at, int | float)
        or not _EARLIEST <= fetched_at <= LATEST_DATE
    ):
        raise MalformedKeySet(
            "its member fetched_at is not a date in seconds since 1970; write the set with scopeguard pack-keys"
        )
    keys = parse_key_set(document, max_keys=max_keys, padded=padded, backends=backends, use=use)
    return keys, float(fetched_at)
