"""The condition that the user signed in by a given method, or recently (RFC 9470)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from scopeguard.conditions import Condition
from scopeguard.config.checks import Converted, converted, strings, whole
from scopeguard.errors import (
    AccessDenied,
    ConfigurationError,
    InsufficientUserAuthentication,
)
from scopeguard.tokens import AccessToken

# RFC 9470 §3: acr_values is a space-separated list inside a quoted-string.
_ACR_VALUE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAuthentication(Condition):
    """The user signed in by a given method, or recently (RFC 9470).

    * *acr*: authentication context class references, in order of preference. The token must have one of them. They are
      compared as strings: a value does not include another.
    * *max_age*: the greatest number of seconds since the user signed in. The leeway of the issuer is added.

    Checked: the claims ``acr`` and ``auth_time`` of a JWT, or the members with these names of an introspection answer.
    A missing or malformed one does not satisfy the condition. Not checked: ``amr``, which is in ``AccessToken.amr``.

    The refusal is 401 with the error ``insufficient_user_authentication``, and with ``acr_values`` and ``max_age`` in
    the challenge. Challenges to requests without a valid token do not contain these values.

    Raises :class:`ConfigurationError` for an empty condition, for a value that a challenge cannot contain, and for a
    negative age.
    """

    acr: Converted[Iterable[str] | str, tuple[str, ...]] = converted(())
    max_age: int | None = None

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        acr = strings(self.acr, "acr")
        for value in acr:
            if not _ACR_VALUE.fullmatch(value):
                raise ConfigurationError(
                    f"acr: {value!r} is not allowed in a challenge (RFC 9470 section 3): use printable ASCII without "
                    "space, quote and backslash"
                )
        object.__setattr__(self, "acr", tuple(dict.fromkeys(acr)))
        if self.max_age is not None:
            whole(self.max_age, "max_age", least=0)
        if not self.acr and self.max_age is None:
            raise ConfigurationError("UserAuthentication: needs acr, max_age or both")
        if self.max_age == 0:
            # RFC 9470 section 8: even the token of a new sign-in may be too old when it arrives.
            warnings.warn(
                "max_age=0 accepts only tokens of users who signed in within the leeway of the issuer; clients may "
                "repeat the sign-in without end: use a few seconds at least",
                stacklevel=4,
            )

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        """See :meth:`Condition.refuse`."""
        lacking: dict[str, Any] = {}
        if self.acr and token.acr not in self.acr:
            lacking["acr"] = token.acr or "absent"
        signed_in = token.auth_time
        # RFC 9470 section 6.1: auth_time is the time of the sign-in. A time in the future is wrong.
        if self.max_age is not None and (signed_in is None or not -leeway <= now - signed_in <= self.max_age + leeway):
            lacking["auth_time"] = "absent" if signed_in is None else f"{now - signed_in:.0f} seconds ago"
        if not lacking:
            return None
        return InsufficientUserAuthentication(
            acr_values=self.acr, max_age=self.max_age, client_id=token.client_id, token=token.fingerprint, **lacking
        )

    def __str__(self) -> str:
        parts = [f"acr {' or '.join(self.acr)}"] if self.acr else []
        return ", ".join(parts + ([] if self.max_age is None else [f"max_age {self.max_age}"]))
