"""The public attributes of a guard, and the internal access to its engine."""

from __future__ import annotations

import inspect

from scopeguard import Guard, Issuer
from scopeguard.core.engine import Engine
from scopeguard.guard import engine_of

GUARD = Guard(Issuer("https://as.example", audience="https://api.example"), audit="off")


def test_a_guard_has_these_public_names_and_no_others():
    """Adapters and endpoints use the engine: names that only they need do not belong here."""
    assert {name for name in dir(GUARD) if not name.startswith("_")} == {
        *("acheck", "aclose", "arevoke", "authorize", "awarm", "check", "close", "from_file", "revoke", "warm"),
        "stop_waiting",
        *("catalog", "issuers", "mcp", "profile", "resource", "rules", "sources", "style"),
    }


def test_each_pair_of_sync_and_async_methods_takes_the_same_arguments():
    for name in ("check", "revoke", "warm", "close"):
        sync, other = (inspect.signature(getattr(Guard, each)) for each in (name, f"a{name}"))
        assert set(other.parameters) - set(sync.parameters) <= {"client_gone"}
        assert set(sync.parameters) <= set(other.parameters)


def test_settings_and_engine_of_a_guard_are_read_only():
    for name in ("catalog", "issuers", "resource", "rules", "sources", "style"):
        assert isinstance(inspect.getattr_static(Guard, name), property)
    assert isinstance(engine_of(GUARD), Engine)
    assert engine_of(GUARD) is engine_of(GUARD)
