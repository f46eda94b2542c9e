"""Measures the verification of a token that is not cached, compared with the check of its signature alone.

    python -m benchmarks.cold [--rounds N] [--algorithm RS256]

The base is one ``verify`` of ``cryptography`` with prepared arguments, including the DER form of an ES256 signature.
scopeguard's part is what an adapter does with the field of a request, from the token to an access token: ``recall``,
and the flow for a token that this leaves to it. It is measured with the token cache off, where every token goes to the
flow, with the token cache on (each token is new to it), and with the setting ``fast``. Other libraries check what they
offer: signature, issuer, audience and expiry, with the key at hand. Scopes are not checked.
"""

from __future__ import annotations

import argparse
import itertools
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from benchmarks import contestants
from benchmarks.contestants import COLD
from benchmarks.material import ALGORITHMS, AUDIENCE, Material
from benchmarks.measuring import Measured, Turn, figure, machine, measure_in_turns, now, silence, table
from scopeguard.config.token_sources import TokenSource
from scopeguard.flow.authenticate import validate
from scopeguard.flow.credentials import Credential
from scopeguard.guard import engine_of

Decode = Callable[[str], object]
"""Raises for an invalid token."""

RAW = "cryptography, one verify"
OURS = "scopeguard, which remembers it"
FAST = "scopeguard, which remembers it, fast=True"
LEAST = "base64, JSON and one verify, nothing checked"
MUST = {"RS256": "<= 1.75", "ES256": "<= 1.25", "EdDSA": "<= 1.2"}
MUST_FAST = {"RS256": "<= 1.5", "ES256": "<= 1.1", "EdDSA": "<= 0.7"}


def scopeguard_judges(material: Material, **settings: Any) -> Decode:
    guard = material.guard(**settings)
    engine = engine_of(guard)

    def decode(token: str) -> object:
        known = engine.recall(b"Bearer " + token.encode(), None, b"", None)
        if known is not None:
            return known
        credential = Credential(token=token, source=TokenSource.HEADER)
        return engine.perform(validate(credential, engine.context))

    return decode


def least_decoder(material: Material) -> Decode:
    """Return a decoder that does the minimum: base64 of claims and signature, the standard library's JSON, and one
    verify.
    """
    verify = contestants.verifier(material)

    def decode(token: str) -> object:
        signed, _, signature = token.rpartition(".")
        verify(urlsafe_b64decode(signature + "=="), signed.encode())
        return json.loads(urlsafe_b64decode(signed.partition(".")[2] + "=="))

    return decode


def pyjwt(material: Material) -> Decode:
    import jwt

    key, algorithms, issuer = material.public_key, [material.algorithm], material.authority.url
    options: Any = {"require": ["exp", "iss", "aud"]}
    return lambda token: jwt.decode(
        token, key, algorithms=algorithms, audience=AUDIENCE, issuer=issuer, options=options
    )


def joserfc(material: Material) -> Decode:
    from joserfc import jwt
    from joserfc.jwk import KeySet

    (key,) = KeySet.import_key_set(material.jwks).keys
    algorithms = [material.algorithm]
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": material.authority.url},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    def decode(token: str) -> None:
        registry.validate(jwt.decode(token, key, algorithms=algorithms).claims)

    return decode


def authlib(material: Material) -> Decode:
    from authlib.jose import JsonWebKey, JsonWebToken

    key, jwt = JsonWebKey.import_key(material.jwks["keys"][0]), JsonWebToken([material.algorithm])
    options = {
        "iss": {"essential": True, "value": material.authority.url},
        "aud": {"essential": True, "value": AUDIENCE},
        "exp": {"essential": True},
    }
    return lambda token: jwt.decode(token, key, claims_options=options).validate()


def python_jose(material: Material) -> Decode:
    from jose import jwk, jwt

    key, algorithm, issuer = jwk.construct(material.pem, material.algorithm), material.algorithm, material.authority.url
    options = {"require_exp": True, "require_iss": True, "require_aud": True}
    return lambda token: jwt.decode(token, key, algorithms=algorithm, audience=AUDIENCE, issuer=issuer, options=options)


def oxyjwt(material: Material) -> Decode:
    import oxyjwt

    key, algorithms, issuer = oxyjwt.PyJWK(material.jwks["keys"][0]).key, [material.algorithm], material.authority.url
    options: Any = {"require": ["exp", "iss", "aud"]}
    return lambda token: oxyjwt.decode(
        token, key, algorithms=algorithms, audience=AUDIENCE, issuer=issuer, options=options
    )


LIBRARIES: tuple[tuple[str, str, Callable[[Material], Decode], tuple[str, ...]], ...] = (
    ("PyJWT", "pyjwt", pyjwt, ALGORITHMS),
    ("joserfc", "joserfc", joserfc, ALGORITHMS),
    ("authlib.jose", "authlib", authlib, ALGORITHMS),
    ("oxyjwt", "oxyjwt", oxyjwt, ALGORITHMS),
    ("python-jose", "python-jose", python_jose, ("RS256", "ES256")),
)


