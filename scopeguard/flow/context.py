"""The objects that every decision of one guard shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scopeguard.flow.effects import Clock
from scopeguard.spec.jws import decode_segment
from scopeguard.spec.strict_json import parse_object
from scopeguard.state.issuers import Issuers
from scopeguard.state.token_cache import TokenCache

if TYPE_CHECKING:
    from scopeguard.flow.possession import Possession
    from scopeguard.state.api_keys import ApiKeyState
    from scopeguard.state.authzen import DecisionPoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Context:
    """The issuers, the clock and the token cache of one guard.

    ``scopeguard.core.wiring`` builds it once, and all decisions share it. Functions that need the state of one issuer
    and the time take an :class:`IssuerRecord` and a :class:`Clock` instead. ``token_cache`` is ``None`` if verified
    tokens are not cached. ``points`` has the state of each policy decision point, by the ``id`` of its settings.
    ``possession`` is ``None`` if no proofs are checked, ``api_keys`` if no API keys are accepted. ``parse_claims``
    accepts what :func:`~scopeguard.spec.strict_json.parse_object` accepts, with the same result, and
    ``decode_segment`` what :func:`~scopeguard.spec.jws.decode_segment` accepts.
    """

    issuers: Issuers
    clock: Clock
    token_cache: TokenCache | None = None
    points: dict[int, DecisionPoint] = field(default_factory=dict)
    possession: Possession | None = None
    api_keys: ApiKeyState | None = None
    parse_claims: Callable[[bytes], dict[str, Any]] = parse_object
    decode_segment: Callable[[bytes], bytes] = decode_segment
