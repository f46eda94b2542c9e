"""gRPC: interceptors that check the access token of each call, for ``grpc.server`` and ``grpc.aio.server``.

    interceptor = AsyncGuardInterceptor(
        guard,
        rules=[
            Rule("/rows.v1.Rows/Insert", all_of("rows.insert")),
            Rule("/rows.v1.Rows/{method}", all_of("rows.read")),
        ],
        public=["/grpc.health.v1.Health/{method}"],
    )
    server = grpc.aio.server(interceptors=[interceptor])

A gRPC call is an HTTP/2 request with the method ``POST`` and the path ``/package.Service/Method``, so the rules are
those of HTTP. The token is in the metadata ``authorization``, as ``Bearer <token>``. A refusal is a status:
``UNAUTHENTICATED`` or ``PERMISSION_DENIED`` with the challenge in the trailing metadata ``www-authenticate``, or
``UNAVAILABLE`` with ``retry-after`` and ``grpc-retry-pushback-ms`` when an authorization server cannot be reached.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import grpc as _grpc
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "grpc") from None

from scopeguard.grpc.interceptors import AsyncGuardInterceptor, GuardInterceptor
from scopeguard.tokens import access_token, access_token_or_none

__all__ = ["AsyncGuardInterceptor", "GuardInterceptor", "access_token", "access_token_or_none"]
del _grpc
