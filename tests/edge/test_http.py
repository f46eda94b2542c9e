"""The only HTTP client: what it sends, what it does not send, and what it refuses.

Responses of hostile servers are tested in tests/attacks/test_network.py.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forked import Child
from loopback import Certificates, Connection, Loopback, answer_with, response
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.lanes import BOUNDS
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import Send
from scopeguard.reasons import Reason


@pytest.fixture
def transport() -> Iterator[HttpxTransport]:
    transport = HttpxTransport()
    yield transport
    transport.close()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(answer_with(response(b"{}"))) as server:
        yield server


def send(url: str, **options: Any) -> Send:
    return Send(url=url, authority="https://as.test", **options)


def fields(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


# -- what is sent


def test_request_has_only_the_necessary_headers(transport: HttpxTransport, server: Loopback):
    answer = transport.send(send(server.url + "/keys?a=b", accept="application/jwk-set+json"))
    assert answer.status == 200
    assert answer.body == b"{}"
    assert answer.headers["content-type"] == "application/json"
    (request,) = server.requests
    assert request.startswith(b"GET /keys?a=b HTTP/1.1\r\n")
    assert fields(request) == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/jwk-set+json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "user-agent": "scopeguard",
    }


def test_a_form_is_posted_with_its_parameters_in_order(transport: HttpxTransport, server: Loopback):
    form = (("grant_type", "x y"), ("resource", "https://one"), ("resource", "https://two"))
    transport.send(send(server.url, form=form, authorization="Basic YTpi"))
    (request,) = server.requests
    assert request.startswith(b"POST / HTTP/1.1\r\n")
    assert fields(request)["content-type"] == "application/x-www-form-urlencoded"
    assert fields(request)["authorization"] == "Basic YTpi"
    assert request.endswith(b"\r\n\r\ngrant_type=x+y&resource=https%3A%2F%2Fone&resource=https%3A%2F%2Ftwo")


@pytest.mark.rule("Z-01")
@pytest.mark.rule("Z-07")
def test_json_is_posted_with_its_content_type_and_further_headers(transport: HttpxTransport, server: Loopback):
    transport.send(send(server.url + "/e", content=b'{"a":1}', headers=(("x-request-id", "7"),)))
    (request,) = server.requests
    assert request.startswith(b"POST /e HTTP/1.1\r\n")
    found = fields(request)
    assert (found["content-type"], found["content-length"]) == ("application/json", "7")
    assert (found["x-request-id"], found["accept"]) == ("7", "application/json")
    assert request.endswith(b'\r\n\r\n{"a":1}')


@pytest.mark.parametrize("renews", [False, True])
def test_repetition_is_the_request_that_renew_returns(renews: bool, transport: HttpxTransport, server: Loopback):
    busy = [response(b"", status="503 Service Unavailable")] * 2

    def respond(connection: Connection, request: bytes) -> None:
        connection.send(busy.pop() if busy else response(b"{}"))

    def request_with(number: int) -> Send:
        renew = (lambda: request_with(number + 1)) if renews else None
        return send(server.url, form=(("number", str(number)),), retries=2, renew=renew)

    server.respond = respond
    assert transport.send(request_with(1)).status == 200
    expected = [b"number=1", b"number=2", b"number=3"] if renews else [b"number=1"] * 3
    assert [request.rpartition(b"\r\n\r\n")[2] for request in server.requests] == expected


def test_header_names_of_an_answer_are_lower_case(transport: HttpxTransport, server: Loopback):
    server.respond = answer_with(response(b"", "CACHE-Control: max-age=5", status="404 Not Found"))
    answer = transport.send(send(server.url))
    assert answer.status == 404
    assert answer.headers["cache-control"] == "max-age=5"


def test_cookies_of_an_authority_are_not_stored(transport: HttpxTransport, server: Loopback):
    server.respond = answer_with(response(b"{}", "Set-Cookie: a=b; Path=/"))
    for _ in range(2):
        transport.send(send(server.url))
    assert "cookie" not in fields(server.requests[1])


@pytest.mark.rule("X-70")
def test_environment_variables_set_no_proxy_and_no_credentials(
    transport: HttpxTransport, server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password sg-secret-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Loopback(answer_with(response(b"rerouted"))) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert transport.send(send(server.url)).body == b"{}"
        assert proxy.connections == 0
    assert "authorization" not in fields(server.requests[0])


def test_configured_proxy_is_used(server: Loopback):
    with Loopback(answer_with(response(b"by proxy"))) as proxy:
        transport = HttpxTransport(proxy=proxy.url)
        try:
            assert transport.send(send(server.url + "/keys")).body == b"by proxy"
        finally:
            transport.close()
        assert proxy.requests[0].startswith(f"GET {server.url}/keys HTTP/1.1".encode())
    assert server.connections == 0


# -- what is not sent


@pytest.mark.rule("X-55")
@pytest.mark.parametrize(
    "url",
    [
        "http://as.test/keys",
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "ftp://as.test/",
        "data:application/json,{}",
        "https://user:pw@as.test/",
        "/keys",
        "",
    ],
)
def test_cleartext_and_other_schemes_are_refused(transport: HttpxTransport, url: str):
    with pytest.raises(ConfigurationError):
        transport.send(send(url))
    assert transport._client is None  # Refused before a client existed.


@pytest.mark.parametrize(
    "url", ["https://a..b/keys", "https://" + "a" * 64 + ".test/", "https://as.test/" + "a" * 70_000], ids=len
)
def test_unusable_url_is_an_outage(transport: HttpxTransport, url: str):
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(send(url))
    assert raised.value.reason is Reason.AUTHORITY_UNREACHABLE


def test_errors_do_not_show_the_request(transport: HttpxTransport, server: Loopback, no_leaks: Callable[[str], None]):
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(send(server.url, authorization="Basic sg-secret-\r\nInjected: yes"))
    error = raised.value
    no_leaks(f"{error} {error!r} {error.detail}")
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert server.requests == []


# -- settings


@pytest.mark.rule("A-23")
@pytest.mark.parametrize("verify", [False, True, 0, 1, b"bundle.pem"])
def test_verification_is_not_switched_off_by_falsy_values(verify: Any):
    with pytest.raises(ConfigurationError, match="dangerously_skip_tls_verification"):
        HttpxTransport(verify=verify)


def test_two_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigurationError, match="contradict"):
        HttpxTransport(verify=ssl.create_default_context(), dangerously_skip_tls_verification=True)


@pytest.mark.rule("A-23")
def test_skipping_verification_is_logged_at_each_start(server: Loopback, caplog: pytest.LogCaptureFixture):
    transport = HttpxTransport(dangerously_skip_tls_verification=True)
    assert caplog.messages == []  # Nothing at construction.
    for start in (1, 2):
        for _ in range(3):
            transport.send(send(server.url))
        transport.close()
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == start
        assert "NOT verified" in warnings[-1].getMessage()


@pytest.mark.parametrize("content", [None, "not a certificate"], ids=["missing", "garbage"])
def test_unusable_bundle_is_named(content: str | None, tmp_path: Path):
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    transport = HttpxTransport(verify=str(bundle))  # No file is opened here.
    with pytest.raises(ConfigurationError, match=r"verify: .*bundle\.pem"):
        transport.send(send("https://as.test/"))


@pytest.mark.rule("C-32")
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("skips", [False, True])
def test_server_gets_the_certificate_of_the_client(pair: bool, skips: bool, tmp_path: Path):
    certificates = Certificates(tmp_path)
    context = certificates.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.bundle)
    file = str(certificates.issue("client"))
    verify: dict[str, Any] = {"verify": str(certificates.bundle)}
    if skips:
        verify = {"dangerously_skip_tls_verification": True}
    with Loopback(answer_with(response(b"{}")), tls=context) as server:
        with_certificate = HttpxTransport(cert=(file, file) if pair else file, **verify)
        assert with_certificate.may_have_certificate
        assert with_certificate.send(send(server.url)).status == 200
        with_certificate.close()
        without = HttpxTransport(**verify)
        assert not without.may_have_certificate
        with pytest.raises(AuthorityUnavailable):
            without.send(send(server.url))
        without.close()


def test_certificate_of_the_client_needs_no_bundle_and_verifies_servers(tmp_path: Path):
    certificates = Certificates(tmp_path)
    transport = HttpxTransport(cert=str(certificates.issue("client")))
    with (
        Loopback(answer_with(response(b"{}")), tls=certificates.server("127.0.0.1")) as server,
        pytest.raises(AuthorityUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        transport.send(send(server.url))
    transport.close()


@pytest.mark.parametrize("content", [None, "garbage", "encrypted"])
def test_unusable_certificate_of_the_client_is_named(content: str | None, tmp_path: Path):
    """An encrypted key must not make OpenSSL ask for its password on the terminal."""
    file = tmp_path / "client.pem"
    if content == "garbage":
        file.write_text(content)
    if content == "encrypted":
        certificate = Certificates(tmp_path).issue("client").read_text().partition("-----BEGIN CERTIFICATE")
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
        file.write_bytes(key + "".join(certificate[1:]).encode())
    with pytest.raises(
        ConfigurationError, match=r"cert: .*client\.pem: not a readable certificate with its key"
    ) as raised:
        HttpxTransport(cert=str(file)).check()
    assert "PRIVATE" not in str(raised.value)


def test_certificate_beside_a_context_is_refused():
    with pytest.raises(ConfigurationError, match=r"cert: has no effect with an ssl\.SSLContext"):
        HttpxTransport(cert="client.pem", verify=ssl.create_default_context())
    assert HttpxTransport(verify=ssl.create_default_context()).may_have_certificate


@pytest.mark.parametrize("proxy", ["gopher://proxy.test", "proxy.test:8080", "http://[::1", "https://proxy.test:x"])
def test_invalid_proxy_is_a_configuration_error(proxy: str):
    with pytest.raises(ConfigurationError, match="proxy"):
        HttpxTransport(proxy=proxy).send(send("https://as.test/"))


# -- start and end


def test_construction_opens_no_connection():
    before = set(threading.enumerate())
    assert HttpxTransport()._client is None
    assert set(threading.enumerate()) <= before


def test_connections_are_reused_closed_and_opened_again(transport: HttpxTransport, server: Loopback):
    for _ in range(3):
        transport.send(send(server.url))
    assert server.connections == 1
    for connections in (2, 3):
        transport.close()
        transport.send(send(server.url))
        assert server.connections == connections
    transport.close()
    transport.close()  # Closing twice is harmless.


def test_connections_of_a_machine_that_was_frozen_are_not_used(
    transport: HttpxTransport, server: Loopback, monkeypatch: pytest.MonkeyPatch
):
    """The pool uses the monotonic clock, which may have stopped meanwhile. The server has closed the connections."""
    transport.send(send(server.url))
    begun = time.time()
    monkeypatch.setattr("scopeguard.edge.http.time.time", lambda: begun + 3600)
    for _ in range(2):
        transport.send(send(server.url))
    assert server.connections == 2


@pytest.mark.rule("H-20")
def test_threads_can_share_the_transport(
    transport: HttpxTransport, server: Loopback, run_in_threads: Callable[..., list[Any]]
):
    bodies = run_in_threads(8, lambda: [transport.send(send(server.url)).body for _ in range(5)])
    assert bodies == [[b"{}"] * 5] * 8
    assert len(server.requests) == 40


def test_each_exchange_has_a_separate_time_limit(transport: HttpxTransport, server: Loopback):
    def hang_once(connection: Connection, request: bytes) -> None:
        server.respond = answer_with(response(b"{}"))
        connection.hold()

    transport.send(send(server.url, timeout=30))
    server.respond = hang_once
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(send(server.url, timeout=0.1))
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    assert transport.send(send(server.url)).body == b"{}"


def test_child_process_opens_new_connections(transport: HttpxTransport, server: Loopback):
    transport.send(send(server.url))
    assert server.connections == 1

    def check() -> None:
        assert transport.send(send(server.url)).body == b"{}"
        transport.close()

    transport._lock.acquire()
    child = Child(check)
    transport._lock.release()
    assert child.ok()
    assert server.connections == 2
    transport.send(send(server.url))
    assert server.connections == 2


def outage_of(transport: HttpxTransport, request: Send) -> AuthorityUnavailable:
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(request)
    return raised.value


def test_failure_states_whether_the_request_was_sent(transport: HttpxTransport):
    """The content of a request can cause a failure only if it was sent."""
    with Loopback(lambda connection, request: connection.send(b"nonsense\r\n\r\n")) as server:
        outage = outage_of(transport, send(server.url))
        assert (outage.reason, outage.sent) == (Reason.AUTHORITY_UNREACHABLE, True)
        server.respond = lambda connection, request: connection.hold()
        outage = outage_of(transport, send(server.url, timeout=0.1))
        assert (outage.reason, outage.sent) == (Reason.AUTHORITY_TIMED_OUT, True)
        url = server.url
    outage = outage_of(transport, send(url))
    assert (outage.reason, outage.sent) == (Reason.AUTHORITY_UNREACHABLE, False)


def test_pool_has_a_connection_for_each_place_of_each_lane(transport: HttpxTransport):
    """With a smaller pool, the work of one lane would wait for that of another."""
    transport.prepare()
    client = transport._client
    assert client is not None
    pool: Any = client._transport
    assert pool._pool._max_connections >= sum(bounds.places for bounds in BOUNDS.values())


def test_hanging_exchanges_in_one_lane_do_not_delay_others(transport: HttpxTransport, server: Loopback):
    arrived = threading.Semaphore(0)

    def hang(connection: Connection, request: bytes) -> None:
        arrived.release()
        connection.hold()

    places = sum(bounds.places for bounds in BOUNDS.values())
    with Loopback(hang) as hanging:
        threads = [
            threading.Thread(target=lambda: outage_of(transport, send(hanging.url, timeout=30))) for _ in range(places)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert arrived.acquire(timeout=30)
        assert transport.send(send(server.url, timeout=30)).body == b"{}"
        transport.abort()
        for thread in threads:
            thread.join(30)
