"""Settings of Token Status Lists (draft-ietf-oauth-status-list). Experimental: the draft is not an RFC yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from scopeguard.config.answer_limits import ANSWER_TIMEOUT, LARGEST_ALLOWED_STATUS_LIST, LARGEST_STATUS_LIST
from scopeguard.config.checks import flag, positive, strings, whole
from scopeguard.config.hosts import origin_of
from scopeguard.config.urls import check_form, check_url
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError

_ORIGINS: Final = "experimental_status_list.allowed_origins"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusListPolicy:
    """Check the status of JWTs that have a ``status`` claim, in the status list that the claim names.

    The list must be signed with a key of the issuer itself. Every status but 0 ("VALID") refuses the token. If the
    status cannot be determined, the answer is 503. JWTs without a ``status`` claim are not affected, unless
    ``required`` says so, and introspected tokens are not looked up.

    * ``allowed_origins``: the origins that lists may be fetched from, as in ``"https://status.example.com"``. The
      default is the issuer's own origin. A token that names another origin is refused without a fetch.
    * ``required``: refuse JWTs without a ``status`` claim.
    * ``fail_open_dangerously``: accept a token whose status cannot be determined, instead of answering 503.
    * ``max_bytes``: the largest answer in bytes, and the largest list after decompression, at most 128 MiB. Up to four
      times as much is cached for each issuer.
    * ``timeout``: seconds for one fetch.

    Raises :class:`ConfigurationError` for a wrong value.
    """

    allowed_origins: str | Collection[str] = ()
    required: bool = False
    fail_open_dangerously: bool = False
    max_bytes: int = LARGEST_STATUS_LIST
    timeout: float = ANSWER_TIMEOUT

    def __post_init__(self) -> None:
        named = strings(self.allowed_origins, "experimental_status_list.allowed_origins")
        object.__setattr__(self, "allowed_origins", tuple(map(_check_origin, named)))
        flag(self.required, "experimental_status_list.required")
        flag(self.fail_open_dangerously, "experimental_status_list.fail_open_dangerously")
        positive(self.timeout, "experimental_status_list.timeout")
        most = LARGEST_ALLOWED_STATUS_LIST
        if whole(self.max_bytes, "experimental_status_list.max_bytes") > most:
            raise ConfigurationError(
                f"experimental_status_list.max_bytes: must be at most {most}, not {self.max_bytes}"
            )

    def origins(self, issuer: str) -> frozenset[str]:
        """Return the origins that lists for tokens of *issuer* may come from."""
        return frozenset(self.allowed_origins or (origin_of(issuer),))


def check_policy(policy: object, issuer: str, validate: Validation, insecure: Collection[str] = ()) -> None:
    """Raise :class:`ConfigurationError` unless *policy* is one that can work for *issuer*."""
    if not isinstance(policy, StatusListPolicy):
        raise ConfigurationError(f"experimental_status_list: must be a StatusListPolicy, not {type(policy).__name__}")
    if validate is Validation.INTROSPECTION:
        raise ConfigurationError(
            'experimental_status_list: has no effect with validate = "introspection", which asks the issuer; remove one'
        )
    for origin in policy.allowed_origins:
        check_url(origin, _ORIGINS, insecure=insecure)
    if not policy.allowed_origins:
        try:
            check_url(issuer, "issuer", insecure=insecure)
        except ConfigurationError:
            raise ConfigurationError(
                "experimental_status_list.allowed_origins: is missing, and the issuer's identifier is not a URL; "
                'name the origins, as in ["https://status.example.com"]'
            ) from None


def _check_origin(url: str) -> str:
    # The Issuer checks whether it may be http, because it has insecure_http_dangerously.
    parts = check_form(url, _ORIGINS, query=False)
    if parts.path not in ("", "/"):
        raise ConfigurationError(f"{_ORIGINS}: {url!r} has a path; an origin is scheme, host and port")
    return origin_of(url)
