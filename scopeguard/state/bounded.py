"""A map with a bound, which evicts the least recently used entry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """A map of at most *max_entries*. It has no lock: the owner holds one during each call.

    Entries are in the order of their last use, which is :meth:`put` or :meth:`get`; the first one is evicted first.
    :meth:`peek` does not count as a use. If *weigh* is given, the weights of all values are at most *max_weight*
    together; a value that alone weighs more evicts everything, and itself.
    """

    __slots__ = ("_entries", "_max_entries", "_max_weight", "_weigh")

    def __init__(self, max_entries: int, *, max_weight: int = 0, weigh: Callable[[V], int] | None = None) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._max_entries = max_entries
        self._max_weight = max_weight
        self._weigh = weigh

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return the value under *key*, which thereby becomes the most recently used one, or ``None``."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value under *key*, or ``None``. May be called without the lock of the owner."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Set the value under *key*, the most recently used one, and evict others until the bounds are kept."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        self.shrink(self._max_entries)

    def pop(self, key: K) -> V | None:
        """Remove *key* if it is there, and return its value or ``None``."""
        return self._entries.pop(key, None)

    def shrink(self, max_entries: int) -> None:
        """Evict entries until there are at most *max_entries*, and until their weight is within its bound."""
        while len(self._entries) > max_entries:
            self._entries.popitem(last=False)
        if self._weigh is not None:
            weight = sum(map(self._weigh, self._entries.values()))
            while weight > self._max_weight:
                weight -= self._weigh(self._entries.popitem(last=False)[1])

    def items(self) -> list[tuple[K, V]]:
        """Return the entries, the least recently used one first."""
        return list(self._entries.items())
