"""API keys: their form, the file with their digests, and the checks of one.

A key is ``<prefix>_<id>_<secret><checksum>``. The id is public and 16 characters long. The secret has 43 characters,
which are 256 random bits. The checksum has six: the CRC-32 of everything before it. All three consist of the letters
and digits of ASCII, so that a double click selects a whole key. The checksum tells a scanner, and this module, that a
text is a key without looking it up. It does not protect the key: it can be computed without any secret.

With a secret of the API (``ApiKeys.checksum_secret``), the checksum is a truncated HMAC-SHA256 instead. Strangers can
then make no text that has to be looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Any, Final
from zlib import crc32

from scopeguard.config.api_keys import ID_LENGTH, ApiKey
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.errors import ConfigurationError, InvalidApiKey, InvalidRequest
from scopeguard.log_values import FINGERPRINT_OCTETS
from scopeguard.reasons import Reason
from scopeguard.tokens import AccessToken

SECRET_LENGTH: Final = 43  # 62 ** 43 > 2 ** 256
CHECKSUM_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REST: Final = re.compile(
    rb"_([0-9A-Za-z]{%d})_[0-9A-Za-z]{%d}([0-9A-Za-z]{%d})" % (ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH)
)
_LONGEST: Final = 128  # in characters; every key is shorter
_MEMBERS: Final = frozenset(
    ("id", "sha256", "subject", "client_id", "scopes", "expires_at", "issued_at", "revoked", "claims")
)
NEVER: Final = "never"
"""The value of ``expires_at`` in the file for a key that never expires. TOML has no null."""


class MalformedKeyFile(Exception):
    """The file with the API keys cannot be used. The message says why, and quotes no digest."""


def encode(number: int, length: int) -> str:
    """Return *number* in base 62, with leading zeros."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def checksum(text: str, secret: bytes | None = None) -> str:
    """Return the checksum of *text*, the beginning of a key: its CRC-32, or with a *secret* a keyed one."""
    octets = text.encode("ascii")
    if secret is None:
        return encode(crc32(octets), CHECKSUM_LENGTH)
    return encode(int.from_bytes(digest(secret, octets, "sha256")[:8]) % 62**CHECKSUM_LENGTH, CHECKSUM_LENGTH)


def make_key(prefix: str, random_bytes: Callable[[int], bytes], secret: bytes | None = None) -> tuple[str, str, str]:
    """Return a new key with *prefix*: its id, its text and its SHA-256 in hexadecimal digits.

    *random_bytes* returns that many bytes, unpredictable for others. *secret*: that of the checksum, if there is one.
    """
    identifier = encode(int.from_bytes(random_bytes(16)), ID_LENGTH)
    text = f"{prefix}_{identifier}_{encode(int.from_bytes(random_bytes(32)), SECRET_LENGTH)}"
    text += checksum(text, secret)
    return identifier, text, sha256(text.encode("ascii")).hexdigest()


def key_from_field(values: Sequence[bytes], prefix: str, secret: bytes | None = None) -> str:
    """Return the text of the key in *values*, all lines of the field for keys. The form is that of *prefix*.

    *secret*: that of the checksum, if there is one.

    Raises :class:`InvalidRequest` for more than one line, and :class:`InvalidApiKey` for anything else that is not a
    key. The server of a WSGI app joins lines with a comma, so that several of them are not a key.
    """
    if len(values) > 1:
        raise InvalidRequest(Reason.REPEATED_API_KEY, lines=len(values))
    value = values[0].strip(b" \t")
    beginning = prefix.encode("ascii")
    found = None
    if len(value) <= _LONGEST and value.startswith(beginning):
        found = _REST.fullmatch(value, len(beginning))
    if found is None:
        raise InvalidApiKey(Reason.API_KEY_MALFORMED, problem="not the form of a key")
    text = value.decode("ascii")
    if not compare_digest(checksum(text[:-CHECKSUM_LENGTH], secret), text[-CHECKSUM_LENGTH:]):
        raise InvalidApiKey(Reason.API_KEY_MALFORMED, problem="the checksum is wrong")
    return text


def id_of(text: str) -> str:
    """Return the id in *text*, which :func:`key_from_field` has returned."""
    return text[: -SECRET_LENGTH - CHECKSUM_LENGTH - 1].rpartition("_")[2]


