"""A sync and an async gRPC server on loopback, for all tests of a session, and calls to them.

Each call names its interceptor in the metadata ``x-interceptor``, so that the servers need not be started again for
another guard. There is no protobuf: messages are bytes. The methods of each service are those of :data:`KINDS`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio.from_thread
import grpc
import grpc.aio

from scopeguard import Guard, access_token_or_none
from scopeguard.grpc import AsyncGuardInterceptor, GuardInterceptor

KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SELECT: Final = "x-interceptor"
parsed: Final[list[bytes]] = []
"""The messages that the servers have parsed since it was cleared."""


def parse(message: bytes) -> bytes:
    """Return *message*, as a generated class would parse it."""
    parsed.append(message)
    if message == b"malformed":
        raise ValueError("malformed")
    return message


def caller() -> bytes:
    """Return the client of the current token, for the response."""
    token = access_token_or_none()
    return b"nobody" if token is None else str(token.client_id).encode()


class Behaviors:
    """Functions that block. A response has the client of the token and the request."""

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        return caller() + b" " + request

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        for part in request.split(b","):
            yield caller() + b" " + part

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        return caller() + b" " + b",".join(requests)

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield caller() + b" " + request


class AsyncBehaviors:
    """The same as coroutines and async generators."""

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return caller() + b" " + request

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for part in request.split(b","):
            yield caller() + b" " + part

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return caller() + b" " + b",".join([request async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield caller() + b" " + request


class WritingBehaviors:
    """The same as coroutines that write and read messages themselves."""

    async def unary_stream(self, request: bytes, context: Any) -> None:
        for part in request.split(b","):
            await context.write(caller() + b" " + part)

    async def stream_stream(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(caller() + b" " + request)


class Handlers(grpc.GenericRpcHandler):
    """Answers every method but those below ``/missing``. The last segment names a kind, else it is unary."""

    def __init__(self, **services: Any) -> None:
        self._services = services

    def service(self, handler_call_details: Any) -> Any:
        service, _, kind = handler_call_details.method[1:].rpartition("/")
        if service == "missing":
            return None
        behaviors = self._services.get(service, next(iter(self._services.values())))
        kind = kind if kind in KINDS else "unary_unary"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(getattr(behaviors, kind), request_deserializer=parse, response_serializer=bytes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client gets: the status, its details, the trailing metadata and the responses."""

    code: Any
    details: str
    trailing: tuple[tuple[str, Any], ...]
    responses: list[bytes] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.trailing if key == name]


class GrpcServer:
    """A running server, its interceptors by name, and a channel to it."""

    def __init__(self, channel: Any, interceptors: dict[str, Any], make: Any) -> None:
        self.make: Any = make
        """The class of the interceptors that the server takes."""
        self._channel = channel
        self._interceptors = interceptors
        self._numbers = itertools.count()

    @property
    def is_async(self) -> bool:
        return self.make is AsyncGuardInterceptor

    def add_guarded(self, guard: Guard, **settings: Any) -> str:
        """Add an interceptor with *guard*, and return its name."""
        return self.add(self.make(guard, **settings))

    def add(self, interceptor: Any) -> str:
        """Add *interceptor* and return its name."""
        name = str(next(self._numbers))
        self._interceptors[name] = interceptor
        return name

    def call(
        self, name: str, method: str, metadata: Any = (), message: bytes = b"a,b", kind: str = "unary_unary"
    ) -> Outcome:
        """Call *method* through the interceptor *name*. A streamed request has one message for each part."""
        fields = ((SELECT, name), *metadata)
        request: Any = iter(message.split(b",")) if kind.startswith("stream") else message
        start = getattr(self._channel, kind)(method)
        if kind.endswith("stream"):
            call, responses = start(request, metadata=fields, timeout=30), list[bytes]()
            try:
                responses += call
            except grpc.RpcError:
                pass
            return Outcome(call.code(), call.details(), tuple(call.trailing_metadata()), responses)
        try:
            answer, call = start.with_call(request, metadata=fields, timeout=30)
        except grpc.RpcError as error:
            refused: Any = error
            return Outcome(refused.code(), refused.details(), tuple(refused.trailing_metadata()))
        return Outcome(call.code(), call.details(), tuple(call.trailing_metadata()), [answer])


class _Switch(grpc.ServerInterceptor):
    def __init__(self, interceptors: dict[str, Any]) -> None:
        self._interceptors = interceptors

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        chosen = self._interceptors[dict(handler_call_details.invocation_metadata)[SELECT]]
        return chosen.intercept_service(continuation, handler_call_details)


class _AsyncSwitch(grpc.aio.ServerInterceptor):
    def __init__(self, interceptors: dict[str, Any]) -> None:
        self._interceptors = interceptors

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        chosen = self._interceptors[dict(handler_call_details.invocation_metadata)[SELECT]]
        return await chosen.intercept_service(continuation, handler_call_details)


@contextmanager
def serve_blocking(credentials: Any = None, client: Any = None, options: Any = ()) -> Iterator[GrpcServer]:
    """Run a ``grpc.server``, with TLS if there are *credentials*."""
    interceptors: dict[str, Any] = {}
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, interceptors=[_Switch(interceptors)])
        server.add_generic_rpc_handlers((Handlers(plain=Behaviors()),))
        port = (
            server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else server.add_secure_port("127.0.0.1:0", credentials)
        )
        server.start()
        try:
            with _channel(port, client, options) as channel:
                yield GrpcServer(channel, interceptors, GuardInterceptor)
        finally:
            server.stop(None).wait()


@contextmanager
def serve_async() -> Iterator[GrpcServer]:
    """Run a ``grpc.aio.server`` in an event loop of its own thread."""
    interceptors: dict[str, Any] = {}

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(interceptors=[_AsyncSwitch(interceptors)], migration_thread_pool=pool)
        services = {"plain": AsyncBehaviors(), "writing": WritingBehaviors(), "blocking": Behaviors()}
        server.add_generic_rpc_handlers((Handlers(**services),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(4))
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        server, port = portal.call(start)
        try:
            with _channel(port) as channel:
                yield GrpcServer(channel, interceptors, AsyncGuardInterceptor)
        finally:
            portal.call(server.stop, None)


def _channel(port: int, client: Any = None, options: Any = ()) -> Any:
    if client is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}")
    return grpc.secure_channel(f"127.0.0.1:{port}", client, options)
