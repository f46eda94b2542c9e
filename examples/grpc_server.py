"""A gRPC server: an interceptor checks tokens, and rules say which scopes a method requires.

    pip install ".[grpc,cli]" protobuf
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    python examples/grpc_server.py

The second command prints how to get a token. Then call the server:

    export CALL="-plaintext -proto examples/rows.proto 127.0.0.1:50051 rows.v1.Rows/Insert"
    grpcurl -H "authorization: Bearer $TOKEN" -d '{"table": "t", "n": 1}' $CALL

``rows.proto`` describes the service. Its messages are those of protobuf itself, so that no code has to be generated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.struct_pb2 import Struct

from scopeguard import Guard, Issuer, Rule, any_of
from scopeguard.grpc import AsyncGuardInterceptor, access_token

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
interceptor = AsyncGuardInterceptor(
    guard,
    rules=[
        Rule("/rows.v1.Rows/Insert", any_of("bigquery.insertdata", "bigquery")),
        Rule("/rows.v1.Rows/Read", any_of("bigquery.readonly", "bigquery")),
        # A method that matches no rule is denied.
    ],
    public=["/grpc.health.v1.Health/{method}"],
)
tables: dict[str, list[Any]] = {}


async def insert(request: Any, _: Any) -> Any:
    rows = tables.setdefault(request["table"], [])
    rows.append(request)
    answer = Struct()
    answer.update({"client": access_token().client_id, "rows": len(rows)})
    return answer


async def read(request: Any, _: Any) -> AsyncIterator[Any]:
    for row in tables.get(request["table"], []):
        yield row


def make_server() -> Any:
    """Return the server, without a port."""
    messages: Any = {"request_deserializer": Struct.FromString, "response_serializer": Struct.SerializeToString}
    handlers = {
        "Insert": grpc.unary_unary_rpc_method_handler(insert, **messages),
        "Read": grpc.unary_stream_rpc_method_handler(read, **messages),
    }
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rows.v1.Rows", handlers),))
    return server


async def main() -> None:
    server = make_server()
    server.add_insecure_port("127.0.0.1:50051")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
