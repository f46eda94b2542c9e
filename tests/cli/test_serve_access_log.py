"""The access log: one line per request, with the reasons of the decision and without credentials."""

from __future__ import annotations

import json
import logging
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scopeguard import Guard, Rule, Rules
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver import Authority
from scopeguard.rules import OPTIONAL
from scopeguard.scopes import all_of
from scopeguard.server.access_log import (
    REQUEST_ID,
    AccessLog,
    ASGIAccessLog,
    DiagnosticFormatter,
    Entry,
    Format,
    WSGIAccessLog,
    as_text,
    note,
)
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuard
from serving import ASGI, CONFIG, KINDS, PATIENCE, dev_server, prepare, serve, token, write


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


@pytest.mark.rule("B-31", "X-77", "X-78", "X-79")
@pytest.mark.parametrize("what", KINDS)
def test_line_has_caller_request_status_and_reason(
    what: tuple[str, ...],
    start: Callable[..., Any],
    folder: Path,
    authority: Authority,
    no_leaks: Callable[[str], None],
):
    write(folder / "api.toml", CONFIG.replace('"read"', '"read", "admin"'))
    command, url = serve(start, folder, authority.issuer, *what, "--access-log", "json")
    good = token(authority)
    headers = {"Authorization": f"Bearer {good}", "X-Request-Id": "chosen-by-the-caller"}
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
        client.get("/a?b=c", headers=headers)
        answer = client.get("/large", headers=headers)
        client.head("/a", headers=headers)
        client.get("/a", headers={"Authorization": f"Bearer {good[:-6]}AAAAAA"})
        client.get(f"/query?access_token={good}&x=1")
        client.get("/%0d%0a%1b[2J%E2%80%AE", headers=headers)
        client.get("/crash", headers=headers)
        client.get("/healthz")
    assert len(answer.content) == 8_000_000
    assert command.end(signal.SIGTERM) == 0
    no_leaks(command.output)
    assert "chosen-by-the-caller" not in command.output
    own = ("lifespan.startup", "lifespan.shutdown")  # what the app prints
    written = [json.loads(line) for line in command.lines if line not in own]
    diagnostics = [line for line in written if "level" in line]
    for line in diagnostics:
        assert {"time", "level", "logger", "message"} <= line.keys() <= {*line, "request_id", "exception"}
    assert {line["level"] for line in diagnostics} == {"INFO", "WARNING", "ERROR"}
    (crash,) = [line for line in diagnostics if "exception" in line]
    assert "ValueError: of the app" in crash["exception"]
    lines = [line for line in written if "level" not in line]
    assert len(lines) == 8
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert line.pop("ms") >= 0
        assert re.fullmatch(r"[0-9a-f]{16}", line["request_id"])
        assert line.pop("client") == "127.0.0.1"
    assert len({line.pop("request_id") for line in lines}) == 8
    fingerprint = lines[0].pop("token")
    assert re.fullmatch(r"[0-9a-f]{12}", fingerprint)
    who = {"decision": "granted", "issuer": authority.issuer, "client_id": "robot"}
    assert lines[0].pop("bytes") > 20
    assert lines[0] == {"method": "GET", "path": "/a", "status": 200, **who}
    who["token"] = fingerprint
    assert lines[1] == {"method": "GET", "path": "/large", "status": 200, "bytes": 8_000_000, **who}
    assert lines[2] == {"method": "HEAD", "path": "/a", "status": 200, "bytes": 0, **who}
    assert lines[3].pop("bytes") > 0
    refused = {"status": 401, "decision": "denied", "reason": "bad_signature"}
    assert lines[3] == {"method": "GET", "path": "/a", **refused}
    assert (lines[4]["path"], lines[4]["token"]) == ("/query", fingerprint)
    assert lines[5]["path"] == "/%0D%0A%1B%5B2J%E2%80%AE"
    assert (lines[5]["status"], lines[5]["decision"]) == (403, "denied")
    assert (lines[6]["path"], lines[6]["status"]) == ("/crash", 500)
    assert lines[7]["decision"] == "public"


def test_subject_is_logged_if_configured_and_off_disables_the_log(
    start: Callable[..., Any], folder: Path, authority: Authority
):
    good = {"Authorization": f"Bearer {token(authority)}"}
    for options, expected in [
        (("--log-subjects",), [True]),
        ((), [False]),
        (("--access-log", "off"), []),
    ]:
        command, url = serve(start, folder, authority.issuer, *ASGI, *options)
        assert httpx.get(f"{url}/a", headers=good, trust_env=False, timeout=PATIENCE).status_code == 200
        assert command.end(signal.SIGTERM) == 0
        assert ["subject=robot" in line for line in command.lines if "GET /a" in line] == expected


