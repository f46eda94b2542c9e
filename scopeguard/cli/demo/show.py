"""The output of the demo: numbered steps, each with a few lines for every exchange. Tokens are shown by description."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import httpx
from rich.console import Console
from rich.text import Text

WIDTH: Final = 100
_JWT: Final = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w-]*")
_COLORS: Final = {2: "green", 4: "yellow", 5: "magenta"}


def without_tokens(text: str) -> str:
    """Return *text* with each JWT replaced. A response may quote a token when a step fails."""
    return _JWT.sub("<a token>", text)


class Screen:
    """Prints the steps, readable without colour and without a terminal.

    Each line of an exchange begins with a sign; :attr:`LEGEND` explains the signs.
    """

    LEGEND: Final = (
        "> request   < response (reason in the API's log)   ~ requests to the authorization server   = explanation"
    )

    def __init__(self, *, color: bool) -> None:
        self._console = Console(highlight=False, soft_wrap=True, color_system="auto" if color else None)
        self._width = min(WIDTH, self._console.width) if self._console.is_terminal else WIDTH

    def line(self, text: str = "", style: str = "") -> None:
        """Print *text* as one unwrapped line, so that commands can be copied."""
        self._console.print(Text(without_tokens(text), style=style))

    def title(self, number: int, text: str) -> None:
        """Print the title of a step."""
        self.line()
        self.line(f"{number:2}. {text}", "bold")

    def request(self, method: str, target: str, header: str) -> None:
        """Print the request line and, if there is one, the header with the token."""
        self.line(f"    > {method} {target}" + (f"   {header}" if header else ""))

    def response(self, response: httpx.Response, reason: str | None) -> None:
        """Print the status, ``WWW-Authenticate``, ``Retry-After`` and, after a success, the body.

        *reason* is the reason code in the API's log.
        """
        text = Text(f"    < {response.status_code} {HTTPStatus(response.status_code).phrase}")
        text.stylize(_COLORS.get(response.status_code // 100, "red"), 6)
        if response.is_success:
            text.append(f"   {without_tokens(response.text)}")
        elif reason:
            text.append(f"   ({reason})", "dim")
        self._console.print(text)
        for name in ("WWW-Authenticate", "Retry-After"):
            for value in response.headers.get_list(name):
                self._print_wrapped(f"      {name}: ", value)

    def authority_requests(self, requests: Iterable[str]) -> None:
        """Print the *requests* that the authorization server received, if any."""
        if lines := list(requests):
            self._print_wrapped("    ~ ", ", ".join(lines), "cyan")

    def explanation(self, text: str) -> None:
        """Print what a step shows."""
        self._print_wrapped("    = ", text, "italic")

    def _print_wrapped(self, label: str, text: str, style: str = "") -> None:
        indent = " " * (len(label) if len(label) < 10 else 8)
        for line in textwrap.wrap(
            label + text, self._width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ):
            self.line(line, style)
