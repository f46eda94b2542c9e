"""Malformed tokens, and tokens that two parsers read differently."""

from __future__ import annotations

import base64
import json
from typing import Final

from scopeguard.devserver.keys import base64url, json_bytes
from scopeguard.testing.forgeries.token_parts import Corpus, Forge, encode

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    _segments(forge, corpus)
    _tampered(forge, corpus)
    _json_serialization(forge, corpus)
    _base64(forge, corpus)
    _character_encodings(forge, corpus)
    _not_objects(forge, corpus)
    _duplicates(forge, corpus)
    _sizes(forge, corpus)
    _other_formats(forge, corpus)


def _segments(forge: Forge, corpus: Corpus) -> None:
    good = forge.sign()
    header, payload, signature = good.split(".")
    shapes = (
        ("one", header),
        ("two", f"{header}.{payload}"),
        ("four", f"{good}.{signature}"),
        ("six", f"{good}.{good}"),
        ("dots-only", ".."),
        ("one-dot", "."),
        ("ten-thousand-dots", "." * 10_000),
        ("leading-dot", f".{good}"),
        ("trailing-dot", f"{good}."),
    )
    for name, token in shapes:
        corpus.bad(f"segments-{name}", token, "a JWS in compact serialization has three segments", "J-01")
    corpus.bad("segments-no-header", f".{payload}.{signature}", "there is no header", "J-01", "J-06")
    corpus.bad("segments-no-payload", forge.signed_text(f"{header}."), "there are no claims", "J-42")


def _tampered(forge: Forge, corpus: Corpus) -> None:
    header, payload, signature = forge.sign().split(".")
    octets = base64.urlsafe_b64decode(signature + "==")
    flipped = bytes([octets[0] ^ 1]) + octets[1:]
    corpus.bad("signature-stripped", f"{header}.{payload}.", "there is no signature", "X-03")
    corpus.bad("signature-truncated", f"{header}.{payload}.{base64url(octets[:-4])}", "the signature is cut", "X-03")
    corpus.bad("signature-flipped-bit", f"{header}.{payload}.{base64url(flipped)}", "one bit is wrong", "J-51", "P-07")
    other = encode(forge.claims(sub="root", scope="read write admin"))
    corpus.bad("signature-of-other-claims", f"{header}.{other}.{signature}", "the claims were replaced", "P-07")
    renamed = encode(forge.header(None, typ="application/at+jwt"))
    corpus.bad("signature-of-other-header", f"{renamed}.{payload}.{signature}", "the header was replaced", "J-41")
    spaced = base64url(json.dumps(forge.claims(), indent=1).encode())
    corpus.bad(
        "signature-of-other-spelling",
        f"{header}.{spaced}.{signature}",
        "the same claims with other white space: the signature covers the bytes",
        "J-41",
    )


