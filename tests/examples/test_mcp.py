"""examples/mcp as a whole: the official client and server of MCP, on real sockets."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest

from environment import ROOT, plain_environment, skip_or_fail

PYTHON = ROOT / ".venv-apps" / "bin" / "python"


def requests(output: str) -> list[tuple[str, ...]]:
    """Return the method, path, operation and status of each printed request."""
    lines = re.findall(r"^  ([A-Z]+) +(/\S*) +(.*?) *(\d{3})$", output, re.MULTILINE)
    return [(method, path, " ".join(operation.split()), status) for method, path, operation, status in lines]


@pytest.mark.rule("MC-01", "MC-02")
def test_client_discovers_signs_in_and_steps_up(no_leaks: Callable[[str], None]):
    if not [*(ROOT / ".venv-apps").glob("lib/*/site-packages/mcp")]:
        skip_or_fail("no mcp: `make apps` installs it into .venv-apps")
    done = subprocess.run(
        [str(PYTHON), "examples/mcp/run.py"],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    no_leaks(done.stdout)
    login = [("GET", "/authorize", "", "303"), ("POST", "/token", "", "200")]
    said = [request for request in requests(done.stdout) if request[2] != "tools/list"]
    assert said == [
        ("POST", "/mcp", "server/discover", "401"),
        ("GET", "/.well-known/oauth-protected-resource/mcp", "", "200"),
        ("GET", "/.well-known/oauth-authorization-server", "", "200"),
        ("POST", "/register", "", "201"),
        *login,
        ("POST", "/mcp", "server/discover", "200"),
        ("POST", "/mcp", "tools/call read_file", "200"),
        ("POST", "/mcp", "tools/call delete_file", "403"),
        *login,
        ("POST", "/mcp", "tools/call delete_file", "200"),
        ("POST", "/mcp", "tools/call read_file", "200"),
    ]
    assert 'error="insufficient_scope"' in done.stdout
    assert 'scope="files:write"' in done.stdout
    assert "scope: files:read files:write" in done.stdout
