"""A JSON Web Signature in compact serialization (RFC 7515), as far as no key is needed to judge it.

``parse_compact`` takes a token apart and ``check_header`` judges its header (RFC 7518, RFC 7797, RFC 8725 and its
successor). What a signature is worth, :mod:`scopeguard.spec.jwks` knows.

One token has one spelling here: the alphabet, the absence of padding and the unused bits of each last character are
all checked. Without that, a token that was revoked or cached by its text lives on under a hundred others.
"""

from __future__ import annotations

import binascii
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.checks import media_type
from scopeguard.errors import InvalidToken, Reason
from scopeguard.spec.strict_json import MalformedJSON, parse_object

MAX_KEY_ID: Final = 1024
"""Longest accepted ``kid`` in characters: it is a dict key and ends up in logs."""

_ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode()
# To the alphabet that the standard library decodes; what is only of that one becomes what is of none.
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING: Final = {0: b"", 2: b"==", 3: b"="}
# Two characters carry one octet and four unused bits, three carry two and two: these are the characters, in plain
# base64, whose unused bits are zero.
_NOT_CANONICAL: Final = "not base64url in its one canonical form"
_NOT_BASE64URL: Final = f"a segment is {_NOT_CANONICAL}"
_LAST: Final = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactJWS:
    """The parts of a token. Nothing about it has been verified.

    ``signed`` are the octets under the signature, exactly as they were received (RFC 7515 section 5.2).
    """

    header: Mapping[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def _decoded(segment: bytes) -> bytes:
    """The octets of *segment*, which went through ``_TO_BASE64``. A character of no alphabet is a ValueError."""
    tail = len(segment) & 3
    if tail == 1 or (tail and segment[-1] not in _LAST[tail]):
        raise ValueError(_NOT_CANONICAL)  # RFC 4648 section 3.5
    return binascii.a2b_base64(segment + _PADDING[tail], strict_mode=True)


def decode_base64url(text: str) -> bytes:
    """The octets that *text* stands for: RFC 7515 section 2, read strictly.

    Raises :class:`ValueError`, which does not quote *text*, for any character outside the alphabet (padding and
    line ends included), an impossible length, and unused bits that are not zero.
    """
    if not text.isascii() or (data := text.encode("ascii")).translate(None, _ALPHABET):
        raise ValueError("not base64url")
    return _decoded(data.translate(_TO_BASE64))


def unpadded(text: str) -> str:
    """*text* without its padding, where it is padded as RFC 4648 section 3.2 says; else *text* itself."""
    return text if len(text) & 3 else text[:-2] + text[-2:].rstrip("=")


def _bare(token: str) -> str:
    """*token*, whose segments are padded, without the padding; what was padded in another way keeps an ``=``."""
    segments = token.split(".")
    if any(len(segment) & 3 for segment in segments):
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="a segment lacks its padding")
    return ".".join(map(unpadded, segments))


def split_compact(token: str, *, padded: bool = False) -> tuple[bytes, bytes, bytes, bytes]:
    """The parts of *token*, a JWS in compact serialization (RFC 7515 section 7.1): the text of its header, for
    :func:`parse_header`, its payload, what is signed, and the signature.

    Checked: three segments, of which the third is not empty; every character and every last bit of the second and the
    third, and, by :func:`parse_header`, of the first. Not checked: the size (the caller bounds it first), the header,
    the payload (which may be empty), the signature.

    *padded*: every segment is base64url *with* its padding, against RFC 7515 section 2, and the padding is a part of
    what is signed, as AWS load balancers have it. A token without it is refused then: it has one spelling, too.

    Raises :class:`InvalidToken`: ``ENCRYPTED_TOKEN`` for the five segments of a JWE (RFC 7516), whatever they hold,
    else ``MALFORMED_TOKEN``.
    """
    text = _bare(token) if padded else token
    octets = text.encode("ascii") if text.isascii() else b""
    segments = octets.translate(_TO_BASE64).split(b".")
    if len(segments) != 3:
        if len(segments) == 5 and octets.translate(None, _ALPHABET) == b"....":
            raise InvalidToken(Reason.ENCRYPTED_TOKEN, problem="a JWE; encrypted tokens are not read here")
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="not three segments of base64url")  # RFC 7515 §7.1
    header, payload, signature = segments
    if not signature:
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="the signature is empty")
    signed = token.encode("ascii").rpartition(b".")[0] if padded else octets[: -1 - len(signature)]
    try:
        return header, _decoded(payload), signed, _decoded(signature)
    except ValueError:
        pass
    raise InvalidToken(Reason.MALFORMED_TOKEN, problem=_NOT_BASE64URL)


