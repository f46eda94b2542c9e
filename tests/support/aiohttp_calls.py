"""Requests to an aiohttp app over a transport in memory, so that no socket is opened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

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


@contextlib.asynccontextmanager
async def _run_app(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(app, max_line_size=32_000, max_field_size=32_000, access_log=None)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


async def _send(runner: web.AppRunner, request: bytes, *, patience: float = 30, **extra: Any) -> bytes:
    """Return what the app has sent when it closes the connection, or after *patience* seconds.

    An app waits for the rest of an incomplete request.
    """
    assert runner.server is not None
    protocol: Any = runner.server()
    transport = MemoryTransport(protocol, extra)
    protocol.connection_made(transport)
    half = len(request) // 2
    for part in (request[:half], request[half:]):
        protocol.data_received(part)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(transport.closed.wait(), patience)
    transport.close()
    return bytes(transport.sent)


def call_aiohttp(make_app: Callable[[], web.Application], exchange: Exchange, **extra: Any) -> Answered:
    """Send *exchange* to a new app. An app of aiohttp belongs to one event loop."""
    request, extra = _request(exchange, extra)

    async def call() -> bytes:
        async with _run_app(make_app()) as runner:
            return await _send(runner, request, **extra)

    return _read_answer(asyncio.run(call()))


class RunningApp:
    """An app that runs from its first request to the end of the ``with`` block."""

    def __init__(self, make_app: Callable[[], web.Application]) -> None:
        self._make_app = make_app
        self._loop = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stack.aclose())
        self._loop.close()

    def send(self, exchange: Exchange) -> Answered:
        """Send *exchange*, and return the answer."""
        request, extra = _request(exchange, {})
        return _read_answer(self.send_bytes(request, **extra))

    def send_bytes(self, request: bytes, **settings: Any) -> bytes:
        """Send *request*, and return everything that the app sends. *settings* are those of :func:`_send`."""
        return self._loop.run(self._send(request, settings))

    async def _send(self, request: bytes, settings: dict[str, Any]) -> bytes:
        if self._runner is None:
            self._runner = await self._stack.enter_async_context(_run_app(self._make_app()))
        return await _send(self._runner, request, **settings)


def _request(exchange: Exchange, extra: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of *exchange*, and *extra* with what its scheme adds."""
    length = [(b"content-length", str(len(exchange.body)).encode())] if exchange.body else []
    host = [] if any(name == b"host" for name, _ in exchange.headers) else [(b"host", b"api.test")]
    fields = [*host, (b"connection", b"close"), *exchange.headers, *length]
    lines = [f"{exchange.method} {exchange.target} HTTP/1.1".encode("latin-1")]
    lines += [name + b": " + value for name, value in fields]
    request = b"\r\n".join([*lines, b"", exchange.body])
    return request, {"sslcontext": object(), **extra} if exchange.scheme == "https" else extra


def _read_answer(sent: bytes) -> Answered:
    head, _, body = sent.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = [line.decode("latin-1").partition(": ") for line in lines]
    shown = tuple((name.lower(), value) for name, _, value in headers if name.lower() != "date")
    return Answered(status=int(status.split()[1]), headers=shown, body=body)
