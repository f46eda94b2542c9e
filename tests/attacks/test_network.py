"""Real sockets, and servers with responses that a resource server must refuse."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loopback import Certificates, Connection, Loopback, answer_with, json_response, response
from scopeguard import Guard, Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Send
from scopeguard.guard import Denied, Granted, Unavailable
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.testing import FakeAuthority

LIMIT = 64 * 1024


@pytest.fixture
def transport() -> Iterator[HttpxTransport]:
    transport = HttpxTransport()
    yield transport
    transport.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def failure_reason(transport: HttpxTransport, server: Loopback, timeout: float = 10.0) -> AuthorityUnavailable:
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(Send(url=server.url, authority="https://as.test", limit=LIMIT, timeout=timeout))
    return raised.value


# -- sizes


def endless_chunks(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send_forever(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


def endless_until_closed(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    connection.send_forever(b"x" * 0x4000)


def announce_length(connection: Connection, request: bytes) -> None:
    connection.send(response(b"", "Content-Type: application/json").replace(b"Length: 0", b"Length: 1000000000"))
    connection.send_forever(b"x" * 0x4000)


def endless_headers(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n")
    connection.send_forever(b"X-Padding: " + b"x" * 1000 + b"\r\n")


def endless_header(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    connection.send_forever(b"x" * 0x4000)


@pytest.mark.rule("A-13", "X-56")
@pytest.mark.parametrize(
    "respond", [endless_chunks, endless_until_closed, announce_length, endless_headers, endless_header]
)
def test_endless_response_is_aborted_near_the_limit(transport: HttpxTransport, respond: Any):
    with Loopback(respond) as server:
        failure_reason(transport, server)
    # The server also counts what the kernel has buffered: some megabytes, not a gigabyte.
    assert server.most_sent < 32 * 1024 * 1024


def test_response_of_exactly_the_limit_is_accepted(transport: HttpxTransport):
    with Loopback(answer_with(response(b"x" * LIMIT))) as server:
        answer = transport.send(Send(url=server.url, authority="a", limit=LIMIT))
        assert len(answer.body) == LIMIT
        server.respond = answer_with(response(b"x" * (LIMIT + 1)))
        assert "larger than" in str(failure_reason(transport, server))


BOMB = gzip.compress(b'{"keys": [' + b" " * 20_000_000 + b"]}")  # 20 KB


@pytest.mark.rule("A-13", "X-56")
@pytest.mark.parametrize("coding", ["gzip", "GZip", "deflate", "br", "zstd", "gzip, identity"])
def test_compressed_response_is_not_decompressed(transport: HttpxTransport, coding: str):
    transport.prepare()  # Memory for importing the HTTP client does not count.
    with Loopback(answer_with(response(BOMB, f"Content-Encoding: {coding}"))) as server:
        tracemalloc.start()
        try:
            error = failure_reason(transport, server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error.reason is Reason.AUTHORITY_ANSWER_INVALID
    assert peak < 5_000_000


def test_compressed_body_without_content_encoding_is_plain_bytes(transport: HttpxTransport):
    packed = gzip.compress(b"{}")
    with Loopback(answer_with(response(packed, "Content-Encoding: identity"))) as server:
        assert transport.send(Send(url=server.url, authority="a")).body == packed


# -- times


def drip_body(connection: Connection, request: bytes) -> None:
    connection.send(response(b"", "Content-Type: application/json").replace(b"Length: 0", b"Length: 100000"))
    connection.send_forever(b"x", every=0.02)


def drip_headers(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n")
    connection.send_forever(b"X-A: b\r\n", every=0.02)


def drip_a_header(connection: Connection, request: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    connection.send_forever(b"x", every=0.02)


def drip_informational(connection: Connection, request: bytes) -> None:
    connection.send_forever(b"HTTP/1.1 103 Early Hints\r\n\r\n", every=0.02)


def silence(connection: Connection, request: bytes) -> None:
    connection.hold()


@pytest.mark.rule("A-13")
@pytest.mark.parametrize("respond", [drip_body, drip_headers, drip_a_header, drip_informational, silence])
def test_slow_response_is_aborted_at_the_deadline_of_the_exchange(transport: HttpxTransport, respond: Any):
    """Each would last for hours, with only a moment between two bytes."""
    with Loopback(respond) as server:
        assert failure_reason(transport, server, timeout=0.3).reason is Reason.AUTHORITY_TIMED_OUT


@pytest.mark.rule("A-13")
def test_endless_tls_handshake_is_aborted_at_the_deadline_of_the_exchange(transport: HttpxTransport):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(AuthorityUnavailable) as raised:
            transport.send(Send(url=url, authority="a", timeout=0.3))
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT


# -- malformed responses

NONSENSE = {
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"keys": [',
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
    "bad header": b"HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_response_that_is_not_http_is_an_outage(transport: HttpxTransport, data: bytes):
    def once(connection: Connection, request: bytes) -> None:
        connection.send(data)
        raise ConnectionResetError  # Close the connection.

    with Loopback(once) as server:
        assert failure_reason(transport, server).reason is Reason.AUTHORITY_UNREACHABLE


def test_a_refused_connection_is_an_outage(transport: HttpxTransport):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(Send(url=f"http://127.0.0.1:{port}", authority="a"))
    assert raised.value.reason is Reason.AUTHORITY_UNREACHABLE
    assert "refused" in str(raised.value)


# -- redirects


@pytest.mark.rule("A-12")
@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"])
def test_redirect_is_returned_and_not_followed(transport: HttpxTransport, status: str):
    with Loopback(answer_with(response(b"stolen"))) as canary:
        with Loopback(answer_with(response(b"", f"Location: {canary.url}/keys", status=status))) as server:
            answer = transport.send(Send(url=server.url, authority="a"))
            assert str(answer.status) == status[:3]
        assert canary.connections == 0


# -- TLS

FAULTS: dict[str, dict[str, Any]] = {
    "self-signed": {"self_signed": True},
    "expired": {"expired": True},
    "wrong host": {"name": "other.test"},
    "address": {"name": "127.0.0.1"},
}


def send_over_tls(url: str, timeout: float = 5.0, **settings: Any) -> bytes:
    transport = HttpxTransport(**settings)
    try:
        return transport.send(Send(url=url, authority="https://as.test", timeout=timeout)).body
    finally:
        transport.close()


@pytest.mark.rule("X-69", "A-23")
def test_configured_certificate_authority_is_trusted(certificates: Certificates):
    bundle = str(certificates.bundle)
    with Loopback(answer_with(response(b"{}")), tls=certificates.server(), name="localhost") as server:
        assert send_over_tls(server.url, verify=bundle) == b"{}"
        assert send_over_tls(server.url, verify=ssl.create_default_context(cafile=bundle)) == b"{}"
        with pytest.raises(AuthorityUnavailable, match="certificate verify failed"):
            send_over_tls(server.url)
        assert len(server.requests) == 2


@pytest.mark.rule("X-69")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_invalid_certificate_is_refused(certificates: Certificates, fault: dict[str, Any]):
    with Loopback(answer_with(response(b"{}")), tls=certificates.server(**fault), name="localhost") as server:
        with pytest.raises(AuthorityUnavailable, match="certificate verify failed") as raised:
            send_over_tls(server.url, verify=str(certificates.bundle))
        assert raised.value.reason is Reason.AUTHORITY_UNREACHABLE
        assert server.requests == []  # Nothing was sent to the server.


@pytest.mark.rule("X-69", "X-70")
def test_environment_variables_add_no_certificate_authority(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.bundle))
    with (
        Loopback(answer_with(response(b"{}")), tls=certificates.server(), name="localhost") as server,
        pytest.raises(AuthorityUnavailable, match="certificate verify failed"),
    ):
        send_over_tls(server.url)


@pytest.mark.rule("A-23")
def test_verification_is_off_only_where_configured(certificates: Certificates, caplog: pytest.LogCaptureFixture):
    with Loopback(answer_with(response(b"{}")), tls=certificates.server(self_signed=True), name="localhost") as server:
        assert send_over_tls(server.url, dangerously_skip_tls_verification=True) == b"{}"
    assert "NOT verified" in caplog.text


def test_cleartext_on_a_tls_port_is_an_outage():
    with Loopback(answer_with(response(b"{}"))) as server, pytest.raises(AuthorityUnavailable):
        send_over_tls(server.url.replace("http:", "https:"), timeout=0.3)


# -- the whole guard, over real sockets


class Served:
    """A fake authority over TLS on real ports: one for its metadata and one for its keys."""

    def __init__(self, metadata: Loopback, keys: Loopback) -> None:
        self.metadata, self.keys = metadata, keys
        self.authority = FakeAuthority(metadata.url)
        self.document = {"issuer": metadata.url, "jwks_uri": keys.url + "/keys"}
        metadata.respond = self._metadata
        keys.respond = self._keys

    def _metadata(self, connection: Connection, request: bytes) -> None:
        connection.send(json_response(self.document))

    def _keys(self, connection: Connection, request: bytes) -> None:
        connection.send(json_response(self.authority.authority.keys.key_set(0)))

    def decide(self, guard: Guard) -> Any:
        header = (b"authorization", b"Bearer " + self.authority.mint().encode())
        return guard.check(RequestView(method="GET", path="/", headers=HeaderList([header])))

    def guard(self, **settings: Any) -> Guard:
        policy = KeySetPolicy(timeout=2.0)
        issuer = Issuer(self.metadata.url, audience=self.authority.audience, key_set=policy)
        return Guard(issuer, transport=HttpxTransport(**settings), clock=self.authority.clock)


Serve = Callable[..., Served]


@pytest.fixture
def serve(certificates: Certificates) -> Iterator[Serve]:
    """``serve(metadata=..., keys=...)`` with the faults of their certificates."""
    open_: list[Loopback] = []

    def start(metadata: dict[str, Any] | None = None, keys: dict[str, Any] | None = None) -> Served:
        servers = [
            Loopback(answer_with(b""), tls=certificates.server(**(fault or {})), name="localhost")
            for fault in (metadata, keys)
        ]
        for server in servers:
            server.__enter__()
            open_.append(server)
        return Served(*servers)

    yield start
    for server in open_:
        server.__exit__(None, None, None)


@pytest.mark.rule("P-12", "X-69")
def test_keys_are_fetched_over_tls_from_the_url_in_the_metadata(serve: Serve, certificates: Certificates):
    served = serve()
    guard = served.guard(verify=str(certificates.bundle))
    for _ in range(3):
        assert isinstance(served.decide(guard), Granted)
    assert len(served.metadata.requests) == len(served.keys.requests) == 1
    guard.close()


@pytest.mark.rule("X-69", "H-19")
@pytest.mark.parametrize("place", ["metadata", "keys"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_invalid_certificate_of_either_server_is_an_outage(
    serve: Serve, certificates: Certificates, place: str, fault: dict[str, Any]
):
    served = serve(**{place: fault})
    guard = served.guard(verify=str(certificates.bundle))
    decision = served.decide(guard)
    assert isinstance(decision, Unavailable)
    assert decision.response.status == 503
    assert served.keys.requests == []
    guard.close()


@pytest.mark.rule("A-12", "A-13", "A-14", "A-19", "X-55", "X-56")
@pytest.mark.parametrize(
    "garbled",
    [
        response(b"", "Location: {canary}/keys", status="302 Found"),
        response(b'{"keys": [' + b" " * (600 * 1024) + b"]}"),
        response(gzip.compress(b'{"keys": []}'), "Content-Encoding: gzip"),
        response(b"<!doctype html><title>Sign in</title>", kind="text/html"),
        response(b'{"keys": []}', kind="text/plain"),
        response(b'{"keys": []}', kind=None),
        response(b'{"keys": [{"kty": "EC"'),
        response(json.dumps({"keys": [{"kty": "EC"}] * 1000}).encode()),
        response(b"\xff\xfe{\x00}\x00"),
        response(b"", status="204 No Content"),
        response(b"", status="500 Internal Server Error"),
        b"\x00\x01\x02\r\n\r\n",
    ],
    ids=[
        "redirect", "oversize", "gzip", "html", "text", "unnamed", "truncated", "too many keys", "utf-16", "204",
        "500", "not http",
    ],
)  # fmt: skip
def test_malformed_key_set_neither_refuses_nor_grants(serve: Serve, certificates: Certificates, garbled: bytes):
    with Loopback(answer_with(response(b"{}"))) as canary:
        served = serve()
        guard = served.guard(verify=str(certificates.bundle))
        honest = served.keys.respond

        def garble(connection: Connection, request: bytes) -> None:
            connection.send(garbled.replace(b"{canary}", canary.url.encode()))
            raise ConnectionResetError

        served.keys.respond = garble
        assert isinstance(served.decide(guard), Unavailable)
        served.keys.respond = honest
        served.authority.clock.advance(1)
        assert isinstance(served.decide(guard), Granted)
        served.keys.respond = garble
        served.authority.clock.advance(700)
        assert isinstance(served.decide(guard), Granted)  # The held keys stay in use.
        assert len(served.keys.requests) == 3
        assert canary.connections == 0
        guard.close()


@pytest.mark.rule("X-54", "X-55", "J-26")
def test_no_token_makes_the_guard_call_a_url_of_its_choice(serve: Serve, certificates: Certificates):
    with Loopback(answer_with(response(b"{}"))) as canary:
        served = serve()
        guard = served.guard(verify=str(certificates.bundle))
        assert isinstance(served.decide(guard), Granted)
        before = len(served.metadata.requests)
        own = served.authority.key("ES384")
        for headers, claims in (
            ({"jku": canary.url}, {}),
            ({"x5u": canary.url}, {}),
            ({"kid": canary.url}, {}),
            ({"kid": f"../../{canary.url}"}, {}),
            ({}, {"iss": canary.url}),
            ({}, {"aud": canary.url}),
        ):
            token = served.authority.mint(headers=headers, claims=claims, key=own)
            header = (b"authorization", b"Bearer " + token.encode())
            guard.check(RequestView(method="GET", path="/", headers=HeaderList([header])))
        assert canary.connections == 0
        assert len(served.metadata.requests) == before
        guard.close()


@pytest.mark.rule("A-22")
def test_guard_starts_while_the_authority_is_down():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    authority = FakeAuthority(f"http://127.0.0.1:{port}")
    guard = Guard(authority.issuer, clock=authority.clock)
    request = RequestView(
        method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + authority.mint().encode())])
    )
    decision = guard.check(request)
    assert isinstance(decision, Unavailable)
    assert dict(decision.response.headers)["retry-after"]
    assert isinstance(guard.check(RequestView(method="GET", path="/", headers=HeaderList([]))), Denied)
    guard.close()
