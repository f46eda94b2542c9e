"""How much of what was verified is remembered."""

from __future__ import annotations

from dataclasses import dataclass

from scopeguard.config.checks import whole
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCachePolicy:
    """Bounds of the memory for verified tokens of one process.

    A token is verified once and then recognised by its digest. Only that it was verified is remembered, and what it
    says: whether it has expired, whether the key that signed it is still published, whether it was revoked and whether
    its scopes suffice is looked at with every request. Tokens that were refused are not remembered, so a stranger
    cannot fill it; a flood of valid ones pushes out the oldest.

    * ``max_bytes``: of memory, by a careful estimate; a token of 1 KB takes about 0.7 KB.
    * ``max_entries``: tokens.
    * ``ready_entries``: tokens, among the latest that came more than once, that are kept ready for use at 4 KB or so
      each, inside ``max_bytes``; the others are unpacked again, at about the price of reading their claims.

    Raises :class:`ConfigurationError`. To remember nothing: ``Guard(..., token_cache="off")``.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_entries: int = 100_000
    ready_entries: int = 2_048

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_entries", "ready_entries"):
            whole(getattr(self, name), f"token_cache: {name}")
        if self.ready_entries > self.max_entries:
            raise ConfigurationError("token_cache: ready_entries are among max_entries, so not more of them")


def checked_policy(policy: object) -> TokenCachePolicy:
    """*policy*, if it is one."""
    if not isinstance(policy, TokenCachePolicy):
        raise ConfigurationError('token_cache: a TokenCachePolicy, or "off"')
    return policy
