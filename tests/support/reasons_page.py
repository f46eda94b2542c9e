"""Write ``docs/reasons.md`` from the catalog of reason codes: ``make reasons``.

``tests/docs/test_reasons_page.py`` compares the page with the catalog and with the reason codes.
"""

from __future__ import annotations

from typing import Final

from environment import ROOT
from scopeguard.core.causes_and_fixes import SECTIONS, Entry

PAGE: Final = ROOT / "docs" / "reasons.md"
INTRODUCTION: Final = """\
# Reasons

<!-- Written by `make reasons` from scopeguard/core/causes_and_fixes.py. Change the texts there. -->

Each refused request has a reason code. It is in [the log](logging.md), and in `DecisionEvent.reason`. Clients never see
it: they get the status, the `error` and the text that each entry names, in a challenge or a body
([responses](responses.md)). Codes are stable between versions. A new version may add some.
"""


def write_page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION]
    for title, entries in SECTIONS:
        parts.append(f"## {title}\n")
        parts += [_write_entry(entry) for entry in entries]
    return "\n".join(parts)


def _write_entry(entry: Entry) -> str:
    standard = f" ({entry.standard})" if entry.standard else ""
    code = "" if entry.oauth_error is None else f" `{entry.oauth_error}`"
    return (
        f"### `{entry.reason.value}`\n\n"
        f"{entry.cause.removesuffix('.')}{standard}.\n\n"
        f'* **The client sees**: {entry.status}{code}, "{entry.client_text}"\n'
        f"* **Fix**: {entry.fix}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(write_page(), "utf-8")
