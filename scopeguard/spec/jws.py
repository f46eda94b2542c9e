"""Parse a JSON Web Signature in compact serialization and check its header: RFC 7515, RFC 7518, RFC 7797, RFC 8725.

:func:`split_compact` and :func:`parse_header` parse a token; :func:`check_header` checks the header. No key is needed
here: :mod:`scopeguard.spec.jwks` verifies signatures.

Each token has exactly one accepted spelling. The alphabet, the absence of padding and the unused bits of each segment's
last character are checked, because caches and revocations identify a token by its text: a second spelling of a revoked
token would be accepted.
"""

from __future__ import annotations

import binascii
import string
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from scopeguard.config.checks import media_type
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.strict_json import MalformedJSON, parse_object

MAX_KEY_ID: Final = 1024
"""Longest accepted ``kid`` in characters, since it becomes a dict key and appears in logs."""

_ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode()
# The characters of padded base64 that base64url without padding lacks. Numbers, because a search for one is faster.
_PLUS, _SLASH, _EQUALS = b"+/="
_PADDING: Final = {0: b"", 2: b"==", 3: b"="}
_NOT_CANONICAL: Final = "not canonical base64url"
_NOT_BASE64URL: Final = f"a segment is {_NOT_CANONICAL}"
# The last characters whose unused bits are zero. Two characters encode one octet and leave four bits
# unused; three encode two octets and leave two bits unused.
_CANONICAL_LAST: Final = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}


