"""Settings for storing revocations and for sharing them between processes."""

from __future__ import annotations

from dataclasses import dataclass

from scopeguard.config.checks import flag, positive


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPolicy:
    """The settings for storing and sharing revocations by :meth:`~scopeguard.Guard.revoke`.

    Revocations at the authorization server are not covered: only introspection finds them.

    * ``retention``: seconds for which a revocation is remembered: at least the lifetime of the longest-lived
      token, and the same in all processes that share a store.
    * ``max_lag``: seconds after which a revocation in one process holds in all others. Without a store it has no
      effect.
    * ``fail_open_dangerously``: while the store does not answer, accept tokens that are not known to be revoked,
      instead of answering 503.

    Raises :class:`ConfigurationError` for a wrong value.
    """

    retention: float = 86400.0
    max_lag: float = 1.0
    fail_open_dangerously: bool = False

    def __post_init__(self) -> None:
        positive(self.retention, "revocation.retention")
        positive(self.max_lag, "revocation.max_lag")
        flag(self.fail_open_dangerously, "revocation.fail_open_dangerously")
