"""The audit shows what the tools of an MCP server require, and finds tools without a rule."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.routing import Route

from scopeguard import AUTHENTICATED, DENIED, Guard, Issuer, ScopeCatalog, all_of, any_of
from scopeguard.adapter.declarations import ServeLayer
from scopeguard.audit.findings import audit_app
from scopeguard.cli.commands import cli
from scopeguard.cli.mcp_tools import registered_tools
from scopeguard.mcp import McpMiddleware, McpPolicy, Method, Prompt, ResourceUri, Tool

RULES = [
    Tool("add", all_of("math:write")),
    Tool("delete_*", any_of("math:write", "admin")),
    Tool("pay", lambda arguments: "pay"),
    Tool("gone", "math:write"),
    Tool("closed", DENIED),
    Prompt("*", AUTHENTICATED),
    ResourceUri("file:///**", "files"),
    Method("tools/list", AUTHENTICATED),
]
TOOLS = ["add", "delete_all", "pay", "closed", "unknown"]


def mcp_app() -> Starlette:
    async def endpoint(request: Any) -> None: ...

    return Starlette(routes=[Route("/mcp", endpoint, methods=["POST"])])


@pytest.fixture
def mcp_server(guard: Guard) -> Any:
    return McpMiddleware(mcp_app(), guard=guard, rules=RULES)


def test_each_rule_and_each_tool_has_a_row(mcp_server: Any):
    report = audit_app(mcp_server, list_tools=lambda app: TOOLS)
    assert {entry.where: entry.access for entry in report.entries} == {
        "POST /mcp": "any valid token",
        "tool add": "math:write",
        "tool delete_*": "math:write or admin",
        "tool delete_all": "math:write or admin",
        "tool pay": "the result of a function",
        "tool gone": "math:write",
        "tool closed": "denied to all",
        "tool unknown": "denied to all",
        "prompt *": "any valid token",
        "resource file:///**": "files",
        "method tools/list": "any valid token",
    }
    assert report.scopes == ("admin", "files", "math:write")


def test_tools_and_rules_that_do_not_match_are_found(mcp_server: Any, codes: Callable[..., dict[str, list[str]]]):
    found = codes(mcp_server, list_tools=lambda app: TOOLS)
    assert found == {"tool-without-rule": ["tool unknown"], "rule-without-tool": ["tool gone"]}
    assert codes(mcp_server) == {}
    assert codes(mcp_server, list_tools=lambda app: None) == {}


def test_scopes_that_no_issuer_grants_are_found(codes: Callable[..., dict[str, list[str]]]):
    catalog = ScopeCatalog(descriptions={"files": "Files"})
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"), catalog=catalog)
    app = McpMiddleware(mcp_app(), guard=guard, rules=[Tool("a", "files"), Tool("b", "typo")])
    assert codes(app) == {"ungrantable-scope": ["tool b"]}


def test_rules_of_the_file_are_shown(lines: Callable[..., dict[str, str]]):
    policy = McpPolicy(rules=[Tool("add", "math:write")])
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"), mcp=policy)
    assert lines(ServeLayer(mcp_app(), guard)) == {"POST /mcp": "any valid token", "tool add": "math:write"}


SERVERS = """
from types import SimpleNamespace
from starlette.applications import Starlette
from starlette.routing import Route
from scopeguard import Guard, Issuer
from scopeguard.mcp import McpMiddleware, Tool

class Server:
    async def list_tools(self):
        return [SimpleNamespace(name=name) for name in ("add", "secret")]
    async def _handle(self): ...

async def endpoint(request): ...
guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
fast = Starlette(routes=[Route("/mcp", endpoint)])
fast.state.fastmcp_server = Server()
app = McpMiddleware(fast, guard=guard, rules=[Tool("add", "math")])
"""


def test_command_asks_the_server_for_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mcp_servers.py").write_text(SERVERS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mcp_servers", raising=False)
    run = CliRunner().invoke(cli, ["audit", "mcp_servers:app", "--format", "json"])
    report = json.loads(run.stdout)
    assert [finding["where"] for finding in report["findings"]] == ["tool secret"]
    assert {"method": "tool", "path": "secret", "access": "denied"}.items() <= report["routes"][-1].items()


class Sdk:
    """The objects of the official SDK through which its app leads to its tools."""

    def __init__(self, *, fails: bool = False) -> None:
        self.session_manager = self
        self.app = self
        self.handler = self.handle
        self.fails = fails

    async def handle(self) -> None: ...

    def get_request_handler(self, method: str) -> Any:
        return self if method == "tools/list" else None

    async def list_tools(self) -> list[Any]:
        if self.fails:
            raise RuntimeError
        return [type("Tool", (), {"name": name}) for name in ("b", "a")]


def test_tools_of_the_official_sdk_are_found():
    def app_of(endpoint: Any) -> Any:
        return type("App", (), {"routes": [type("Route", (), {"endpoint": endpoint})]})

    assert registered_tools(app_of(Sdk())) == ["a", "b"]
    assert registered_tools(app_of(Sdk(fails=True))) is None
    assert registered_tools(app_of(None)) is None
    assert registered_tools(lambda: None) is None
