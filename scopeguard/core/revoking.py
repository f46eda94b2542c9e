"""Revoke tokens in this process, and through the shared store in others.

:meth:`Guard.revoke <scopeguard.guard.Guard.revoke>` and the endpoint for security events call these functions.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from scopeguard.config.checks import number, text
from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import AccessDenied, ConfigurationError
from scopeguard.flow.credentials import Credential
from scopeguard.flow.issuers import choose_issuer, resolve_issuer
from scopeguard.flow.revocation import stable_part
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.revocation import Revocation, Revoked, digest_of

if TYPE_CHECKING:
    from scopeguard.core.engine import Engine

log: Final = logging.getLogger("scopeguard")

_LATEST: Final = 100_000_000_000  # the year 5138 in seconds, and 1973 in milliseconds


def revoke(engine: Engine, kind: Revoked, value: str, issuer: str | None, at: float | None) -> None:
    """See :meth:`Guard.revoke <scopeguard.guard.Guard.revoke>`."""
    text(value, "revoke: client_id" if kind is Revoked.CLIENT else f"revoke: {kind.value}")
    if at is not None and number(at, "revoke: at", most=math.inf) > _LATEST:
        raise ConfigurationError(
            f"revoke: at: {at:.0f} is too far in the future; write seconds since 1970, not milliseconds"
        )
    keys = engine.settings.api_keys
    if keys is not None and keys.issuer is not None:
        is_key = kind is Revoked.TOKEN and value.startswith(f"{keys.prefix}_")
        if is_key or issuer == keys.issuer:
            record_revocation(engine, kind, keys.issuer, value, at)
            return
    if kind is Revoked.TOKEN:
        record = _issuer_of_token(engine, value)
        value = stable_part(Credential(token=value, source=TokenSource.HEADER))
    else:
        record = _issuer_by_name(engine, issuer)
    record_revocation(engine, kind, record.issuer.url, value, at, leeway=record.issuer.leeway)


def record_revocation(
    engine: Engine, kind: Revoked, issuer: str, value: str, at: float | None = None, *, leeway: float = 0.0
) -> None:
    """Revoke without checking that *issuer* is trusted here.

    ``Revoked.ANSWERS`` discards introspection answers about the subject *value*; about all subjects if it is
    ``""``. *leeway*: how far the clock of *issuer* may be ahead, in seconds.
    """
    now = engine.clock.wall()
    at = now + leeway if at is None else at
    # The last affected token was issued at *at*. It is accepted until its expiry plus the leeway.
    until = max(now + leeway, at) + engine.settings.revocation.retention + leeway
    entry = Revocation(kind=kind, digest=digest_of(kind, issuer, value), at=at, until=until)
    engine.issuers.revocations.add(entry, now)
    for listener in list(engine.revocation_listeners):
        listener()
    if kind is Revoked.ANSWERS:
        log.info("introspection answers discarded: %s", issuer)
    else:
        log.info("revoked: one %s of %s", kind.value, issuer)
    if engine.store is not None:
        engine.store.append(entry.to_bytes(), seconds=until - now)


def _issuer_of_token(engine: Engine, token: str) -> IssuerRecord:
    for header in engine.issuers.headers:
        credential = Credential(token=token, source=TokenSource.HEADER, header=header)
        try:
            return engine.perform(choose_issuer(credential, engine.context))
        except AccessDenied:
            pass
    raise ConfigurationError("revoke: the token is not from a trusted issuer")


def _issuer_by_name(engine: Engine, issuer: str | None) -> IssuerRecord:
    if issuer is None:
        if len(engine.issuers.all) != 1 or engine.issuers.resolved is not None:
            raise ConfigurationError("revoke: several issuers are trusted; name one with issuer")
        return engine.issuers.all[0]
    for header in engine.issuers.headers:
        record = engine.issuers.by_name(issuer, header)
        if record is not None:
            return record
    record = engine.perform(resolve_issuer(issuer, engine.context))
    if record is not None:
        return record
    raise ConfigurationError(f"revoke: {issuer!r} is not a trusted issuer")