def test_line_of_the_refusal_log_names_the_request(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI)
    assert httpx.get(f"{url}/a", trust_env=False, timeout=PATIENCE).status_code == 401
    assert command.end(signal.SIGTERM) == 0
    (why,) = [line for line in command.lines if "denied with 401" in line]
    (line,) = [line for line in command.lines if "GET /a 401" in line]
    assert why.partition("request_id=")[2] == line.partition("request_id=")[2] != ""


@pytest.mark.parametrize("client", ["fe80::1%eth0\n127.0.0.1 GET /", "\x1b[31m", "\u2028", "a" * 1000])
def test_address_of_a_client_cannot_forge_log_lines(client: str):
    """A scope id may be any text, and a server may report an address that is not one."""
    shown = Entry(client, "GET", "/").members(subjects=False)["client"]
    assert shown.isprintable()
    assert shown.isascii()
    assert len(shown) <= 70


class Lines(AccessLog):
    """Records the lines."""

    def __init__(self) -> None:
        self.members: list[dict[str, Any]] = []

    def write(self, entry: Any) -> None:
        self.members.append(entry.members(subjects=True))


def guard() -> tuple[FakeAuthority, Guard]:
    fake = FakeAuthority()
    made = Guard(
        fake.issuer,
        rules=Rules([Rule("/open", OPTIONAL), Rule("/{rest:path}", all_of("read"))]),
        transport=fake.transport,
        clock=fake.clock,
        on_decision=note,
    )
    return fake, made


async def fail_if_called(*_: Any) -> Any:
    raise AssertionError("is not called")


