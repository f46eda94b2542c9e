"""Find the access token in a request: RFC 6750 section 2, RFC 9110 section 11.

A token may be in the ``Authorization`` field, in ``X-Forwarded-Authorization`` (if that is a configured source, from a
configured proxy), in a field that an issuer's policy names, in the query string, or in a form body.
:mod:`scopeguard.spec.subprotocol` finds one among the subprotocols of a WebSocket. Tokens in ``Proxy-Authorization``,
cookies and other fields are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from scopeguard.errors import InvalidRequest, MissingCredentials
from scopeguard.reasons import Reason

# RFC 9110 section 11.2: token68. Use fullmatch, because "$" also matches before a line feed.
_TOKEN68_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
TOKEN68: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
"""The syntax of RFC 6750 section 2.1 (b64token). Every JWT has it."""
OPAQUE: Final = re.compile(rb"[!#-+\--<>-~]+=*")
"""The syntax of opaque tokens: RFC 6749 appendix A.12, "access-token = 1*VSCHAR", without ambiguous characters.

Excluded are the space, which ends a token; the comma, which may come from a server that joined two field lines; the
double quote, which begins a quoted-string; and the equals sign before the end, which makes the value look like an
auth-param (RFC 9110 section 11.4). Some providers use other characters of VSCHAR: Salesforce ``!``, others ``|`` and
``:``.
"""
PADDED: Final = re.compile(rb"[A-Za-z0-9\-._~+/=]+")
"""The syntax of tokens that are the whole value of a field: padding is allowed anywhere."""
_TCHAR: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# WSGI servers join repeated fields with a comma.
_SECOND_BEARER: Final = re.compile(rb",[ \t]*(?:bearer|dpop)(?:[ \t]|\Z)", re.IGNORECASE)
# Any character of the name may be percent-encoded: the app decodes it, and would find a token that was not checked.
_NAME: Final = b"".join(rb"(?:%c|(?i:%%%02x))" % (character, character) for character in b"access_token")
_ACCESS_TOKEN: Final = re.compile(rb"(?<![^&])%s(?:=([^&]*))?(?![^&])" % _NAME)
_BODY_METHODS: Final = frozenset(("POST", "PUT", "PATCH"))
_OTHER_SCHEMES: Final = frozenset(
    (b"apikey", b"basic", b"digest", b"dpop", b"hawk", b"hoba", b"jwt", b"mac", b"negotiate", b"ntlm", b"token")
)


def is_token(value: object) -> bool:
    """Return whether *value* is a string that can be sent as ``Bearer <value>`` (:data:`OPAQUE`)."""
    return isinstance(value, str) and value.isascii() and OPAQUE.fullmatch(value.encode("ascii")) is not None


def token_from_authorization(values: Sequence[bytes], max_bytes: int, form: re.Pattern[bytes] = TOKEN68) -> str | None:
    """Return the token of ``Authorization: Bearer <token>``; ``None`` if *values* is empty.

    * *values*: all field lines with the name ``Authorization``.
    * *max_bytes*: the greatest length of a token.
    * *form*: the syntax of tokens; :data:`OPAQUE` if an issuer introspects opaque tokens.

    RFC 9110 section 11.1: HTTP "uses a case-insensitive token to identify the authentication scheme". Raises
    :class:`InvalidRequest` for more than one field line, and for a token that is empty, too long or malformed. Raises
    :class:`MissingCredentials` for another scheme: RFC 6750 section 3.1 treats "an unsupported authentication method"
    as missing authentication information.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(Reason.REPEATED_AUTHORIZATION, lines=len(values))
    value = values[0].strip(b" \t")
    # The scheme is compared as a whole: "BearerX" is a different scheme.
    if value[:6].lower() != b"bearer" or (len(value) > 6 and value[6] in _TCHAR):
        if _SECOND_BEARER.search(value):
            raise InvalidRequest(Reason.REPEATED_AUTHORIZATION, found="two credentials in one line")
        # Other words may be a token without a scheme.
        scheme = value.partition(b" ")[0].lower()
        known = {"scheme": scheme.decode("ascii")} if scheme in _OTHER_SCHEMES else {}
        raise MissingCredentials(Reason.UNSUPPORTED_SCHEME, **known)
    token = value[6:].lstrip(b" ")
    if not token:
        raise InvalidRequest(Reason.EMPTY_CREDENTIALS, source="header")
    # RFC 6750 section 2.1: credentials = "Bearer" 1*SP b64token
    if len(token) == len(value) - 6:
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="header")
    return check_token(token, max_bytes, "header", form)


def has_token(values: Sequence[bytes]) -> bool:
    """Return whether one of *values*, lines of ``Authorization``, has the scheme ``Bearer`` or ``DPoP``."""
    return any(value.strip(b" \t").partition(b" ")[0].lower() in (b"bearer", b"dpop") for value in values)


