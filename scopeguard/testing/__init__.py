"""An authorization server for tests, in process and without sockets, that issues any token, valid or hostile.

    from scopeguard import Guard
    from scopeguard.testing import FakeAuthority

    authority = FakeAuthority(audience="https://api.example.com")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    client.post("/insert", headers=authority.bearer(scope="bigquery.insertdata"))

A :class:`FakeDecisionPoint` decides about requests as a policy decision point does (AuthZEN).

If the app creates its guard at module level, use ``with authority.takes_over(guard):``. For a function that is called
without a request, :func:`make_token` returns an ``AccessToken``, and ``with as_token(...)`` makes one current.

With pytest, the fixture ``authority`` is a ``FakeAuthority``. :func:`bad_tokens` returns hostile tokens, which an app
must refuse. A :class:`ProofKey` signs proofs of possession, and :func:`bad_proofs` returns bad ones.

FOR TESTS ONLY: a ``FakeAuthority`` can issue any token. Its first use logs a warning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scopeguard.testing.clock import FakeClock
    from scopeguard.testing.current_token import as_token, make_token
    from scopeguard.testing.decision_point import FakeDecisionPoint
    from scopeguard.testing.fake import FakeAuthority
    from scopeguard.testing.hostile_keys import bad_keys
    from scopeguard.testing.hostile_proofs import BadProof, bad_proofs
    from scopeguard.testing.hostile_tokens import BadToken, bad_tokens
    from scopeguard.testing.proofs import ProofKey
    from scopeguard.testing.transport import FakeTransport, Hold, Network

__all__ = [
    "BadProof",
    "BadToken",
    "FakeAuthority",
    "FakeClock",
    "FakeDecisionPoint",
    "FakeTransport",
    "Hold",
    "Network",
    "ProofKey",
    "as_token",
    "bad_keys",
    "bad_proofs",
    "bad_tokens",
    "make_token",
]

# The pytest plugin is in this package, so every run of pytest imports the package. Submodules, which take longer to
# import, are imported on first use.
_SUBMODULES: Final = {
    "BadProof": "hostile_proofs",
    "BadToken": "hostile_tokens",
    "FakeAuthority": "fake",
    "FakeClock": "clock",
    "FakeDecisionPoint": "decision_point",
    "FakeTransport": "transport",
    "Hold": "transport",
    "Network": "transport",
    "ProofKey": "proofs",
    "as_token": "current_token",
    "bad_keys": "hostile_keys",
    "bad_proofs": "hostile_proofs",
    "bad_tokens": "hostile_tokens",
    "make_token": "current_token",
}


def __getattr__(name: str) -> Any:
    submodule = _SUBMODULES.get(name)
    if submodule is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{submodule}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
