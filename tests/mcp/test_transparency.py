"""MCP servers of the official SDK and of fastmcp answer the same behind the middleware, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from environment import ROOT, plain_environment, skip_or_fail

_PYTHON = ROOT / ".venv-apps" / "bin" / "python"


_KINDS = ("sdk", "fastmcp")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the program finds out about the servers of both kinds. It compares in process."""
    if not _PYTHON.exists():
        skip_or_fail("no MCP servers: `make apps` installs them into .venv-apps")
    run = subprocess.run(
        [str(_PYTHON), "-m", "mcp_transparency", *_KINDS],
        env={**plain_environment(), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(zip(_KINDS, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("kind", _KINDS)
def test_server_answers_the_same_behind_the_middleware(results: dict[str, Any], kind: str):
    """Streams are passed on while a tool still runs."""
    found = results[kind]
    assert found["different"] == []
    assert found["compared"] == 17
    assert set(found["statuses"]) >= {200, 404, 405}
    assert found["streamed"] == [True, True]
    assert found["concurrent"] == {"200 right": 250}
