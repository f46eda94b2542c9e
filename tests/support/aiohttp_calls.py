"""Requests to an aiohttp app over a transport in memory, so that no socket is opened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from scenarios import Answered, Exchange

PEER = ("192.0.2.1", 50000)


class MemoryTransport(asyncio.Transport):
    """The connection of a client. *extra*: what ``get_extra_info`` returns."""

    def __init__(self, protocol: Any, extra: dict[str, Any]) -> None:
        super().__init__({"peername": PEER, "sockname": ("192.0.2.2", 443), **extra})
        self.sent = bytearray()
        self.closed = asyncio.Event()
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        self.close()


async def exchange_bytes(app: web.Application, request: bytes, *, patience: float = 30, **extra: Any) -> bytes:
    """Send *request* to *app*, and return what it has sent when it closes the connection, or after *patience* seconds.

    An app waits for the rest of an incomplete request.
    """
    runner = web.AppRunner(app, max_line_size=32_000, max_field_size=32_000, access_log=None)
    await runner.setup()
    try:
        assert runner.server is not None
        protocol: Any = runner.server()
        transport = MemoryTransport(protocol, extra)
        protocol.connection_made(transport)
        half = len(request) // 2
        for part in (request[:half], request[half:]):
            protocol.data_received(part)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(transport.closed.wait(), patience)
    finally:
        await runner.cleanup()
    return bytes(transport.sent)


def call_aiohttp(make_app: Callable[[], web.Application], exchange: Exchange, **extra: Any) -> Answered:
    """Send *exchange* to a new app. An app of aiohttp belongs to one event loop."""
    length = [(b"content-length", str(len(exchange.body)).encode())] if exchange.body else []
    host = [] if any(name == b"host" for name, _ in exchange.headers) else [(b"host", b"api.test")]
    fields = [*host, (b"connection", b"close"), *exchange.headers, *length]
    lines = [f"{exchange.method} {exchange.target} HTTP/1.1".encode("latin-1")]
    lines += [name + b": " + value for name, value in fields]
    request = b"\r\n".join([*lines, b"", exchange.body])
    if exchange.scheme == "https":
        extra = {"sslcontext": object(), **extra}
    sent = asyncio.run(exchange_bytes(make_app(), request, **extra))
    head, _, body = sent.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = [line.decode("latin-1").partition(": ") for line in lines]
    shown = tuple((name.lower(), value) for name, _, value in headers if name.lower() != "date")
    return Answered(status=int(status.split()[1]), headers=shown, body=body)
