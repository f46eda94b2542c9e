"""All signature backends give the results of PyJWT, and a failing backend gives no result.

The published vectors run with each backend too, in test_vectors.py.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from algorithms import CLASSIC
from rsa_keys import rsa_key
from scopeguard.core.signature_backends import Awscrt, PyNaCl
from scopeguard.spec.jwks import VerificationKey
from scopeguard.spec.signatures import (
    Backends,
    PublicKey,
    SignatureBackend,
    SignatureBackendError,
    Verifier,
    der_signature,
    prepare_verifier,
)

SIGNED: Final = b"header.payload"
DIGESTS: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
# The curve, the octets of a coordinate, and the order (SEC 2, FIPS 186-5).
CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int, int]]] = {
    "ES256": (ec.SECP256R1(), 32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (
        ec.SECP384R1(),
        48,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    "ES512": (ec.SECP521R1(), 66, 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7),
    "ES256K": (ec.SECP256K1(), 32, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141),
}
ORDER_OF_ED25519: Final = 2**252 + 27742317777372353535851937790883648493
PYJWT: Final = get_default_algorithms()
ALGORITHMS: Final = sorted(CLASSIC)  # PyJWT has no ML-DSA

# The backend that handles each key and algorithm; cryptography handles the others.
TAKES: Final = {
    "awscrt": {"RS256", "PS256", "ES256", "ES384"},
    "pynacl": {"EdDSA", "Ed25519"},
}


@functools.cache
def private_key(algorithm: str) -> Any:
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm][0])
    return rsa_key() if algorithm[:2] in ("RS", "PS") else ed25519.Ed25519PrivateKey.generate()


def sign(algorithm: str, signed: bytes, key: Any = None, *, salt: int | None = None) -> bytes:
    key = key or private_key(algorithm)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    digest = DIGESTS[algorithm[2:5]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        length = CURVES[algorithm][1]
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size if salt is None else salt)
    made: bytes = key.sign(signed, padding.PKCS1v15() if algorithm.startswith("RS") else pss, digest)
    return made


def length_of(algorithm: str, key: Any = None) -> int:
    if algorithm in CURVES:
        return 2 * CURVES[algorithm][1]
    return 64 if algorithm in ("EdDSA", "Ed25519") else ((key or private_key(algorithm)).key_size + 7) // 8


def key_of(algorithm: str, backends: Backends = (), key: Any = None) -> VerificationKey:
    return VerificationKey(
        kid=None,
        algorithms=frozenset((algorithm,)),
        issuer=None,
        thumbprint="",
        signature_octets=length_of(algorithm, key),
        public_key=(key or private_key(algorithm)).public_key(),
        backends=backends,
    )


def verify_with_pyjwt(algorithm: str, signed: bytes, signature: bytes, key: Any = None) -> bool:
    if len(signature) != length_of(algorithm, key):
        return False
    public = (key or private_key(algorithm)).public_key()
    return PYJWT["EdDSA" if algorithm == "Ed25519" else algorithm].verify(signed, public, signature)


# --- the same results ------------------------------------------------------------------------------------------------


def add_orders(algorithm: str, signature: bytes, r_by: int, s_by: int) -> bytes:
    """Add multiples of the order to R and S: equal modulo the order, wrapped around where the sum does not fit."""
    length, order = CURVES[algorithm][1:]
    r, s = (int.from_bytes(half, "big") for half in (signature[:length], signature[length:]))
    moved = ((value + by * order) % 256**length for value, by in ((r, r_by), (s, s_by)))
    return b"".join(value.to_bytes(length, "big") for value in moved)


def malleable_variants(algorithm: str, signature: bytes) -> list[bytes]:
    """Return other spellings of one signature, and numbers at the limits of the allowed range."""
    if algorithm in CURVES:
        length, order = CURVES[algorithm][1:]
        r, s = signature[:length], signature[length:]
        edges = [value.to_bytes(length, "big") for value in (0, 1, order - 1, order, order + 1, 256**length - 1)]
        negated = (order - int.from_bytes(s, "big")).to_bytes(length, "big")  # As valid as the first (X9.62).
        moved = [add_orders(algorithm, signature, *by) for by in ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1))]
        pairs = [left + right for left in edges for right in edges]
        return [r + negated, s + r, *moved, *pairs, *(edge + s for edge in edges), *(r + edge for edge in edges)]
    if algorithm in ("EdDSA", "Ed25519"):
        r, number = signature[:32], int.from_bytes(signature[32:], "little")
        bigger = [r + (number + more * ORDER_OF_ED25519).to_bytes(32, "little") for more in range(1, 8)]
        small_orders = [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
        return [
            *bigger,
            *(small + signature[32:] for small in small_orders),
            *(small + bytes(32) for small in small_orders),
        ]
    value, length = int.from_bytes(signature, "big"), len(signature)
    modulus = private_key(algorithm).public_key().public_numbers().n
    others = [value + modulus, modulus - value, modulus, modulus - 1, modulus + 1, 1, 0, 256**length - 1]
    return [(other % 256**length).to_bytes(length, "big") for other in others]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Draw an algorithm, signed octets and a signature, which is valid or tampered with."""
    algorithm = draw(st.sampled_from(ALGORITHMS))
    signed = draw(st.binary(max_size=200))
    signature = sign(algorithm, signed)
    kind = draw(
        st.sampled_from(["valid", "bits", "length", "zero", "malleable", "other message", "random", "reversed"])
    )
    match kind:
        case "bits":
            octets = bytearray(signature)
            for position in draw(st.lists(st.integers(0, 8 * len(octets) - 1), min_size=1, max_size=3)):
                octets[position // 8] ^= 1 << position % 8
            signature = bytes(octets)
        case "length":
            cut, head, tail = draw(st.integers(0, 3)), draw(st.binary(max_size=3)), draw(st.binary(max_size=3))
            signature = head + signature[cut:] + tail
        case "zero":
            signature = bytes(len(signature))
        case "malleable":
            signature = draw(st.sampled_from(malleable_variants(algorithm, signature)))
        case "other message":
            signed += draw(st.binary(max_size=2))
        case "random":
            signature = draw(st.binary(min_size=len(signature), max_size=len(signature)))
        case "reversed":
            signature = signature[::-1]
    return algorithm, signed, signature


@pytest.mark.rule("J-33", "J-34", "J-36", "X-06")
@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_each_backend_agrees_with_pyjwt(backends: Backends, case: tuple[str, bytes, bytes]):
    algorithm, signed, signature = case
    verdict = key_of(algorithm, backends).verify(algorithm, signed, signature)
    assert verdict is verify_with_pyjwt(algorithm, signed, signature)


@pytest.mark.rule("J-33", "J-34")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_backend_agrees_with_pyjwt_on_variants_of_a_signature(backends: Backends, algorithm: str):
    key, signature = key_of(algorithm, backends), sign(algorithm, SIGNED)
    assert key.verify(algorithm, SIGNED, signature) is True
    verdicts = [key.verify(algorithm, SIGNED, other) for other in malleable_variants(algorithm, signature)]
    assert verdicts == [
        verify_with_pyjwt(algorithm, SIGNED, other) for other in malleable_variants(algorithm, signature)
    ]
    # By the definition of ECDSA, the variant with n-S instead of S is valid too; all others are refused.
    assert verdicts.count(True) == (algorithm in CURVES)


@pytest.mark.rule("J-36")
@pytest.mark.parametrize("salt", [0, 16, 31, 33, 48, 190])
def test_a_salt_of_another_length_than_the_hash_is_refused(backends: Backends, salt: int):
    assert not key_of("PS256", backends).verify("PS256", SIGNED, sign("PS256", SIGNED, salt=salt))
    assert not key_of("RS256", backends).verify("RS256", SIGNED, sign("PS256", SIGNED))
    assert not key_of("PS256", backends).verify("PS256", SIGNED, sign("RS256", SIGNED))


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 3), (2056, 65537), (3072, 65537), (4096, 65537), (4104, 65537)])
@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_rsa_keys_of_each_size_verify(backends: Backends, algorithm: str, bits: int, exponent: int):
    secret = rsa_key(bits, exponent)
    key, signature = key_of(algorithm, backends, secret), sign(algorithm, SIGNED, secret)
    assert key.verify(algorithm, SIGNED, signature)
    assert not key.verify(algorithm, SIGNED + b".", signature)
    assert not key.verify(algorithm, SIGNED, signature[::-1])