async def ask(app: Any, path: str, token: str | None, kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": kind, "path": path, "query_string": b"", "headers": headers, "client": None, "scheme": "http"}
    if kind == "http":
        scope["method"] = "GET"
    await app(scope, receive, send)
    return sent


@pytest.mark.anyio
async def test_each_kind_of_decision_has_a_word():
    fake, made = guard()
    lines = Lines()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert len(scope[REQUEST_ID]) == 16
        if scope["path"] == "/late":  # what a decorator of a route may do
            made.authorize(scope["state"]["access_token"], all_of("admin"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"12", "more_body": True})
        await send({"type": "http.response.body", "body": b"345"})

    served = ASGIAccessLog(GuardMiddleware(app, guard=made), lines)
    good = fake.mint("read", client_id="loader", subject="somebody")
    await ask(served, "/a", good)
    await ask(served, "/open", None)
    await ask(served, "/late", good)
    await ask(served, "/a", fake.mint("other", client_id="loader"))
    assert [(line["decision"], line.get("reason")) for line in lines.members] == [
        ("granted", None),
        ("anonymous", None),
        ("denied", "insufficient_scope"),
        ("denied", "insufficient_scope"),
    ]
    assert lines.members[0]["subject"] == "somebody"
    assert [line["bytes"] for line in lines.members[:3]] == [5, 5, 5]
    assert lines.members[3]["client_id"] == "loader"
    assert "client" not in lines.members[0]


@pytest.mark.anyio
async def test_request_during_an_outage_is_logged_as_unavailable():
    fake, made = guard()
    lines = Lines()
    good = fake.mint("read")
    with fake.outage():
        await ask(ASGIAccessLog(GuardMiddleware(fail_if_called, guard=made), lines), "/a", good)
    (line,) = lines.members
    assert (line["status"], line["decision"], line["issuer"]) == (503, "unavailable", fake.url)


@pytest.mark.anyio
async def test_websockets_have_the_status_of_their_handshake_and_the_bytes_sent():
    lines = Lines()

    def app(*messages: dict[str, Any]) -> Any:
        async def send_messages(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)

        return send_messages

    accept, close = {"type": "websocket.accept"}, {"type": "websocket.close"}
    text, data = {"type": "websocket.send", "text": "é"}, {"type": "websocket.send", "bytes": b"123", "text": None}
    denial = {"type": "websocket.http.response.start", "status": 401}
    for messages in ((accept, text, data, close), (close,), (denial,)):
        await ask(ASGIAccessLog(app(*messages), lines), "/ws", None, "websocket")
    assert [(line["status"], line["bytes"]) for line in lines.members] == [(101, 5), (403, 0), (401, 0)]
    assert lines.members[0]["method"] == "WEBSOCKET"
    passed: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    await ASGIAccessLog(lifespan, lines)({"type": "lifespan"}, fail_if_called, fail_if_called)
    assert passed == ["lifespan"]
    assert len(lines.members) == 3


def wsgi(app: Any, lines: Lines, **environ: Any) -> tuple[Any, list[Any]]:
    started: list[Any] = []

    def start_response(status: str, headers: Any, *rest: Any) -> Any:
        started.append(status)
        return started.append

    return WSGIAccessLog(app, lines)({"REQUEST_METHOD": "GET", "PATH_INFO": "/a", **environ}, start_response), started


def test_wsgi_responses_are_unchanged():
    lines = Lines()
    closed: list[str] = []

    class Generated:
        def __iter__(self) -> Iterator[bytes]:
            yield b"12"
            yield b"345"

        def close(self) -> None:
            closed.append("closed")

    class File:
        def __iter__(self) -> Iterator[bytes]:
            return iter((b"12",))

    def app(body: Any, *headers: tuple[str, str]) -> Any:
        def respond(environ: Any, start_response: Any) -> Any:
            write = start_response("200 OK", list(headers))
            if body == "written":
                write(b"1234")
                return []
            return body

        return respond

    one, _ = wsgi(app([b"123"]), lines)
    assert len(one) == 1
    generated, _ = wsgi(app(Generated()), lines)
    assert not hasattr(generated, "__len__")
    written, started = wsgi(app("written"), lines)
    assert started == ["200 OK", b"1234"]
    for response in (one, generated, written):
        list(response)
        assert len(lines.members) < 3
        response.close()
    file, _ = wsgi(app(given := File()), lines, **{"wsgi.file_wrapper": File})
    assert file is given
    wsgi(app(File(), ("Content-Length", "2")), lines, **{"wsgi.file_wrapper": File})
    assert [line.get("bytes") for line in lines.members] == [3, 5, 4, None, 2]
    assert closed == ["closed"]


def test_a_wsgi_app_that_fails_has_status_500():
    lines = Lines()

    def fail_at_once(environ: Any, start_response: Any) -> Any:
        raise ValueError

    def fail_later(environ: Any, start_response: Any) -> Any:
        yield b""
        raise ValueError

    with pytest.raises(ValueError):
        wsgi(fail_at_once, lines)
    chunks, _ = wsgi(fail_later, lines)
    with pytest.raises(ValueError):
        list(chunks)
    chunks.close()
    assert [line["status"] for line in lines.members] == [500, 500]
    _, made = guard()
    denied, _ = wsgi(WSGIGuard(fail_at_once, guard=made), lines)
    denied.close()
    assert lines.members[2]["reason"] == "no_credentials"


def test_any_text_is_written_on_one_line():
    common = {"method": "GET", "path": "/a", "status": 200, "ms": 1.5, "decision": "granted"}
    line = as_text({**common, "client_id": 'a "b" c', "x": "y"})
    assert line == '- - GET /a 200 1.5ms -B granted client_id="a \\"b\\" c" x=y'


def diagnostic(format_: Format, *, pid: bool = False, crashed: bool = False) -> str:
    failure = (ValueError, ValueError("line one\nline two"), None) if crashed else None
    record = logging.LogRecord("scopeguard.serve", logging.WARNING, "", 0, "%s \n of it", ("all",), failure)
    record.created, record.process = 1_800_000_000.25, 77
    return DiagnosticFormatter(format_, pid=pid).format(record)


@pytest.mark.parametrize("format_", [Format.TEXT, Format.OFF])
def test_lines_about_the_server_have_a_time_and_a_level(format_: Format):
    assert diagnostic(format_) == "2027-01-15T08:00:00.250Z WARNING all \n of it"
    assert diagnostic(format_, pid=True).startswith("2027-01-15T08:00:00.250Z [77] WARNING all")
    assert diagnostic(format_, crashed=True).endswith("ValueError: line one\nline two")


def test_lines_about_the_server_are_json_with_a_json_access_log():
    common = {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "WARNING",
        "logger": "scopeguard.serve",
        "message": "all \n of it",
    }
    assert json.loads(diagnostic(Format.JSON)) == common
    assert json.loads(diagnostic(Format.JSON, pid=True)) == {**common, "pid": 77}
    (line,) = diagnostic(Format.JSON, crashed=True).splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: line one\nline two")


def test_formats_are_chosen_by_name():
    assert [str(known) for known in Format] == ["text", "json", "off"]
