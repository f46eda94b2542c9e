"""The memory for verified tokens: what it holds, what it gives back, and what makes it forget."""

from __future__ import annotations

import json
import threading
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked import Child
from scopeguard import Granted, Guard, Issuer, RequestView
from scopeguard.access_token import AccessToken, Unverified
from scopeguard.devserver.keys import SigningKey
from scopeguard.request import HeaderList
from scopeguard.spec import jwt
from scopeguard.spec.jwks import configured_key_set
from scopeguard.state.keyring import KeyRing
from scopeguard.state.revocations import Revocation, Revocations, Revoked
from scopeguard.state.trust import Trust, Trusts
from scopeguard.state.verified import Remembered, VerifiedTokens, _Generations
from scopeguard.testing import FakeAuthority
from scopeguard.token_cache import TokenCachePolicy

WALL = 1_800_000_000.0
NOW = 1000.0
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


def trusting(**settings: Any) -> Trust:
    issuer = Issuer("https://as.test", audience="https://api.test", keys=JWKS, **settings)
    return Trust(
        issuer=issuer,
        vocabulary=issuer.vocabulary,
        ring=KeyRing(issuer.key_set, static=configured_key_set(JWKS)),
    )


def trusts_of(trust: Trust, *, shared: bool = False) -> Trusts:
    return Trusts([trust], revocations=Revocations(max_lag=1.0, fail_open_dangerously=False), shared=shared)


def payload_of(claims: dict[str, Any]) -> bytes:
    return json.dumps(claims).encode()


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def remembered(
    trust: Trust,
    claims: dict[str, Any] = CLAIMS,
    *,
    key: bytes = digest(1),
    header: dict[str, Any] = HEADER,
    **changes: Any,
) -> Remembered:
    """As the flow makes it of a token that it has verified."""
    seen = {**{name: header[name] for name in trust.issuer.header_claims if name in header}, **claims}
    token = Unverified(header=header, claims=seen, signed=b"", signature=b"", fingerprint=key[:6].hex())
    assert trust.ring.key_set is not None
    found = Remembered(
        access=jwt.accept(token, trust.issuer, trust.vocabulary),
        trust=trust,
        key=trust.ring.key_set.keys[0],
        header=header,
        location=trust.issuer.token_header,
        since=WALL,
        until=jwt.usable_until(seen, trust.issuer),
        held=trust.ring.current,
        cleared=0,
        instant=True,
    )
    return replace(found, **changes)


def add(
    memory: VerifiedTokens,
    trust: Trust,
    number: int,
    claims: dict[str, Any] = CLAIMS,
    *,
    segment: bytes = SEGMENT,
    **changes: Any,
) -> Remembered:
    found = remembered(trust, claims, key=digest(number), **changes)
    memory.add(digest(number), found, header=segment, payload=payload_of(claims))
    return found


def small(**bounds: int) -> VerifiedTokens:
    return VerifiedTokens(TokenCachePolicy(**{"ready_entries": 2, **bounds}))


def packed_only(memory: VerifiedTokens) -> None:
    """As if the ready form had been pushed out."""
    memory._ready.young.clear()
    memory._ready.old.clear()


# -- what comes back


def test_what_was_added_is_found_and_nothing_else():
    memory, trust = small(), trusting()
    found = add(memory, trust, 1)
    assert memory.find(digest(1), WALL) is found
    assert memory.find(digest(2), WALL) is None


def test_a_token_that_is_packed_comes_back_the_same_in_every_field():
    memory, trust = small(), trusting()
    found = add(memory, trust, 1)
    packed_only(memory)
    again = memory.find(digest(1), WALL)
    assert again is not None
    assert again is not found
    for member in fields(AccessToken):
        assert getattr(again.access, member.name) == getattr(found.access, member.name), member.name
    for name in ("key", "trust", "header", "location", "since", "until", "instant", "size"):
        assert getattr(again, name) == getattr(found, name), name
    assert again.held is None  # so that the key ring is asked
    assert again.cleared == -1  # and whether it was revoked
    assert memory.find(digest(1), WALL) is again  # and ready from now on


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
def test_it_comes_back_the_same_whatever_the_issuer_is_like(name: str):
    settings, changes, in_header = SETTINGS[name]
    memory, trust = small(), trusting(**settings)
    claims = {claim: value for claim, value in {**CLAIMS, **changes}.items() if value is not None}
    found = add(memory, trust, 1, claims, header={**HEADER, **in_header})
    packed_only(memory)
    again = memory.find(digest(1), WALL)
    assert again is not None
    assert again.access == found.access
    assert again.until == found.until


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
def test_it_comes_back_the_same_whatever_it_says(extra: dict[str, Any]):
    memory, trust = small(), trusting()
    claims = {**CLAIMS, **extra}
    found = add(memory, trust, 1, claims)
    packed_only(memory)
    again = memory.find(digest(1), WALL)
    assert again is not None
    assert again.access == found.access


