"""Settings of the key sets of an issuer: caching, refreshing and limits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from scopeguard.config.answer_limits import ANSWER_TIMEOUT, LARGEST_ANSWER
from scopeguard.config.checks import Converted, converted, flag, positive, strings, whole
from scopeguard.errors import ConfigurationError

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&\-^_.+]+/[a-z0-9!#$&\-^_.+]+")  # RFC 6838 §4.2

MOST_KEYS: Final = 100
"""Keys in a key set, unless ``max_keys`` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetPolicy:
    """The settings for caching and refreshing the keys of an issuer. Times are in seconds, sizes in bytes.

    * ``ttl``: the time for which a key set is fresh if its answer has no ``Cache-Control``.
    * ``min_ttl``, ``max_ttl``: the limits of a ``max-age`` in the answer (RFC 9111 §5.2.2.1).
    * ``refresh_ahead``: the fraction of its lifetime, greater than 0 and at most 1, after which a set is fetched again.
      The fetch runs in the background, and requests use the cached keys meanwhile.
    * ``max_stale``: the time after the last successful fetch for which keys are used while fetching fails. Afterwards
      requests get 503.
    * ``max_seed_age``: the time after it was fetched for which a packed set (``Issuer.jwks_seed``) is used, while no
      fetch has succeeded. Until then, a key that was withdrawn meanwhile is accepted.
    * ``refetch_burst``: the number of fetches that unknown key ids may cause at once. A bad signature under a known key
      id counts as one, because the key may have been replaced. Failed fetches count too.
    * ``refetch_interval``: the time after which one more such fetch is allowed. Until then a token with an unknown key
      gets 503, with ``Retry-After``.
    * ``negative_kids``: the number of key ids that are remembered as absent, and of those that are remembered as
      waiting for the next fetch.
    * ``negative_ttl``: the time after which an absent key id may cause another fetch, unless it is the last one that
      ``refetch_burst`` allows. The time doubles with each fetch, up to a minute.
    * ``first_backoff``: the pause after a failed fetch. It doubles with each further failure.
    * ``max_backoff``: the longest pause after failed fetches.
    * ``max_bytes``: the largest answer. A larger one counts as a failed fetch.
    * ``max_keys``: the largest number of keys in a set. A set with more counts as a failed fetch.
    * ``timeout``: the time for one fetch.
    * ``content_types``: media types that are accepted in addition to those of JSON, as in
      ``"application/octet-stream"``, which some object stores send. The content must still be strict JSON.
    * ``padded``: accept base64 padding in the numbers of a key, which RFC 7518 §2 forbids.

    Raises :class:`ConfigurationError` for a wrong value, and unless ``min_ttl <= ttl <= max_ttl <= max_stale``.
    """

    ttl: float = 600.0
    min_ttl: float = 60.0
    max_ttl: float = 3600.0
    refresh_ahead: float = 0.8
    max_stale: float = 86400.0
    max_seed_age: float = 604800.0
    refetch_burst: int = 3
    refetch_interval: float = 10.0
    negative_kids: int = 128
    negative_ttl: float = 10.0
    first_backoff: float = 0.25
    max_backoff: float = 30.0
    max_bytes: int = LARGEST_ANSWER
    max_keys: int = MOST_KEYS
    timeout: float = ANSWER_TIMEOUT
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
                'key_set.content_types: must be media types without parameters, as in ["application/octet-stream"]'
            )
        object.__setattr__(self, "content_types", types)
        if not self.min_ttl <= self.ttl <= self.max_ttl <= self.max_stale:
            raise ConfigurationError(
                "key_set: must have min_ttl <= ttl <= max_ttl <= max_stale, not "
                f"{self.min_ttl:g}, {self.ttl:g}, {self.max_ttl:g}, {self.max_stale:g}"
            )
        if self.refresh_ahead > 1:
            raise ConfigurationError(
                f"key_set.refresh_ahead: must be a fraction of the lifetime, at most 1, not {self.refresh_ahead:g}"
            )
