"""Published vectors: Wycheproof, RFC 7520, RFC 7797, RFC 8037, RFC 9964, and the keys of PyJWT's tests.

Each one takes the path of a real token: :func:`parse_compact`, :func:`check_header` with every algorithm that could be
configured, :func:`parse_key_set`, ``candidates``, ``verify``. ``DEVIATIONS`` lists each vector whose result differs
from its mark.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from algorithms import ML_DSA_HERE
from scopeguard.errors import ConfigurationError
from scopeguard.spec.jwks import MalformedKeySet, VerificationKey, parse_configured_key_set, parse_key_set, thumbprint
from scopeguard.spec.jws import decode_base64url
from scopeguard.spec.signatures import Backends

HMAC: Final = "HS*: whoever can verify could forge; no symmetric algorithm can be configured (J-24, J-39)"
ENCRYPTED: Final = "JWE: encrypted tokens are not read (J-01)"
PINNED: Final = "the vector's JWK pins PS256 and its token says PS384: one key, one algorithm (J-15)"
TYPO: Final = "the vector's JWK has the alg ES521, which is not registered and meant to be ES512 (J-15)"
JUNK: Final = (
    "marked valid with a question mark inside its base64url, which RFC 7515 section 2 forbids (J-03); and HS256"
)

# (file, tcId) -> the reason for a result that differs from the mark. All of them are "valid" there and refused here;
# nothing that is marked invalid is accepted, and the one vector marked "acceptable" is refused (see below). What is
# encrypted throughout (json_web_encryption_test) or of an algorithm that is not supported (Ed448, HMAC) has tests of
# its own.
DEVIATIONS: Final[Mapping[tuple[str, int], str]] = {
    **{("json_web_signature_test", tc): HMAC for tc in (1, 348, 352, 357, 358, 359, 376, 377)},
    **{("json_web_signature_test", tc): PINNED for tc in (346, 350)},
    **{("json_web_signature_test", tc): TYPO for tc in (347, 351)},
    **{("json_web_signature_test", tc): JUNK for tc in (372, 373)},
    **{("json_web_key_test", tc): HMAC for tc in (2, 13, 14, 15)},
    **{("json_web_crypto_test", tc): HMAC for tc in (1, 48)},
    **{("json_web_crypto_test", tc): ENCRYPTED for tc in (50, 67)},
}

COUNTS: Final = {
    "json_web_signature_test": 401,
    "json_web_key_test": 26,
    "json_web_crypto_test": 83,
    "json_web_encryption_test": 139,
}
RAW: Final = {
    "ecdsa_secp256r1_sha256_p1363_test": ("ES256", 262),
    "ecdsa_secp384r1_sha384_p1363_test": ("ES384", 280),
    "ecdsa_secp521r1_sha512_p1363_test": ("ES512", 318),
    "ecdsa_secp256k1_sha256_p1363_test": ("ES256K", 252),
    "ed25519_test": ("EdDSA", 151),
    "rsa_signature_2048_sha256_test": ("RS256", 259),
    "rsa_pss_2048_sha256_mgf1_32_test": ("PS256", 108),
}
PRIVATE: Final = {"d", "p", "q", "dp", "dq", "qi", "oth", "priv"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def load(path: Path) -> Any:
    return json.loads(path.read_bytes())


def public_part(jwk: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in PRIVATE}


def wycheproof(vectors: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every test of a file with its group."""
    for group in load(vectors / "wycheproof" / f"{name}.json")["testGroups"]:
        for test in group["tests"]:
            yield group, test


def key_set_of(group: Mapping[str, Any]) -> dict[str, Any]:
    keys = group.get("public") or group["private"]
    return {"keys": [public_part(jwk) for jwk in keys.get("keys", [keys])]}


def token_of(test: Mapping[str, Any]) -> str:
    token = test["jws"] if "jws" in test else test["jwe"]
    return token if isinstance(token, str) else json.dumps(token)


@pytest.mark.rule("J-03", "J-04", "J-11", "J-15", "J-16", "J-17", "J-25", "J-31", "J-34", "J-35", "J-36", "X-15")
@pytest.mark.parametrize("name", ["json_web_signature_test", "json_web_key_test", "json_web_crypto_test"])
def test_wycheproof_tokens_give_the_marked_result_except_the_listed_ones(vectors, judge, name, backends):
    differing: dict[tuple[str, int], str] = {}
    count = 0
    for group, test in wycheproof(vectors, name):
        count += 1
        assert test["result"] in ("valid", "invalid")
        answer = judge(token_of(test), key_set_of(group), backends=backends)
        if (answer == "accepted") != (test["result"] == "valid"):
            differing[name, test["tcId"]] = answer
            assert test["result"] == "valid", f"{name} {test['tcId']} ({test['comment']}) is marked invalid"
    assert differing.keys() == {key for key in DEVIATIONS if key[0] == name}
    assert count == COUNTS[name]


