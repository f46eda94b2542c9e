"""Fixtures for all tests: the vectors and both async back ends; and checks for leaks and skipped tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import which
from typing import Any

import certifi
import hypothesis
import pytest

from algorithms import ML_DSA_HERE
from environment import ROOT, in_ci, skip_or_fail
from shared_page import SharedPage

pytest_plugins = ["few_reports", "kept", "leak_search", "measured", "nothing_skipped"]

# With a cryptography that lacks ML-DSA, tests/config/test_ml_dsa.py alone tests it: that every setting is refused.
collect_ignore = [] if ML_DSA_HERE else [f"{folder}/test_ml_dsa.py" for folder in ("attacks", "core", "spec")]

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests are collected: nothing dies meanwhile, and each traversal is longer than the last
    hypothesis.settings.load_profile("ci" if in_ci() else "default")
    # Each client with a transport of its own reads the public certificate authorities, which takes 25 to 40
    # milliseconds, also where it uses no TLS. Tests connect to loopback only.
    patch = pytest.MonkeyPatch()
    authorities = str(ROOT / "tests" / "data" / "no-authority.pem")
    patch.setenv("SSL_CERT_FILE", authorities)
    patch.setattr(certifi, "where", lambda: authorities)
    config.add_cleanup(patch.undo)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell makes its background processes ignore Ctrl-C, and the commands whose end by Ctrl-C is under test
        # inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Folders whose tests wait for other processes.
_WAITING = ("cli", "confusion", "peers", "servers", "stores", "wrapped")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that wait for processes first, so that other tests run meanwhile."""
    folders = {ROOT / "tests" / name for name in _WAITING}
    at_once = {path: folders.isdisjoint(path.parents) for path in {item.path for item in items}}
    items.sort(key=lambda item: at_once[item.path])


def pytest_collection_finish() -> None:
    """Exempt the thousands of collected tests from garbage collection: traversing them takes a sixth of the run."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(5_000, 20, 20)  # the reports of the tests stay, so each traversal is longer than the last


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright, for the tests of one file.

    Not for more than one: while it runs, no other event loop can run in this thread.
    """
    path = which("chromium")
    if path is None:
        skip_or_fail("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def shared_page(browser: Any) -> Iterator[SharedPage]:
    """A page of the browser for the tests of one file."""
    with closing(SharedPage(browser)) as page:
        yield page


@pytest.fixture(scope="session", params=["blocking", "async"])
def grpc_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A ``GrpcServer`` of each kind on loopback."""
    import grpc_servers

    serve: Any = grpc_servers.serve_blocking if request.param == "blocking" else grpc_servers.serve_async
    with serve() as server:
        yield server


@pytest.fixture(scope="session")
def axe() -> None:
    """Make sure that ``website.accessibility`` has axe-core."""
    from website.accessibility import AXE

    if not AXE.exists():
        skip_or_fail("no axe-core: make peers installs it")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published test vectors: ``SCOPEGUARD_VECTORS``, or its place beside the repository."""
    folder = Path(os.environ.get("SCOPEGUARD_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not folder.is_dir():
        skip_or_fail("no test vectors: SCOPEGUARD_VECTORS names no folder, and there is none beside the repository")
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"), pytest.param(("trio", {}), id="trio")],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Every async test runs twice, on asyncio and on trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend
