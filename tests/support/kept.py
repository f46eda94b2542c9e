"""A pytest plugin: what the tests of one file open once and share, such as a running app, is closed after the last."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Final, TypeVar

import pytest

Opened = TypeVar("Opened")
_KEPT: Final = ExitStack()


def keep(context: AbstractContextManager[Opened]) -> Opened:
    """Enter *context*, and leave it after the last test of this file."""
    return _KEPT.enter_context(context)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        _KEPT.close()