def check_key(key: ApiKey | None, text: str, now: float) -> ApiKey:
    """Return *key*, what is known about the id in *text*, if *text* is that key and may be used at *now*.

    The digests are compared in constant time. Whether an id exists is not secret: it is found before the comparison.
    Raises :class:`InvalidApiKey`.
    """
    if key is None:
        raise InvalidApiKey(Reason.API_KEY_UNKNOWN)
    if not compare_digest(sha256(text.encode("ascii")).digest(), key.digest):
        raise InvalidApiKey(Reason.API_KEY_MISMATCH)
    if key.revoked:
        raise InvalidApiKey(Reason.API_KEY_REVOKED)
    if key.expires_at is not None and now >= key.expires_at:
        raise InvalidApiKey(Reason.API_KEY_EXPIRED, expired_ago=f"{now - key.expires_at:.0f} s")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Grantor:
    """What all access tokens of API keys share: their *issuer*, *audience*, and the *vocabulary* of their scopes."""

    issuer: str
    audience: str
    vocabulary: ScopeVocabulary = field(repr=False)

    def grant(self, key: ApiKey) -> AccessToken:
        """Return the access token of *key*, which was checked.

        Its ``jti`` is the key id. A key for a subject may act for a person or not, so ``machine`` is ``None`` then.
        """
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "jti": key.id,
            "scope": " ".join(key.scopes),
            **key.claims,
        }
        optional = {"sub": key.subject, "client_id": key.client_id, "exp": key.expires_at, "iat": key.issued_at}
        claims.update({name: value for name, value in optional.items() if value is not None})
        return AccessToken(
            issuer=self.issuer,
            subject=key.subject,
            client_id=key.client_id,
            audience=(self.audience,),
            scopes=self.vocabulary.effective(key.scopes),
            granted_scopes=key.scopes,
            expires_at=key.expires_at,
            issued_at=key.issued_at,
            machine=True if key.subject is None else None,
            claims=claims,
            fingerprint=key.sha256[: 2 * FINGERPRINT_OCTETS],
        )


def read_keys(content: bytes) -> Mapping[str, ApiKey]:
    """Return the keys in *content*, the TOML file, by their ids.

    Nothing is ignored: an unknown member, a repeated id or a wrong value makes the whole file useless, because it may
    be the misspelled revocation of a key. Raises :class:`MalformedKeyFile`.
    """
    import tomllib  # noqa: PLC0415 - a slow import that only guards with a file of keys need

    try:
        document = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedKeyFile("it is not UTF-8") from None
    except (ValueError, RecursionError):  # not only TOMLDecodeError: int() refuses thousands of digits
        raise MalformedKeyFile("it is not TOML") from None
    tables = document.pop("keys", [])
    if document or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise MalformedKeyFile("it must consist of [[keys]] tables only")
    found: dict[str, ApiKey] = {}
    for number, table in enumerate(tables, 1):
        key = _read_key(table, number)
        if key.id in found:
            raise MalformedKeyFile(f"[[keys]] {number}: id: {key.id} is given twice")
        found[key.id] = key
    return found


def _read_key(table: dict[str, Any], number: int) -> ApiKey:
    unknown = sorted(name for name in table if name not in _MEMBERS)
    missing = sorted(name for name in ("id", "sha256", "expires_at") if name not in table)
    if unknown or missing:
        problem = f"{unknown[0][:80]!a} is not a key of this table" if unknown else f"{missing[0]} is missing"
        raise MalformedKeyFile(f"[[keys]] {number}: {problem}")
    given = dict(table)
    if given["expires_at"] == NEVER:
        given["expires_at"] = None
    for name in ("expires_at", "issued_at"):
        moment = given.get(name)
        if moment is None:
            continue
        if getattr(moment, "tzinfo", None) is None:  # not a time, or one that is different in each place
            wanted = f'a time with its zone, as in 2027-01-31T00:00:00Z, or "{NEVER}" for expires_at'
            raise MalformedKeyFile(f"[[keys]] {number}: {name}: must be {wanted}")
        given[name] = moment.timestamp()
    try:
        return ApiKey(**given)
    except ConfigurationError as error:
        raise MalformedKeyFile(f"[[keys]] {number}: {error}") from None
