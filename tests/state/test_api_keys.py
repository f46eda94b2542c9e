"""The API keys that a process knows. Seconds are monotonic."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import ApiKey, ApiKeys
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.spec.api_key import Grantor
from scopeguard.state.api_keys import PAUSE, ApiKeyState, KeyFile, LookedUp

KEY = ApiKey(id="a" * 16, sha256="0" * 64, subject="alice", expires_at=None)


def make_answers(**settings: float) -> LookedUp:
    given: dict[str, Any] = {
        "ttl": 10, "negative_ttl": 5, "max_entries": 2, "unknown_burst": 2, "unknown_interval": 1, **settings,
    }  # fmt: skip
    return LookedUp(ApiKeys(prefix="acme", lookup=lambda _: None, **given))


def test_content_of_the_file_is_used_for_its_time():
    file = KeyFile(10.0)
    assert (file.current(0.0), file.held, file.problem) == (None, None, "it was not read yet")
    file.absorb({KEY.id: KEY}, b"1", 100.0)
    assert file.current(109.9) == {KEY.id: KEY} == file.held
    assert file.current(110.0) is None
    assert file.generation == 1


def test_equal_content_is_not_parsed_again():
    file = KeyFile(10.0)
    assert not file.keep(b"1", 0.0)
    file.absorb({KEY.id: KEY}, b"1", 0.0)
    assert not file.keep(b"2", 10.0)
    assert file.keep(b"1", 10.0)
    assert (file.current(19.9), file.generation) == ({KEY.id: KEY}, 2)


def test_failed_read_makes_the_keys_unusable_at_once_and_pauses_the_next_one():
    file = KeyFile(10.0)
    file.absorb({KEY.id: KEY}, b"1", 0.0)
    assert file.pause(0.0) == 0.0
    file.fail("it is not TOML", 5.0)
    assert (file.held, file.current(5.0), file.problem) == (None, None, "it is not TOML")
    assert file.pause(5.0) == PAUSE
    assert file.pause(5.0 + PAUSE) == 0.0
    assert not file.keep(b"1", 6.0)  # what was read before is read again


def test_answer_is_used_for_its_time():
    answers = make_answers()
    assert answers.find(KEY.id, 0.0) is None
    answers.absorb(KEY.id, KEY, 0.0)
    assert answers.find(KEY.id, 9.9) is KEY
    assert answers.find(KEY.id, 10.0) is None
    answers.absorb(KEY.id, None, 10.0)  # deleted
    assert answers.find(KEY.id, 10.0) is None
    assert answers.is_absent(KEY.id, 14.9)
    assert not answers.is_absent(KEY.id, 15.0)
    answers.absorb(KEY.id, KEY, 15.0)
    assert not answers.is_absent(KEY.id, 15.0)


def test_unknown_ids_have_a_budget_and_found_ones_do_not_need_it():
    answers = make_answers()
    answers.absorb(KEY.id, KEY, 0.0)
    for identifier in ("b" * 16, "c" * 16):
        assert answers.charge(identifier, 0.0) == (0.0, True)
        answers.absorb(identifier, None, 0.0)
    assert answers.charge("d" * 16, 0.0) == (1.0, False)
    assert answers.charge("d" * 16, 1.0) == (0.0, True)
    assert answers.charge(KEY.id, 0.0) == (0.0, False)


def test_calls_in_progress_are_charged():
    """Fault: a budget that is checked before the work and charged after it."""
    answers = make_answers()
    assert [answers.charge(letter * 16, 0.0)[0] for letter in "bcd"] == [0.0, 0.0, 1.0]
    answers.absorb("b" * 16, None, 0.0)
    assert answers.charge("d" * 16, 0.0) == (1.0, False)
    answers.refund()
    assert answers.charge("d" * 16, 0.0) == (0.0, True)


def test_requests_for_one_id_share_the_call_in_progress():
    """Fault: many requests with one key, at a start, that use up what the first of them needs."""
    answers = make_answers(unknown_burst=1)
    own = answers.begin(KEY.id, 0.0)
    assert own.call is not None
    assert (own.is_own, own.pause, own.call.is_charged) == (True, 0.0, True)
    assert answers.begin(KEY.id, 0.0) == (own.call, False, 0.0)
    assert answers.begin("d" * 16, 0.0) == (None, False, 1.0)
    own.call.wait(0)
    before = own.call.has_ended
    answers.end(KEY.id, own.call)
    assert (before, own.call.has_ended) == (False, True)
    for _ in range(2):
        own.call.wait(30)


def test_call_of_the_parent_process_does_not_end_that_of_the_child():
    answers = make_answers(unknown_burst=1)
    parents = answers.begin(KEY.id, 0.0).call
    answers.after_fork()
    childs = answers.begin(KEY.id, 1.0)
    assert childs.is_own
    assert parents is not None
    answers.end(KEY.id, parents)  # a function that forks
    assert answers.begin(KEY.id, 1.0) == (childs.call, False, 0.0)


@pytest.mark.parametrize("ttl", [0, 10])
def test_known_key_has_a_call_for_each_request_only_without_a_ttl(ttl: float):
    answers = make_answers(ttl=ttl, unknown_burst=1)
    answers.absorb(KEY.id, KEY, 0.0)
    assert answers.has_found(KEY.id)
    assert [answers.begin(KEY.id, 20.0).is_own for _ in range(3)] == [True, ttl == 0, ttl == 0]


def test_key_that_disappears_does_not_cost_the_budget():
    answers = make_answers(unknown_burst=1)
    answers.absorb(KEY.id, KEY, 0.0)
    assert answers.charge(KEY.id, 10.0) == (0.0, False)
    answers.absorb(KEY.id, None, 10.0)
    assert answers.charge("d" * 16, 10.0) == (0.0, True)


def test_unknown_ids_evict_no_key():
    answers = make_answers(unknown_burst=100)
    answers.absorb(KEY.id, KEY, 0.0)
    for number in range(50):
        answers.absorb(f"{number:016}", None, 0.0)
    assert answers.find(KEY.id, 0.0) is KEY
    assert not answers.is_absent(f"{0:016}", 0.0)
    assert answers.is_absent(f"{49:016}", 0.0)


def test_known_keys_are_those_of_the_place_in_use():
    grantor = Grantor(issuer="x", audience="x", vocabulary=ScopeVocabulary())
    by_file = ApiKeyState(ApiKeys(prefix="acme", keys_file="keys.toml"), grantor)
    assert by_file.find(KEY.id, 0.0) is None
    by_file.file.absorb({KEY.id: KEY}, b"", 0.0)
    assert by_file.find(KEY.id, 1e9) is KEY
    by_function = ApiKeyState(ApiKeys(prefix="acme", lookup=lambda _: None), grantor)
    by_function.answers.absorb(KEY.id, KEY, 0.0)
    assert by_function.find(KEY.id, 0.0) is KEY
