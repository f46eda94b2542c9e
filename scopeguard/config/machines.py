"""Settings that distinguish tokens of machines from tokens of users."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from scopeguard.config.checks import Converted, converted, flag, mapping, strings
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSign:
    """Conditions under which a token belongs to a machine, or to a user.

    A sign applies to a token that meets all of its conditions. A sign without conditions applies to every token. Of
    several signs, the first that applies decides. Nothing is refused because of a sign.

    * ``machine``: whether such a token was issued to a client that acts for itself (``True``), or for a user
      (``False``).
    * ``present``: claims with a regular expression each. The claim must be a string, and all of it must match.
    * ``absent``: claims that must be missing, null or empty strings.
    * ``equal``: two or more claims that must be the same non-empty string.
    * ``subject_is_client``: the subject must be the client id (RFC 9068 §2.2).

    Raises :class:`ConfigurationError` for a wrong value or an invalid regular expression.
    """

    machine: bool
    present: Mapping[str, str] = field(default_factory=dict)
    absent: Converted[Iterable[str], tuple[str, ...]] = converted(())
    equal: Converted[Iterable[str], tuple[str, ...]] = converted(())
    subject_is_client: bool = False

    def __post_init__(self) -> None:
        for name in ("machine", "subject_is_client"):
            flag(getattr(self, name), f"machine_signs: {name}")
        for claim, pattern in mapping(self.present, "machine_signs: present").items():
            wrong = f"machine_signs: present[{claim!r}]: must be a regular expression for the whole claim"
            if not isinstance(pattern, str):
                raise ConfigurationError(f"{wrong}, not {type(pattern).__name__}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigurationError(f"{wrong}: {error}") from None
        for name in ("absent", "equal"):
            object.__setattr__(self, name, strings(getattr(self, name), f"machine_signs: {name}", empty=False))
        if len(self.equal) == 1:
            raise ConfigurationError("machine_signs: equal: must name at least two claims, not one")

    def applies(self, claims: Mapping[str, object], subject: str | None, client_id: str | None) -> bool:
        """Return whether a token with *claims* meets all conditions. *subject* and *client_id* come from its issuer."""
        if self.subject_is_client and (subject is None or subject != client_id):
            return False
        if any(claims.get(claim) not in (None, "") for claim in self.absent):
            return False
        for claim, pattern in self.present.items():
            value = claims.get(claim)
            if not isinstance(value, str) or re.fullmatch(pattern, value, re.DOTALL) is None:
                return False
        values = [claims.get(claim) for claim in self.equal]
        return all(isinstance(value, str) and value and value == values[0] for value in values)


def is_machine(
    signs: Iterable[MachineSign], claims: Mapping[str, object], subject: str | None, client_id: str | None
) -> bool | None:
    """Return whether the first of *signs* that applies says "machine", or ``None`` if none applies."""
    for sign in signs:
        if sign.applies(claims, subject, client_id):
            return sign.machine
    return None


SUBJECT_IS_CLIENT: Final = MachineSign(machine=True, subject_is_client=True)
"""A machine is the subject of its own tokens.

RFC 9068 §2.2: "In cases of access tokens obtained through grants where no resource owner is involved, such as the
client credentials grant, the value of "sub" SHOULD correspond to an identifier the authorization server uses to
indicate the client application."
"""
