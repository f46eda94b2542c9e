"""Renewal of objects in a child process. The tests of each class check what it drops there."""

from __future__ import annotations

import weakref

from forked import Child
from scopeguard.state.fork import Locked, renew_after_fork


class Renewed:
    def __init__(self) -> None:
        self.children = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.children += 1


def test_object_is_renewed_in_each_child_but_not_in_the_parent():
    thing = Renewed()

    def check() -> None:
        assert thing.children == 1
        grandchild = Child(lambda: None if thing.children == 2 else 1 / 0)
        assert grandchild.ok()

    assert Child(check).ok()
    assert thing.children == 0


def test_a_lock_that_is_held_in_the_parent_is_free_in_the_child():
    locked = Locked()
    with locked._lock:
        child = Child(lambda: locked._lock.acquire(timeout=1) or 1 / 0)
        assert locked._lock.locked()
    assert child.ok()


def test_unused_object_is_garbage_collected():
    gone = weakref.ref(Locked())
    assert gone() is None
