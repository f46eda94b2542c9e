"""Introspection with a bearer token that a function or a file provides: sync and async, through the edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from scopeguard import Guard, Introspection, Issuer
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, Denied, Granted, Unavailable
from scopeguard.reasons import Reason
from scopeguard.testing.clock import FakeClock
from storms import Storm, request_with

ENDPOINT = "https://as.test/introspect"


class Picky:
    """A transport to an authority that accepts one bearer token and reports every access token but "bad" as active."""

    def __init__(self, taken: str) -> None:
        self.taken = taken
        self.shown: list[str | None] = []

    def send(self, request: Send, /) -> Answer:
        self.shown.append(request.authorization)
        if request.authorization != f"Bearer {self.taken}":
            return Answer(401, b"{}", {"content-type": "application/json"})
        members = {"active": dict(request.form or ())["token"] != "bad", "aud": "https://api.test", "scope": "read"}
        return Answer(200, json.dumps(members).encode(), {"content-type": "application/json"})

    def close(self) -> None: ...


def guard_with(source: Any, transport: Picky, clock: FakeClock | None = None) -> Guard:
    settings = Introspection(auth="bearer", bearer_token=source, endpoint=ENDPOINT)
    issuer = Issuer("https://as.test", audience="https://api.test", validate="introspection", introspection=settings)
    return Guard(issuer, transport=transport, clock=clock or FakeClock())


@pytest.fixture(params=["threads", "asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def decide(guard: Guard, token: str, runtime: str) -> Decision:
    if runtime == "threads":
        return guard.check(request_with(token))
    return anyio.run(guard.acheck, request_with(token), backend=runtime)


@pytest.mark.rule("I-06")
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_expired_bearer_token_is_renewed_within_the_request(runtime: str, kind: str):
    issued = ["first"]

    def source() -> str:
        return issued[-1]

    async def issue_async() -> str:
        await anyio.lowlevel.checkpoint()
        return issued[-1]

    transport = Picky("first")
    guard = guard_with(source if kind == "function" else issue_async, transport)
    assert isinstance(decide(guard, "a", runtime), Granted)
    transport.taken = "second"
    issued.append("second")
    assert isinstance(decide(guard, "b", runtime), Granted)
    assert isinstance(decide(guard, "bad", runtime), Denied)
    assert transport.shown == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]
    guard.close()


@pytest.mark.rule("I-06", "I-25")
def test_concurrent_requests_call_the_source_once_and_renew_once(runtime: str):
    calls: list[int] = []
    issued = ["first"]

    def source() -> str:
        calls.append(1)
        return issued[0]

    transport, clock = Picky("first"), FakeClock()
    guard = guard_with(source, transport, clock)
    storm = Storm(runtime, guard)
    tokens = [f"token-{number}" for number in range(40)]
    assert storm.run(tokens) == {"Granted": 40}
    assert calls == [1]
    transport.taken = "second"
    clock.advance(61)
    issued[0] = "second"
    assert storm.run(tokens) == {"Granted": 40}
    assert calls == [1, 1]
    guard.close()


@pytest.mark.rule("I-06", "I-18", "H-19")
def test_failing_source_is_an_outage(runtime: str, caplog: pytest.LogCaptureFixture):
    def source() -> str:
        raise OSError("sg-secret of the source")

    transport = Picky("first")
    guard = guard_with(source, transport)
    decision = decide(guard, "a", runtime)
    assert isinstance(decision, Unavailable)
    assert decision.error.reason is Reason.AUTHORITY_UNREACHABLE
    assert "bearer_token raised OSError" in caplog.text
    assert "sg-secret" not in caplog.text
    assert transport.shown == []
    guard.close()


CONFIGURATION = """
[[issuers]]
url = "https://as.test"
audience = "https://api.test"
validate = "introspection"
[issuers.introspection]
auth = "bearer"
endpoint = "https://as.test/introspect"
bearer_token = "file:token"
"""


@pytest.mark.rule("I-06")
def test_file_is_read_again_after_its_token_is_refused(runtime: str, tmp_path: Path):
    file, secret = tmp_path / "scopeguard.toml", tmp_path / "token"
    file.write_text(CONFIGURATION, "utf-8")
    secret.write_text("first\n", "utf-8")
    transport, clock = Picky("first"), FakeClock()
    guard = Guard.from_file(str(file), transport=transport, clock=clock)
    secret.write_text("second\n", "utf-8")
    transport.taken = "second"
    assert isinstance(decide(guard, "a", runtime), Granted)
    secret.write_text("third\n", "utf-8")
    assert isinstance(decide(guard, "b", runtime), Granted)  # The second is still valid.
    transport.taken = "third"
    clock.advance(10)
    assert isinstance(decide(guard, "c", runtime), Granted)
    assert transport.shown == ["Bearer second", "Bearer second", "Bearer second", "Bearer third"]
    secret.unlink()
    transport.taken = "fourth"
    clock.advance(10)
    assert isinstance(decide(guard, "d", runtime), Unavailable)
    guard.close()


def test_missing_file_is_refused_at_construction(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.write_text(CONFIGURATION, "utf-8")
    with pytest.raises(ConfigurationError, match="bearer_token: the file token cannot be read"):
        Guard.from_file(str(file))


def test_equal_files_are_equal_settings(tmp_path: Path):
    """A resolver that reads a file therefore keeps the keys of its issuers."""
    file = tmp_path / "scopeguard.toml"
    file.write_text(CONFIGURATION, "utf-8")
    (tmp_path / "token").write_text("first", "utf-8")
    one, two = (Guard.from_file(str(file)).issuers[0] for _ in range(2))
    assert one == two
    assert "first" not in repr(one.introspection)


@pytest.mark.parametrize("value", [7, b"token", ["token"]])
def test_source_must_be_a_string_or_a_function(value: Any):
    with pytest.raises(ConfigurationError, match=r"introspection\.bearer_token"):
        Introspection(auth="bearer", bearer_token=value)
