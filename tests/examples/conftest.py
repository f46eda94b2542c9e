"""The folder of an example as its own program sees it: first on the path, its modules importable by their names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Protocol

import pytest

from environment import ROOT

BIGQUERY = ROOT / "examples" / "bigquery"


class Load(Protocol):
    def __call__(self, name: str) -> ModuleType: ...


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Imports a module of ``examples/bigquery``."""
    before = set(sys.modules)
    sys.path.insert(0, str(BIGQUERY))
    yield importlib.import_module
    sys.path.remove(str(BIGQUERY))
    for path in BIGQUERY.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)
