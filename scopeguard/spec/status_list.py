"""What a token says of its status, and what a status list token says: draft-ietf-oauth-status-list.

The draft's sections are those of version 20. A list is judged before its signature is verified, decompress after it.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.access_token import Unverified
from scopeguard.config.checks import checked_url, media_type
from scopeguard.config.issuer import Issuer
from scopeguard.config.status_list import origin_of
from scopeguard.errors import ConfigurationError, InvalidToken, Reason
from scopeguard.spec import jwt
from scopeguard.spec.jws import check_header, decode_base64url

MEDIA_TYPE: Final = "application/statuslist+jwt"
VALID: Final = 0  # section 7.1; what the others mean is between the issuer and those who know it
_MAX_URI: Final = 2048
_BITS: Final = frozenset((1, 2, 4, 8))
# Numbers beyond this are no dates.
_LAST_SECOND: Final = 2.0**53


class MalformedStatusList(ValueError):
    """Not a status list to rely on: nothing was said about the token. The text quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the status of a token is."""

    uri: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusList:
    """A list, decompress: so many ``bits`` of ``data`` for each token, the least significant first (section 4.1)."""

    bits: int
    data: bytes = field(repr=False)

    def status(self, index: int) -> int:
        """The status at *index*, which is not negative; :class:`InvalidToken` beyond the end of the list."""
        of_a_byte = 8 // self.bits
        place, offset = divmod(index, of_a_byte)
        if place >= len(self.data):
            raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="idx lies behind the end of its list")
        return (self.data[place] >> (offset * self.bits)) & ((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedStatusList:
    """A status list token whose signature is still to be verified; times in seconds from now.

    ``ttl`` is how long it asks to be kept, ``expires_in`` how long it may be used.
    """

    token: Unverified
    bits: int
    packed: bytes = field(repr=False)
    ttl: float | None
    expires_in: float | None


def find_reference(
    claims: Mapping[str, Any], origins: Collection[str], insecure: Collection[str] = ()
) -> Reference | None:
    """Where *claims* say that the status is, ``None`` where they say nothing of a status (section 6.2).

    Refused with :class:`InvalidToken`: a ``status`` of the wrong form, one with other mechanisms only,
    and a URI that is not https (http to a loopback address, or to a host of *insecure*) of one of *origins*.
    """
    if "status" not in claims:
        return None
    status = claims["status"]
    if not isinstance(status, Mapping):
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status")
    if "status_list" not in status:
        raise InvalidToken(Reason.UNEXPECTED_CLAIM, claim="status", problem="it has no status_list")
    place = status["status_list"]
    index, uri = (place.get("idx"), place.get("uri")) if isinstance(place, Mapping) else (None, None)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="idx is no index")
    if not isinstance(uri, str) or len(uri) > _MAX_URI:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="uri is no URI, or a long one")
    try:
        checked_url(uri, "uri", insecure=insecure)
    except ConfigurationError:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="uri is no https URL") from None
    if origin_of(uri) not in origins:
        raise InvalidToken(
            Reason.UNEXPECTED_CLAIM, claim="status", origin=origin_of(uri), expected=" ".join(sorted(origins))
        )
    return Reference(uri, index)


def read(body: bytes, headers: Mapping[str, str], uri: str, issuer: Issuer, now: float) -> UnverifiedStatusList:
    """The status list token that was fetched from *uri*, its signature still to be verified.

    Checked: content type, ``typ``, algorithm, ``sub``, ``iat``, ``exp``, ``ttl``, the form of ``status_list``. ``iss``
    is not looked at: the draft does not have it, the key decides. Raises
    :class:`MalformedStatusList`, and :class:`InvalidToken` for what is no JWT at all.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise MalformedStatusList(f"its content type is not {MEDIA_TYPE}")
    token = jwt.peek(body.decode("ascii", "replace").strip())
    check_header(token.header, algorithms=issuer.algorithms)
    typ = token.header.get("typ")
    if not isinstance(typ, str) or media_type(typ) != "statuslist+jwt":
        raise MalformedStatusList("its typ is not statuslist+jwt")
    claims = token.claims
    if claims.get("sub") != uri:
        raise MalformedStatusList("its sub is not the uri of the token")
    issued, expires, ttl = (_number(claims, name) for name in ("iat", "exp", "ttl"))
    if issued is None or issued > now + issuer.leeway:
        raise MalformedStatusList("it has no iat, or one in the future")
    if expires is not None and expires <= now:
        raise MalformedStatusList("it has expired")
    if ttl is not None and ttl <= 0:
        raise MalformedStatusList("its ttl is not positive")
    bits, packed = _packed(claims.get("status_list"))
    return UnverifiedStatusList(
        token=token, bits=bits, packed=packed, ttl=ttl, expires_in=None if expires is None else expires - now
    )


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LAST_SECOND:
        raise MalformedStatusList(f"its {name} is not a number of seconds")
    return float(value)


def _packed(found: object) -> tuple[int, bytes]:
    bits, text = (found.get("bits"), found.get("lst")) if isinstance(found, dict) else (None, None)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in _BITS or not isinstance(text, str):
        raise MalformedStatusList("its status_list is not bits and lst")
    try:
        return bits, decode_base64url(text)
    except ValueError as error:
        raise MalformedStatusList(f"its lst is {error}") from None


def decompress(published: UnverifiedStatusList, max_bytes: int) -> StatusList:
    """The list itself, if it is no larger than *max_bytes*: not a byte more is ever decompress.

    Raises :class:`MalformedStatusList` for what is not exactly one ZLIB stream (RFC 1950).
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(published.packed, max_bytes + 1)
    except zlib.error:
        raise MalformedStatusList("its lst is not a ZLIB stream") from None
    if len(data) > max_bytes:
        raise MalformedStatusList(f"its list is larger than {max_bytes} bytes")
    if not stream.eof or stream.unused_data:
        raise MalformedStatusList("its lst is not one whole ZLIB stream")
    return StatusList(bits=published.bits, data=data)


def check(found: StatusList, index: int) -> None:
    """Refuse a token whose status at *index* is not "valid": invalid, suspended, or what nobody mapped."""
    status = found.status(index)
    if status != VALID:
        raise InvalidToken(Reason.TOKEN_NOT_ACTIVE, status=status)