@given(r=st.integers(0, 256**32 - 1), s=st.integers(0, 256**32 - 1))
def test_conversion_of_a_signature_keeps_its_numbers(r: int, s: int):
    assert decode_dss_signature(der_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))) == (r, s)


# --- Ed25519 beyond what a signer does -------------------------------------------------------------------------------
# RFC 8032 section 5.1.7 allows two equations, with and without a cofactor. They disagree about signatures that only the
# holder of the secret can make; scopeguard always uses the one without. The arithmetic is that of section 5.1.

PRIME: Final = 2**255 - 19
D: Final = -121665 * pow(121666, -1, PRIME) % PRIME
OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
Point = tuple[int, int]


def point(y: int) -> Point:
    """Return the point with this y and an even x."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    return (x if x % 2 == 0 else PRIME - x), y


def plus(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    k = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, PRIME) % PRIME, (y1 * y2 + x1 * x2) * pow(1 - k, -1, PRIME) % PRIME


def times(factor: int, one: Point) -> Point:
    total = (0, 1)
    for bit in f"{factor:b}":
        total = plus(total, total)
        total = plus(total, one) if bit == "1" else total
    return total


def encode(one: Point) -> bytes:
    return (one[1] | (one[0] & 1) << 255).to_bytes(32, "little")


BASE: Final = point(4 * pow(5, -1, PRIME) % PRIME)
SECRET: Final = 12345678901234567890
NONCE: Final = 98765432109876543210


def ed_verdict(backends: Backends, public: Point, r: Point, signed: bytes) -> bool:
    """Return the result for the signature that SECRET and NONCE give, with *r* as its R."""
    digest = hashlib.sha512(encode(r) + encode(public) + signed).digest()
    s = (NONCE + int.from_bytes(digest, "little") * SECRET) % ORDER_OF_ED25519
    key = ed25519.Ed25519PublicKey.from_public_bytes(encode(public))
    return prepare_verifier("Ed25519", key, backends)(signed, encode(r) + s.to_bytes(32, "little"))


def test_ed25519_is_verified_by_the_equation_without_a_cofactor(backends: Backends):
    public, r, torsion = times(SECRET, BASE), times(NONCE, BASE), point(OF_ORDER_8)
    assert times(8, torsion) == (0, 1) != times(4, torsion)
    assert ed_verdict(backends, public, r, SIGNED)
    assert not ed_verdict(backends, public, plus(r, torsion), SIGNED)
    # Under a key with such a component one message in eight verifies, the same ones in each backend.
    strange, messages = plus(public, torsion), [b"%d" % number for number in range(40)]
    verdicts = [ed_verdict(backends, strange, r, message) for message in messages]
    assert verdicts == [ed_verdict((), strange, r, message) for message in messages]
    assert 0 < sum(verdicts) < 20


# --- the choice of a backend -----------------------------------------------------------------------------------------


class Recording:
    """A backend that records its calls and returns a configured result."""

    name = "recording"

    def __init__(self, answer: Callable[[], object] = lambda: True, takes: frozenset[str] = CLASSIC):
        self.answer, self.takes = answer, takes
        self.prepared: list[str] = []
        self.asked: list[tuple[bytes, bytes]] = []

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        self.prepared.append(algorithm)
        return self.verify if algorithm in self.takes else None

    def verify(self, signed: bytes, signature: bytes) -> Any:
        self.asked.append((signed, signature))
        return self.answer()


@pytest.mark.parametrize(("backend", "name"), [(Awscrt, "awscrt"), (PyNaCl, "pynacl")])
def test_library_handles_its_algorithms_and_no_others(backend: Callable[[], SignatureBackend], name: str):
    made = backend()
    assert made.name == name
    taken = {one for one in ALGORITHMS if made.prepare(one, private_key(one).public_key()) is not None}
    assert taken == TAKES[name]


def test_awscrt_declines_rsa_keys_that_it_cannot_load():
    for bits, taken in ((2048, True), (4096, True), (4104, False)):
        assert (Awscrt().prepare("RS256", rsa_key(bits).public_key()) is not None) is taken


def test_awscrt_is_not_used_if_it_would_call_the_libraries_of_the_system(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert [Awscrt().prepare(one, private_key(one).public_key()) for one in ALGORITHMS] == [None] * len(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_first_backend_for_an_algorithm_is_used_and_cryptography_last(algorithm: str):
    deaf, first, second = Recording(takes=frozenset()), Recording(), Recording()
    key, wrong = key_of(algorithm, (deaf, first, second)), bytes(length_of(algorithm))
    assert key.verify(algorithm, SIGNED, wrong)  # The result is that of the backend.
    assert first.asked == [(SIGNED, wrong)]
    assert not deaf.asked
    assert not second.prepared
    key = key_of(algorithm, (deaf,))
    assert not key.verify(algorithm, SIGNED, wrong)
    assert key.verify(algorithm, SIGNED, sign(algorithm, SIGNED))


def test_key_is_prepared_once_per_algorithm():
    backend = Recording()
    both = VerificationKey(
        kid=None,
        algorithms=frozenset(("RS256", "PS256")),
        issuer=None,
        thumbprint="",
        signature_octets=256,
        public_key=rsa_key().public_key(),
        backends=(backend,),
    )
    assert not backend.prepared
    for algorithm in ("RS256", "PS256", "RS256", "PS256"):
        assert both.verify(algorithm, SIGNED, bytes(256))
    assert backend.prepared == ["RS256", "PS256"]
    assert len(backend.asked) == 4


@pytest.mark.rule("J-04", "J-14")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signature_of_the_wrong_length_or_algorithm_reaches_no_backend(algorithm: str):
    backend = Recording()
    key, right = key_of(algorithm, (backend,)), length_of(algorithm)
    for length in (0, 1, right // 2, right - 1, right + 1, 2 * right):
        assert key.verify(algorithm, SIGNED, bytes(length)) is False
    for other in {*ALGORITHMS, "none", "HS256", ""} - {algorithm}:
        assert key.verify(other, SIGNED, bytes(right)) is False
    assert not backend.prepared
    assert not backend.asked


def test_equal_keys_are_equal_with_any_backend():
    assert key_of("RS256") == key_of("RS256", (Recording(),))
    assert hash(key_of("RS256")) == hash(key_of("RS256", (Recording(),)))


# --- failing backends ------------------------------------------------------------------------------------------------


def raise_error() -> bool:
    raise RuntimeError(f"no such signature: {SIGNED!r}")


async def coroutine() -> bool:
    return True


@pytest.mark.parametrize(
    "answer", [raise_error, lambda: None, lambda: 1, lambda: 0, lambda: "yes", lambda: NotImplemented]
)
def test_exception_or_a_result_that_is_not_a_bool_is_a_backend_failure(answer: Callable[[], object]):
    key = key_of("RS256", (Recording(answer),))
    for _ in range(2):
        with pytest.raises(SignatureBackendError, match=r"^recording (raised RuntimeError|returned )") as caught:
            key.verify("RS256", SIGNED, bytes(256))
        assert "header.payload" not in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_coroutine_as_a_result_is_a_backend_failure():
    made = coroutine()
    with pytest.raises(SignatureBackendError, match="returned coroutine"):
        key_of("RS256", (Recording(lambda: made),)).verify("RS256", SIGNED, bytes(256))
    assert inspect.iscoroutine(made)
    asyncio.run(made)


def test_backend_that_fails_to_prepare_is_retried_without_a_fallback():
    class Refusing(Recording):
        def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
            if len(self.prepared) < 2:
                self.prepared.append(algorithm)
                raise ValueError(f"{public_key}")
            return super().prepare(algorithm, public_key)

    first, second = Refusing(), Recording()
    key = key_of("RS256", (first, second))
    for _ in range(2):
        with pytest.raises(SignatureBackendError, match=r"^recording raised ValueError$"):
            key.verify("RS256", SIGNED, bytes(256))
    assert key.verify("RS256", SIGNED, bytes(256))
    assert not second.prepared


def test_exception_that_stops_the_process_is_raised():
    def stop() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        key_of("RS256", (Recording(stop),)).verify("RS256", SIGNED, bytes(256))


def test_false_is_a_valid_result():
    assert prepare_verifier("RS256", rsa_key().public_key(), (Recording(lambda: False),))(SIGNED, bytes(256)) is False
