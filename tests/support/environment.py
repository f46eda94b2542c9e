"""The environment of the suite, and the requirements that depend on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = (
    *("asgi", "wsgi", "starlette", "fastapi", "flask", "django", "falcon"),
    *("aiohttp", "grpc", "litestar", "quart"),
)


def in_ci() -> bool:
    """Return whether this run decides about a change. Such a run must not skip tests."""
    return bool(os.environ.get("CI"))


def skip_or_fail(reason: str) -> NoReturn:
    """Something that a test needs is not here: a failure in CI, a skip with *reason* elsewhere."""
    if in_ci():
        pytest.fail(f"{reason} (CI runs every test)", pytrace=False)
    pytest.skip(reason)


def plain_environment() -> dict[str, str]:
    """The environment for a process that must not measure coverage, because what it imports is what is looked at."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
