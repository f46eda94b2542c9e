"""What a listener learns about the check of a token, besides its result."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from scopeguard.flow.effects import Effect, Flow, ReadForm, SingleFlight, T


class CredentialKind(StrEnum):
    """The kind of a credential."""

    TOKEN = "token"
    API_KEY = "api_key"


class TokenCheck(StrEnum):
    """How much work the check of a token was."""

    CACHED = "cached"
    """The token, or the answer of its authorization server about it, was in a cache."""
    VERIFIED = "verified"
    """The token was checked with what the process had: a signature was verified."""
    FETCHED = "fetched"
    """The request waited for keys, an introspection answer, a status list, an issuer, the shared store or API keys."""


class Observation:
    """Facts about the check of one token, collected while it runs. Only a guard with a listener makes one."""

    __slots__ = ("began", "credential", "issuer", "token_check")

    def __init__(self, began: float | None) -> None:
        self.began: float | None = began
        """When the check began, in monotonic seconds; ``None`` if it began with the report of its request."""
        self.credential: CredentialKind | None = None
        """``None`` if none was found."""
        self.issuer: str | None = None
        """The trusted issuer that the token names. A refused token may be forged."""
        self.token_check: TokenCheck | None = None
        """``None`` if no token was found."""

    def note(self, issuer: str, token_check: TokenCheck) -> None:
        """Note the issuer, and what was done. A later check does not replace a noted fetch."""
        self.issuer = issuer
        if self.token_check is not TokenCheck.FETCHED:
            self.token_check = token_check

    def follow(self, flow: Flow[T]) -> Flow[T]:
        """Run *flow*, and note whether it waits for an exchange."""
        try:
            effect = next(flow)
            while True:
                if _is_exchange(effect):
                    self.token_check = TokenCheck.FETCHED
                try:
                    answer = yield effect
                except Exception as error:  # noqa: BLE001 - the flow gets it
                    effect = flow.throw(error)
                else:
                    effect = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()


def _is_exchange(effect: Effect[Any]) -> bool:
    """Return whether the request waits for *effect*, and *effect* is more than reading its own body."""
    return effect.wait if isinstance(effect, SingleFlight) else not isinstance(effect, ReadForm)
