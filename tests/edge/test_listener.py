"""Listening sockets of the servers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from scopeguard.edge.listener import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accepted_connection_has_nagles_algorithm_off(host: str):
    """Otherwise each response that is written in two pieces takes 40 ms longer."""
    said: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def main() -> None:
        with listen(host, 0) as listener:
            server = await asyncio.start_server(accept, sock=listener)
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            await reader.read()
            writer.close()
            server.close()
            await server.wait_closed()

    asyncio.run(main())
    assert said
    assert all(said)
