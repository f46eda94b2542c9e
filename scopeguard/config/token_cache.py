"""Settings of the cache of verified tokens."""

from __future__ import annotations

from dataclasses import dataclass

from scopeguard.config.checks import whole
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCachePolicy:
    """Limits of the cache of verified tokens, for one process.

    A token is verified once. Later requests with it are recognised by a digest. The cache contains the claims and the
    fact that a key has signed them. Expiry, the key set, revocations and scopes are checked for every request. Refused
    tokens are not cached, so only holders of valid tokens can fill the cache. The oldest entries are dropped first.

    * ``max_bytes``: the largest amount of memory in bytes, by a cautious estimate. A token of 1 KB takes about 0.7 KB.
    * ``max_entries``: the largest number of tokens.
    * ``ready_entries``: the number of recent tokens that are kept unpacked, at about 4 KB each within ``max_bytes``.
      Tokens that were used only once are not among them. The others are unpacked for each request, which takes about as
      long as parsing their claims. It must not exceed ``max_entries``.

    Raises :class:`ConfigurationError` for a wrong value. ``Guard(..., token_cache="off")`` caches no tokens.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_entries: int = 100_000
    ready_entries: int = 2_048

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_entries", "ready_entries"):
            whole(getattr(self, name), f"token_cache: {name}")
        if self.ready_entries > self.max_entries:
            raise ConfigurationError(
                f"token_cache: ready_entries: must be at most max_entries, {self.max_entries}, not {self.ready_entries}"
            )


def check_policy(policy: object) -> TokenCachePolicy:
    """Return *policy*. Raises :class:`ConfigurationError` unless it is a :class:`TokenCachePolicy`."""
    if not isinstance(policy, TokenCachePolicy):
        raise ConfigurationError(f'token_cache: must be a TokenCachePolicy or "off", not {type(policy).__name__}')
    return policy
