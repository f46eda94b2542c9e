"""One page of a browser for the tests of one file: a new page costs more than most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDE = (1280, 720)


class SharedPage:
    """A page that shows one document after the other. *trouble* has what went wrong in the present one."""

    def __init__(self, browser: Browser) -> None:
        self.trouble: list[str] = []
        self._expected: tuple[str, ...] = ()
        self._page = browser.new_page()
        self._page.set_default_timeout(20_000)
        self._page.on("console", lambda message: self.trouble.append(message.text))
        self._page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self._page.on("dialog", lambda dialog: self.trouble.append(dialog.message))
        self._page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith(self._expected):
            self.trouble.append(url)

    def open(
        self,
        url: str,
        *expected: str,
        scheme: Literal["light", "dark"] = "light",
        size: tuple[int, int] = WIDE,
        moves: bool = True,
    ) -> Any:
        """Show *url* and return the page. A request is trouble if it begins with none of *expected*."""
        self.leave()
        self._expected = expected
        self._page.set_viewport_size({"width": size[0], "height": size[1]})
        motion: Literal["no-preference", "reduce"] = "no-preference" if moves else "reduce"
        self._page.emulate_media(media="null", color_scheme=scheme, reduced_motion=motion)
        self._page.goto(url)
        return self._page

    def leave(self) -> None:
        """End what the document does, and forget its trouble."""
        self._page.goto("about:blank")
        self.trouble.clear()

    def close(self) -> None:
        self._page.close()
