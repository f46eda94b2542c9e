"""What tells a token of a machine from a token of a user: plain data of an issuer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from scopeguard.config.checks import Converted, converted, flag, mapping, strings
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSign:
    """A sign that a token was issued to a client acting for itself (``machine=True``), or for a user (``False``).

    A token shows it when everything holds that is given here; without any condition, every token does.

    * ``present``: claims, each with a regular expression that the whole of it matches, a string.
    * ``absent``: claims that are missing, null or empty.
    * ``equal``: claims that are one and the same string.
    * ``subject_is_client``: the subject is the client, as RFC 9068 section 2.2 has it for client credentials.

    Of several signs the first that a token shows says what it is. Raises :class:`ConfigurationError`.
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
            wrong = f"machine_signs: present[{claim!r}]: a regular expression that the whole claim matches"
            if not isinstance(pattern, str):
                raise ConfigurationError(f"{wrong}, not {type(pattern).__name__}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigurationError(f"{wrong}: {error}") from None
        for name in ("absent", "equal"):
            object.__setattr__(self, name, strings(getattr(self, name), f"machine_signs: {name}", empty=False))
        if len(self.equal) == 1:
            raise ConfigurationError("machine_signs: equal: name two claims at least")

    def shown_by(self, claims: Mapping[str, object], subject: str | None, client_id: str | None) -> bool:
        """Whether a token with *claims* shows this sign; *subject* and *client_id* are what the policy read."""
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
    """What the first of *signs* that is shown says, ``None`` without one."""
    for sign in signs:
        if sign.shown_by(claims, subject, client_id):
            return sign.machine
    return None


SUBJECT_IS_CLIENT: Final = MachineSign(machine=True, subject_is_client=True)
"""RFC 9068 section 2.2: where no resource owner is involved, ``sub`` identifies the client."""
