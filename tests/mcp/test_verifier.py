"""The verifiers for the official SDK and for fastmcp ask the guard about each token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from environment import ROOT, plain_environment, skip_or_fail
from mcp_calls import Server
from scopeguard import Adapter, AuthorityUnavailable, ConfigurationError, DecisionEvent
from scopeguard.mcp.verifier import FastmcpVerifier, SdkVerifier

_PYTHON = ROOT / ".venv-apps" / "bin" / "python"


class Made:
    """Stands for the ``AccessToken`` of a library."""

    def __init__(self, **members: Any) -> None:
        self.members = members


class Base:
    """Stands for the ``TokenVerifier`` of fastmcp."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with the names of the libraries, which are not installed here."""
    for name in ("mcp", "mcp.server", "mcp.server.auth", "mcp.server.auth.provider"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name in ("fastmcp", "fastmcp.server", "fastmcp.server.auth"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["mcp.server.auth.provider"])["AccessToken"] = Made
    vars(sys.modules["fastmcp.server.auth"]).update(AccessToken=Made, TokenVerifier=Base)


@pytest.mark.anyio
@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("kind", ["sdk", "fastmcp"])
async def test_guard_validates_the_token(kind: str):
    server = Server()
    guard = server.guard(implies={"admin": ["read"]})
    verifier = SdkVerifier(guard) if kind == "sdk" else FastmcpVerifier(guard, required_scopes=["read"])
    good = server.authority.mint("admin", subject="ann")
    found = (await verifier.verify_token(good)).members
    assert found["claims"].pop("sub") == "ann"
    assert {name: found[name] for name in ("token", "client_id", "subject", "scopes", "resource")} == {
        "token": good,
        "client_id": "client",
        "subject": "ann",
        "scopes": ["admin", "read"],
        "resource": "https://mcp.test/mcp",
    }
    assert isinstance(found["expires_at"], int)
    for bad in ("", "garbage", "gar\u00dfbage", "a b", server.authority.mint(audience="https://other.test")):
        assert await verifier.verify_token(bad) is None


@pytest.mark.anyio
@pytest.mark.usefixtures("libraries")
async def test_event_does_not_describe_a_request_that_the_library_keeps_to_itself():
    server, events = Server(), list[DecisionEvent]()
    verifier = SdkVerifier(server.guard(on_decision=events.append))
    await verifier.verify_token(server.authority.mint("read", client_id="billing"))
    await verifier.verify_token("garbage")
    assert [(event.adapter, event.method, event.path, event.client_id) for event in events] == [
        (Adapter.MCP, None, None, "billing"),
        (Adapter.MCP, None, None, None),
    ]


@pytest.mark.anyio
@pytest.mark.usefixtures("libraries")
async def test_outage_is_not_an_invalid_token():
    server = Server()
    verifier = SdkVerifier(server.guard())
    with server.authority.outage(), pytest.raises(AuthorityUnavailable):
        await verifier.verify_token(server.authority.mint("read"))


@pytest.mark.parametrize(("kind", "verifier"), [("mcp", SdkVerifier), ("fastmcp", FastmcpVerifier)])
def test_missing_library_is_named_with_its_extra(kind: str, verifier: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {kind}; pip install .*\[{kind}\]"):
        verifier(Server().guard())
    with pytest.raises(ConfigurationError, match="guard"):
        verifier("https://as.test")


def test_missing_dependency_of_the_library_is_reported_unchanged(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "mcp":
                raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    monkeypatch.delitem(sys.modules, "mcp", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError) as caught:
        SdkVerifier(Server().guard())
    assert caught.value.name == "pydantic"


def test_libraries_answer_as_the_guard_decides():
    if not _PYTHON.exists():
        skip_or_fail("no MCP servers: `make apps` installs them into .venv-apps")
    run = subprocess.run(
        [str(_PYTHON), "-m", "mcp_verifiers"],
        env={**plain_environment(), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    expected = {
        "good": 200,
        "weak": 403,
        "of another audience": 401,
        "expired": 401,
        "bound": 401,
        "garbage": 401,
        "outage": "AuthorityUnavailable",
    }
    assert json.loads(run.stdout) == {"sdk": expected, "fastmcp": expected}
