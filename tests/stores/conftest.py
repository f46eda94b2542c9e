"""One Redis for this folder, emptied before each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redis_server import RedisServer


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(one_server: RedisServer) -> RedisServer:
    """A running Redis with nothing in it and nothing on disk."""
    with one_server.client() as client:
        client.flushall()
    return one_server