def test_a_guard_says_the_same_of_a_token_that_was_packed_meanwhile():
    authority = FakeAuthority()
    guard = Guard(
        authority.issuer,
        transport=authority.transport,
        clock=authority.clock,
        token_cache=TokenCachePolicy(max_entries=100, ready_entries=2),
    )

    def granted(token: str) -> AccessToken:
        headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
        decision = guard.check(RequestView(method="GET", path="/", headers=headers))
        assert isinstance(decision, Granted)
        return decision.access_token

    tokens = [authority.mint("read write", subject=f"user{number}") for number in range(10)]
    first = [granted(token) for token in tokens]
    again = [granted(token) for token in tokens]
    assert again == first
    assert all(a is not b for a, b in zip(first, again, strict=True))


def test_tokens_of_several_keys_and_headers_do_not_mix():
    memory, one, other = small(), trusting(), trusting(aliases={"as.test": {}})
    add(memory, one, 1)
    add(memory, other, 2)
    add(memory, one, 3, segment=b"another header", header={**HEADER, "typ": "JWT"})
    add(memory, one, 4, location="x-token")
    packed_only(memory)
    seen = [memory.find(digest(number), WALL) for number in (1, 2, 3, 4)]
    assert [found is not None and (found.trust is one, found.header["typ"], found.location) for found in seen] == [
        (True, "at+jwt", None),
        (False, "at+jwt", None),
        (True, "JWT", None),
        (True, "at+jwt", "x-token"),
    ]


def test_issuers_that_share_a_key_do_not_mix_either():
    memory, one, other = small(), trusting(), trusting(aliases={"as.test": {}})
    mine = add(memory, one, 1)
    theirs = replace(remembered(other, key=digest(2)), key=mine.key)
    memory.add(digest(2), theirs, header=SEGMENT, payload=payload_of(CLAIMS))
    packed_only(memory)
    found = memory.find(digest(2), WALL)
    assert found is not None
    assert found.trust is other


# -- time


@pytest.mark.parametrize("packed", [False, True])
def test_a_token_that_has_expired_is_forgotten(packed: bool):
    memory, trust = small(), trusting()
    until = add(memory, trust, 1).until
    assert until == CLAIMS["exp"] + trust.issuer.leeway
    if packed:
        packed_only(memory)
    assert memory.find(digest(1), until) is None
    assert memory.find(digest(1), WALL) is None  # for good


@pytest.mark.parametrize("packed", [False, True])
def test_a_token_is_usable_until_just_before(packed: bool):
    memory, trust = small(), trusting()
    until = add(memory, trust, 1).until
    if packed:
        packed_only(memory)
    assert memory.find(digest(1), until - 0.001) is not None


@pytest.mark.parametrize("packed", [False, True])
def test_a_clock_that_was_set_back_is_not_believed(packed: bool):
    """What begins (``nbf``) between the two times would be let in too early."""
    memory, trust = small(), trusting()
    add(memory, trust, 1)
    if packed:
        packed_only(memory)
    assert memory.find(digest(1), WALL - 0.001) is None
    assert memory.find(digest(1), WALL) is None


# -- the short way

TOKEN = b"a.b.c"


def recallable(memory: VerifiedTokens, trust: Trust, **changes: Any) -> Remembered:
    key = sha256(TOKEN).digest()
    found = remembered(trust, key=key, **changes)
    memory.add(key, found, header=SEGMENT, payload=payload_of(CLAIMS))
    return found


def test_what_is_ready_is_recalled():
    memory, trust = small(), trusting()
    found = recallable(memory, trust)
    assert memory.recall(TOKEN, trusts_of(trust), WALL, NOW) is found.access


