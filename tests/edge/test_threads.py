"""Threads that run one piece of work after the other, and end when there is none."""

from __future__ import annotations

import threading

import pytest

from forked import Child
from scopeguard.edge import threads as module
from scopeguard.edge.threads import Threads

PATIENCE = 30.0


def run(threads: Threads) -> threading.Thread:
    """Have something done: the thread that did it."""
    done = threading.Event()
    names: list[threading.Thread] = []

    def work() -> None:
        names.append(threading.current_thread())
        done.set()

    threads.run(work)
    assert done.wait(PATIENCE)
    return names[0]


def until_idle(threads: Threads, count: int) -> None:
    while threads._idle != count:
        threading.Event().wait(0.001)


def test_a_thread_that_is_idle_is_used_again():
    threads = Threads()
    first = run(threads)
    until_idle(threads, 1)
    assert run(threads) is first
    until_idle(threads, 1)
    threads.end()
    first.join(PATIENCE)
    assert not first.is_alive()
    other = run(threads)
    assert other is not first
    until_idle(threads, 1)
    threads.end()


def test_work_does_not_wait_for_a_thread_that_is_busy():
    threads = Threads()
    gate = threading.Event()

    def busy() -> None:
        gate.wait(PATIENCE)

    threads.run(busy)
    other = run(threads)
    until_idle(threads, 1)
    gate.set()
    until_idle(threads, 2)
    threads.end()
    other.join(PATIENCE)
    assert not other.is_alive()


def test_a_thread_that_is_at_work_when_all_are_ended_waits_for_no_more(monkeypatch: pytest.MonkeyPatch):
    """The last of its work may be over for those who wait for it before the thread is idle."""
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
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


def test_a_thread_without_work_ends_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    threads = Threads()
    thread = run(threads)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert threads._idle == 0


def test_a_thread_that_gets_work_in_the_last_moment_does_it(monkeypatch: pytest.MonkeyPatch):
    """Between the end of its patience and its own end."""
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    threads = Threads()
    done = threading.Event()
    threads._lock.acquire()
    waiting = threading.Thread(target=threads._run, args=(lambda: None, 0))
    threads._work.put(done.set)
    threads._work.get()  # the queue is empty when the thread looks
    threads._idle = -1  # as if run() had promised the work that comes
    threads._lock.release()
    waiting.start()
    threads._work.put(done.set)
    assert done.wait(PATIENCE)
    threads._work.put(None)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_child_process_starts_threads_of_its_own():
    threads = Threads()
    run(threads)
    until_idle(threads, 1)

    def check() -> None:
        assert threads._idle == 0
        run(threads)

    threads._lock.acquire()
    child = Child(check)
    threads._lock.release()
    assert child.ok()
    threads.end()
