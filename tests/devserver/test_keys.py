"""Keys are generated on demand, published while needed, and stored only if configured."""

from __future__ import annotations

import json
import stat

import pytest
from jwt import PyJWK

from algorithms import ML_DSA_HERE
from scopeguard import ConfigurationError
from scopeguard.devserver import KeyRing, SigningKey
from scopeguard.devserver.keys import compact
from scopeguard.spec.jwks import parse_key_set

ALGORITHMS = ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", *ML_DSA_HERE]


def kids(ring: KeyRing, now: float) -> list[str]:
    return [jwk["kid"] for jwk in ring.key_set(now)["keys"]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_published_key_verifies_signatures_of_its_private_key(algorithm):
    key = SigningKey.generate(algorithm)
    (published,) = parse_key_set({"keys": [key.public_jwk()]}).keys
    assert published.verify(algorithm, b"message", key.sign(b"message"))
    assert not published.verify(algorithm, b"other", key.sign(b"message"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_is_the_same_after_export_and_import(algorithm):
    key = SigningKey.generate(algorithm)
    again = SigningKey.from_private_jwk(json.loads(json.dumps(key.private_jwk())))
    assert again.public_jwk() == key.public_jwk()


def test_compact_does_not_encode_bytes():
    key = SigningKey.generate("ES256")
    assert compact(b"{}", b'{"a": 1}', key).startswith("e30.eyJhIjogMX0.")


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ConfigurationError, match="HS256"):
        KeyRing("HS256")
    with pytest.raises(ConfigurationError, match="none"):
        SigningKey.generate("none")


def test_no_private_key_is_in_a_repr():
    assert "private" not in repr(SigningKey.generate("ES256"))


@pytest.mark.rule("T-12")
def test_after_a_rotation_the_old_key_is_published_for_the_overlap():
    ring = KeyRing("ES256", overlap=60)
    old = ring.signing_key()
    new = ring.rotate(1000)
    assert ring.signing_key() is new
    assert kids(ring, 1059.9) == [new.kid, old.kid]
    assert kids(ring, 1060) == [new.kid]


@pytest.mark.rule("T-12")
def test_a_rotation_without_overlap_removes_every_old_key_at_once():
    ring = KeyRing("ES256")
    ring.signing_key()
    ring.rotate(0)
    ring.rotate(1)
    assert len(kids(ring, 2)) == 3
    new = ring.rotate(2, overlap=0)
    assert kids(ring, 2) == [new.kid]


def test_key_for_another_algorithm_is_published_after_its_first_use():
    ring = KeyRing("ES256")
    assert [jwk["alg"] for jwk in ring.key_set(0)["keys"]] == ["ES256"]
    assert ring.signing_key("EdDSA") is ring.signing_key("EdDSA")
    assert [jwk["alg"] for jwk in ring.key_set(0)["keys"]] == ["ES256", "EdDSA"]


def test_foreign_keys_are_published_as_they_are_until_a_reset():
    ring = KeyRing("ES256")
    ring.publish({"kty": "oct", "k": "AA"})
    assert ring.key_set(0)["keys"][-1] == {"kty": "oct", "k": "AA"}
    ring.rotate(0)
    ring.reset()
    assert kids(ring, 0) == [ring.signing_key().kid]


@pytest.mark.rule("T-11")
def test_keys_are_ephemeral(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert KeyRing("ES256").signing_key().public_jwk() != KeyRing("ES256").signing_key().public_jwk()
    assert not list(tmp_path.iterdir())


def test_a_key_file_keeps_the_keys_for_the_next_start_and_is_private(tmp_path):
    path = tmp_path / "keys.json"
    first = KeyRing("ES256", path=path)
    kid = first.signing_key().kid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing("ES256", path=path).signing_key().kid == kid
    rotated = first.rotate(0).kid
    assert KeyRing("ES256", path=path).signing_key().kid == rotated
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_a_key_file_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    KeyRing("ES256", path=path).signing_key()
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="600"):
        KeyRing("ES256", path=path)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"keys": 7}', '{"keys": [{}]}', '{"keys": [{"kty": "EC", "alg": "ES256", "kid": "1"}]}']
)
def test_a_file_that_holds_no_keys_is_refused_without_being_quoted(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="key file") as caught:
        KeyRing("ES256", path=path)
    assert caught.value.__suppress_context__


def test_published_keys_are_read_by_other_libraries_too():
    for jwk in (SigningKey.generate(name).public_jwk() for name in ("RS256", "ES256", "EdDSA")):
        assert PyJWK(jwk).key_id == jwk["kid"]
