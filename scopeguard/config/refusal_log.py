"""Settings of the log of refused requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from scopeguard.config.checks import number, whole
from scopeguard.errors import ConfigurationError

_NUMBERS: Final = {"warning": 30, "info": 20, "debug": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalLog:
    """The settings for logging refused requests, on the logger ``scopeguard.decisions``.

    Each refusal is one line. Any caller can cause refusals, so the lines of each reason are limited. The next line with
    a reason says how many were left out before it. Accepted requests are not logged.

    * ``level``: the level of the lines: ``"warning"``, ``"info"`` or ``"debug"``. If logging is not configured, Python
      shows warnings on standard error and nothing below.
    * ``burst``: the number of lines with one reason that may be written at once, at least 1.
    * ``interval``: seconds after which one more line may be written. 0 writes every line.

    Raises :class:`ConfigurationError` for a wrong value. ``Guard(..., refusal_log="off")`` logs no refusals.
    """

    level: Literal["warning", "info", "debug"] = "warning"
    burst: int = 10
    interval: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.level, str) or self.level not in _NUMBERS:
            given = repr(self.level) if isinstance(self.level, str) else type(self.level).__name__
            raise ConfigurationError(f'refusal_log: level: must be "warning", "info" or "debug", not {given}')
        whole(self.burst, "refusal_log: burst")
        if number(self.interval, "refusal_log: interval") < 0:
            raise ConfigurationError(
                f"refusal_log: interval: must be at least 0 seconds, not {self.interval}; 0 writes every line"
            )

    @property
    def number(self) -> int:
        """The level as a number of :mod:`logging`."""
        return _NUMBERS[self.level]


def check_refusal_log(policy: object) -> RefusalLog | None:
    """Return *policy*, or ``None`` for ``"off"``. Raises :class:`ConfigurationError` for anything else."""
    if policy == "off":
        return None
    if not isinstance(policy, RefusalLog):
        raise ConfigurationError(f'refusal_log: must be a RefusalLog or "off", not {type(policy).__name__}')
    return policy
