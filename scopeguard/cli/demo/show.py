"""How the demo looks: numbered steps, and exchanges of a few lines each. Tokens have names here, not contents."""

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
    """*text*, whatever an app put into it: a demo that goes wrong must not show a token either."""
    return _JWT.sub("<a token>", text)


class Screen:
    """Where the story is told. Readable without colour and without a terminal.

    A sign begins each line, and :attr:`LEGEND` explains them.
    """

    LEGEND: Final = "> a request   < its answer (and the reason in the API's log)   ~ what the authorization server saw"

    def __init__(self, *, color: bool) -> None:
        self._console = Console(highlight=False, soft_wrap=True, color_system="auto" if color else None)
        self._width = min(WIDTH, self._console.width) if self._console.is_terminal else WIDTH

    def line(self, text: str = "", style: str = "") -> None:
        """A line as it is, never broken: it may be copied."""
        self._console.print(Text(without_tokens(text), style=style))

    def title(self, number: int, text: str) -> None:
        """The beginning of a step."""
        self.line()
        self.line(f"{number:2}. {text}", "bold")

    def request(self, method: str, target: str, carries: str) -> None:
        """The request line, and what the request carries."""
        self.line(f"    > {method} {target}" + (f"   {carries}" if carries else ""))

    def response(self, response: httpx.Response, reason: str | None) -> None:
        """Status, what matters of the headers, and of a success the body. *reason* is what the log of the API says."""
        text = Text(f"    < {response.status_code} {HTTPStatus(response.status_code).phrase}")
        text.stylize(_COLORS.get(response.status_code // 100, "red"), 6)
        if response.is_success:
            text.append(f"   {without_tokens(response.text)}")
        elif reason:
            text.append(f"   ({reason})", "dim")
        self._console.print(text)
        for name in ("WWW-Authenticate", "Retry-After"):
            if name in response.headers:
                self._wrapped(f"      {name}: ", response.headers[name])

    def behind(self, requests: Iterable[str]) -> None:
        """What the authorization server was asked meanwhile."""
        if asked := list(requests):
            self._wrapped("    ~ ", ", ".join(asked), "cyan")

    def why(self, text: str) -> None:
        """What it means."""
        self._wrapped("    = ", text, "italic")

    def _wrapped(self, label: str, text: str, style: str = "") -> None:
        indent = " " * (len(label) if len(label) < 10 else 8)
        for line in textwrap.wrap(
            label + text, self._width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ):
            self.line(line, style)
