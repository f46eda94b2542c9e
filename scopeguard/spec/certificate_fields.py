"""The certificate of a client, as servers and proxies pass it on: RFC 8705, RFC 9440.

A certificate is not parsed: its SHA-256 digest is compared. Each function returns the digest, or ``None`` for a value
that is not exactly one certificate in its format.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from scopeguard.config.mutual_tls import CertificateSource
from scopeguard.spec.base64url import encode_base64url

MAX_BYTES: Final = 64 * 1024
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def thumbprint(der: bytes) -> str:
    """Return ``x5t#S256`` of *der*: RFC 8705 section 3.1, "the base64url-encoded SHA-256 hash [...] of the DER
    encoding of the X.509 certificate", without padding."""
    return encode_base64url(hashlib.sha256(der).digest())


def from_pem(text: str) -> str | None:
    """Return the thumbprint of *text*, one PEM certificate (RFC 7468)."""
    if len(text) > MAX_BYTES:
        return None
    found = _PEM.fullmatch(text.strip())
    return None if found is None else _from_base64("".join(found[1].split()))


def from_client_cert(value: str) -> str | None:
    """Return the thumbprint in the field ``Client-Cert``.

    RFC 9440 section 2.2: the field is a byte sequence with the DER of one certificate. A byte sequence is base64
    between colons (RFC 8941 section 3.3.5). A list has a comma, and is refused.
    """
    if len(value) < 3 or not (value.startswith(":") and value.endswith(":")):
        return None
    return _from_base64(value[1:-1])


def from_nginx(value: str) -> str | None:
    """Return the thumbprint in ``$ssl_client_escaped_cert``, a percent-encoded PEM certificate."""
    # An octet that is not UTF-8 becomes a character that no PEM certificate has.
    return from_pem(unquote(value, errors="replace")) if _is_escaped(value) else None


def from_haproxy(value: str) -> str | None:
    """Return the thumbprint in ``%[ssl_c_der,base64]``."""
    return _from_base64(value)


def from_envoy(value: str) -> str | None:
    """Return the thumbprint in ``X-Forwarded-Client-Cert``.

    A proxy appends an element for its own peer, so only the last one was added by the trusted proxy. Commas and
    semicolons inside quotes do not separate. ``Hash`` is the SHA-256 digest in hexadecimal digits, ``Cert`` a
    percent-encoded PEM certificate; if an element has both, they must agree.
    """
    elements = _split(value, ",")
    if not elements:
        return None
    found: dict[str, str] = {}
    for pair in _split(elements[-1], ";"):
        name, equals, content = pair.partition("=")
        name = name.strip().lower()
        if not equals or name in found:
            return None
        found[name] = content.strip().strip('"')
    digests = set()
    if "hash" in found:
        digests.add(encode_base64url(bytes.fromhex(found["hash"])) if _HASH.fullmatch(found["hash"]) else None)
    if "cert" in found:
        digests.add(from_nginx(found["cert"]))
    return digests.pop() if len(digests) == 1 else None


PARSERS: Final[Mapping[CertificateSource, Callable[[str], str | None]]] = {
    CertificateSource.CLIENT_CERT: from_client_cert,
    CertificateSource.NGINX: from_nginx,
    CertificateSource.ENVOY: from_envoy,
    CertificateSource.HAPROXY: from_haproxy,
}


def from_field(values: Sequence[bytes], source: CertificateSource) -> str | None:
    """Return the thumbprint in the field lines *values* of *source*.

    Several lines are refused, except for Envoy's, which is a list: a client may have sent one of them.
    """
    joined = b",".join(values)
    if not values or len(joined) > MAX_BYTES or not joined.isascii():
        return None
    if len(values) > 1 and source is not CertificateSource.ENVOY:
        return None
    return PARSERS[source](joined.decode("ascii").strip(" \t"))


def _from_base64(text: str) -> str | None:
    try:
        der = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    return thumbprint(der) if der else None


def _is_escaped(value: str) -> bool:
    """Return whether *value* is percent-encoded: raw line breaks and spaces cannot be in a field."""
    return value.isascii() and "\n" not in value and " " not in value


def _split(text: str, separator: str) -> list[str]:
    """Split *text* at *separator* outside of double quotes. A backslash in quotes escapes the next character.

    The result is empty for an open quote, and for a backslash outside of quotes. Envoy writes one only inside the
    quotes of ``Subject``, before a quote of the name. Outside, an open quote in the element of a client has changed
    what is inside.
    """
    parts: list[str] = []
    start, quoted, escaped = 0, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            if not quoted:
                return []
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()] if not quoted else []
