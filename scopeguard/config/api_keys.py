"""API keys: what is known about one (:class:`ApiKey`), and where an API finds its keys (:class:`ApiKeys`)."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from scopeguard.config.checks import (
    Converted,
    PathObject,
    converted,
    field_name,
    flag,
    function,
    is_async,
    mapping,
    number,
    path,
    positive,
    strings,
    text,
    whole,
)
from scopeguard.errors import ConfigurationError
from scopeguard.numeric_date import LATEST_DATE

ID_LENGTH: Final = 16
"""The number of characters in a key id: 95 random bits, so that two keys do not get the same id."""

_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_LONGEST_PREFIX: Final = 20
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 §3.3
_OF_THE_KEY: Final = frozenset(("iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti"))
# What a key cannot prove (a sign-in, the possession of another key), and a date that is not compared.
_NEVER_OF_A_KEY: Final = frozenset(("acr", "amr", "auth_time", "cnf", "nbf"))
_SHORTEST_SECRET: Final = 16
# Fields that the server or the proxies of a request write, or that carry other credentials.
_TAKEN: Final = frozenset(("cookie", "host", "proxy-authorization", "x-forwarded-authorization", "dpop"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One API key as the API stores it: its rights and the digest of its text, never the text.

    * ``id``: the public part of the key, by which it is looked up: 16 letters and digits.
    * ``sha256``: the SHA-256 of the whole text of the key, in hexadecimal digits.
    * ``subject``, ``client_id``: for whom the key acts, and which client holds it. At least one of them.
    * ``scopes``: the scopes that the key grants.
    * ``expires_at``: the time from which the key is refused, in seconds since the epoch; ``None`` for a key that never
      expires. It has no default, so that such a key is a choice.
    * ``issued_at``: when the key was made, in seconds since the epoch.
    * ``revoked``: refuse the key.
    * ``claims``: further claims of its access tokens, such as a tenant. The names that the fields above determine
      (``sub``, ``scope``, ...) are refused, and those of a sign-in (``acr``, ``amr``, ``auth_time``), which a key
      cannot prove.

    A fast digest is right for these keys. A slow one (bcrypt, Argon2) makes guesses at secrets that people choose more
    expensive. The secret of a key is 256 random bits, which cannot be guessed at any speed.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    id: str
    sha256: str = field(repr=False)
    subject: str | None = None
    client_id: str | None = None
    scopes: Converted[Iterable[str], tuple[str, ...]] = converted(())
    expires_at: float | None
    issued_at: float | None = None
    revoked: bool = False
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ConfigurationError(
                f"api key: id: must be {ID_LENGTH} letters and digits; scopeguard api-key makes one"
            )
        where = f"api key {self.id}"
        if not isinstance(self.sha256, str) or not _DIGEST.fullmatch(self.sha256):
            raise ConfigurationError(f"{where}: sha256: must be 64 hexadecimal digits in lower case")
        object.__setattr__(self, "digest", bytes.fromhex(self.sha256))
        for name in ("subject", "client_id"):
            if getattr(self, name) is not None:
                text(getattr(self, name), f"{where}: {name}", empty=False)
        if self.subject is None and self.client_id is None:
            raise ConfigurationError(f"{where}: subject: is missing, and so is client_id; set one of them")
        given: object = self.scopes
        if isinstance(given, str):
            raise ConfigurationError(f'{where}: scopes: must be a list, as in ["rows.read"], not one string')
        scopes = strings(self.scopes, f"{where}: scopes")
        if not all(map(_SCOPE.fullmatch, scopes)):
            raise ConfigurationError(f"{where}: scopes: every item must be one scope (RFC 6749 section 3.3)")
        object.__setattr__(self, "scopes", tuple(dict.fromkeys(scopes)))
        for name in ("expires_at", "issued_at"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, number(getattr(self, name), f"{where}: {name}", most=LATEST_DATE))
        flag(self.revoked, f"{where}: revoked")
        given_claims = set(mapping(self.claims, f"{where}: claims"))
        refused = sorted(given_claims & _NEVER_OF_A_KEY)
        if refused:
            raise ConfigurationError(f"{where}: claims: {', '.join(refused)} cannot be set; a key does not prove it")
        taken = sorted(given_claims & _OF_THE_KEY)
        if taken:
            raise ConfigurationError(
                f"{where}: claims: {', '.join(taken)} cannot be set here; use the fields of the key"
            )
        try:
            json.dumps(dict(self.claims), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ConfigurationError(f"{where}: claims: every value must be one that JSON has") from None
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))


LookUp: TypeAlias = Callable[[str], ApiKey | Awaitable[ApiKey | None] | None]
"""A function, sync or async, that takes a key id and returns the key, or ``None`` if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    """The API keys of an API: a second kind of credential besides access tokens.

    A key yields the same :class:`~scopeguard.AccessToken` as a token, so that rules and the app need no change. No
    route takes keys until its token sources name ``"api_key"``.

    * ``prefix``: the beginning of every key, as in ``"acme"``: lower-case letters and digits in words that underscores
      join. Scanners for secrets find keys by it, so it should be a name that other APIs do not use.
    * ``keys_file``: a TOML file with the keys, which ``scopeguard api-key new`` writes. It is read when the first key
      arrives, and again after ``ttl`` seconds.
    * ``lookup``: instead of a file, a function that takes a key id and returns an :class:`ApiKey` or ``None``. It may
      be async, for ASGI apps only; it then runs in the event loop of the request. It should set a time limit, because
      scopeguard sets none. Any exception in it is an outage (503). Requests that arrive during a call for the same id
      wait for its answer, unless *ttl* is 0.
    * ``header``: the request field that holds the key.
    * ``issuer``: the ``issuer`` of the access tokens that keys yield. Default: the identifier of the resource, because
      the API itself issues its keys. It must not be that of a trusted issuer: a user is identified by issuer and
      subject, and a key must never pass for a token of another server.
    * ``ttl``: the seconds for which a key, or the content of the file, is used. A revocation in the file or behind
      ``lookup`` takes effect within this time. With ``lookup``, 0 calls it for each request.
    * ``negative_ttl``: the seconds for which an id that ``lookup`` did not find is refused without another call.
    * ``max_entries``: the number of cached keys of ``lookup``, and of cached unknown ids.
    * ``unknown_burst``, ``unknown_interval``: how many calls of ``lookup`` may find nothing at once, and the seconds
      after which one more may. Beyond that, an id that was not found before gets 503, so that strangers cannot flood
      the function. Keys that this process has found before are not affected, as long as they are among the
      ``max_entries`` most recent ones.
    * ``checksum_secret``: a secret for the checksums of keys, with at least 16 characters, for ``lookup``. Strangers
      then cannot make a key with a right checksum, so they cannot cause calls or use up the calls that new keys need.
      Choose it before the first key is made: keys with other checksums are refused. By itself, it gives no access.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    prefix: str
    keys_file: Converted[str | PathObject | None, str | None] = converted(None)
    lookup: LookUp | None = field(default=None, repr=False)
    header: str = "X-API-Key"
    issuer: str | None = None
    ttl: float = 10.0
    negative_ttl: float = 10.0
    max_entries: int = 10_000
    unknown_burst: int = 100
    unknown_interval: float = 0.1
    checksum_secret: str | None = field(default=None, repr=False)
    header_field: str = field(init=False, repr=False, compare=False)  # the header in lower case
    is_async: bool = field(init=False, repr=False, compare=False)
    checksum_key: bytes | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text(self.prefix, "api_keys.prefix")
        if not _PREFIX.fullmatch(self.prefix) or len(self.prefix) > _LONGEST_PREFIX:
            raise ConfigurationError(
                f"api_keys.prefix: must be at most {_LONGEST_PREFIX} lower-case letters and digits, as in "
                f'"acme" or "acme_live", not {self.prefix!r}'
            )
        if (self.keys_file is None) == (self.lookup is None):
            raise ConfigurationError(
                "api_keys: set keys_file or lookup, but not both; one of them must say where the keys are"
            )
        if self.keys_file is not None:
            object.__setattr__(self, "keys_file", path(self.keys_file, "api_keys.keys_file"))
        if self.lookup is not None:
            function(self.lookup, "api_keys.lookup", "a function that takes a key id and returns an ApiKey or None")
        name = field_name(self.header, "api_keys.header")
        if name in _TAKEN:
            raise ConfigurationError(f"api_keys.header: {self.header} has a meaning already; choose another field")
        object.__setattr__(self, "header_field", name)
        object.__setattr__(self, "is_async", is_async(self.lookup))
        if self.issuer is not None:
            text(self.issuer, "api_keys.issuer", empty=False)
        for setting in ("ttl", "negative_ttl"):
            if number(getattr(self, setting), f"api_keys.{setting}") < 0:
                raise ConfigurationError(
                    f"api_keys.{setting}: must be at least 0 seconds, not {getattr(self, setting)}"
                )
        for setting in ("max_entries", "unknown_burst"):
            whole(getattr(self, setting), f"api_keys.{setting}")
        positive(self.unknown_interval, "api_keys.unknown_interval")
        object.__setattr__(self, "checksum_key", self._check_secret())

    def _check_secret(self) -> bytes | None:
        if self.checksum_secret is None:
            return None
        text(self.checksum_secret, "api_keys.checksum_secret")
        if len(self.checksum_secret) < _SHORTEST_SECRET:
            raise ConfigurationError(
                f"api_keys.checksum_secret: must have at least {_SHORTEST_SECRET} characters; use 32 random ones"
            )
        if self.lookup is None:
            raise ConfigurationError(
                "api_keys.checksum_secret: has no effect with keys_file, which is not read again for an unknown key; "
                "remove it"
            )
        return self.checksum_secret.encode()

    @property
    def title(self) -> str:
        """A phrase for log lines that says where the keys are."""
        return f"the API keys in {self.keys_file}" if self.keys_file is not None else "the lookup of API keys"
