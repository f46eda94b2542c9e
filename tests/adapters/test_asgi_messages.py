"""ASGI messages: responses that end when a token expires, and the detection of a disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import nullcontext
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from endings import Expiring
from scopeguard.adapter import asgi_messages
from scopeguard.adapter.asgi_messages import DisconnectDetector, run_until_ended
from scopeguard.errors import ResponseAborted


class Server:
    """The server side of an ASGI connection, which records what was sent."""

    def __init__(self, kind: str = "http") -> None:
        self.scope: MutableMapping[str, Any] = {"type": kind}
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        await anyio.sleep_forever()
        return {}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)
        await anyio.lowlevel.checkpoint()


START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"", "more_body": False}


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def start(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {**START, "headers": list(headers), **more}


EVENTS = (b"Content-Type", b"text/event-stream; charset=utf-8")


@pytest.mark.rule("H-04")
@pytest.mark.anyio
@pytest.mark.parametrize(
    "begin",
    [
        START,
        start((b"content-type", b"text/csv")),
        start((b"content-type", b"text/csv"), (b"content-length", b"100")),
        start((b"content-type", b"text/event-stream"), (b"Content-Length", b"100")),
        start((b"content-type", b"text/event-stream"), trailers=True),
        start((b"content-type", b"text/event-streams")),
        start((b"x-content-type", b"text/event-stream")),
    ],
    ids=["untyped", "csv", "length", "events of a length", "events with trailers", "like events", "other field"],
)
async def test_stream_is_aborted_at_its_deadline(begin: dict[str, Any]):
    """The client must not mistake the part for the whole, so the message is not completed."""
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin)
        while True:
            await send(chunk(b"x"))

    with pytest.raises(ResponseAborted, match="The access token expired"):
        await run_until_ended(Expiring(0), app, server.scope, server.receive, server.send)
    assert server.sent[0] == begin
    assert all(message == chunk(b"x") for message in server.sent[1:])


@pytest.mark.rule("H-04")
@pytest.mark.anyio
@pytest.mark.parametrize("sends", [True, False])
async def test_server_sent_events_end_regularly_at_their_deadline(sends: bool):
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(EVENTS))
        while sends:
            await send(chunk(b"data: x\n\n"))
        await anyio.sleep_forever()  # Silent from the start.

    await run_until_ended(Expiring(0), app, server.scope, server.receive, server.send)
    assert server.sent[0] == start(EVENTS)
    assert server.sent[-1] == END
    assert END not in server.sent[:-1]


@pytest.mark.anyio
async def test_stream_that_starts_after_its_deadline_is_aborted_at_its_first_part():
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        await send(START)
        await send(chunk(b"first"))
        await anyio.sleep_forever()

    with pytest.raises(ResponseAborted):
        await run_until_ended(Expiring(0), app, server.scope, server.receive, server.send)
    assert server.sent == [START, chunk(b"first")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("messages", "complete"),
    [
        ([{"type": "http.response.pathsend", "path": "/x"}], True),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": False}], True),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}], False),
        ([chunk(b"all", more=False)], True),
        ([chunk(b"all", more=False), {"type": "http.response.debug", "info": {}}], True),
    ],
    ids=["a file", "a file descriptor", "its first part", "a body", "and a message of an extension"],
)
async def test_response_sent_through_a_server_extension_is_complete(messages: list[dict[str, Any]], complete: bool):
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for message in messages:
            await send(message)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()

    with nullcontext() if complete else pytest.raises(ResponseAborted):
        await run_until_ended(Expiring(0), app, server.scope, server.receive, server.send)
    assert server.sent[1:] == messages


@pytest.mark.anyio
@pytest.mark.parametrize("more", [False, True])
async def test_response_with_trailers_is_complete_after_them(more: bool):
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send(chunk(b"all", more=False))
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": more})
        if more:
            await anyio.sleep_forever()

    with pytest.raises(ResponseAborted) if more else nullcontext():
        await run_until_ended(Expiring(0 if more else 3600), app, server.scope, server.receive, server.send)


@pytest.mark.rule("H-04")
@pytest.mark.anyio
async def test_silent_websocket_is_closed_at_its_deadline():
    server = Server("websocket")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await receive()

    await run_until_ended(Expiring(0), app, server.scope, server.receive, server.send)
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.close"]
    assert server.sent[-1]["code"] == 1008


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0, -5, 3600])
async def test_complete_response_is_not_aborted(seconds: float):
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()  # The deadline passes before it starts.
        await send(START)
        await send(chunk(b"all", more=False))
        for _ in range(5):
            await anyio.lowlevel.checkpoint()

    await run_until_ended(Expiring(seconds), app, server.scope, server.receive, server.send)
    assert server.sent == [START, chunk(b"all", more=False)]


@pytest.mark.anyio
async def test_exception_of_the_app_is_raised_unchanged():
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await run_until_ended(Expiring(3600), app, server.scope, server.receive, server.send)
    assert server.sent == []


def test_pending_receive_is_not_cancelled_and_its_message_reaches_the_app():
    """A server may lose the message of a cancelled receive, and the app would wait for it forever."""
    asked: list[str] = []

    async def main() -> None:
        arrives, begun = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            asked.append("receive")
            begun.set()
            await arrives.wait()
            return {"type": "http.request", "body": b"all", "more_body": False}

        detector = DisconnectDetector({"type": "http", "headers": []}, receive)
        for _ in range(2):  # The request waits for two flights.
            async with anyio.create_task_group() as group:
                group.start_soon(detector.wait)
                await begun.wait()
                group.cancel_scope.cancel()
        arrives.set()
        assert (await detector.receive())["body"] == b"all"
        assert asked == ["receive"]
        await detector.receive_next()
        assert asked == ["receive", "receive"]
        assert not asgi_messages._receiving

    asyncio.run(main())
