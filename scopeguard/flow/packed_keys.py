"""Use a key set that was packed at build time, until the first fetch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scopeguard.config.leeway import MAX_LEEWAY
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.answers import describe_unused_keys
from scopeguard.flow.effects import Clock, Flow, ReadFile, ask
from scopeguard.spec.jwks import MalformedKeySet
from scopeguard.spec.packed_keys import parse_packed_keys
from scopeguard.spec.spiffe import key_use
from scopeguard.state.issuers import IssuerRecord


def plant_packed_keys(record: IssuerRecord, clock: Clock) -> Flow[tuple[str, ...]]:
    """Plant the packed key set of *record* in its key ring, and return lines for the log.

    A set that is unreadable, malformed, of another issuer, too old or dated in the future is not used. Keys are then
    fetched as without a packed set. A packed set never causes a refusal.
    """
    issuer, policy = record.issuer, record.issuer.key_set
    problem, keys, age = None, None, 0.0
    packed: bytes | Mapping[str, Any] | str | None = issuer.jwks_seed
    try:
        if isinstance(packed, str):
            packed = yield from ask(ReadFile(path=packed, authority=issuer.url, limit=policy.max_bytes))
        keys, fetched_at = parse_packed_keys(
            packed or {},
            issuer.url,
            max_keys=policy.max_keys,
            padded=policy.padded,
            backends=record.backends,
            use=key_use(issuer.trust_domain),
        )
        age = clock.wall() - fetched_at
        if age >= policy.max_seed_age:
            problem = f"it is {age / 3600:.0f} hours old (key_set.max_seed_age)"
        elif age < -MAX_LEEWAY:
            problem = "its date is in the future"
    except MalformedKeySet as error:
        problem = str(error)
    except AuthorityUnavailable:
        problem = f"{issuer.jwks_seed} cannot be read"
    if problem is not None or keys is None:
        record.ring.plant(None, clock.monotonic(), 0.0)
        return (f"the jwks_seed of {issuer.url} is not used: {problem}",)
    record.ring.plant(keys, clock.monotonic(), max(0.0, age))
    return describe_unused_keys(keys.ignored, issuer.url)
