"""The cache of verified tokens: its entries, look-ups, limits and removals."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked import Child
from scopeguard import Granted, Guard, Issuer, RequestView
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.devserver.keys import SigningKey
from scopeguard.request import HeaderList
from scopeguard.spec import jwt
from scopeguard.spec.jwks import VerificationKey, parse_configured_key_set
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.keys import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.state.status_list import StatusLists
from scopeguard.state.token_cache import CachedToken, TokenCache, _Generations
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import AccessToken, Unverified

WALL = 1_800_000_000.0
KEY = SigningKey.generate("ES256", kid="k1")
JWKS = {"keys": [KEY.public_jwk()]}
HEADER = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": "https://as.test",
    "aud": "https://api.test",
    "exp": int(WALL) + 3600,
    "iat": int(WALL),
    "sub": "alice",
    "client_id": "app",
    "jti": "1",
    "scope": "read write",
}
SEGMENT = b"the header as it is written"


def new_record(**settings: Any) -> IssuerRecord:
    issuer = Issuer("https://as.test", audience="https://api.test", keys=JWKS, **settings)
    return IssuerRecord(
        issuer=issuer,
        vocabulary=issuer.vocabulary,
        ring=KeyRing(issuer.key_set, static=parse_configured_key_set(JWKS)),
    )


def trusts_of(*issuers: IssuerRecord) -> Issuers:
    return Issuers(issuers, revocations=Revocations())


def key_of(record: IssuerRecord) -> VerificationKey:
    assert record.ring.key_set is not None
    return record.ring.key_set.keys[0]


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def unverified_token(
    record: IssuerRecord,
    claims: dict[str, Any] = CLAIMS,
    *,
    key: bytes = digest(1),
    header: dict[str, Any] = HEADER,
    segment: bytes = SEGMENT,
) -> Unverified:
    """Return the token as parsed, signed with *key*."""
    return Unverified(
        header=header,
        claims={**{name: header[name] for name in record.issuer.header_claims if name in header}, **claims},
        signed=b"",
        signature=b"",
        segment=segment,
        payload=json.dumps(claims).encode(),
        fingerprint=key[:6].hex(),
    )


def add(
    memory: TokenCache,
    record: IssuerRecord,
    number: int,
    claims: dict[str, Any] = CLAIMS,
    *,
    issuers: Issuers | None = None,
    key: VerificationKey | None = None,
    location: str | None = None,
    **written: Any,
) -> AccessToken:
    """Add a verified token to *memory* as the flow does, and return its access token."""
    token = unverified_token(record, claims, key=digest(number), **written)
    memory.add(
        digest(number),
        token,
        record,
        key or key_of(record),
        issuers or trusts_of(record),
        location=location or record.issuer.token_header,
        since=WALL,
        until=token.claims["exp"] + record.issuer.leeway,
    )
    return jwt.accept(token, record.issuer, record.vocabulary)


def find_in(memory: TokenCache, number: int) -> CachedToken:
    found = memory.find(digest(number), WALL)
    assert found is not None
    return found


def add_ready(memory: TokenCache, record: IssuerRecord, number: int, *arguments: Any, **options: Any) -> CachedToken:
    """Add a token as :func:`add` does, and use it a second time."""
    add(memory, record, number, *arguments, **options)
    return find_in(memory, number)


def small_cache(**bounds: int) -> TokenCache:
    return TokenCache(TokenCachePolicy(**{"ready_entries": 2, **bounds}))


def drop_ready(memory: TokenCache) -> None:
    """Remove the ready form, as an eviction would."""
    ready = memory._ready
    ready.young, ready.old = {}, {}


def count_entries(memory: TokenCache) -> tuple[int, int]:
    """Return the numbers of ready and of packed entries."""
    ready, packed = memory._ready, memory._packed.tokens
    return len(ready.young) + len(ready.old), len(packed.young) + len(packed.old)


# -- look-ups


def test_only_added_tokens_are_found():
    memory, record = small_cache(), new_record()
    access = add(memory, record, 1)
    assert find_in(memory, 1).access == access
    assert memory.find(digest(2), WALL) is None


def test_token_seen_once_is_packed_and_becomes_ready_when_used():
    memory, record = small_cache(), new_record()
    for number in (1, 2):
        add(memory, record, number)
    assert count_entries(memory) == (0, 2)
    found = find_in(memory, 1)
    assert count_entries(memory) == (1, 2)
    assert find_in(memory, 1) is found


def test_packed_token_is_restored_with_equal_fields():
    memory, record = small_cache(), new_record()
    access = add(memory, record, 1)
    found = find_in(memory, 1)
    for member in fields(AccessToken):
        assert getattr(found.access, member.name) == getattr(access, member.name), member.name
    assert found.key is key_of(record)
    assert found.record is record
    assert (found.header, found.location, found.instant) == (HEADER, None, True)
    assert (found.since, found.until) == (WALL, CLAIMS["exp"] + record.issuer.leeway)
    assert found.held is None  # no record of the key set: the key ring is searched
    assert found.cleared == -1  # not cleared: revocations are checked


def test_only_tokens_without_further_checks_are_instant():
    """Exceptions: tokens in a special header, with a status in a list, or of an issuer that a resolver found."""
    memory, plain = small_cache(ready_entries=8), new_record()
    with_status = new_record()
    with_status.status_lists = StatusLists(max_bytes=1000)
    assert add_ready(memory, plain, 1).instant
    assert not add_ready(memory, plain, 2, location="x-token").instant
    assert not add_ready(memory, with_status, 3).instant
    assert not add_ready(memory, new_record(), 4, issuers=trusts_of(plain)).instant


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "roles": (
        {"role_claims": ["roles"], "roles_as_scopes": True},
        {"roles": ["admin", "reader"], "scope": None},
        {},
    ),
    "a prefix of scopes": ({"scope_prefix": "https://api.test/"}, {"scope": "https://api.test/read"}, {}),
    "implied scopes": ({"implies": {"write": ["read"]}}, {"scope": "write"}, {}),
    "several audiences": ({}, {"aud": ["https://other.test", "https://api.test"]}, {}),
    "no scope at all": ({}, {"scope": None}, {}),
    "an alias": ({"aliases": {"as.test": {}}}, {"iss": "as.test"}, {}),
    "other names": ({"subject_claims": ["uid"], "client_id_claims": ["azp"]}, {"uid": "u", "azp": "a"}, {}),
    "claims in the header": (
        {"token_header": "x-token", "header_claims": ["exp", "client_id", "absent"]},
        {"exp": None, "client_id": None},
        {"exp": int(WALL) + 60, "client_id": "of the header"},
    ),
    "objects at depth": ({}, {"act": {"sub": "b", "list": [1, {"x": [True, None, 1.5]}]}}, {}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_packed_token_is_restored_for_any_issuer_settings(name: str):
    settings, changes, in_header = SETTINGS[name]
    memory, record = small_cache(), new_record(**settings)
    claims = {claim: value for claim, value in {**CLAIMS, **changes}.items() if value is not None}
    access = add(memory, record, 1, claims, header={**HEADER, **in_header})
    found = find_in(memory, 1)
    assert found.access == access
    assert found.until == (access.expires_at or 0.0) + record.issuer.leeway


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(extra=st.dictionaries(st.text(min_size=1).map(lambda name: "x" + name), JSON, max_size=5))
def test_packed_token_is_restored_for_any_claims(extra: dict[str, Any]):
    memory, record = small_cache(), new_record()
    access = add(memory, record, 1, {**CLAIMS, **extra})
    assert find_in(memory, 1).access == access


def test_guard_gives_the_same_decision_for_a_packed_token():
    authority = FakeAuthority()
    guard = Guard(
        authority.issuer,
        transport=authority.transport,
        clock=authority.clock,
        token_cache=TokenCachePolicy(max_entries=100, ready_entries=2),
    )

    def grant(token: str) -> AccessToken:
        headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
        decision = guard.check(RequestView(method="GET", path="/", headers=headers))
        assert isinstance(decision, Granted)
        return decision.access_token

    tokens = [authority.mint("read write", subject=f"user{number}") for number in range(10)]
    first = [grant(token) for token in tokens]
    again = [grant(token) for token in tokens]
    assert again == first
    assert all(a is not b for a, b in zip(first, again, strict=True))


def test_tokens_of_several_keys_and_headers_do_not_mix():
    memory, one, other = small_cache(), new_record(), new_record(aliases={"as.test": {}})
    add(memory, one, 1)
    add(memory, other, 2)
    add(memory, one, 3, segment=b"another header", header={**HEADER, "typ": "JWT"})
    add(memory, one, 4, location="x-token")
    add(memory, one, 5)
    seen = [find_in(memory, number) for number in (1, 2, 3, 4, 5)]
    assert [(found.record is one, found.header["typ"], found.location) for found in seen] == [
        (True, "at+jwt", None),
        (False, "at+jwt", None),
        (True, "JWT", None),
        (True, "at+jwt", "x-token"),
        (True, "at+jwt", None),
    ]
    assert len(memory._packed._seals) == 4


def test_tokens_of_issuers_that_share_a_key_do_not_mix():
    memory, one, other = small_cache(), new_record(), new_record(aliases={"as.test": {}})
    for number, record in ((1, one), (2, other)):
        add(memory, record, number, key=key_of(one))
    assert find_in(memory, 1).record is one
    assert find_in(memory, 2).record is other


def test_tokens_of_different_keys_of_one_issuer_do_not_mix():
    """The signing key decides whether the removal of a key removes the token."""
    memory, record, others = small_cache(), new_record(), new_record()
    for number, key in ((1, key_of(record)), (2, key_of(others))):
        add(memory, record, number, key=key)
    assert find_in(memory, 1).key is key_of(record)
    assert find_in(memory, 2).key is key_of(others)


def test_two_concurrent_requests_give_a_seal_one_number():
    """The second one looks again when it has the lock."""
    memory, record = small_cache(), new_record()
    packed = memory._packed

    class Late(dict[Any, int]):
        """A map whose first look-up happens just before another thread adds the number."""

        looks = 0

        def get(self, name: Any, default: Any = None) -> Any:
            self.looks += 1
            return None if self.looks == 1 else super().get(name, default)

    add(memory, record, 1)
    late = packed._numbers = Late(packed._numbers)
    add(memory, record, 2)
    assert late.looks == 2
    assert len(packed._seals) == 1
    assert find_in(memory, 2).record is record


# -- time


@pytest.fixture(params=["packed", "ready", "ready, and no longer young"])
def filled_cache(request: pytest.FixtureRequest) -> TokenCache:
    """Return a cache with one token, in one of its forms."""
    memory, record = small_cache(), new_record()
    if request.param == "packed":
        add(memory, record, 1)
    else:
        add_ready(memory, record, 1)
    if request.param == "ready, and no longer young":
        add_ready(memory, record, 2)
        assert digest(1) in memory._ready.old
    return memory


UNTIL = CLAIMS["exp"] + 30.0  # The leeway.


def test_expired_token_is_removed(filled_cache: TokenCache):
    assert filled_cache.find(digest(1), UNTIL) is None
    assert filled_cache.find(digest(1), WALL) is None  # Permanently.


def test_token_is_usable_until_just_before_its_expiry(filled_cache: TokenCache):
    assert filled_cache.find(digest(1), UNTIL - 0.001) is not None


def test_token_is_removed_if_the_clock_was_set_back(filled_cache: TokenCache):
    """A token whose ``nbf`` lies between the two times would be accepted too early."""
    assert filled_cache.find(digest(1), WALL - 0.001) is None
    assert filled_cache.find(digest(1), WALL) is None


# -- the short path


def test_recall_returns_a_token_only_after_find_has_unpacked_it():
    memory, record = small_cache(), new_record()
    assert memory.recall(digest(1)) is None
    add(memory, record, 1)
    assert memory.recall(digest(1)) is None
    assert memory.recall(digest(1)) is None  # recall() itself unpacks nothing
    found = find_in(memory, 1)
    assert memory.recall(digest(1)) is found
    assert memory.recall(sha256(digest(1)).digest()) is None


def test_token_of_the_old_generation_is_recalled_after_it_was_found_again():
    memory, record = small_cache(ready_entries=4), new_record()
    found = add_ready(memory, record, 1)
    add_ready(memory, record, 2)
    assert memory.recall(digest(1)) is found
    add_ready(memory, record, 3)
    assert memory.recall(digest(1)) is None
    assert find_in(memory, 1) is found
    assert memory.recall(digest(1)) is found


@pytest.mark.parametrize("time", [UNTIL, WALL - 1], ids=["expired", "the clock was set back"])
def test_unusable_token_is_not_recalled(time: float):
    memory, record = small_cache(), new_record()
    add_ready(memory, record, 1)
    assert memory.find(digest(1), time) is None
    assert memory.recall(digest(1)) is None


def test_token_too_large_to_be_ready_is_not_recalled():
    memory, record = small_cache(max_bytes=200_000), new_record()
    add_ready(memory, record, 1, {**CLAIMS, "note": "x" * 10_000})
    assert count_entries(memory) == (0, 1)
    assert memory.recall(digest(1)) is None


def test_held_tokens_are_those_of_any_form_and_generation():
    memory, record = small_cache(ready_entries=4), new_record()
    assert not memory.holds(digest(1))
    add(memory, record, 1)
    assert memory.holds(digest(1))
    for number in (1, 2, 3):
        add_ready(memory, record, number)
        assert memory.holds(digest(1))
    drop_ready(memory)
    assert memory.holds(digest(1))
    memory.discard(digest(1))
    assert not memory.holds(digest(1))


# -- limits


def test_a_flood_of_valid_tokens_evicts_and_never_grows():
    memory, record = small_cache(max_entries=100, ready_entries=10), new_record()
    for number in range(1000):
        add_ready(memory, record, number)
        ready, packed = count_entries(memory)
        assert ready <= 10
        assert packed <= 100
    assert memory.find(digest(999), WALL) is not None
    assert memory.find(digest(951), WALL) is not None
    assert memory.find(digest(899), WALL) is None


def test_size_in_bytes_is_bounded_too():
    memory, record = small_cache(max_entries=1_000_000, ready_entries=1_000_000, max_bytes=200_000), new_record()
    for number in range(1000):
        add_ready(memory, record, number, {**CLAIMS, "note": "x" * (number % 300)})
    packed = memory._packed.tokens
    assert sum(len(record) + 200 for part in (packed.young, packed.old) for record in part.values()) <= 125_000
    ready = memory._ready
    assert sum(found.size for part in (ready.young, ready.old) for found in part.values()) <= 50_000
    assert count_entries(memory)[0] > 5
    assert count_entries(memory)[1] > 150


def test_token_larger_than_the_cache_is_not_kept_and_evicts_nothing():
    memory, record = small_cache(max_entries=100, max_bytes=200_000), new_record()
    add(memory, record, 1)
    add(memory, record, 2, {**CLAIMS, "note": "x" * 70_000})
    assert memory.find(digest(2), WALL) is None
    assert memory.find(digest(1), WALL) is not None


def test_used_token_is_kept_while_others_are_evicted():
    memory, record = small_cache(max_entries=20, ready_entries=2), new_record()
    add(memory, record, 0)
    for number in range(1, 200):
        add_ready(memory, record, number)
        assert memory.find(digest(0), WALL) is not None, number
    assert memory.find(digest(1), WALL) is None


def test_used_ready_token_moves_to_the_younger_generation():
    memory, record = small_cache(ready_entries=4), new_record()
    found = add_ready(memory, record, 1)
    add_ready(memory, record, 2)
    add_ready(memory, record, 3)
    assert digest(1) in memory._ready.old
    assert memory.find(digest(1), WALL) is found
    assert memory._ready.young[digest(1)] is found


def test_used_packed_token_moves_to_the_younger_generation():
    memory, record = small_cache(max_entries=4), new_record()
    for number in (1, 2, 3):
        add(memory, record, number)
    assert digest(1) in memory._packed.tokens.old
    memory.find(digest(1), WALL)
    assert digest(1) in memory._packed.tokens.young


def test_token_verified_by_concurrent_requests_counts_once():
    memory, record = small_cache(max_bytes=100_000), new_record()
    found = add_ready(memory, record, 0)
    before = memory._packed.tokens._bytes, memory._ready._bytes
    for _ in range(1000):
        add(memory, record, 0)
        memory._ready.put(digest(0), found, found.size)  # Each request has unpacked it.
    assert (memory._packed.tokens._bytes, memory._ready._bytes) == before


def test_at_least_one_entry_is_kept():
    kept: _Generations[int] = _Generations(1, 1000)
    kept.put(b"a", 1, 10)
    assert kept.young == {b"a": 1}
    kept.put(b"b", 2, 10)
    assert (kept.young, kept.old) == ({b"b": 2}, {b"a": 1})


def test_number_of_distinct_headers_is_bounded():
    memory, record = small_cache(max_entries=100_000, max_bytes=400_000), new_record()
    most = 0
    ready = add_ready(memory, record, 1000)
    for number in range(500):
        header = {**HEADER, "x": str(number)}
        add(memory, record, number, segment=f"header {number}".encode() + b"x" * 500, header=header)
        most = max(most, len(memory._packed._seals))
    assert most == 50_000 // (1024 + 6 * 510)
    assert memory.find(digest(1000), WALL) is ready  # Ready tokens stay.
    assert find_in(memory, 499).header["x"] == "499"
    assert memory.find(digest(0), WALL) is None


def test_number_of_a_seal_is_not_used_after_the_seals_were_replaced(monkeypatch: pytest.MonkeyPatch):
    """It would belong to the key of another issuer."""
    memory, mine, other = small_cache(), new_record(), new_record(aliases={"as.test": {}})
    packed = memory._packed
    number = packed.number

    def interrupt(_: object, *arguments: Any) -> int | None:
        seen = number(*arguments)
        monkeypatch.undo()
        memory._packed = type(packed)(memory._policy)
        add(memory, other, 2)
        return seen

    monkeypatch.setattr(type(packed), "number", interrupt)
    add(memory, mine, 1)
    assert memory.find(digest(1), WALL) is None
    assert find_in(memory, 2).record is other


def test_a_seal_holds_no_token():
    memory, record = small_cache(), new_record()
    add_ready(memory, record, 1)
    (seal,) = memory._packed._seals
    kinds = (AccessToken, Unverified, CachedToken)
    assert not any(isinstance(getattr(seal, name), kinds) for name in type(seal).__slots__)


def test_token_in_both_forms_counts_once():
    memory, record = small_cache(max_entries=4), new_record()
    assert len(memory) == 0
    for number in (1, 2, 3, 3):
        add(memory, record, number)
    assert len(memory) == 3
    for number in (1, 2, 3):
        find_in(memory, number)
    assert len(memory) == 3
    drop_ready(memory)
    assert len(memory) == 3


# -- removal


@pytest.mark.parametrize("form", ["ready", "packed"])
def test_discarded_token_is_removed_in_each_form_and_generation(form: str):
    memory, record = small_cache(max_entries=4, ready_entries=4), new_record()
    for number in range(4):
        if form == "ready":
            add_ready(memory, record, number)
        else:
            add(memory, record, number)
    assert count_entries(memory)[form == "packed"] == 4
    for number in range(4):
        memory.discard(digest(number))
        assert memory.find(digest(number), WALL) is None
    assert count_entries(memory) == (0, 0)
    memory.discard(digest(77))  # An absent token can be discarded.


def test_clear_removes_all_tokens():
    memory, record = small_cache(), new_record()
    add_ready(memory, record, 1)
    memory.clear()
    assert memory.find(digest(1), WALL) is None
    assert memory.recall(digest(1)) is None
    assert count_entries(memory) == (0, 0)


def test_child_process_clears_the_cache_even_if_its_lock_was_held():
    memory, record = small_cache(), new_record()
    add_ready(memory, record, 1)
    parts = (memory._ready, memory._packed.tokens, memory._packed)

    def check() -> None:
        memory.clear()
        add_ready(memory, record, 2)
        assert memory.find(digest(1), WALL) is None
        assert memory.recall(digest(1)) is None
        assert memory.recall(digest(2)) is memory.find(digest(2), WALL)

    locks = [part._lock for part in parts]
    for lock in locks:
        lock.acquire()
    child = Child(check)
    for lock in locks:
        lock.release()
    assert child.ok()


def test_threads_can_share_the_cache():
    memory, record = small_cache(max_entries=64, ready_entries=8, max_bytes=200_000), new_record()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(1500):
                number = (step * 7 + seed) % 100
                found = memory.find(digest(number), WALL)
                if found is None:
                    add(memory, record, number, {**CLAIMS, "sub": f"user{number}"})
                else:
                    assert found.access.subject == f"user{number}"
                recalled = memory.recall(digest(number))
                assert recalled is None or recalled.access.subject == f"user{number}"
                if step % 50 == seed:
                    memory.discard(digest(number))
                if step % 700 == 699:
                    memory.clear()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    ready, packed = count_entries(memory)
    assert ready <= 8
    assert packed <= 64


def test_number_of_entries_is_bounded_from_above_without_counting_them():
    memory, record = small_cache(max_entries=4), new_record()
    for number in range(3):
        add(memory, record, number)
    assert (memory.most_entries, len(memory)) == (3, 3)
    find_in(memory, 0)  # moves to the young generation, and stays in the old one
    assert memory.most_entries >= len(memory) == 3