@pytest.mark.parametrize(
    ("changes", "wall"),
    [({"instant": False}, WALL), ({"held": None}, WALL), ({}, WALL - 1), ({}, CLAIMS["exp"] + 3600.0)],
    ids=["there is more to do", "other keys", "before", "expired"],
)
def test_nothing_is_recalled_when_anything_is_to_be_done(changes: dict[str, Any], wall: float):
    memory, trust = small(), trusting()
    recallable(memory, trust, **changes)
    assert memory.recall(TOKEN, trusts_of(trust), wall, NOW) is None


def test_nothing_is_recalled_that_is_not_there():
    trust = trusting()
    assert small().recall(TOKEN, trusts_of(trust), WALL, NOW) is None


def test_nothing_is_recalled_while_anything_is_revoked_or_may_be():
    memory, trust = small(), trusting()
    recallable(memory, trust)
    assert memory.recall(TOKEN, trusts_of(trust, shared=True), WALL, NOW) is None
    known = trusts_of(trust)
    known.revocations.add(Revocation(kind=Revoked.JTI, digest="x", at=WALL, until=WALL + 60), WALL)
    assert memory.recall(TOKEN, known, WALL, NOW) is None


def test_a_packed_token_is_not_recalled_before_its_key_was_looked_at():
    memory, trust = small(), trusting()
    recallable(memory, trust)
    packed_only(memory)
    assert memory.recall(TOKEN, trusts_of(trust), WALL, NOW) is None
    again = memory.find(sha256(TOKEN).digest(), WALL)
    assert again is not None
    assert memory.recall(TOKEN, trusts_of(trust), WALL, NOW) is None
    again.held = trust.ring.current  # as the flow does, which then looks for revocations
    assert memory.recall(TOKEN, trusts_of(trust), WALL, NOW) is None
    again.cleared = 0
    assert memory.recall(TOKEN, trusts_of(trust), WALL, NOW) is again.access


# -- bounds


def counted(memory: VerifiedTokens) -> tuple[int, int]:
    ready, packed = memory._ready, memory._packed.tokens
    return len(ready.young) + len(ready.old), len(packed.young) + len(packed.old)


def test_a_flood_of_valid_tokens_evicts_and_never_grows():
    memory, trust = small(max_entries=100, ready_entries=10), trusting()
    for number in range(1000):
        add(memory, trust, number)
        ready, packed = counted(memory)
        assert ready <= 10
        assert packed <= 100
    assert memory.find(digest(999), WALL) is not None
    assert memory.find(digest(951), WALL) is not None
    assert memory.find(digest(899), WALL) is None


def test_bytes_are_bounded_as_well_as_entries():
    memory, trust = small(max_entries=1_000_000, ready_entries=1_000_000, max_bytes=200_000), trusting()
    for number in range(1000):
        add(memory, trust, number, {**CLAIMS, "note": "x" * (number % 300)})
    packed = memory._packed.tokens
    assert sum(len(record) + 200 for part in (packed.young, packed.old) for record in part.values()) <= 125_000
    ready = memory._ready
    assert sum(found.size for part in (ready.young, ready.old) for found in part.values()) <= 50_000
    assert counted(memory)[1] > 150


def test_a_token_that_is_larger_than_the_whole_memory_is_not_kept_and_pushes_nothing_out():
    memory, trust = small(max_entries=100, max_bytes=200_000), trusting()
    add(memory, trust, 1)
    add(memory, trust, 2, {**CLAIMS, "note": "x" * 70_000})
    assert memory.find(digest(2), WALL) is None
    assert memory.find(digest(1), WALL) is not None


def test_a_token_that_is_used_stays_and_the_others_go():
    memory, trust = small(max_entries=20, ready_entries=2), trusting()
    add(memory, trust, 0)
    for number in range(1, 200):
        add(memory, trust, number)
        assert memory.find(digest(0), WALL) is not None, number


def test_a_ready_token_that_is_used_becomes_young_again():
    memory, trust = small(ready_entries=4), trusting()
    found = add(memory, trust, 1)
    add(memory, trust, 2)
    add(memory, trust, 3)
    assert digest(1) in memory._ready.old
    assert memory.find(digest(1), WALL) is found
    assert digest(1) in memory._ready.young


def test_a_packed_token_that_is_used_becomes_young_again():
    memory, trust = small(max_entries=4), trusting()
    for number in (1, 2, 3):
        add(memory, trust, number)
    assert digest(1) in memory._packed.tokens.old
    packed_only(memory)
    memory.find(digest(1), WALL)
    assert digest(1) in memory._packed.tokens.young


