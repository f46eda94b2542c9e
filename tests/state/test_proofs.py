"""The memory of used proofs: each is accepted once, and no client uses up the places of the others."""

from __future__ import annotations

import math

from scopeguard.state.proofs import Claim, ProofLimits, ProofMemory


class Memory(ProofMemory):
    """Claims proofs at a time that moves only when a test moves it."""

    now = 0.0
    number = 0

    def __init__(self, total: int, per_owner: int) -> None:
        super().__init__(ProofLimits(total=total, per_owner=per_owner))

    def use(self, key: str = "key", holder: bytes = b"alice", *, identity: bytes | None = None) -> Claim:
        Memory.number += 1
        made = b"%d" % Memory.number
        return self.claim(made if identity is None else identity, key, self.now, 10.0, holder=holder)


def test_a_proof_is_used_until_it_has_expired():
    memory = Memory(100, 10)
    assert [memory.use(identity=b"1"), memory.use(identity=b"1")] == [Claim.NEW, Claim.USED]
    memory.now = 9.9
    assert memory.use("other", b"bob", identity=b"1") is Claim.USED
    memory.now = 10.0
    assert memory.use(identity=b"1") is Claim.NEW
    assert len(memory) == 1


def test_the_number_of_proofs_of_a_key_is_bounded():
    memory = Memory(100, 2)
    assert [memory.use() for _ in range(3)] == [Claim.NEW, Claim.NEW, Claim.FULL]
    memory.now = 5.0
    assert memory.use("other") is Claim.NEW
    memory.now = 10.0  # the first two have expired
    assert [memory.use() for _ in range(3)] == [Claim.NEW, Claim.NEW, Claim.FULL]


def test_a_holder_with_many_keys_leaves_places_to_others():
    memory = Memory(32, 2)
    outcomes = [memory.use(f"key {number}") for number in range(32)]
    assert outcomes == [Claim.NEW] * 16 + [Claim.FULL] * 16
    others = [memory.use(f"{name}", name.encode()) for name in ("bob", "carol", "dave", "erin") for _ in range(2)]
    assert others == [Claim.NEW] * 8
    assert [memory.use(f"bob {number}", b"bob") for number in range(3)] == [Claim.NEW, Claim.NEW, Claim.FULL]
    rest = [memory.use(f"key {number}", f"{number}".encode()) for number in range(7)]
    assert rest == [Claim.NEW] * 6 + [Claim.FULL]  # all places are taken
    memory.now = 10.0
    assert memory.use("key 0") is Claim.NEW
    assert len(memory) == 1


def test_two_memories_share_their_proofs_while_one_replaces_the_other():
    first, second = Memory(100, 10), Memory(100, 2)
    assert first.use(identity=b"1") is Claim.NEW
    second.take_over(first)
    assert second.use(identity=b"1") is Claim.USED
    assert [first.use(identity=b"2"), second.use(identity=b"2")] == [Claim.NEW, Claim.USED]
    assert second.use() is Claim.FULL
    assert first.use() is Claim.NEW


def test_the_time_of_the_newest_forgotten_proof_is_known():
    memory = Memory(100, 10)
    assert memory.newest_forgotten(0.0) == -math.inf
    memory.note(1000.0, 0.0, 10.0)
    memory.note(999.0, 0.5, 10.0)  # within a second, both are one entry
    memory.note(1001.0, 0.9, 10.0)
    memory.note(1003.0, 3.0, 10.0)
    memory.note(1002.0, 6.0, 10.0)
    assert [memory.newest_forgotten(at) for at in (9.9, 10.0, 12.9)] == [-math.inf, 1001.0, 1001.0]
    second = Memory(100, 10)
    second.take_over(memory)
    assert second.newest_forgotten(13.0) == 1003.0
    assert memory.newest_forgotten(13.0) == 1003.0
    assert memory.newest_forgotten(20.0) == 1003.0  # the last entry had an earlier time
