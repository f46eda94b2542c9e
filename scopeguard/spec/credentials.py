"""Where an access token may be sent, and what else may be there: RFC 6750 section 2, RFC 9110 section 11.

Read here: the ``Authorization`` field, a field that an issuer's policy names, the query string, a form body. The
subprotocols of a websocket are read in :mod:`scopeguard.spec.subprotocol`, and ``X-Forwarded-Authorization`` only where
it is a token source and its sender a known proxy. Never read: ``Proxy-Authorization``, cookies, other
fields of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from scopeguard.errors import InvalidRequest, MissingCredentials, Reason

# RFC 9110 section 11.2: token68. Always with fullmatch: "$" would let a line feed pass.
_TOKEN68_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
TOKEN68: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
"""The form of RFC 6750 section 2.1, which every JWT has."""
OPAQUE: Final = re.compile(rb"[!#-+\--<>-~]+=*")
"""The form of an opaque token: RFC 6749 appendix A.12, "access-token = 1*VSCHAR", as far as a header field carries it
unambiguously.

A space ends a token, a comma may come from a server that joined two field lines, a double quote begins a
quoted-string, and an equals sign before the end makes the value read as an auth-param (RFC 9110 section 11.4). All
other visible ASCII is allowed: Salesforce's tokens have a ``!``, others a ``|`` or a ``:``.
"""
_PADDED: Final = re.compile(rb"[A-Za-z0-9\-._~+/=]+")
_TCHAR: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# Repeated fields reach a WSGI app as one, joined with a comma.
_SECOND_BEARER: Final = re.compile(rb",[ \t]*bearer(?:[ \t]|\Z)", re.IGNORECASE)
# The name may be written with percent escapes: whoever decodes it gets the token, so we do as well.
_NAME: Final = b"".join(rb"(?:%c|(?i:%%%02x))" % (character, character) for character in b"access_token")
_ACCESS_TOKEN: Final = re.compile(rb"(?<![^&])%s(?:=([^&]*))?(?![^&])" % _NAME)
_BODY_METHODS: Final = frozenset(("POST", "PUT", "PATCH"))


def is_token(value: object) -> bool:
    """Whether *value* is a string that can be sent as ``Bearer <value>`` (:data:`OPAQUE`)."""
    return isinstance(value, str) and value.isascii() and OPAQUE.fullmatch(value.encode("ascii")) is not None


def token_from_authorization(values: Sequence[bytes], max_bytes: int, form: re.Pattern[bytes] = TOKEN68) -> str | None:
    """The token of ``Authorization: Bearer <token>``, given every field line of that name; ``None`` without one.

    *form*: :data:`OPAQUE` where an issuer is asked about opaque tokens.

    Raises :class:`InvalidRequest` for more than one field line, a malformed or empty token,
    an oversized one. The scheme is compared without regard to ASCII case and whole.
    Another scheme raises :class:`MissingCredentials`: it "lacks authentication information".
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(Reason.REPEATED_AUTHORIZATION, lines=len(values))
    value = values[0].strip(b" \t")
    if value[:6].lower() != b"bearer" or (len(value) > 6 and value[6] in _TCHAR):
        if _SECOND_BEARER.search(value):
            raise InvalidRequest(Reason.REPEATED_AUTHORIZATION)
        raise MissingCredentials(Reason.UNSUPPORTED_SCHEME)
    token = value[6:].lstrip(b" ")
    if not token:
        raise InvalidRequest(Reason.EMPTY_CREDENTIALS, source="header")
    if len(token) == len(value) - 6:  # no SP behind the scheme
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="header")
    return check_token(token, max_bytes, "header", form)


def token_from_field(values: Sequence[bytes], max_bytes: int) -> str | None:
    """The token that is the whole value of a header field, given every line of that name; ``None`` without one.

    For what proxies pass on in fields of their own (``Issuer.token_header``): no scheme, one line, one token, which
    may be padded inside; whether it may be, is for whoever reads it. Raises :class:`InvalidRequest` otherwise.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="header", lines=len(values))
    return check_token(values[0].strip(b" \t"), max_bytes, "header", _PADDED)


def check_token(token: bytes, max_bytes: int, source: str, form: re.Pattern[bytes] = TOKEN68) -> str:
    """*token* as text if it has *form* and at most *max_bytes* bytes, else :class:`InvalidRequest`."""
    if not token:
        raise InvalidRequest(Reason.EMPTY_CREDENTIALS, source=source)
    if len(token) > max_bytes:
        raise InvalidRequest(Reason.TOKEN_TOO_LARGE, source=source, bytes=len(token), limit=max_bytes)
    # Most have no other character than these: that is seen three times as fast.
    if token.translate(None, _TOKEN68_CHARACTERS) and not form.fullmatch(token):
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source=source)
    return token.decode("ascii")


def token_from_parameters(
    encoded: bytes, *, max_bytes: int, max_parameters: int, source: str, form: re.Pattern[bytes] = TOKEN68
) -> str | None:
    """The ``access_token`` parameter of an ``application/x-www-form-urlencoded`` string, ``None`` without one.

    Only ``&`` separates, the name is case-sensitive, ``+`` is a space and ``%2B`` a plus.
    Raises :class:`InvalidRequest` for a repeated, empty or malformed one and for too many parameters.
    """
    if encoded.count(b"&") >= max_parameters:
        raise InvalidRequest(Reason.TOO_MANY_PARAMETERS, source=source, limit=max_parameters)
    found: list[bytes] = _ACCESS_TOKEN.findall(encoded)
    if not found:
        return None
    if len(found) > 1:
        raise InvalidRequest(Reason.REPEATED_PARAMETER, source=source)
    return check_token(unquote_to_bytes(found[0].replace(b"+", b" ")), max_bytes, source, form)


def has_access_token(query: bytes) -> bool:
    """Whether *query* has a parameter called ``access_token``."""
    return _ACCESS_TOKEN.search(query) is not None


def without_access_token(query: bytes) -> bytes:
    """*query* without any ``access_token`` parameter, everything else byte for byte as it was."""
    return b"&".join(parameter for parameter in query.split(b"&") if not _ACCESS_TOKEN.fullmatch(parameter))


def may_carry_form(method: str, content_types: Sequence[bytes]) -> bool:
    """Whether RFC 6750 section 2.2 allows a token in this request's body: a method whose body has a meaning
    and exactly one content type, ``application/x-www-form-urlencoded``, compared as a media type."""
    if method not in _BODY_METHODS or len(content_types) != 1:
        return False
    return content_types[0].partition(b";")[0].strip(b" \t").lower() == b"application/x-www-form-urlencoded"


def declared_length(value: str) -> int | None:
    """The octets that *value* of ``Content-Length`` declares (RFC 9110 section 8.6); ``None`` unless it is digits.

    More than 18 digits count as 10**18: ``int()`` raises for thousands of them.
    """
    if not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    return 10**18 if len(digits) > 18 else int(digits or "0")


def token_from_form(
    body: bytes, *, max_bytes: int, max_parameters: int, form: re.Pattern[bytes] = TOKEN68
) -> str | None:
    """The token of a form body, ``None`` without one; :class:`InvalidRequest` as for parameters, and for a form that
    carries a token and an octet outside ASCII (RFC 6750 section 2.2)."""
    token = token_from_parameters(body, max_bytes=max_bytes, max_parameters=max_parameters, source="form", form=form)
    if token is not None and not body.isascii():
        raise InvalidRequest(Reason.NON_ASCII_FORM)
    return token
