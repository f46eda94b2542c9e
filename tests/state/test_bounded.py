"""The bounded map, compared with a list that is searched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.bounded import BoundedMap

KEYS = st.sampled_from("abcdefg")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 9)),
        st.tuples(st.sampled_from(["get", "peek", "pop"]), KEYS, st.just(0)),
        st.tuples(st.just("shrink"), st.just(""), st.integers(0, 5)),
    ),
    max_size=60,
)


class Model:
    """The same map as a list of pairs, the least recently used one first."""

    def __init__(self, max_entries: int, max_weight: int | None) -> None:
        self.max_entries = max_entries
        self.max_weight = max_weight
        self.pairs: list[tuple[str, int]] = []

    def do(self, operation: str, key: str, value: int) -> int | None:
        found = next((pair for pair in self.pairs if pair[0] == key), None)
        if found is not None and operation in {"put", "get", "pop"}:
            self.pairs.remove(found)
        if found is not None and operation == "get":
            self.pairs.append(found)
        if operation == "put":
            self.pairs.append((key, value))
        most = {"put": self.max_entries, "shrink": value}.get(operation)
        while most is not None and (len(self.pairs) > most or self.is_too_heavy()):
            del self.pairs[0]
        return found[1] if found is not None and operation in {"get", "peek", "pop"} else None

    def is_too_heavy(self) -> bool:
        return self.max_weight is not None and sum(value for _, value in self.pairs) > self.max_weight


@given(max_entries=st.integers(1, 5), max_weight=st.none() | st.integers(0, 20), operations=OPERATIONS)
def test_map_behaves_like_the_model(max_entries: int, max_weight: int | None, operations: list[tuple[str, str, int]]):
    model = Model(max_entries, max_weight)
    kept: BoundedMap[str, int] = (
        BoundedMap(max_entries)
        if max_weight is None
        else BoundedMap(max_entries, max_weight=max_weight, weigh=lambda value: value)
    )
    for operation, key, value in operations:
        arguments = {"put": (key, value), "shrink": (value,)}.get(operation, (key,))
        assert getattr(kept, operation)(*arguments) == model.do(operation, key, value)
        assert kept.items() == model.pairs
        assert len(kept) == len(model.pairs) <= max_entries
        assert [name for name in "abcdefg" if name in kept] == sorted(name for name, _ in model.pairs)


def test_value_heavier_than_the_limit_is_not_kept():
    kept: BoundedMap[str, bytes] = BoundedMap(10, max_weight=5, weigh=len)
    kept.put("a", b"12345")
    assert kept.peek("a") == b"12345"
    kept.put("b", b"123456")
    assert kept.items() == []


@pytest.mark.parametrize("value", [0, "", False, ()])
def test_falsy_value_is_kept(value: object):
    kept: BoundedMap[str, object] = BoundedMap(2)
    kept.put("a", value)
    kept.put("b", 1)
    assert kept.get("a") == value
    kept.put("c", 1)
    assert [key for key, _ in kept.items()] == ["a", "c"]