def has_dpop_scheme(values: Sequence[bytes]) -> bool:
    """Return whether *values* are one field line ``Authorization`` with the scheme ``DPoP`` (RFC 9449 section 7.1)."""
    if len(values) != 1:
        return False
    value = values[0].lstrip(b" \t")
    return value[:4].lower() == b"dpop" and (len(value) <= 4 or value[4] not in _TCHAR)


def dpop_token(value: bytes, max_bytes: int, form: re.Pattern[bytes] = TOKEN68) -> str:
    """Return the token of *value*, which is ``DPoP <token>``.

    Raises :class:`InvalidRequest` for a token that is empty, longer than *max_bytes* or malformed.
    """
    rest = value.strip(b" \t")[4:]
    token = rest.lstrip(b" ")
    if not token:
        raise InvalidRequest(Reason.EMPTY_CREDENTIALS, source="header")
    if len(token) == len(rest):
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="header")
    return check_token(token, max_bytes, "header", form)


def token_from_field(values: Sequence[bytes], max_bytes: int) -> str | None:
    """Return the token that is the whole value of a header field; ``None`` if *values* is empty.

    Some proxies pass tokens on in a field of their own, without a scheme (``Issuer.token_header``). *values* are all
    lines of the field. Padding (``=``) is allowed anywhere, because some proxies pad each part of a JWT; the parser of
    the token decides about it. Raises :class:`InvalidRequest` for more than one line, and for a token that is empty,
    longer than *max_bytes*, or malformed.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="header", lines=len(values))
    return check_token(values[0].strip(b" \t"), max_bytes, "header", PADDED)


def check_token(token: bytes, max_bytes: int, source: str, form: re.Pattern[bytes] = TOKEN68) -> str:
    """Return *token* as text if it matches *form* and has *max_bytes* bytes at most.

    Otherwise raise :class:`InvalidRequest`, which names *source* for the log.
    """
    if not token:
        raise InvalidRequest(Reason.EMPTY_CREDENTIALS, source=source)
    if len(token) > max_bytes:
        raise InvalidRequest(Reason.TOKEN_TOO_LARGE, source=source, bytes=len(token), limit=max_bytes)
    # Most tokens have these characters only, and translate() is three times as fast as the pattern.
    if token.translate(None, _TOKEN68_CHARACTERS) and not form.fullmatch(token):
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source=source)
    return token.decode("ascii")


def token_from_parameters(
    encoded: bytes, *, max_bytes: int, max_parameters: int, source: str, form: re.Pattern[bytes] = TOKEN68
) -> str | None:
    """Return the ``access_token`` parameter of *encoded*, ``application/x-www-form-urlencoded``, or ``None``.

    ``&`` is the only separator, names are case-sensitive, ``+`` decodes to a space and ``%2B`` to a plus. Raises
    :class:`InvalidRequest` for more than *max_parameters* parameters, and for a token that is repeated, empty, longer
    than *max_bytes*, or malformed. RFC 6750 section 3.1: a request that "repeats the same parameter" is an
    invalid_request.
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
    """Return whether *query* has a parameter called ``access_token``."""
    return _ACCESS_TOKEN.search(query) is not None


def without_access_token(query: bytes) -> bytes:
    """Return *query* without its ``access_token`` parameters, and otherwise unchanged."""
    return b"&".join(parameter for parameter in query.split(b"&") if not _ACCESS_TOKEN.fullmatch(parameter))


def may_carry_form(method: str, content_types: Sequence[bytes]) -> bool:
    """Return whether RFC 6750 section 2.2 allows a token in the body of a request with *method* and *content_types*.

    "The HTTP request method is one for which the request-body has defined semantics", and there is one content type,
    ``application/x-www-form-urlencoded``. Its parameters, such as ``charset``, are ignored.
    """
    if method not in _BODY_METHODS or len(content_types) != 1:
        return False
    return content_types[0].partition(b";")[0].strip(b" \t").lower() == b"application/x-www-form-urlencoded"


def declared_length(value: str) -> int | None:
    """Return the length in bytes that *value* of ``Content-Length`` declares; ``None`` unless it has digits only.

    RFC 9110 section 8.6: "Content-Length = 1*DIGIT". The result is 10**18 at most, because ``int()`` raises for
    thousands of digits.
    """
    if not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    return 10**18 if len(digits) > 18 else int(digits or "0")


def token_from_form(
    body: bytes, *, max_bytes: int, max_parameters: int, form: re.Pattern[bytes] = TOKEN68
) -> str | None:
    """Return the token in *body*, the content of a form, or ``None``.

    Raises :class:`InvalidRequest` as :func:`token_from_parameters` does.
    """
    token = token_from_parameters(body, max_bytes=max_bytes, max_parameters=max_parameters, source="form", form=form)
    # RFC 6750 section 2.2: the content "MUST consist entirely of ASCII". This does not apply to forms without a token.
    if token is not None and not body.isascii():
        raise InvalidRequest(Reason.NON_ASCII_FORM)
    return token
