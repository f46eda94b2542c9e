"""MCP servers of the official SDK and of fastmcp answer the same behind the middleware, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from environment import ROOT, plain_environment, skip_or_fail

_PYTHON = ROOT / ".venv-apps" / "bin" / "python"


@pytest.mark.parametrize("kind", ["sdk", "fastmcp"])
def test_server_answers_the_same_behind_the_middleware(kind: str):
    """The program compares in process. Streams are passed on while a tool still runs."""
    if not _PYTHON.exists():
        skip_or_fail("no MCP servers: `make apps` installs them into .venv-apps")
    run = subprocess.run(
        [str(_PYTHON), "-m", "mcp_transparency", kind],
        env={**plain_environment(), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["different"] == []
    assert found["compared"] == 17
    assert set(found["statuses"]) >= {200, 404, 405}
    assert found["streamed"] == [True, True]
    assert found["concurrent"] == {"200 right": 250}