def parse_header(text: bytes) -> Mapping[str, Any]:
    """The header that *text*, from :func:`split_compact`, stands for: a JSON object without duplicate members.

    Raises :class:`InvalidToken`, ``MALFORMED_TOKEN``. Its content is not checked (:func:`check_header`).
    """
    try:
        return parse_object(_decoded(text))
    except MalformedJSON as error:
        problem = f"header: {error}"
    except ValueError:
        problem = _NOT_BASE64URL
    # Raised here and not above: a chained JSON error would carry the document.
    raise InvalidToken(Reason.MALFORMED_TOKEN, problem=problem)


def parse_compact(token: str, *, padded: bool = False) -> CompactJWS:
    """The parts of *token*; see :func:`split_compact` and :func:`parse_header` for what is checked and raised."""
    header, payload, signed, signature = split_compact(token, padded=padded)
    return CompactJWS(header=parse_header(header), payload=payload, signed=signed, signature=signature)


def check_header(header: Mapping[str, Any], *, algorithms: Collection[str]) -> tuple[str, str | None]:
    """The ``alg`` and the ``kid`` of *header*, when nothing in it stands against verifying the token.

    *algorithms* is the allow-list of the issuer; names are compared exactly. No extension is implemented,
    so any ``crit`` is refused, an ill-formed one as well (RFC 7515 section 4.1.11), and any ``b64``, with
    or without ``crit`` (RFC 7797 section 7).

    ``jwk``, ``jku``, ``x5u``, ``x5c`` and ``x5t`` are not looked at: a token does not bring the key it is verified
    with (RFC 8725 section 3.10). Not checked here: ``typ``, and any other parameter.

    Raises :class:`InvalidToken`: ``ALGORITHM_REFUSED``, ``CRITICAL_HEADER``, ``UNENCODED_PAYLOAD``, ``NESTED_TOKEN``,
    ``HEADER_REFUSED`` (``zip``) or ``MALFORMED_TOKEN`` (a ``kid`` or ``cty`` of the wrong type, a ``kid`` of
    more than 1024 characters).
    """
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken(Reason.ALGORITHM_REFUSED, alg=algorithm, accepted=" ".join(algorithms))
    if "crit" in header:
        raise InvalidToken(Reason.CRITICAL_HEADER, problem="no critical extension is understood here")
    if "b64" in header:
        raise InvalidToken(Reason.UNENCODED_PAYLOAD, problem="a JWT never uses the b64 header")
    if "zip" in header:
        raise InvalidToken(Reason.HEADER_REFUSED, header="zip")
    _check_content_type(header.get("cty", ""))
    key_id = header.get("kid")
    if key_id is None and "kid" not in header:
        return algorithm, None
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID:
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem=f"kid is not a string of at most {MAX_KEY_ID} characters")
    return algorithm, key_id


def _check_content_type(content_type: object) -> None:
    if not isinstance(content_type, str):
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="cty is not a string")
    kind = media_type(content_type)
    # "JWT" is what RFC 7519 section 5.2 asks for; a payload of type at+jwt is a JWT as well.
    if kind == "jwt" or kind.endswith("+jwt"):
        raise InvalidToken(Reason.NESTED_TOKEN, cty=content_type)
