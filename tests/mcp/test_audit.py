"""The audit of an MCP server behind the middleware."""

from __future__ import annotations

import logging

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from mcp_calls import Server, call, record
from scopeguard import AUTHENTICATED, Rule
from scopeguard.audit.findings import audit_app
from scopeguard.mcp import McpMiddleware, Method


def protect(**settings: str) -> McpMiddleware:
    app = Starlette(routes=[Route("/mcp", record), Route("/upload", record, methods=["POST"])])
    return McpMiddleware(
        app,
        guard=Server().guard(**settings),
        rules=[Method("*", AUTHENTICATED)],
        routes=[Rule("/upload", "files:write")],
    )


def test_endpoint_is_reported_as_one_that_needs_a_token():
    report = audit_app(protect())
    assert [(entry.method, entry.path, entry.access) for entry in report.entries] == [
        ("GET", "/mcp", "any valid token"),
        ("POST", "/upload", "files:write"),
        ("method", "*", "any valid token"),
    ]
    assert report.entries[0].declared == ("rules for messages",)
    assert report.findings == ()


@pytest.mark.anyio
async def test_start_logs_no_finding(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "scopeguard"):
        assert (await call(protect(audit="error"), method="GET")).status == 401
    assert not [message for message in caplog.messages if message.startswith("audit")]
