"""The settings of an issuer that depend on the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.issuer import Issuer
from scopeguard.errors import ConfigurationError

if TYPE_CHECKING:
    from scopeguard.config.dpop import DPoP
    from scopeguard.config.mutual_tls import MutualTLS
    from scopeguard.config.profiles import Profile


def check_unprofiled(issuer: Issuer) -> None:
    """Raise :class:`ConfigurationError` for a setting of *issuer* that only a profile allows."""
    if issuer.canonicalize_audience:
        raise ConfigurationError(
            f"issuer {issuer.url!r}: canonicalize_audience: only profile 'mcp' allows it, because the other standards "
            "compare audiences exactly; set the profile, or list both spellings in audience"
        )


def check_proofs(
    profile: Profile | None, issuer: Issuer, dpop: DPoP | None, mutual_tls: MutualTLS | None = None
) -> None:
    """Raise :class:`ConfigurationError` if *issuer* accepts or requires bound tokens and no proof is checked.

    *dpop*: the policy of the guard, which holds for issuers without a mode of their own. A guard calls this last, so
    that contradictions of other settings are reported first.
    """
    if dpop is None and issuer.dpop not in (None, DPoPMode.OFF):
        # The guard sets the default policy for a configured issuer, but not for an issuer that a resolver finds.
        raise ConfigurationError(
            f"issuer {issuer.url!r}: dpop: the guard checks no proofs, so a stolen token would be accepted; set "
            "dpop=DPoP() on the guard"
        )
    mode = issuer.dpop if issuer.dpop is not None else None if dpop is None else dpop.mode
    if issuer.mutual_tls and mutual_tls is None:
        raise ConfigurationError(
            f"issuer {issuer.url!r}: mutual_tls: the guard does not know where certificates are found; set "
            "mutual_tls on the guard"
        )
    if issuer.require_sender_constraint and mode in (None, DPoPMode.OFF) and mutual_tls is None:
        cause = "require_sender_constraint" if profile is None else f"profile {profile.value!r}"
        raise ConfigurationError(
            f"issuer {issuer.url!r}: {cause} accepts only tokens that are bound to a key, and no proof of possession "
            'is checked, so every token would be refused; set dpop=DPoP(mode="required") or mutual_tls on the guard'
        )