def test_the_same_token_verified_by_many_at_once_counts_once():
    memory, trust = small(max_bytes=100_000), trusting()
    add(memory, trust, 0)
    before = memory._packed.tokens._bytes
    for _ in range(1000):
        add(memory, trust, 0)
    assert memory._packed.tokens._bytes == before


def test_one_entry_is_kept_at_least():
    kept: _Generations[int] = _Generations(1, 1000)
    kept.put(b"a", 1, 10)
    assert kept.young == {b"a": 1}
    kept.put(b"b", 2, 10)
    assert (kept.young, kept.old) == ({b"b": 2}, {b"a": 1})


def test_a_header_that_differs_with_every_token_does_not_grow_either():
    memory, trust = small(max_entries=100_000, max_bytes=400_000), trusting()
    most = 0
    for number in range(500):
        header = {**HEADER, "x": str(number)}
        add(memory, trust, number, segment=f"header {number}".encode() + b"x" * 500, header=header)
        most = max(most, len(memory._packed._seals))
    assert most == 50_000 // (1024 + 6 * 510)
    assert memory.find(digest(499), WALL) is not None  # what is ready stays
    packed_only(memory)
    assert memory.find(digest(498), WALL) is not None
    assert memory.find(digest(0), WALL) is None


def test_the_number_of_a_seal_is_not_used_after_the_seals_were_replaced(monkeypatch: pytest.MonkeyPatch):
    """It would be that of another issuer's key."""
    memory, mine, other = small(), trusting(), trusting(aliases={"as.test": {}})
    packed = memory._packed
    number = packed.number

    def interrupted(found: Remembered, header: bytes) -> int | None:
        seen = number(found, header)
        monkeypatch.undo()
        memory._packed = type(packed)(memory._policy)
        add(memory, other, 2)
        return seen

    monkeypatch.setattr(type(packed), "number", lambda self, found, header: interrupted(found, header))
    add(memory, mine, 1)
    packed_only(memory)
    assert memory.find(digest(1), WALL) is None
    found = memory.find(digest(2), WALL)
    assert found is not None
    assert found.trust is other


def test_a_seal_holds_no_token():
    memory, trust = small(), trusting()
    add(memory, trust, 1)
    (seal,) = memory._packed._seals
    assert not any(isinstance(getattr(seal, name), AccessToken) for name in type(seal).__slots__)


def test_a_token_counts_once_in_whatever_forms_it_is_remembered():
    memory, trust = small(max_entries=4), trusting()
    assert len(memory) == 0
    for number in (1, 2, 3, 3):
        add(memory, trust, number)
    assert len(memory) == 3
    packed_only(memory)
    assert len(memory) == 3


# -- forgetting


def test_what_is_discarded_is_gone_in_every_form_and_generation():
    memory, trust = small(max_entries=4, ready_entries=4), trusting()
    for number in range(4):
        add(memory, trust, number)
    for number in range(4):
        memory.discard(digest(number))
        assert memory.find(digest(number), WALL) is None
    assert counted(memory) == (0, 0)
    memory.discard(digest(77))  # what is not there can be discarded


def test_clear_forgets_everything():
    memory, trust = small(), trusting()
    add(memory, trust, 1)
    memory.clear()
    assert memory.find(digest(1), WALL) is None
    assert counted(memory) == (0, 0)


def test_a_child_process_clears_it_whatever_lock_was_held():
    memory, trust = small(), trusting()
    add(memory, trust, 1)
    parts = (memory._ready, memory._packed.tokens, memory._packed)

    def check() -> None:
        memory.clear()
        add(memory, trust, 2)
        assert memory.find(digest(1), WALL) is None
        assert memory.find(digest(2), WALL) is not None

    locks = [part._lock for part in parts]
    for lock in locks:
        lock.acquire()
    child = Child(check)
    for lock in locks:
        lock.release()
    assert child.ok()


def test_threads_share_it():
    memory, trust = small(max_entries=64, ready_entries=8, max_bytes=200_000), trusting()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(1500):
                number = (step * 7 + seed) % 100
                found = memory.find(digest(number), WALL)
                if found is None:
                    add(memory, trust, number, {**CLAIMS, "sub": f"user{number}"})
                else:
                    assert found.access.subject == f"user{number}"
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
    ready, packed = counted(memory)
    assert ready <= 8
    assert packed <= 64
