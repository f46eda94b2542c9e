"""The memory store: it behaves like the Redis store, with the clock of the test."""

from __future__ import annotations

from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeClock


def test_value_is_kept_until_it_expires():
    clock = FakeClock()
    store = MemoryStore(clock)
    store.put("k", b"v", seconds=5)
    assert store.get("k") == b"v"
    clock.advance(5)
    assert store.get("k") is None
    store.put("other", b"v", seconds=5)
    assert list(store._values) == ["other"]


def test_log_is_read_from_the_last_position_without_expired_entries():
    clock = FakeClock()
    store = MemoryStore(clock)
    assert store.read(None) == ("0", [])
    store.append(b"1", seconds=10)
    position, entries = store.read(None)
    assert entries == [b"1"]
    assert store.read(position) == (position, [])
    clock.advance(5)
    store.append(b"2", seconds=10)
    clock.advance(5)
    store.append(b"3", seconds=10)
    assert store.read(position)[1] == [b"2", b"3"]
    assert store.read(None)[1] == [b"2", b"3"]
    clock.advance(10)
    store.append(b"4", seconds=10)
    assert store.read(position)[1] == [b"4"]
    assert len(store._log) == 1
    store.close()
