"""Revocations, and which tokens they cover."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.state.revocation import Bearer, Revocation, Revocations, Revoked, digest_of

ISSUER = "https://as.test"
NOW = 1_800_000_000.0
ALICE = Bearer(
    issuer=ISSUER, token="the-token", jti="the-jti", subject="alice", client_id="app", issued_at=NOW - 100
)  # fmt: skip
NAMES = {Revoked.TOKEN: "the-token", Revoked.JTI: "the-jti", Revoked.SUBJECT: "alice", Revoked.CLIENT: "app"}


def entry(kind: Revoked, value: str, *, issuer: str = ISSUER, at: float = NOW, until: float = NOW + 3600) -> Revocation:
    return Revocation(kind=kind, digest=digest_of(kind, issuer, value), at=at, until=until)


def revocations_of(*entries: Revocation) -> Revocations:
    revocations = Revocations()
    for one in entries:
        revocations.add(one, NOW)
    return revocations


def test_nothing_is_revoked_at_first():
    assert not Revocations().covers(ALICE)
    assert len(Revocations()) == 0


@pytest.mark.parametrize("kind", NAMES)
def test_revocation_covers_the_tokens_it_names(kind: Revoked):
    assert revocations_of(entry(kind, NAMES[kind])).covers(ALICE)


@pytest.mark.parametrize("kind", NAMES)
def test_revocation_covers_no_other_token(kind: Revoked):
    assert not revocations_of(entry(kind, "another")).covers(ALICE)
    others = [other for other in Revoked if other is not kind]
    assert not any(revocations_of(entry(other, NAMES[kind])).covers(ALICE) for other in others)


@pytest.mark.rule("E-17")
@pytest.mark.parametrize("kind", NAMES)
def test_equal_names_of_another_issuer_are_not_covered(kind: Revoked):
    assert not revocations_of(entry(kind, NAMES[kind], issuer="https://other.test")).covers(ALICE)


@pytest.mark.parametrize("member", ["jti", "subject", "client_id"])
def test_token_without_names_is_not_covered(member: str):
    revocations = revocations_of(*(entry(kind, value) for kind, value in NAMES.items() if kind is not Revoked.TOKEN))
    nobody = Bearer(issuer=ISSUER, token="other", jti=None, subject=None, client_id=None, issued_at=None)
    assert not revocations.covers(nobody)
    assert revocations.covers(replace(nobody, **{member: getattr(ALICE, member)}))


@pytest.mark.rule("E-10")
@pytest.mark.parametrize("kind", [Revoked.SUBJECT, Revoked.CLIENT])
@pytest.mark.parametrize(
    ("issued_at", "refused"), [(NOW - 1, True), (NOW, True), (NOW + 1, False), (None, True)]
)  # fmt: skip
def test_newer_tokens_of_a_revoked_subject_or_client_are_not_covered(
    kind: Revoked, issued_at: float | None, *, refused: bool
):
    assert revocations_of(entry(kind, NAMES[kind])).covers(replace(ALICE, issued_at=issued_at)) is refused


@pytest.mark.parametrize("kind", [Revoked.TOKEN, Revoked.JTI])
def test_revoked_single_token_is_covered_for_any_date_of_issue(kind: Revoked):
    assert revocations_of(entry(kind, NAMES[kind])).covers(replace(ALICE, issued_at=NOW + 1000))


@pytest.mark.parametrize("newer_first", [True, False])
def test_two_revocations_of_one_name_merge_to_the_later_and_longer(*, newer_first: bool):
    entries = [
        entry(Revoked.SUBJECT, "alice", at=NOW, until=NOW + 10),
        entry(Revoked.SUBJECT, "alice", at=NOW - 50, until=NOW + 99),
    ]
    revocations = revocations_of(*(entries if newer_first else reversed(entries)))
    assert len(revocations) == 1
    assert revocations.covers(replace(ALICE, issued_at=NOW))
    (kept,) = revocations._entries.values()
    assert (kept.at, kept.until) == (NOW, NOW + 99)


@pytest.mark.rule("E-15")
def test_entries_are_kept_until_they_expire():
    revocations = Revocations()
    revocations.add(entry(Revoked.JTI, "the-jti", until=NOW + 5000), NOW)
    for number in range(5000):
        revocations.add(entry(Revoked.JTI, str(number), until=NOW + number), NOW + number)
    assert revocations.covers(ALICE)
    assert len(revocations) <= 1024
    for number in range(3000):
        revocations.add(entry(Revoked.JTI, str(number), until=NOW + 9000), NOW + 4000)
    assert len(revocations) >= 3000  # An entry that has not expired is not dropped for others.
    assert revocations.covers(ALICE)


# -- stored data


def test_text_of_a_token_is_known_only_if_revoked_by_text():
    assert not revocations_of().names(ISSUER, "the-token")
    assert not revocations_of(*(entry(kind, "the-token") for kind in NAMES if kind is not Revoked.TOKEN)).names(
        ISSUER, "the-token"
    )
    revocations = revocations_of(entry(Revoked.TOKEN, "the-token"))
    assert revocations.names(ISSUER, "the-token")
    assert not revocations.names(ISSUER, "the-token ")
    assert not revocations.names("https://other.test", "the-token")


@pytest.mark.rule("E-16")
def test_answer_from_before_a_change_of_its_subject_is_outdated():
    assert not revocations_of().outdates(ISSUER, "alice", float("-inf"))
    assert not revocations_of(entry(Revoked.SUBJECT, "alice")).outdates(ISSUER, "alice", NOW - 1)
    revocations = revocations_of(entry(Revoked.ANSWERS, "alice", at=NOW - 9), entry(Revoked.ANSWERS, "bob", at=NOW))
    assert revocations.outdates(ISSUER, "alice", NOW - 10)
    assert not revocations.outdates(ISSUER, "alice", NOW - 9)  # The request was sent then, or later.
    assert not revocations.outdates(ISSUER, "alice", NOW - 1)
    assert not revocations.outdates(ISSUER, "carol", NOW - 10)
    assert not revocations.outdates("https://other.test", "alice", NOW - 10)
    assert revocations.outdates(ISSUER, None, NOW - 1)  # It may be about any subject.
    assert not revocations.outdates(ISSUER, None, NOW)
    everybody = revocations_of(entry(Revoked.ANSWERS, "", at=NOW - 9))
    assert everybody.outdates(ISSUER, "carol", NOW - 10)
    assert not everybody.outdates(ISSUER, "carol", NOW - 9)


@pytest.mark.rule("E-16")
def test_change_of_a_subject_revokes_no_token():
    revocations = revocations_of(*(entry(Revoked.ANSWERS, value) for value in (*NAMES.values(), "")))
    assert not revocations.covers(ALICE)


def test_stored_revocations_contain_no_names():
    revocations = revocations_of(*(entry(kind, value) for kind, value in NAMES.items()))
    shown = repr(revocations._entries) + repr(ALICE)
    stored = b"".join(one.to_bytes() for one in revocations._entries.values()).decode()
    assert "the-token" not in shown + stored
    assert not any(name in stored for name in ("the-jti", "alice", "app"))


@pytest.mark.rule("X-61")
def test_different_parts_with_equal_concatenation_have_different_digests():
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")]
    digests = {digest_of(Revoked.JTI, issuer, value) for issuer, value in pairs}
    assert len(digests) == len(pairs)
    assert {len(digest) for digest in digests} == {64}
    assert digest_of(Revoked.JTI, "a", "b") != digest_of(Revoked.SUBJECT, "a", "b")


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_only_equal_names_have_equal_digests(one: tuple[str, str], two: tuple[str, str]):
    assert (digest_of(Revoked.JTI, *one) == digest_of(Revoked.JTI, *two)) is (one == two)


@given(st.sampled_from(Revoked), st.text(), st.floats(0, 1e12), st.floats(0, 1e12))
def test_stored_entry_is_loaded_unchanged(kind: Revoked, digest: str, at: float, until: float):
    one = Revocation(kind=kind, digest=digest, at=at, until=until)
    assert Revocation.from_bytes(one.to_bytes()) == one


GOOD: dict[str, Any] = {"kind": "jti", "digest": "ab", "at": 1.0, "until": 2.0}


@pytest.mark.rule("X-68")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"nonsense",
        b"\x80\x04.",
        *(json.dumps({name: value for name, value in GOOD.items() if name != left_out}).encode() for left_out in GOOD),
        json.dumps({**GOOD, "kind": "everything"}).encode(),
        json.dumps({**GOOD, "kind": ["jti"]}).encode(),
        json.dumps({**GOOD, "digest": 1}).encode(),
        json.dumps({**GOOD, "at": None}).encode(),
        json.dumps({**GOOD, "until": "soon"}).encode(),
        json.dumps({**GOOD, "at": 10**400}).encode(),
    ],
)
def test_malformed_entry_is_ignored(data: bytes):
    assert Revocation.from_bytes(data) is None
    assert Revocation.from_bytes(json.dumps(GOOD).encode()) is not None


class Bomb:
    went_off: list[int] = []  # noqa: RUF012 - shared on purpose

    def __reduce__(self) -> tuple[Any, ...]:
        return self.went_off.append, (1,)


@pytest.mark.rule("X-68")
def test_pickle_is_ignored_and_not_executed():
    assert Revocation.from_bytes(pickle.dumps(Bomb())) is None
    assert Bomb.went_off == []


# -- the age of a shared log


def test_time_of_a_log_read_is_recorded():
    revocations = Revocations()
    assert (revocations.position, revocations.synced_at, revocations.generation) == (None, float("-inf"), 0)
    revocations.record_sync(100.0)
    assert (revocations.synced_at, revocations.generation) == (100.0, 1)


def test_failed_log_read_is_not_recorded_as_a_read():
    revocations = Revocations()
    revocations.record_sync(100.0)
    revocations.record_failed_sync()
    assert (revocations.synced_at, revocations.generation) == (100.0, 2)
