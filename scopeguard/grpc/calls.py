"""Translate gRPC calls into requests for the guard, wrap their handlers, and translate refusals into statuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio

from scopeguard.core.decision import Denied, Unavailable
from scopeguard.request import HeaderList, ProofNotes, RequestView
from scopeguard.spec.certificate_fields import from_pem
from scopeguard.tokens import Serving, begin_serving, end_serving

METHOD: Final = "POST"
"""The method of the HTTP/2 request of every call, as the specification of gRPC over HTTP/2 says."""
MALFORMED: Final = "Exception deserializing request!"
"""The details that gRPC itself sends for a message that it cannot parse."""

_ENCRYPTED: Final = (b"ssl", b"alts")
# A refusal for which the guard sends 404 looks like a method that the server does not have.
_CODES: Final = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_UNKNOWN: Final = "Method not found!"
_SENT: Final = ("www-authenticate", "dpop-nonce", "retry-after")


class Responses:
    """The responses of a streaming handler. The token is current only while the handler computes one."""

    def __init__(self, responses: Iterator[Any], serving: Serving) -> None:
        self._responses = responses
        self._serving = serving

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        before = begin_serving(self._serving)
        try:
            return next(self._responses)
        finally:
            end_serving(before)


class LaterResponses:
    """The responses of a call that *start* begins when gRPC takes the first one."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start
        self._responses: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._responses is None:
            self._responses = self._start()
        return next(self._responses)


def replace_handler(handler: Any, guard: Callable[..., Any], unknown: Any) -> Any:
    """Return *handler* with its function wrapped by *guard*. For an unknown method (``None``), wrap *unknown*."""
    if handler is None:
        return grpc.stream_stream_rpc_method_handler(guard(unknown, None, streams=True))
    requests, responses = (
        "stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming)
    )
    kind = f"{requests}_{responses}"
    parse = handler.request_deserializer
    deferred = not handler.request_streaming
    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        guard(getattr(handler, kind), parse if deferred else None, streams=handler.response_streaming),
        request_deserializer=None if deferred else parse,
        response_serializer=handler.response_serializer,
    )


def parse_message(parse: Any, request: Any, context: Any) -> Any:
    try:
        return request if parse is None else parse(request)
    except Exception:  # noqa: BLE001 - the message of a client may fail in any way
        abort(context, grpc.StatusCode.INTERNAL, MALFORMED)


def abort(context: Any, code: Any, details: str) -> NoReturn:
    """End a call from a thread that may block. Always raises, so that the handler does not run."""
    context.abort(code, details)
    # In grpcio 1.74 and older, abort() returns if an async server runs the handler in a thread.
    raise grpc.aio.AbortError("The call has ended.")


def abort_unknown(_: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN)


async def abort_unknown_async(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN)


def status_of(refusal: Denied | Unavailable) -> tuple[Any, str]:
    code = _CODES.get(refusal.response.status, grpc.StatusCode.UNAUTHENTICATED)
    return code, _UNKNOWN if code is grpc.StatusCode.UNIMPLEMENTED else refusal.error.description


def trailing_metadata(refusal: Denied | Unavailable) -> tuple[tuple[str, str], ...]:
    """Return the fields of the response that a client of gRPC needs, and the delay as its retry policy reads it."""
    found = [(name, value) for name, value in refusal.response.headers if name in _SENT]
    found += [("grpc-retry-pushback-ms", f"{value}000") for name, value in found if name == "retry-after"]
    return tuple(found)


def request_view(method: str, context: Any, *, with_proofs: bool) -> RequestView:
    """Return a call as the HTTP request that it is."""
    fields = [
        (name.encode("ascii"), value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape"))
        for name, value in context.invocation_metadata() or ()
    ]
    transport: Any = context.auth_context()
    certificates: Any = transport.get("x509_pem_cert", ()) if with_proofs else ()
    return RequestView(
        method=METHOD,
        path=method,
        headers=HeaderList(fields),
        secure=any(kind in _ENCRYPTED for kind in transport.get("transport_security_type", ())),
        client=_address(context.peer()),
        proofs=ProofNotes() if with_proofs else None,
        certificate=from_pem(certificates[0].decode("ascii", "replace")) if len(certificates) == 1 else None,
    )


def _address(peer: str) -> str | None:
    """Return the address in *peer*, as in ``ipv4:192.0.2.1:50000``; ``None`` for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind in ("unix", "unix-abstract"):
        return None
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
