"""Write a refused request to the log: one line of text, and its facts as fields for JSON.

The logger is ``scopeguard.decisions``. The fields are attributes of the log record, as :func:`logging.Logger.log` sets
them for ``extra``. ``docs/logging.md`` documents them; they are stable.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.errors import AccessDenied, AuthorityUnavailable
from scopeguard.log_values import printable
from scopeguard.request import RequestView, describe_request
from scopeguard.spec.challenge import Response

refusals: Final = logging.getLogger("scopeguard.decisions")
FIELDS: Final = (
    "reason", "status", "method", "path", "issuer", "token_fingerprint", "detail", "cause", "fix", "left_out",
)  # fmt: skip
"""The fields of a record."""


def write_refusal(
    level: int,
    error: AccessDenied | AuthorityUnavailable,
    response: Response,
    request: RequestView | None,
    left_out: int,
) -> None:
    """Write the line about *request*, which was refused because of *error* and answered with *response*.

    *left_out*: the number of refusals with this reason that were not written since the last line.
    """
    entry, detail = entry_of(error.reason), error.detail
    outage = error if isinstance(error, AuthorityUnavailable) else None
    facts = detail if outage is None else {"authority": printable(outage.authority), **detail}
    if outage is not None and outage.retry_after is not None:
        facts["retry_after"] = detail["retry_after"] = f"{outage.retry_after:.0f} s"
    shown = ", ".join(f"{name}={value}" for name, value in facts.items())
    more = f" [and {left_out} more with this reason since the last such line]" if left_out else ""
    fields: dict[str, Any] = {
        "reason": error.reason.value,
        "status": response.status,
        "method": None if request is None else printable(request.method, 20),
        "path": None if request is None else printable(request.path),
        "issuer": facts.get("authority") or detail.get("issuer"),
        "token_fingerprint": detail.pop("token", None),
        "detail": {name: value for name, value in detail.items() if name != "issuer"},
        "cause": entry.cause.replace("`", ""),
        "fix": entry.fix.replace("`", ""),
        "left_out": left_out,
    }
    arguments = (
        f"denied with {response.status}" if outage is None else "not judged",
        describe_request(request),
        error.reason.value,
        f" ({shown})" if shown else "",
        entry.advice,
        more,
    )
    try:
        refusals.log(level, "%s: %s%s%s: %s%s", *arguments, extra=fields)
    except KeyError:  # a record factory of the app sets a field of the same name
        refusals.log(level, "%s: %s%s%s: %s%s", *arguments)
