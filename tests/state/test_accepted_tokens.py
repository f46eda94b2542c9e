"""Digests of accepted tokens: a bounded set that keeps recently used ones."""

from __future__ import annotations

from scopeguard.state.accepted_tokens import AcceptedTokens


def test_token_is_kept_until_it_is_discarded():
    accepted = AcceptedTokens(2)
    assert b"a" not in accepted
    accepted.add(b"a")
    assert b"a" in accepted
    accepted.discard(b"a")
    accepted.discard(b"never there")
    assert b"a" not in accepted


def test_set_is_bounded_and_keeps_tokens_that_are_added_again():
    accepted = AcceptedTokens(2)
    for number in range(100):
        accepted.add(b"used")
        accepted.add(str(number).encode())
        assert b"used" in accepted
        assert len(accepted._newer) + len(accepted._older) <= 4
    assert b"0" not in accepted
    assert b"99" in accepted


def test_a_token_in_the_older_half_can_be_discarded():
    accepted = AcceptedTokens(1)
    accepted.add(b"a")
    accepted.add(b"b")
    assert b"a" in accepted
    accepted.discard(b"a")
    assert b"a" not in accepted
