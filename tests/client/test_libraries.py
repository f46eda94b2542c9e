"""The class is an ``Auth`` of each installed library, httpx and httpx2."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import httpx
import httpx2
import pytest

from environment import ROOT
from scopeguard.client import ClientCredentials


def run_in_new_process(script: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.rule("C-37")
def test_credentials_are_an_auth_of_both_libraries():
    assert issubclass(ClientCredentials, httpx.Auth)
    assert issubclass(ClientCredentials, httpx2.Auth)


CALL = """
    auth = scopeguard.client.ClientCredentials("https://as.example/token", "id", "made-up")
    auth._fetcher.token = lambda: scopeguard.client.TokenResponse(
        access_token="made-up", token_type="Bearer", expires_in=None, scope=None
    )
    with httpx.Client(auth=auth, transport=httpx.MockTransport(lambda request: httpx.Response(204))) as client:
        print(client.get("https://api.example/").status_code)
"""


def test_credentials_work_without_httpx2():
    script = "import sys\n    sys.modules['httpx2'] = None\n    import httpx, scopeguard.client"
    assert run_in_new_process(f"    {script}{CALL}") == "204"


def test_credentials_work_if_httpx_is_an_alias_of_httpx2():
    script = "import httpx2\n    httpx2.alias_httpx()\n    import httpx, scopeguard.client"
    assert run_in_new_process(f"    {script}{CALL}") == "204"