def decoders(material: Material) -> tuple[dict[str, Decode], dict[str, str]]:
    """Return scopeguard and the installed libraries that support the algorithm, and the reasons why others are
    missing.
    """
    found = {
        "scopeguard": scopeguard_judges(material, token_cache="off"),
        OURS: scopeguard_judges(material, **COLD),
        FAST: scopeguard_judges(material, fast=True, **COLD),
    }
    absent = {}
    for name, distribution, made, algorithms in LIBRARIES:
        try:
            version(distribution)
        except PackageNotFoundError:
            absent[name] = f"not installed: {distribution}"
            continue
        if material.algorithm in algorithms:
            found[name] = made(material)
        else:
            absent[name] = f"does not support {material.algorithm}"
    return found, absent


def examine(name: str, decode: Decode, material: Material) -> None:
    """End this run if *decode* accepts a bad token or refuses a good one. Scopes are not tested."""
    decode(material.token())
    for what, token in material.bad_tokens().items():
        if what == "without the scope":
            continue
        try:
            decode(token)
        except Exception:  # noqa: BLE001 - every library has its own
            refused = True
        else:
            refused = False
        if not refused:
            raise SystemExit(f"{name}: a token {what} was accepted")


def turn_in_order(decode: Decode, tokens: Iterable[str]) -> Turn:
    """Return a turn that decodes one token after the other."""
    following = itertools.cycle(tokens)

    def turn(times: int) -> float:
        begun = now()
        for token in itertools.islice(following, times):
            decode(token)
        return now() - begun

    return turn


def raw_turn(material: Material, tokens: Iterable[str]) -> Turn:
    """Return a turn that checks signatures only."""
    key: Any = material.public_key
    extra: tuple[Any, ...] = ()
    if material.algorithm == "RS256":
        extra = (padding.PKCS1v15(), hashes.SHA256())
    elif material.algorithm == "ES256":
        extra = (ec.ECDSA(hashes.SHA256()),)
    ready = []
    for token in tokens:
        signed, _, last = token.rpartition(".")
        signature = urlsafe_b64decode(last + "==")
        if material.algorithm == "ES256":
            r, s = signature[:32], signature[32:]
            signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        ready.append((signature, signed.encode(), *extra))
    following = itertools.cycle(ready)

    def turn(times: int) -> float:
        verify = key.verify
        begun = now()
        for arguments in itertools.islice(following, times):
            verify(*arguments)
        return now() - begun

    return turn


def compare(algorithm: str, *, rounds: int) -> tuple[dict[str, Measured], dict[str, str]]:
    """Test and then measure all decoders in turns. Return the results and the missing libraries."""
    material = Material(algorithm)
    judges, absent = decoders(material)
    for name, decode in judges.items():
        examine(name, decode, material)
    tokens = material.tokens(contestants.COLD_TOKENS)
    judges = {LEAST: least_decoder(material), **judges}
    turns = {RAW: raw_turn(material, tokens)} | {name: turn_in_order(decode, tokens) for name, decode in judges.items()}
    return measure_in_turns(turns, rounds=rounds), absent


def describe(found: dict[str, Measured]) -> dict[str, dict[str, float]]:
    """Return all results compared with the check of the signature. Times are in seconds."""
    rows = {}
    for name, mine in found.items():
        ratio, smallest = mine.ratio(found[RAW]), mine.smallest
        rows[name] = {
            "peer": name not in (RAW, LEAST) and not name.startswith("scopeguard"),
            "smallest": smallest,
            "median": mine.median,
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "smallest_ratio": smallest / found[RAW].smallest,
        }
    return rows


def figures(algorithm: str, rows: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return the figure for *algorithm*, with the token cache on, which is the default."""
    best, best_name = min(((row["ratio"], name) for name, row in rows.items() if row["peer"]), default=(None, ""))
    ours, fast = rows[OURS]["ratio"], rows[FAST]["ratio"]
    title = f"cold judgement of a 980-byte token ÷ one verify of cryptography, {algorithm}"
    return [
        figure(title, ours, MUST[algorithm], peer=best, peer_name=best_name),
        figure(f"the same with fast=True, {algorithm}", fast, MUST_FAST[algorithm]),
        figure("the same of base64, JSON and one verify, with nothing checked", rows[LEAST]["ratio"], ""),
    ]


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure all algorithms."""
    results: dict[str, Any] = {"figures": [], "absent": {}}
    for algorithm in ALGORITHMS:
        found, absent = compare(algorithm, rounds=8 if quick else 100)
        results[algorithm] = describe(found)
        results["absent"] |= {f"{name}, {algorithm}": why for name, why in absent.items()}
        results["figures"] += figures(algorithm, results[algorithm])
    return results


def render(algorithm: str, rows: dict[str, dict[str, float]]) -> str:
    columns = ["", "min µs", "median µs", "÷ one verify, median (middle half)", "of minima"]
    lines = [
        [
            name,
            f"{row['smallest'] * 1e6:.1f}",
            f"{row['median'] * 1e6:.1f}",
            f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['smallest_ratio']:.2f}",
        ]
        for name, row in rows.items()
    ]
    return table(f"A token that is not cached, {algorithm}", columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--algorithm", choices=ALGORITHMS)
    options = parser.parse_args()
    silence()
    for algorithm in [options.algorithm] if options.algorithm else ALGORITHMS:
        found, absent = compare(algorithm, rounds=options.rounds)
        rows = describe(found)
        print(render(algorithm, rows))
        for name, why in absent.items():
            print(f"{name}: {why}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