def test_each_listed_deviation_has_the_listed_reason(vectors, judge):
    expected = {
        HMAC: {"algorithm_refused"},
        ENCRYPTED: {"encrypted_token"},
        PINNED: {"no candidate"},
        TYPO: {"no usable key"},
        JUNK: {"malformed_token"},
    }
    seen = set()
    for name in {name for name, _ in DEVIATIONS}:
        for group, test in wycheproof(vectors, name):
            reason = DEVIATIONS.get((name, test["tcId"]))
            if reason is not None:
                seen.add((name, test["tcId"]))
                token = token_of(test)
                assert judge(token, key_set_of(group)) in expected[reason], (name, test["tcId"])
                # The result is the same if HS* is allowed, and if the key set has another key in it.
                assert judge(token, key_set_of(group), algorithms=["HS256", "HS384", "HS512"]) != "accepted"
    assert seen == DEVIATIONS.keys()


@pytest.mark.rule("J-01", "J-46", "J-47", "J-48", "J-49", "X-16", "X-18")
@pytest.mark.parametrize("name", ["json_web_encryption_test", "json_web_crypto_test"])
def test_wycheproof_jwes_are_refused_without_a_key_operation(vectors, judge, name):
    count = 0
    for _, test in wycheproof(vectors, name):
        if "jwe" in test:
            count += 1
            five_segments = isinstance(test["jwe"], str) and test["jwe"].count(".") == 4
            answer = judge(token_of(test), {"keys": []})
            assert answer in ("encrypted_token", "malformed_token")
            assert answer == "encrypted_token" or not (five_segments and test["result"] == "valid")
    assert count == {"json_web_encryption_test": 139, "json_web_crypto_test": 34}[name]


def raw_key(group: Mapping[str, Any], backends: Backends) -> VerificationKey:
    """The key of a group. The files come with a JWK for most of them, and with the numbers for all."""
    jwk = group.get("publicKeyJwk") or group.get("keyJwk")
    if jwk is None:
        key = group["publicKey"]
        if "modulus" in key:
            jwk = {
                "kty": "RSA",
                "n": b64(bytes.fromhex(key["modulus"])),
                "e": b64(bytes.fromhex(key["publicExponent"])),
            }
        else:
            names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
            length = {"secp384r1": 48, "secp521r1": 66}.get(key["curve"], 32)
            x, y = (b64(int(key[name], 16).to_bytes(length, "big")) for name in ("wx", "wy"))
            jwk = {"kty": "EC", "crv": names[key["curve"]], "x": x, "y": y}
    (verification_key,) = parse_key_set({"keys": [jwk]}, backends=backends).keys
    return verification_key


