"""The page about all reason codes, to which the page with the decisions links."""

from __future__ import annotations

import re
from html import escape
from string import Template
from typing import Final

from scopeguard.adapter.debug_page_templates import HEAD, STYLE, content_policy
from scopeguard.core.causes_and_fixes import SECTIONS, Entry

_REASONS: Final = Template(
    HEAD
    + """<body class="reasons">
<header><p class="kicker">scopeguard</p><h1>Reasons</h1>
<p class="about">Why a guard refuses a request, and what to do. Clients see the status and the text only.</p></header>
<main>
$sections</main>
</body>
</html>
"""
)
_SECTION: Final = Template("<section><h2>$title</h2>\n$entries</section>\n")
_REASON: Final = Template("""<article id="$reason"><h3><code>$reason</code>$standard</h3><p>$cause</p>
<p class="fix">$fix</p><p class="seen">The client sees $status: $text</p></article>
""")
_STANDARD: Final = Template(
    ' <a href="https://www.rfc-editor.org/rfc/rfc$number#section-$section" rel="noreferrer">$name</a>'
)
_RFC: Final = re.compile(r"RFC ([0-9]{4}) section ([0-9.]+)")


def reasons_page() -> tuple[bytes, str]:
    """Return the page about all reasons, and its content security policy."""
    sections = "".join(
        _SECTION.substitute(title=escape(title), entries="".join(map(_reason, entries))) for title, entries in SECTIONS
    )
    content = _REASONS.substitute(title="Reasons", style=STYLE, sections=sections)
    return content.encode("utf-8"), content_policy()


def _reason(entry: Entry) -> str:
    rfc = _RFC.fullmatch(entry.standard)
    standard = f" <span>{escape(entry.standard)}</span>" if entry.standard else ""
    if rfc is not None:
        standard = _STANDARD.substitute(number=rfc[1], section=rfc[2], name=escape(entry.standard))
    return _REASON.substitute(
        reason=escape(entry.reason.value),
        standard=standard,
        cause=_with_code(entry.cause),
        fix=_with_code(entry.fix),
        status=entry.status,
        text=escape(entry.client_text),
    )


def _with_code(text: str) -> str:
    """Return *text* as HTML, with what is between backticks as code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
