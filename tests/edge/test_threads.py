"""Worker threads that run one piece of work after the other, and end when there is none."""

from __future__ import annotations

import threading

import pytest

from forked import Child
from scopeguard.edge import threads as module
from scopeguard.edge.threads import Threads

PATIENCE = 30.0


def run(threads: Threads) -> threading.Thread:
    """Run a piece of work and return its thread."""
    done = threading.Event()
    names: list[threading.Thread] = []

    def work() -> None:
        names.append(threading.current_thread())
        done.set()

    threads.run(work)
    assert done.wait(PATIENCE)
    return names[0]


def wait_until_idle(threads: Threads, count: int) -> None:
    while threads._idle != count:
        threading.Event().wait(0.001)


def test_idle_thread_is_used_again():
    threads = Threads()
    first = run(threads)
    wait_until_idle(threads, 1)
    assert run(threads) is first
    wait_until_idle(threads, 1)
    threads.end()
    first.join(PATIENCE)
    assert not first.is_alive()
    other = run(threads)
    assert other is not first
    wait_until_idle(threads, 1)
    threads.end()


def test_work_does_not_wait_for_a_busy_thread():
    threads = Threads()
    gate = threading.Event()

    def busy() -> None:
        gate.wait(PATIENCE)

    threads.run(busy)
    other = run(threads)
    wait_until_idle(threads, 1)
    gate.set()
    wait_until_idle(threads, 2)
    threads.end()
    other.join(PATIENCE)
    assert not other.is_alive()


def test_busy_thread_ends_after_its_work_once_all_threads_are_ending(monkeypatch: pytest.MonkeyPatch):
    """The result of its last work may be available before the thread is idle."""
    monkeypatch.setattr(module, "_IDLE_TIMEOUT", 600.0)
    threads = Threads()
    workers: list[threading.Thread] = []
    done = threading.Event()

    def work() -> None:
        workers.append(threading.current_thread())
        threads.end()
        done.set()

    threads.run(work)
    assert done.wait(PATIENCE)
    workers[0].join(PATIENCE)
    assert not workers[0].is_alive()
    assert run(threads) is not workers[0]
    threads.end()


def test_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_IDLE_TIMEOUT", 0.0)
    threads = Threads()
    thread = run(threads)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert threads._idle == 0


def test_thread_that_gets_work_at_the_last_moment_does_it(monkeypatch: pytest.MonkeyPatch):
    """The work arrives between the end of its waiting time and the end of the thread."""
    monkeypatch.setattr(module, "_IDLE_TIMEOUT", 0.0)
    threads = Threads()
    done = threading.Event()
    threads._lock.acquire()
    waiting = threading.Thread(target=threads._run, args=(lambda: None, 0))
    threads._work.put(done.set)
    threads._work.get()  # The queue is empty when the thread checks it.
    threads._idle = -1  # As if run() had announced the work.
    threads._lock.release()
    waiting.start()
    threads._work.put(done.set)
    assert done.wait(PATIENCE)
    threads._work.put(None)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_child_process_starts_new_threads():
    threads = Threads()
    run(threads)
    wait_until_idle(threads, 1)

    def check() -> None:
        assert threads._idle == 0
        run(threads)

    threads._lock.acquire()
    child = Child(check)
    threads._lock.release()
    assert child.ok()
    threads.end()
