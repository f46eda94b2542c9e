"""Settings of Token Status Lists (draft-ietf-oauth-status-list). Experimental: the draft is not an RFC yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from scopeguard.config.checks import checked_form, checked_url, flag, positive, strings, whole
from scopeguard.config.introspection import Validation
from scopeguard.errors import ConfigurationError

_ORIGINS: Final = "experimental_status_list.allowed_origins"
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# A list of a status in eight bits for 128 million tokens; what holds four of them has to fit into memory.
_MOST_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusListPolicy:
    """Look up the status of a JWT that has a ``status`` claim, in the list that the claim names.

    Every status but 0 ("valid") refuses the token; one that cannot be had is an outage. The list is signed with the
    keys of the issuer itself, no other.

    * ``allowed_origins``: where lists may be fetched from (``"https://status.example.com"``); the issuer's own origin
      unless given. A token that names another place is refused, and nobody is asked.
    * ``fail_open_dangerously``: accept a token whose status cannot be had, instead of answering 503.
    * ``max_bytes``: of an answer, and of the list that it unfolds to. Four times as much is kept, of each issuer.
    * ``timeout``: of one fetch, in seconds.
    """

    allowed_origins: str | Collection[str] = ()
    fail_open_dangerously: bool = False
    max_bytes: int = 16 * 1024 * 1024
    timeout: float = 5.0

    def __post_init__(self) -> None:
        named = strings(self.allowed_origins, "experimental_status_list.allowed_origins")
        object.__setattr__(self, "allowed_origins", tuple(map(_checked_origin, named)))
        flag(self.fail_open_dangerously, "experimental_status_list.fail_open_dangerously")
        positive(self.timeout, "experimental_status_list.timeout")
        if whole(self.max_bytes, "experimental_status_list.max_bytes") > _MOST_BYTES:
            raise ConfigurationError(f"experimental_status_list.max_bytes: must be {_MOST_BYTES} at most")

    def origins(self, issuer: str) -> frozenset[str]:
        """The origins of lists about tokens of *issuer*."""
        return frozenset(self.allowed_origins or (origin_of(issuer),))


def checked_policy(policy: object, issuer: str, validate: Validation, insecure: Collection[str] = ()) -> None:
    """Nothing, where *policy* can work for *issuer*; else :class:`ConfigurationError`."""
    if policy is None:
        return
    if not isinstance(policy, StatusListPolicy):
        kind = type(policy).__name__
        raise ConfigurationError(f"experimental_status_list: a StatusListPolicy, not {kind}")
    if validate is Validation.INTROSPECTION:
        raise ConfigurationError(
            'experimental_status_list: has no use with validate = "introspection": the issuer is asked anyway'
        )
    for origin in policy.allowed_origins:
        checked_url(origin, _ORIGINS, insecure=insecure)
    if not policy.allowed_origins:
        try:
            checked_url(issuer, "issuer", insecure=insecure)
        except ConfigurationError:
            raise ConfigurationError(
                "experimental_status_list.allowed_origins is missing; the issuer's name is no URL to take one from"
            ) from None


def origin_of(url: str) -> str:
    """Scheme, host and port of *url* (RFC 6454 section 4), which is one."""
    parts = urlsplit(url)
    port = _DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _checked_origin(url: str) -> str:
    # Whether it may be http is for the Issuer to say, which knows insecure_http_dangerously.
    parts = checked_form(url, _ORIGINS, query=False)
    if parts.path not in ("", "/"):
        raise ConfigurationError(f"{_ORIGINS}: {url!r} has a path; an origin is scheme, host and port")
    return origin_of(url)
