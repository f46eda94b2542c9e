"""Read the status of a token from a status list: draft-ietf-oauth-status-list, version 20.

A status list comes in a JWT, the status list token. :func:`read` checks it, then the caller verifies its signature, and
only then :func:`decompress` is called.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.hosts import origin_of
from scopeguard.config.issuer import Issuer
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError, InvalidToken
from scopeguard.numeric_date import LATEST_DATE
from scopeguard.reasons import Reason
from scopeguard.spec import jwt
from scopeguard.spec.answers import content_type
from scopeguard.spec.jws import check_header, decode_base64url, has_type
from scopeguard.spec.log_facts import malformed_claim
from scopeguard.tokens import Unverified

MEDIA_TYPE: Final = "application/statuslist+jwt"
VALID: Final = 0  # section 7.1
_MAX_URI: Final = 2048
_BITS: Final = frozenset((1, 2, 4, 8))


class MalformedStatusList(ValueError):
    """The response is not a valid status list token, and says nothing about the status of a token.

    The message quotes nothing from the response.
    """


@dataclass(frozen=True, slots=True)
class Reference:
    """The place of a token's status: the ``uri`` of a status list token, and the ``idx`` in its list (section 6.2)."""

    uri: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusList:
    """A status list: ``bits`` of ``data`` for each token, the least significant bits of a byte first (section 4.1)."""

    bits: int
    data: bytes = field(repr=False)

    def status(self, index: int) -> int:
        """Return the status at *index*, which is not negative. Raise :class:`InvalidToken` beyond the end of the list.

        Section 8.3: the token is rejected then, because the list says nothing about it.
        """
        per_byte = 8 // self.bits
        place, offset = divmod(index, per_byte)
        if place >= len(self.data):
            raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="idx is beyond the end of the list")
        return (self.data[place] >> (offset * self.bits)) & ((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedStatusList:
    """A status list token that :func:`read` has checked, and whose signature is not verified.

    * ``token``: the JWT.
    * ``bits``: the bits of each status.
    * ``packed``: the compressed list.
    * ``ttl``: the seconds after which a fresh copy should be fetched, or ``None`` (section 5.1).
    * ``expires_at``: the time after which it must not be used, in seconds since the epoch, or ``None``.
    """

    token: Unverified
    bits: int
    packed: bytes = field(repr=False)
    ttl: float | None
    expires_at: float | None


def find_reference(
    claims: Mapping[str, Any], origins: Collection[str], insecure: Collection[str] = ()
) -> Reference | None:
    """Return the place of the status of a token with *claims* (section 6.2), or ``None`` without a ``status`` claim.

    Raises :class:`InvalidToken` for a malformed ``status``, for one without a ``status_list``, and for a ``uri`` that
    is not an https URL of one of *origins*: the token must not choose which servers get requests. http is allowed for
    loopback addresses, and for the hosts in *insecure*.
    """
    if "status" not in claims:
        return None
    status = claims["status"]
    if not isinstance(status, Mapping):
        raise malformed_claim("status", status, "an object")
    if "status_list" not in status:
        raise InvalidToken(Reason.UNEXPECTED_CLAIM, claim="status", problem="it has no status_list")
    place = status["status_list"]
    index, uri = (place.get("idx"), place.get("uri")) if isinstance(place, Mapping) else (None, None)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="idx is not a whole number of 0 or more")
    if not isinstance(uri, str) or len(uri) > _MAX_URI:
        raise InvalidToken(
            Reason.MALFORMED_CLAIM, claim="status", problem=f"uri is not a string of {_MAX_URI} characters at most"
        )
    try:
        check_url(uri, "uri", insecure=insecure)
    except ConfigurationError:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="status", problem="uri is not an https URL") from None
    if origin_of(uri) not in origins:
        raise InvalidToken(
            Reason.UNEXPECTED_CLAIM, claim="status", found=origin_of(uri), expected=" or ".join(sorted(origins))
        )
    return Reference(uri, index)


def read(body: bytes, headers: Mapping[str, str], uri: str, issuer: Issuer, now: float) -> UnverifiedStatusList:
    """Return the status list token in *body*, which was fetched from *uri* (section 8.3).

    Checked: the content type, ``typ``, the algorithm, ``sub``, ``iat``, ``exp``, ``ttl``, and the form of
    ``status_list``. Not checked: the signature, and ``iss``, which the draft does not define: a key of *issuer* must
    have signed the token. Raises :class:`MalformedStatusList`, and :class:`InvalidToken` for a malformed JWT. *now* is
    in seconds since the epoch.
    """
    if content_type(headers) != MEDIA_TYPE:
        raise MalformedStatusList(f"its content type is not {MEDIA_TYPE}")
    token = jwt.peek(body.decode("ascii", "replace").strip())
    check_header(token.header, algorithms=issuer.algorithms)
    if not has_type(token.header, "statuslist+jwt"):
        raise MalformedStatusList("its typ is not statuslist+jwt")
    claims = token.claims
    # Section 5.1: "The value MUST be equal to that of the uri claim contained in the status_list claim of the
    # Referenced Token."
    if claims.get("sub") != uri:
        raise MalformedStatusList("its sub is not the uri of the token")
    issued, expires, ttl = (_number(claims, name) for name in ("iat", "exp", "ttl"))
    if issued is None or issued > now + issuer.leeway:
        raise MalformedStatusList("it has no iat, or one in the future")
    if expires is not None and expires <= now:
        raise MalformedStatusList("it has expired")
    # Section 5.1: "The value of the claim MUST be a positive number encoded in JSON as a number."
    if ttl is not None and ttl <= 0:
        raise MalformedStatusList("its ttl is not positive")
    bits, packed = _read_packed(claims.get("status_list"))
    return UnverifiedStatusList(token=token, bits=bits, packed=packed, ttl=ttl, expires_at=expires)


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LATEST_DATE:
        raise MalformedStatusList(f"its {name} is not a number of seconds")
    return float(value)


def _read_packed(found: object) -> tuple[int, bytes]:
    bits, text = (found.get("bits"), found.get("lst")) if isinstance(found, dict) else (None, None)
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in _BITS or not isinstance(text, str):
        raise MalformedStatusList("its status_list does not have bits and lst")
    try:
        return bits, decode_base64url(text)
    except ValueError as error:
        raise MalformedStatusList(f"its lst is {error}") from None


def decompress(published: UnverifiedStatusList, max_bytes: int) -> StatusList:
    """Return the list in *published*. The caller has verified the signature.

    Stops decompressing after *max_bytes*, so that a small token cannot fill the memory. Raises
    :class:`MalformedStatusList` for a larger list, and for anything but one complete ZLIB stream (RFC 1950).
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(published.packed, max_bytes + 1)
    except zlib.error:
        raise MalformedStatusList("its lst is not a ZLIB stream") from None
    if len(data) > max_bytes:
        raise MalformedStatusList(f"its list is larger than {max_bytes} bytes")
    if not stream.eof or stream.unused_data:
        raise MalformedStatusList("its lst is not one complete ZLIB stream")
    return StatusList(bits=published.bits, data=data)


def check(found: StatusList, index: int) -> None:
    """Raise :class:`InvalidToken` unless the status at *index* is VALID (section 7.1).

    INVALID, SUSPENDED and application-specific values are denied alike.
    """
    status = found.status(index)
    if status != VALID:
        raise InvalidToken(Reason.TOKEN_NOT_ACTIVE, status=status)