def build_decoder(decode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a function that decodes strict base64url without padding, and raises :class:`ValueError` for the rest.

    *decode* decodes base64 with padding. It raises :class:`ValueError` for any character outside the alphabet.
    """

    def decode_strictly(segment: bytes) -> bytes:
        tail = len(segment) & 3
        # RFC 4648 section 3.5: "in some environments, the alteration is critical and therefore decoders MAY chose to
        # reject an encoding if the pad bits have not been set to zero." Here it is critical: see the top of this file.
        if tail == 1 or (tail and segment[-1] not in _CANONICAL_LAST[tail]):
            raise ValueError(_NOT_CANONICAL)
        if _PLUS in segment or _SLASH in segment or _EQUALS in segment:
            raise ValueError(_NOT_CANONICAL)
        base64 = segment.replace(b"-", b"+").replace(b"_", b"/")
        return decode(base64 + _PADDING[tail] if tail else base64)

    return decode_strictly


decode_segment: Final = build_decoder(partial(binascii.a2b_base64, strict_mode=True))
"""Decodes a segment of a token: strict base64url without padding. Raises :class:`ValueError`."""


def decode_base64url(text: str) -> bytes:
    """Decode *text* as strict base64url without padding: RFC 7515 section 2.

    Raises :class:`ValueError`, without quoting *text*, for any character outside the alphabet (padding and line ends
    included), for an impossible length, and for unused bits that are not zero.
    """
    if not text.isascii() or (data := text.encode("ascii")).translate(None, _ALPHABET):
        raise ValueError("not base64url")
    return decode_segment(data)


def strip_padding(text: str) -> str:
    """Return *text* without padding if it is padded as in RFC 4648 section 3.2, otherwise unchanged."""
    return text if len(text) & 3 else text[:-2] + text[-2:].rstrip("=")


def _strip_segment_padding(token: str) -> str:
    """Return *token* without the padding of its segments. Wrong padding keeps an ``=``, which decoding then refuses."""
    segments = token.split(".")
    if any(len(segment) & 3 for segment in segments):
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="a segment lacks its padding")
    return ".".join(map(strip_padding, segments))


def split_compact(token: str, *, padded: bool = False) -> tuple[bytes, bytes, bytes, bytes]:
    """Split *token*, a JWS in compact serialization (RFC 7515 section 7.1).

    Returns the encoded header, for :func:`parse_header`; the decoded payload; the octets that were signed, as received;
    and the decoded signature.

    Checked: there are three segments, the third is not empty, and the second and third are canonical base64url. NOT
    checked: the size, which the caller bounds first; the header; the payload, which may be empty; the signature.

    *padded*: every segment is base64url *with* padding, contrary to RFC 7515 section 2, and the padding is part of the
    signed octets. AWS load balancers write such tokens. A token without padding is then refused, so that a token still
    has one spelling.

    Raises :class:`InvalidToken`: ``ENCRYPTED_TOKEN`` for the five segments of a JWE (RFC 7516) with any content,
    otherwise ``MALFORMED_TOKEN``.
    """
    if not padded:
        return split_octets(_ascii_octets(token))
    header, payload, _, signature = split_octets(_ascii_octets(_strip_segment_padding(token)))
    return header, payload, _ascii_octets(token).rpartition(b".")[0], signature


def _ascii_octets(text: str) -> bytes:
    return text.encode("ascii") if text.isascii() else b""


def split_octets(octets: bytes, decode: Callable[[bytes], bytes] = decode_segment) -> tuple[bytes, bytes, bytes, bytes]:
    """:func:`split_compact` for the octets of a token without padding. *decode* is from :func:`build_decoder`."""
    first, last = octets.find(b"."), octets.rfind(b".")
    if first < last < len(octets) - 1:
        try:
            # A dot between the two is not in the alphabet of the payload.
            return octets[:first], decode(octets[first + 1 : last]), octets[:last], decode(octets[last + 1 :])
        except ValueError:
            pass
    # Raise outside the handler, because a chained error could quote the token.
    raise _malformed_error(octets)


def _malformed_error(octets: bytes) -> InvalidToken:
    """Return the error for *octets* that are not three segments of base64url."""
    dots = octets.count(b".")
    if dots == 4 and octets.translate(None, _ALPHABET) == b"....":
        return InvalidToken(Reason.ENCRYPTED_TOKEN)
    problem = _NOT_BASE64URL
    if dots != 2:
        problem = "not three segments of base64url"
    elif octets.endswith(b"."):
        problem = "the signature is empty"
    return InvalidToken(Reason.MALFORMED_TOKEN, problem=problem)


def parse_header(text: bytes) -> Mapping[str, Any]:
    """Parse the header *text* that :func:`split_compact` returned: a JSON object without duplicate members.

    The parameters are not checked; see :func:`check_header`. Raises :class:`InvalidToken`, ``MALFORMED_TOKEN``.
    """
    try:
        return parse_object(decode_segment(text))
    except MalformedJSON as error:
        problem = f"header: {error}"
    except ValueError:
        problem = _NOT_BASE64URL
    # Raise outside the handlers, because a chained JSON error would contain the document.
    raise InvalidToken(Reason.MALFORMED_TOKEN, problem=problem)


def check_header(header: Mapping[str, Any], *, algorithms: Collection[str]) -> tuple[str, str | None]:
    """Check that *header* allows verification with one of *algorithms*, and return its ``alg`` and ``kid``.

    *algorithms* is the allow-list of the issuer. Names are compared exactly.

    NOT checked: ``typ`` and unknown parameters. ``jwk``, ``jku``, ``x5u``, ``x5c`` and ``x5t`` are ignored, because a
    token must not choose the key that verifies it. RFC 8725 section 3.10 on URLs: "blindly following a "jku" (JWK set
    URL) or "x5u" (X.509 URL) header, which may contain an arbitrary URL, could result in server-side request forgery
    (SSRF) attacks."

    Raises :class:`InvalidToken`: ``ALGORITHM_REFUSED``, ``CRITICAL_HEADER``, ``UNENCODED_PAYLOAD``, ``NESTED_TOKEN``,
    ``HEADER_REFUSED`` (``zip``) or ``MALFORMED_TOKEN`` (``kid`` or ``cty`` has the wrong type, or ``kid`` is longer
    than 1024 characters).
    """
    algorithm = header.get("alg")
    # RFC 8725 section 3.1: "Libraries MUST enable the caller to specify a supported set of algorithms and MUST NOT use
    # any other algorithms when performing cryptographic operations."
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken(Reason.ALGORITHM_REFUSED, alg=algorithm, accepted=" ".join(algorithms))
    # RFC 7515 section 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the
    # recipient, then the JWS is invalid." No extension is supported, so every list is refused, a malformed one
    # included.
    if "crit" in header:
        raise InvalidToken(Reason.CRITICAL_HEADER, crit=header["crit"])
    # RFC 7797 section 7: "For interoperability reasons, JSON Web Tokens [JWT] MUST NOT use "b64" with a "false" value."
    # Every value is refused: true is the default and has no use in a JWT.
    if "b64" in header:
        raise InvalidToken(Reason.UNENCODED_PAYLOAD, b64=header["b64"])
    # Only JWE defines "zip" (RFC 7516 section 4.1.3). The payload of a JWS is never decompressed.
    if "zip" in header:
        raise InvalidToken(Reason.HEADER_REFUSED, parameter="zip", expected="absent")
    _check_content_type(header.get("cty", ""))
    key_id = header.get("kid")
    if key_id is None and "kid" not in header:
        return algorithm, None
    # RFC 7515 section 4.1.4 on "kid": "Its value MUST be a case-sensitive string."
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID:
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem=f"kid is not a string of at most {MAX_KEY_ID} characters")
    return algorithm, key_id


def has_type(header: Mapping[str, Any], typ: str) -> bool:
    """Return whether the ``typ`` of *header* is *typ*, a media type in lower case without ``application/``."""
    found = header.get("typ")
    return isinstance(found, str) and media_type(found) == typ


def _check_content_type(content_type: object) -> None:
    """Refuse a nested JWT. Its outer signature says nothing about the inner claims."""
    if not isinstance(content_type, str):
        raise InvalidToken(Reason.MALFORMED_TOKEN, problem="cty is not a string")
    kind = media_type(content_type)
    # RFC 7519 section 5.2: "In the case that nested signing or encryption is employed, this Header Parameter MUST be
    # present; in this case, the value MUST be "JWT", to indicate that a Nested JWT is carried in this JWT." A type such
    # as "at+jwt" names a JWT as well.
    if kind == "jwt" or kind.endswith("+jwt"):
        raise InvalidToken(Reason.NESTED_TOKEN, cty=content_type)
