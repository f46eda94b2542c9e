"""ML-DSA needs a ``cryptography`` that has it: the setting says so when it is made, and nothing fails later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from scopeguard import ConfigurationError, DPoP, Issuer
from scopeguard.client import DPoPKey
from scopeguard.config import ml_dsa
from scopeguard.config.algorithms import DEFAULT_ALGORITHMS, DPOP_ALGORITHMS
from scopeguard.config.ml_dsa import ML_DSA, is_available
from scopeguard.devserver import KeyRing, SigningKey
from scopeguard.spec import jwks
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.jwks import MalformedKeySet, parse_key_set
from scopeguard.testing import FakeAuthority, bad_keys, bad_proofs, bad_tokens


def raise_import_error(*_: object) -> None:
    raise ImportError("cannot import name 'mldsa'")


class OldClasses:
    """The classes of version 47, which need a library other than OpenSSL."""

    @staticmethod
    def from_seed_bytes(_: bytes) -> None:
        raise UnsupportedAlgorithm("ML-DSA-44 is not supported by this backend.")


@pytest.fixture
def without_ml_dsa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml_dsa, "is_available", lambda: False)


@pytest.mark.parametrize("load_class", [raise_import_error, lambda *_: OldClasses], ids=["before 47", "47"])
def test_an_older_cryptography_is_recognised(load_class: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ml_dsa, "load_class", load_class)
    assert is_available.__wrapped__() is False


@pytest.mark.rule("PQ-03")
@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda name: Issuer("https://as.test", audience="a", algorithms=("ES256", name)), "algorithms"),
        (lambda name: DPoP(algorithms=(name,), max_proof_bytes=16384), "dpop: algorithms"),
        (lambda name: DPoPKey(algorithm=name), "dpop: algorithm"),
        (lambda name: AssertionKey(material="", algorithm=name), "private_key_jwt"),
        (SigningKey.generate, "algorithm"),
        (lambda name: SigningKey.from_private_jwk({"kid": "k", "alg": name}), "algorithm"),
        (KeyRing, "algorithm"),
        (lambda name: FakeAuthority(algorithm=name), "algorithm"),
    ],
)
@pytest.mark.parametrize("algorithm", ML_DSA)
def test_setting_says_what_to_install(
    make: Callable[[str], object], setting: str, algorithm: str, without_ml_dsa: None
):
    with pytest.raises(ConfigurationError) as raised:
        make(algorithm)
    expected = f"{setting}: {algorithm} needs cryptography 48 or newer with OpenSSL 3.5 or newer; "
    assert str(raised.value) == expected + 'pip install "cryptography>=48"'


@pytest.mark.rule("PQ-03")
@pytest.mark.parametrize("error", [ImportError, UnsupportedAlgorithm])
def test_key_that_cannot_be_built_is_ignored_without_alarm(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    def load_class(*_: object) -> None:
        raise error("no ML-DSA")

    monkeypatch.setattr(jwks, "load_class", load_class)
    jwk = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "A" * 1748 + "AA"}
    with pytest.raises(MalformedKeySet, match="the installed cryptography or OpenSSL cannot use this kind of key"):
        parse_key_set({"keys": [jwk]})
    good = SigningKey.generate("ES256", kid="k").public_jwk()
    key_set = parse_key_set({"keys": [jwk, good]})
    assert [key.alarming for key in key_set.ignored] == [False]
    assert len(key_set.candidates("k", "ES256")) == 1


def test_the_testing_kit_works_without_ml_dsa(monkeypatch: pytest.MonkeyPatch):
    import scopeguard.testing.forgeries.ml_dsa as forgeries
    from scopeguard.testing import hostile_keys, hostile_proofs

    for module in (forgeries, hostile_keys, hostile_proofs):
        monkeypatch.setattr(module, "is_available", lambda: False)
    for corpus in (bad_tokens, bad_keys, bad_proofs):
        names = list(corpus(FakeAuthority()))
        assert len(names) > 25
        assert not [name for name in names if name.startswith(("ml-dsa", "key-ml-dsa", "hs256-ml-dsa"))]


@pytest.mark.rule("PQ-03")
def test_ml_dsa_is_in_no_default():
    assert set(ML_DSA).isdisjoint((*DEFAULT_ALGORITHMS, *DPOP_ALGORITHMS))
    assert set(ML_DSA).isdisjoint(Issuer("https://as.test", audience="a").algorithms)
    assert set(ML_DSA).isdisjoint(DPoP().algorithms)
