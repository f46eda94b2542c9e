"""Recognition of repeated events, within bounds."""

from __future__ import annotations

import pytest

from scopeguard.state.security_event import EventState, ProcessedEvents


@pytest.mark.rule("E-09")
def test_handled_event_is_a_repeat_and_a_failed_one_is_not():
    seen = ProcessedEvents(seconds=10, max_entries=10)
    assert seen.begin("a", 0) is EventState.NEW
    assert seen.begin("a", 0) is EventState.BUSY
    seen.end("a", 0, done=False)
    assert seen.begin("a", 0) is EventState.NEW
    seen.end("a", 0, done=True)
    assert seen.begin("a", 9) is EventState.DONE
    assert seen.begin("b", 9) is EventState.NEW


def test_remembered_events_are_bounded_by_age_and_number():
    seen = ProcessedEvents(seconds=10, max_entries=2)
    for name in "abc":
        seen.begin(name, 0)
        seen.end(name, 0, done=True)
    assert seen.begin("a", 0) is EventState.NEW
    assert [seen.begin(name, 1) for name in "bc"] == [EventState.DONE, EventState.DONE]
    assert [seen.begin(name, 10) for name in "bc"] == [EventState.NEW, EventState.NEW]


def test_child_process_may_handle_an_event_its_parent_was_handling():
    seen = ProcessedEvents(seconds=10, max_entries=10)
    seen.begin("a", 0)
    seen.begin("b", 0)
    seen.end("b", 0, done=True)
    seen.after_fork()
    assert seen.begin("a", 0) is EventState.NEW
    assert seen.begin("b", 0) is EventState.DONE