@pytest.mark.rule("J-33", "J-34", "J-36", "J-37", "X-06")
@pytest.mark.parametrize("name", RAW)
def test_wycheproof_signatures_give_the_marked_result(vectors, name, backends):
    algorithm, expected = RAW[name]
    count = 0
    for group, test in wycheproof(vectors, name):
        count += 1
        verified = raw_key(group, backends).verify(algorithm, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        # "acceptable" is a PKCS #1 signature without the NULL of its DigestInfo: RFC 8017 wants it, so it is refused.
        assert verified is (test["result"] == "valid"), (name, test["tcId"], test["comment"])
    assert count == expected


@pytest.mark.rule("J-37", "J-38")
def test_no_key_of_wycheproofs_ed448_and_hmac_files_is_usable(vectors):
    groups = load(vectors / "wycheproof" / "ed448_test.json")["testGroups"]
    secrets = load(vectors / "wycheproof" / "hmac_sha256_test.json")["testGroups"]
    jwks = [group["publicKeyJwk"] for group in groups]
    jwks += [{"kty": "oct", "k": b64(bytes.fromhex(test["key"]))} for group in secrets for test in group["tests"]]
    assert len(jwks) == 15 + 174
    for jwk in jwks:
        with pytest.raises(MalformedKeySet):
            parse_key_set({"keys": [jwk]})


# --- RFC 7520, RFC 7797, RFC 8037 ------------------------------------------------------------------------------------


def publish(vectors: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    cookbook = vectors / "jose-cookbook"
    for path in sorted(
        [*cookbook.glob("jws/*.json"), *cookbook.glob("rfc7797/*.json"), cookbook / "curve25519/jws.json"]
    ):
        yield path.name, load(path)
    for vector in load(vectors / "panva-jose" / "jws.json")["vectors"]:
        yield vector["title"], vector


@pytest.mark.rule("J-02", "J-30", "J-51", "X-15")
def test_published_signatures_verify_for_supported_algorithms_only(vectors, judge, backends):
    answers: dict[str, list[str]] = {}
    for _, vector in publish(vectors):
        keys = vector["input"]["key"]
        jwks = {"keys": [public_part(jwk) for jwk in (keys if isinstance(keys, list) else [keys])]}
        compact = vector["output"].get("compact")
        if compact is not None:
            answers.setdefault(judge(compact, jwks, backends=backends), []).append(str(vector["input"]["alg"]))
        for form in ("json", "json_flat"):
            if form in vector["output"]:
                assert judge(json.dumps(vector["output"][form]), jwks) == "malformed_token"
    assert {answer: sorted(algorithms) for answer, algorithms in answers.items()} == {
        "accepted": sorted(["RS256", "PS384", "ES512", "EdDSA"] * 2 + list(ML_DSA_HERE)),
        "algorithm_refused": ["HS256", "HS256", "HS256"],
        **({} if ML_DSA_HERE else {"no usable key": ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]}),
        "malformed_token": ["HS256"],  # RFC 7797: the payload is not encoded.
    }


@pytest.mark.rule("J-51")
def test_published_signatures_with_one_bit_flipped_are_refused(vectors, judge):
    count = 0
    for _, vector in publish(vectors):
        compact = vector["output"].get("compact")
        if compact is None or vector["input"]["alg"] not in ("RS256", "PS384", "ES512", "EdDSA", *ML_DSA_HERE):
            continue
        count += 1
        jwks = {"keys": [public_part(vector["input"]["key"])]}
        signed, _, signature = compact.rpartition(".")
        for position in (0, 20, -1):
            octets = bytearray(decode_base64url(signature))
            octets[position] ^= 0x10
            assert judge(f"{signed}.{b64(bytes(octets))}", jwks) == "bad signature"
    assert count == 8 + len(ML_DSA_HERE)


@pytest.mark.rule("PQ-01")
def test_key_ids_of_rfc_9964_are_the_thumbprints_of_its_keys(vectors):
    examples = [vector for _, vector in publish(vectors) if str(vector["input"]["alg"]).startswith("ML-DSA")]
    assert len(examples) == 3
    for vector in examples:
        header = json.loads(decode_base64url(vector["output"]["compact"].partition(".")[0]))
        assert thumbprint(vector["input"]["key"]) == header["kid"]


@pytest.mark.rule("J-44", "J-46", "X-18", "X-19")
def test_the_nested_token_of_rfc_7520_is_refused_outside_and_accepted_inside(vectors, judge):
    nested = load(vectors / "jose-cookbook" / "6.nesting_signatures_and_encryption.json")
    key = {"keys": [public_part(nested["sign"]["input"]["key"])]}
    assert judge(nested["sign"]["output"]["compact"], key) == "accepted"
    assert judge(nested["encrypt"]["output"]["compact"], key) == "encrypted_token"


@pytest.mark.rule("J-01", "J-46", "J-47", "J-49")
def test_published_encrypted_tokens_are_refused(vectors, judge):
    outputs = [load(path)["output"] for path in sorted((vectors / "jose-cookbook" / "jwe").glob("*.json"))]
    outputs += [vector["output"] for vector in load(vectors / "panva-jose" / "jwe.json")["vectors"]]
    assert len(outputs) == 13 + 11
    for output in outputs:
        if "compact" in output:
            assert judge(output["compact"], {"keys": []}) == "encrypted_token"
        for form in ("json", "json_flat"):
            if form in output:
                assert judge(json.dumps(output[form]), {"keys": []}) == "malformed_token"


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("J-22")
@pytest.mark.parametrize(
    ("path", "usable"),
    [
        ("jose-cookbook/jwk/3_1.ec_public_key.json", {"ES512"}),
        ("jose-cookbook/jwk/3_2.ec_private_key.json", None),
        ("jose-cookbook/jwk/3_3.rsa_public_key.json", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("jose-cookbook/jwk/3_4.rsa_private_key.json", None),
        ("jose-cookbook/jwk/3_5.symmetric_key_mac_computation.json", None),
        ("jose-cookbook/jwk/3_6.symmetric_key_encryption.json", None),
        ("pyjwt/jwk_ec_pub_P-256.json", {"ES256"}),
        ("pyjwt/jwk_rsa_pub.json", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("pyjwt/jwk_okp_pub_Ed25519.json", {"EdDSA", "Ed25519"}),
        ("pyjwt/jwk_okp_pub_Ed448.json", None),
        ("pyjwt/jwk_keyset_with_unknown_alg.json", {"RS256"}),
        ("pyjwt/jwk_keyset_only_unknown_alg.json", None),
    ],
)
def test_published_keys_are_usable_if_public_and_for_signatures(vectors, path, usable):
    document = load(vectors / path)
    jwks = document if "keys" in document else {"keys": [document]}
    if usable is None:
        with pytest.raises(MalformedKeySet):
            parse_key_set(jwks)
    else:
        (key,) = parse_key_set(json.dumps(jwks).encode()).keys
        assert key.algorithms == usable
        assert key.thumbprint == thumbprint(next(jwk for jwk in jwks["keys"] if jwk.get("kid") == key.kid))


@pytest.mark.rule("J-23", "J-31", "J-39")
@pytest.mark.parametrize("name", ["3_2.ec_private_key", "3_4.rsa_private_key", "3_5.symmetric_key_mac_computation"])
def test_a_published_secret_in_the_configuration_is_an_error(vectors, name):
    jwk = load(vectors / "jose-cookbook" / "jwk" / f"{name}.json")
    with pytest.raises(ConfigurationError, match=jwk["kid"]) as caught:
        parse_configured_key_set({"keys": [jwk]})
    assert jwk.get("d", jwk.get("k")) not in str(caught.value)
