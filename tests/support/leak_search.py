"""A pytest plugin: a test fails when what it printed or logged shows a token or a secret (law 6; B-50, X-77).

Searched are the captured standard output and error, the captured log (of ``scopeguard`` from DEBUG upwards, of
everything else from its usual level), the ids of the tests, and the reports of failures. Each worker of
pytest-xdist searches its own tests, so the verdict is part of the test's own report, wherever it ran.

What is found:

* anything that looks like a signed or encrypted JWT, cut off or not;
* a client secret or an opaque token of our tests. They begin with :data:`SECRET` and :data:`OPAQUE`, so that nobody
  has to register them, and are found in Base64 too, as in ``Authorization: Basic``;
* a private key in PEM.

Output that a test reads for itself (``capsys.readouterr()``, a log file, the output of a subprocess) is out of
pytest's hands: such a test passes it to the ``no_leaks`` fixture.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Generator, Iterable
from typing import Final

import pytest

SECRET: Final = "sg-secret-"
OPAQUE: Final = "sg-opaque-"


def _in_base64(word: str) -> Iterable[str]:
    """Return the Base64 forms of *word* inside a longer text, one for each of the three alignments."""
    data = word.encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        first = -(-before * 8 // 6)  # characters that hold bits of what stands before
        last = (before + len(data)) * 8 // 6  # characters that are full without what comes after
        yield encoded[first:last]


_WORDS: Final = [re.escape(form) for word in (SECRET, OPAQUE) for form in (word, *_in_base64(word))]
_PATTERNS: Final = {
    "a JWT": re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}"),
    "a secret or an opaque token": re.compile(rf"(?:{'|'.join(_WORDS)})[\w-]*"),
    "a private key": re.compile(r"-----BEGIN (?:\w+ )?PRIVATE KEY-----"),
}


def leaks(text: str) -> list[str]:
    """Return the leaks in *text*: one line for each kind, with the place and without the secret itself."""
    return [
        f"{kind} ({match.group()[:6]}..., {len(match.group())} characters, at {match.start()})"
        for kind, pattern in _PATTERNS.items()
        if (match := pattern.search(text))
    ]


def _complaint(parts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name} shows {leak}" for name, text in parts for leak in leaks(text))


def pytest_configure(config: pytest.Config) -> None:
    """Pass the records of scopeguard to the search at every level, and those of other loggers as usual."""
    del config
    logging.getLogger("scopeguard").setLevel(logging.DEBUG)


def judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Fail *report* if it shows a leak; if it failed already, say so in it."""
    parts = [("the test's id", report.nodeid), *report.sections]
    if report.failed:
        parts.append(("the report of the failure", report.longreprtext))
    complaint = _complaint(parts)
    if not complaint:
        return
    if report.failed:
        report.sections.append(("leak search", complaint))
    else:
        report.outcome = "failed"
        report.longrepr = f"tokens and secrets must not be printed or logged:\n{complaint}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    judge(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    judge(report)
    return report


@pytest.fixture(scope="session")
def no_leaks() -> Callable[[str | bytes], None]:
    """``no_leaks(text)`` fails when *text*, output that pytest does not capture, shows a token or a secret."""

    def check(text: str | bytes) -> None:
        __tracebackhide__ = True
        shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
        if complaint := _complaint([("this output", shown)]):
            pytest.fail(f"tokens and secrets must not be printed or logged:\n{complaint}", pytrace=False)

    return check
