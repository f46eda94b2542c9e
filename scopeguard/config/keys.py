"""How what is fetched and what is revoked is kept: settings of an issuer's keys, of revocations, and of audits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from scopeguard.config.checks import Converted, converted, flag, positive, strings, whole
from scopeguard.errors import ConfigurationError

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&\-^_.+]+/[a-z0-9!#$&\-^_.+]+")  # RFC 6838 section 4.2


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetPolicy:
    """How the keys of an issuer are kept fresh. Times are in seconds, sizes in bytes.

    * ``ttl``: how long a key set is fresh when the answer has no ``Cache-Control``; with ``max-age``, that value
      clamped to ``min_ttl`` ... ``max_ttl``. The refresh is started at ``refresh_ahead`` of it, beside a request.
    * ``max_stale``: how long keys are used after the last good fetch while refreshing fails; then 503.
    * ``refetch_burst``, ``refetch_interval``: an unknown key id, or a bad signature under a known one, may cause a
      fetch from this budget: so many at once, then one per interval. Failed fetches use it up as well.
      A token whose key was not looked for yet is answered 503 with the seconds until the next fetch.
    * ``negative_kids``: how many absent key ids are remembered, and how many that wait for the next fetch.
    * ``negative_ttl``: after so long an absent key id may cause another fetch, unless that would be the last of the
      budget; doubled each time, up to a minute.
    * ``first_backoff``, ``max_backoff``: the pause after a failed fetch, doubled with each further one.
    * ``max_bytes``, ``max_keys``, ``timeout``: bounds of one answer.
    * ``content_types``: media types accepted for a key set beside JSON, such as ``"application/octet-stream"``, which
      some object stores send. The content is still read as strict JSON.
    * ``padded``: accept base64 padding in the numbers of a key, which RFC 7518 section 2 forbids.
    """

    ttl: float = 600.0
    min_ttl: float = 60.0
    max_ttl: float = 3600.0
    refresh_ahead: float = 0.8
    max_stale: float = 86400.0
    refetch_burst: int = 3
    refetch_interval: float = 10.0
    negative_kids: int = 128
    negative_ttl: float = 10.0
    first_backoff: float = 0.25
    max_backoff: float = 30.0
    max_bytes: int = 512 * 1024
    max_keys: int = 100
    timeout: float = 5.0
    content_types: Converted[Iterable[str], tuple[str, ...]] = converted(())
    padded: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            if setting.name in ("refetch_burst", "negative_kids", "max_bytes", "max_keys"):
                whole(getattr(self, setting.name), f"key_set.{setting.name}")
            elif setting.name not in ("content_types", "padded"):
                positive(getattr(self, setting.name), f"key_set.{setting.name}")
        flag(self.padded, "key_set.padded")
        types = tuple(given.lower() for given in strings(self.content_types, "key_set.content_types"))
        if not all(_MEDIA_TYPE.fullmatch(given) for given in types):
            raise ConfigurationError(
                'key_set.content_types: each is a media type without parameters, as in "application/octet-stream"'
            )
        object.__setattr__(self, "content_types", types)
        if not self.min_ttl <= self.ttl <= self.max_ttl <= self.max_stale:
            raise ConfigurationError("key_set: needs min_ttl <= ttl <= max_ttl <= max_stale")
        if self.refresh_ahead > 1:
            raise ConfigurationError("key_set.refresh_ahead: a fraction of the ttl, at most 1")
