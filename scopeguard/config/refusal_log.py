"""How refusals are logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from scopeguard.config.checks import number, whole
from scopeguard.errors import ConfigurationError

_NUMBERS: Final = {"warning": 30, "info": 20, "debug": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalLog:
    """Lines about refused requests, on the logger ``scopeguard.decisions``; one line each, within a limit per reason.

    A stranger chooses how many requests are refused, so each reason has a budget of its own. The next line of a reason
    says how many were left out.

    * ``level``: of the lines: ``"warning"``, ``"info"`` or ``"debug"``. Without any logging configuration, Python shows
      warnings on standard error and nothing below.
    * ``burst``: lines of one reason that may be written at once.
    * ``interval``: seconds after which one more may be written; 0 writes every line.

    Raises :class:`ConfigurationError`. To log no refusals: ``Guard(..., refusal_log="off")``.
    """

    level: Literal["warning", "info", "debug"] = "warning"
    burst: int = 10
    interval: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.level, str) or self.level not in _NUMBERS:
            raise ConfigurationError('refusal_log: level must be "warning", "info" or "debug"')
        whole(self.burst, "refusal_log: burst")
        if number(self.interval, "refusal_log: interval") < 0:
            raise ConfigurationError("refusal_log: interval must not be negative; 0 writes every line")

    @property
    def number(self) -> int:
        """The level as :mod:`logging` numbers it."""
        return _NUMBERS[self.level]


def checked_refusal_log(policy: object) -> RefusalLog | None:
    """*policy*, if it is one; ``None`` for ``"off"``."""
    if policy == "off":
        return None
    if not isinstance(policy, RefusalLog):
        raise ConfigurationError(f'refusal_log: a RefusalLog, or "off", not {type(policy).__name__}')
    return policy
