"""What every test may use: the vectors, both async back ends, and a run that leaks nothing and skips nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import coverage
import hypothesis
import pytest

from environment import ROOT, in_ci, missing

pytest_plugins = ["leak_search", "nothing_skipped"]

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


def pytest_configure() -> None:
    hypothesis.settings.load_profile("ci" if in_ci() else "default")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has whatever it starts in the background ignore Ctrl-C, and that is inherited by the commands whose
        # end by Ctrl-C is under test.
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Whose tests wait for processes of their own.
_WAITING = ("cli", "confusion", "peers", "servers", "stores", "wrapped")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits goes first: at the end there would be nothing left to do beside it."""
    folders = {ROOT / "tests" / name for name in _WAITING}
    at_once = {path: folders.isdisjoint(path.parents) for path in {item.path for item in items}}
    items.sort(key=lambda item: at_once[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Which branches random examples and races come through, differs from run to run: what has to be tested is counted
    without them. It also saves the time of tracing them, which is a fifth of the whole.

    A thread that is alive meanwhile is not counted any more afterwards: none outlives a test.
    """
    chance = item.get_closest_marker("hypothesis") is not None or ROOT / "tests" / "attacks" in item.path.parents
    measuring = coverage.Coverage.current() if chance else None
    if measuring is None:
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of test vectors that nobody here wrote: ``SCOPEGUARD_VECTORS``, or its place beside the repository."""
    folder = Path(os.environ.get("SCOPEGUARD_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not folder.is_dir():
        missing("no test vectors: SCOPEGUARD_VECTORS names no folder, and there is none beside the repository")
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"), pytest.param(("trio", {}), id="trio")],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Every async test runs twice, on asyncio and on trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend
