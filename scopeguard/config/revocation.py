"""How revocations are kept and shared between processes."""

from __future__ import annotations

from dataclasses import dataclass

from scopeguard.config.checks import positive
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPolicy:
    """How revocations are kept and shared. Times are in seconds.

    * ``retention``: how long a revocation is remembered: at least as long as the longest-lived token lives. The same
      in all processes that share a store.
    * ``max_lag``: with a store, how far a process may be behind what another has revoked.
    * ``fail_open_dangerously``: while the store does not answer, accept what is not known to be revoked, instead of
      answering 503.
    """

    retention: float = 86400.0
    max_lag: float = 1.0
    fail_open_dangerously: bool = False

    def __post_init__(self) -> None:
        positive(self.retention, "revocation.retention")
        positive(self.max_lag, "revocation.max_lag")
        for name in ("fail_open_dangerously",):
            if not isinstance(getattr(self, name), bool):  # "false" is true
                raise ConfigurationError(f"revocation.{name}: true or false, not {type(getattr(self, name)).__name__}")