def _json_serialization(forge: Forge, corpus: Corpus) -> None:
    header, payload, signature = forge.sign().split(".")
    flattened = {"payload": payload, "protected": header, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    unprotected = {"payload": payload, "header": {"alg": "none"}, "signature": ""}
    polyglot = {f"{header}.{encode(forge.claims(sub='root'))}.": "", **flattened}
    why = "JSON serialization is not allowed for bearer tokens: one parser may verify what another does not read"
    for name, value in (
        ("flattened", flattened),
        ("general", general),
        ("unprotected", unprotected),
        ("polyglot", polyglot),
    ):
        corpus.bad(f"json-{name}", json.dumps(value, separators=(",", ":")), why, "J-02", "X-15")


def _last_bits(segment: str) -> str:
    """Return *segment* with one of its unused last bits set. A lenient decoder reads the same bytes."""
    return segment[:-1] + _ALPHABET[_ALPHABET.index(segment[-1]) + 1]


def _with_tail(part: dict[str, object], name: str) -> str:
    """Return *part* as a segment whose last character has unused bits."""
    while len(encode(part)) % 4 == 0:
        part[name] = f"{part[name]}x"
    return encode(part)


def _plain_alphabet(forge: Forge) -> str:
    """Return a token whose signature has ``+`` and ``/`` for ``-`` and ``_``. Random signatures need several tries."""
    while True:
        header, payload, signature = forge.sign().split(".")
        if "-" in signature and "_" in signature:
            return f"{header}.{payload}.{signature.replace('-', '+').replace('_', '/')}"


def _base64(forge: Forge, corpus: Corpus) -> None:
    header, payload, signature = forge.sign().split(".")
    one_spelling = "a token must have one spelling only, or a second spelling evades a deny-list"
    rules = ("J-03", "X-28")
    corpus.bad("base64-padded-signature", f"{header}.{payload}.{signature}==", one_spelling, *rules)
    corpus.bad("base64-padded-header", forge.signed_text(f"{header}=.{payload}"), one_spelling, *rules)
    corpus.bad("base64-padded-payload", forge.signed_text(f"{header}.{payload}="), one_spelling, *rules)
    corpus.bad("base64-plain-alphabet", _plain_alphabet(forge), one_spelling, *rules)
    for kind, junk in (("exclamation-mark", "!"), ("tilde", "~"), ("percent", "%"), ("comma", ",")):
        dirty = f"{signature[:10]}{junk}{signature[10:]}"
        corpus.bad(f"base64-junk-{kind}", f"{header}.{payload}.{dirty}", "base64 must not contain junk", *rules)
    corpus.bad("base64-impossible-length", f"{header}.{payload}.{signature}AAA", "no base64 has this length", *rules)
    for place, token in (
        ("signature", f"{header}.{payload}.{_last_bits(signature)}"),
        ("payload", forge.signed_text(f"{header}.{_last_bits(_with_tail(forge.claims(), 'jti'))}")),
        ("header", forge.signed_text(f"{_last_bits(_with_tail(forge.header(None, x='x'), 'x'))}.{payload}")),
    ):
        corpus.bad(f"base64-last-bits-{place}", token, one_spelling, "J-04", "X-28")


def _character_encodings(forge: Forge, corpus: Corpus) -> None:
    header, claims = json_bytes(forge.header()).decode(), json_bytes(forge.claims()).decode()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"):
        why = "JSON must be UTF-8 without a byte order mark; json.loads(bytes) guesses the encoding"
        corpus.bad(f"header-{encoding}", forge.sign(header.encode(encoding)), why, "J-05", "X-21")
        corpus.bad(f"payload-{encoding}", forge.sign(claims=claims.encode(encoding)), why, "J-05", "X-21")
    for kind, octets in (
        ("latin-1", b"\xe9"),
        ("overlong", b"\xc0\xaf"),
        ("surrogate", b"\xed\xa0\x80"),
        ("cut-off", b"\xe2\x82"),
        ("beyond-unicode", b"\xf5\x80\x80\x80"),
    ):
        why = "not UTF-8; only a lenient decoder accepts it"
        corpus.bad(f"header-{kind}", forge.sign(_with_octets(header, octets)), why, "J-05", "X-21")
        corpus.bad(f"payload-{kind}", forge.sign(claims=_with_octets(claims, octets)), why, "J-05", "X-21")


def _with_octets(document: str, octets: bytes) -> bytes:
    return document[:-1].encode() + b',"x":"' + octets + b'"}'


def _not_objects(forge: Forge, corpus: Corpus) -> None:
    claims = json_bytes(forge.claims())
    shapes = (
        ("list", b"[]"),
        ("list-of-object", b"[" + claims + b"]"),
        ("string", b'"x"'),
        ("null", b"null"),
        ("number", b"7"),
        ("true", b"true"),
        ("nothing", b" "),
    )
    for name, octets in shapes:
        corpus.bad(f"header-{name}", forge.sign(octets), "the header is not a JSON object", "J-06")
        corpus.bad(f"payload-{name}", forge.sign(claims=octets), "the payload is not a JSON object", "J-42")
    for name, octets in (
        ("trailing-comma", claims[:-1] + b",}"),
        ("trailing-text", claims + b"x"),
        ("two-objects", claims + claims),
        ("comment", claims[:-1] + b"/**/}"),
        ("single-quotes", claims.replace(b'"', b"'")),
        ("unclosed", claims[:-1]),
        ("trailing-nul", claims + b"\x00"),
    ):
        corpus.bad(f"payload-{name}", forge.sign(claims=octets), "not JSON", "J-42")


def _duplicates(forge: Forge, corpus: Corpus) -> None:
    kid = json.dumps(forge.ec.kid)
    headers = (
        ("alg", '"alg":"none","alg":"ES256"'),
        ("alg-last", '"alg":"ES256","alg":"none"'),
        ("alg-escaped", '"alg":"ES256","\\u0061lg":"none"'),
        ("kid", f'"alg":"ES256","kid":"x","kid":{kid}'),
        ("typ", '"alg":"ES256","typ":"JWT","typ":"at+jwt"'),
    )
    for name, members in headers:
        rest = "".join(
            f',"{member}":{value}'
            for member, value in (("typ", '"at+jwt"'), ("kid", kid))
            if f'"{member}"' not in members
        )
        token = forge.sign(f"{{{members}{rest}}}".encode())
        corpus.bad(f"header-duplicate-{name}", token, "parsers differ on which of two members counts", "J-07", "X-20")
    claims = (
        ("sub", '"sub":"root"'),
        ("aud", '"aud":"https://other-api.test"'),
        ("exp", '"exp":9999999999'),
        ("iss", '"iss":"https://attacker.test"'),
        ("scope", '"scope":"admin"'),
        ("same-value", '"sub":"alice"'),
        ("escaped", '"\\u0073ub":"root"'),
        ("nested", '"extra":{"a":{"b":1,"b":2}}'),
        ("nested-in-list", '"extra":[{"b":1,"b":2}]'),
    )
    good = json_bytes(forge.claims())[:-1]
    for name, member in claims:
        token = forge.sign(claims=good + b"," + member.encode() + b"}")
        corpus.bad(f"payload-duplicate-{name}", token, "parsers differ on which of two members counts", "J-08", "X-20")


def _sizes(forge: Forge, corpus: Corpus) -> None:
    nested = "[" * 5000 + "]" * 5000
    corpus.bad(
        "payload-deep", forge.sign(claims=forge.raw_claims(extra=nested)),
        "nested deeper than Python recurses", "X-26",
    )  # fmt: skip
    corpus.bad("header-deep", forge.sign(forge.raw_header(extra=nested)), "nested deeper than Python recurses", "X-26")
    objects = '{"a":' * 1500 + "1" + "}" * 1500
    corpus.bad(
        "payload-deep-objects", forge.sign(claims=forge.raw_claims(extra=objects)),
        "nested deeper than Python recurses", "X-26",
    )  # fmt: skip
    corpus.bad("payload-unclosed-brackets", forge.sign(claims=b"[" * 9000), "unclosed brackets", "X-26", "J-42")
    corpus.bad(
        "too-large", forge.sign(claims=forge.claims(padding="x" * 16 * 1024)),
        "genuine but too large: the size must be checked before anything is decoded", "X-25",
    )  # fmt: skip


def _other_formats(forge: Forge, corpus: Corpus) -> None:
    good = forge.sign()
    # CBOR tag 61 (CWT), tag 18 (COSE_Sign1), and an array of four items, mostly empty: RFC 8392 section 6.
    cwt = base64.b64encode(bytes.fromhex("d83dd28443a10126a0") + b"\x50" + bytes(16) + b"\x58\x40" + bytes(64)).decode()
    disclosure = base64url(b'["salt","sub","root"]')
    corpus.bad("sd-jwt", f"{good}~", "an SD-JWT is not an access token", "X-29")
    corpus.bad("sd-jwt-disclosure", f"{good}~{disclosure}~", "an SD-JWT is not an access token", "X-29")
    corpus.bad("cwt", cwt, "CBOR, not JSON", "X-29")
    corpus.bad("random-word", "hello", "not a JWT", "J-01")
    corpus.bad("percent-encoded", good.replace(".", "%2E"), "headers must not be percent-decoded", "X-30")
    corpus.bad("quoted", f'"{good}"', "a token is not a quoted string", "J-02")
    corpus.bad("auth-param", f'token="{good}"', "the credentials must be a token, not parameters", "J-02")
    corpus.bad("twice", f"{good},{good}", "two tokens in one header", "J-02")
