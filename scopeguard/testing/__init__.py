"""Test what you protect: an authorization server in your process, without a socket, under your control.

    from scopeguard import Guard
    from scopeguard.testing import FakeAuthority

    authority = FakeAuthority(audience="https://api.example.com")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    client.post("/insert", headers=authority.bearer(scope="bigquery.insertdata"))

For an app whose guard was made at module level, ``with authority.takes_over(guard):``.

With pytest the fixture ``authority`` is such an object. :func:`bad_tokens` are hostile tokens with names, to be sent
at an app of your own: each must be refused.

FOR TESTS ONLY: whoever holds a ``FakeAuthority`` can make any token. Its first use says so in the log.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scopeguard.testing.clock import FakeClock
    from scopeguard.testing.fake import FakeAuthority
    from scopeguard.testing.hostile_keys import bad_keys
    from scopeguard.testing.hostile_tokens import BadToken, bad_tokens
    from scopeguard.testing.transport import FakeTransport, Hold, Network

__all__ = ["BadToken", "FakeAuthority", "FakeClock", "FakeTransport", "Hold", "Network", "bad_keys", "bad_tokens"]

# The pytest plugin lives in this package and is imported in every run of pytest, whether anybody uses it or not: what
# costs time to import, and what has to be warned of, waits until somebody asks for it.
_HOMES: Final = {
    "BadToken": "hostile_tokens",
    "FakeAuthority": "fake",
    "FakeClock": "clock",
    "FakeTransport": "transport",
    "Hold": "transport",
    "Network": "transport",
    "bad_keys": "hostile_keys",
    "bad_tokens": "hostile_tokens",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
