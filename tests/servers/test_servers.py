"""The scenarios and further socket-level tests on the servers that users deploy."""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from algorithms import ML_DSA_HERE
from environment import ROOT
from lookalikes import refused_fields
from scenarios import SCENARIOS, Answered, Exchange, tokens, verify
from scopeguard import Reason
from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.testing import FakeAuthority, FakeClock, ProofKey
from server_process import server_environment
from warm_start import Process, WarmInterpreter

_TOO_LONG = "the server itself refuses header lines or request lines of this length"
_OWN_LIMITS = {"a token of 17 KB": _TOO_LONG, "query, 1200 parameters": _TOO_LONG}


@dataclass(frozen=True, slots=True)
class Kind:
    """A server: its command line, and the scenarios that its own rules keep from the app, with the reason."""

    name: str
    command: tuple[str, ...]
    without: dict[str, str] = field(default_factory=dict)
    websockets: bool = False


def _gunicorn(*more: str) -> tuple[str, ...]:
    return ("gunicorn", "served:wsgi", "--bind", "127.0.0.1:{port}", "--access-logfile", "-", *more)


KINDS = (
    Kind("uvicorn-h11", ("uvicorn", "served:asgi", "--port", "{port}", "--http", "h11"), websockets=True),
    Kind("uvicorn-httptools", ("uvicorn", "served:asgi", "--port", "{port}", "--http", "httptools"), websockets=True),
    Kind(
        "hypercorn",
        ("hypercorn", "served:asgi", "--bind", "127.0.0.1:{port}", "--access-logfile", "-"),
        websockets=True,
    ),
    Kind(
        "granian",
        ("granian", "served:asgi", "--interface", "asgi", "--port", "{port}", "--access-log"),
        websockets=True,
    ),
    Kind("gunicorn-sync", _gunicorn(), _OWN_LIMITS),
    Kind("gunicorn-gthread", _gunicorn("--worker-class", "gthread", "--threads", "4"), _OWN_LIMITS),
    Kind("waitress", ("waitress", "--listen", "127.0.0.1:{port}", "served:wsgi")),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that is below the largest token and proof: the status, and the setting that raises it."""

    status: int
    setting: str
    arguments: tuple[str, ...]


_FIELD_SIZE = "--limit-request-field_size 16384"
LIMITS = {
    **dict.fromkeys(("gunicorn-sync", "gunicorn-gthread"), Limit(431, _FIELD_SIZE, tuple(_FIELD_SIZE.split()))),
    "hypercorn": Limit(431, "h11_max_incomplete_size = 65536", ("--config", "hypercorn.toml")),
}
SERVERS_PAGE = (ROOT / "docs" / "servers.md").read_text("utf-8")


class Server:
    """A running server, and the authority whose tokens it accepts."""

    def __init__(self, kind: Kind, port: int, log: Path, authority: FakeAuthority) -> None:
        self.kind = kind
        self.port = port
        self.authority = authority
        self.tokens = tokens(authority)
        self._log = log

    @property
    def output(self) -> str:
        """Everything it has printed so far, its access log included."""
        return self._log.read_text("utf-8", "replace")

    def send(self, exchange: Exchange) -> Answered:
        """Send *exchange* byte for byte, on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(_wire(exchange))
            return _receive(connection, exchange.method)


def _wire(exchange: Exchange, length: int | None = None) -> bytes:
    lines = [f"{exchange.method} {exchange.target} HTTP/1.1".encode(), b"Host: api.test"]
    lines += [name.title() + b": " + value for name, value in exchange.headers]
    if exchange.body or length is not None:
        lines.append(b"Content-Length: %d" % (len(exchange.body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + exchange.body


def _receive(connection: socket.socket, method: str) -> Answered:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    headers = tuple((name.lower(), value) for name, value in response.getheaders())
    return Answered(status=response.status, headers=headers, body=response.read())


# Every server has the API of tests/support/served.py, so each would spend a second on these imports.
_IMPORTED = (
    "doors",
    "endings",
    "algorithms",
    "scenarios",
    "uvicorn",
    "hypercorn",
    "gunicorn",
    "waitress",
    "websockets",
)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[WarmInterpreter]:
    with WarmInterpreter(*_IMPORTED, environment=server_environment()) as interpreter:
        yield interpreter


@contextmanager
def _run(kind: Kind, folder: Path, interpreter: WarmInterpreter) -> Iterator[Server]:
    authority = FakeAuthority(clock=FakeClock(wall=time.time()))
    for algorithm in ML_DSA_HERE[-1:]:
        authority.key(algorithm)  # so that it is in the key set
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(authority.authority.keys.key_set(authority.clock.wall())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in kind.command]
    log = folder / "output.txt"
    with log.open("wb") as output:
        environment = {"SERVED_JWKS": str(jwks)}
        process = interpreter.start(*command, cwd=folder, environment=environment, output=output.fileno())
        try:
            _wait_until_it_answers(process, port, log)
            yield Server(kind, port, log, authority)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_it_answers(process: Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(_wire(Exchange(target="/started")))
                if _receive(connection, "GET").status == 200:
                    return
        except OSError:
            _let_others_run()
    raise AssertionError(f"the server did not come up: {log.read_text()}")


def _wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to ten seconds for a condition in another process."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        _let_others_run()


def _let_others_run() -> None:
    select.select([], [], [], 0.02)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, interpreter: WarmInterpreter
) -> Iterator[Server]:
    with _run(request.param, tmp_path_factory.mktemp(request.param.name), interpreter) as running:
        yield running


@pytest.mark.rule("B-01", "B-09", "B-12", "B-13", "H-11")
def test_scenarios_hold_over_a_socket(server: Server):
    wrong = []
    for scenario in SCENARIOS:
        if scenario.name in server.kind.without:
            continue
        try:
            verify(scenario, server.send(scenario.send.fill(server.tokens)), server.tokens)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            wrong.append(f"{scenario.name}: {error!r}"[:400])
    assert not wrong, "\n".join(wrong)


@pytest.mark.rule("X-77", "X-79", "B-31", "B-50")
def test_the_access_log_shows_the_request_and_no_token(server: Server):
    token = server.authority.mint("read write", client_id="logged")
    assert server.send(Exchange(target=f"/query?a=1&access_token={token}&b=seen-in-the-log")).status == 200
    bad = token[:-8] + "AAAAAAAA"
    assert server.send(Exchange(target=f"/query?a=2&access_token={bad}&b=denied")).status == 401
    server.send(Exchange(headers=((b"authorization", f"Bearer {bad}".encode()),)))
    output = server.output
    assert token not in output
    assert bad not in output
    assert token.rpartition(".")[2] not in output


def test_output_of_a_server_with_its_own_log_settings_says_why_a_request_was_refused(server: Server):
    token = server.authority.mint("read", claims={"iss": "https://as.test/"})
    answer = server.send(Exchange(target="/explained", headers=((b"authorization", f"Bearer {token}".encode()),)))
    assert answer.status == 401
    _wait_until(lambda: "GET /explained: unknown_issuer (" in server.output)
    (line,) = [line for line in server.output.splitlines() if "GET /explained: unknown_issuer (" in line]
    assert "configured=https://as.test, differs=only in the slash at the end" in line
    assert line.endswith(entry_of(Reason.UNKNOWN_ISSUER).advice)


@pytest.mark.rule("X-84", "H-14")
def test_requests_on_one_connection_are_checked_independently(server: Server):
    good = Exchange(headers=((b"authorization", b"Bearer " + server.tokens["T"].encode()),))
    statuses = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for exchange in (Exchange(), good, Exchange(), good):
            try:
                connection.sendall(_wire(exchange))
                statuses.append(_receive(connection, "GET").status)
            except (OSError, http.client.HTTPException):
                break  # gunicorn's sync worker answers one request a connection
    assert statuses in ([401, 200, 401, 200], [401])


@pytest.mark.rule("X-84", "H-14")
def test_pipelined_requests_after_a_cached_token_are_checked_independently(server: Server):
    """Two callers, whose tokens are recalled by then, and between them everything that only looks like theirs."""
    callers = {name: server.authority.mint("read write", client_id=name) for name in ("ann", "bob")}
    fields = {name: b"Bearer " + token.encode() for name, token in callers.items()}
    for field_ in (*fields.values(), *fields.values(), *fields.values()):
        assert server.send(Exchange(headers=((b"authorization", field_),))).status == 200
    sent: list[tuple[str | None, bytes]] = []
    for false in refused_fields(callers["ann"]).values():
        if false.isascii():  # what no server lets pass ends the connection
            sent += [("ann", fields["ann"]), (None, false), ("bob", fields["bob"])]
    wire = b"".join(_wire(Exchange(headers=((b"authorization", field_),))) for _, field_ in sent[:-1])
    wire += _wire(Exchange(headers=((b"authorization", sent[-1][1]), (b"connection", b"close"))))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(wire)
        answered = b""
        try:
            while data := connection.recv(65536):
                answered += data
        except ConnectionResetError:
            pass  # of a server that has answered what it wanted to
    answers = answered.split(b"HTTP/1.1 ")[1:]
    for answer, (name, false) in zip(answers, sent, strict=False):
        caller = re.search(rb'"client": "(\w+)"', answer)
        if name is None:
            assert (answer[:3] in (b"400", b"401"), caller) == (True, None), (false, answer)
        else:
            assert caller is not None
            assert (answer[:3], caller[1].decode()) == (b"200", name)
    # Some servers close the connection after a refusal or another response.
    assert len(answers) == len(sent) if server.kind.name.startswith("uvicorn") else answers


@pytest.mark.rule("H-17")
def test_a_denial_does_not_wait_for_the_body(server: Server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        if server.kind.name == "waitress":  # reads every body before it calls the app
            connection.sendall(_wire(Exchange(method="POST", body=b"x" * 100)))
        else:
            connection.sendall(_wire(Exchange(method="POST"), length=10_000_000))
        assert _receive(connection, "POST").status == 401


def test_a_stream_reaches_the_client_line_by_line(server: Server):
    authorization = b"Bearer " + server.tokens["T"].encode()
    exchange = Exchange(method="POST", target="/stream", headers=((b"authorization", authorization),))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(_wire(exchange, length=4))
        received = b""
        if server.kind.name != "waitress":  # it reads every body before it calls the app
            while b"first" not in received:
                received += connection.recv(65536)
            assert b"last" not in received
        connection.sendall(b"done")
        while b"last" not in received:
            received += connection.recv(65536)
    if "served:wsgi" in server.kind.command:
        _wait_until(lambda: "closed the stream" in server.output)


@pytest.mark.rule("H-04")
def test_aborted_response_is_recognisably_incomplete(server: Server):
    if "served:asgi" not in server.kind.command:
        return
    authorization = ((b"authorization", b"Bearer " + server.tokens["T"].encode()),)
    for kind in ("chunks", "length"):
        with pytest.raises(http.client.IncompleteRead) as cut:
            server.send(Exchange(target=f"/cut/{kind}", headers=authorization))
        assert cut.value.partial == b"first\n"
    assert server.send(Exchange(target="/cut/events", headers=authorization)).body == b"first\n"
    _wait_until(lambda: server.output.count("ResponseAborted: the response was not complete: ") == 2)


class Largest:
    """The largest token and proof, of ML-DSA-87, as a request on the wire."""

    def __init__(self, server: Server) -> None:
        key = ProofKey("ML-DSA-87")
        token = server.authority.mint("read", algorithm="ML-DSA-87", claims=key.confirmation)
        now = server.authority.clock.wall()
        fields = key.headers(token, "GET", "https://api.test/post-quantum", at=now)
        headers = tuple((name.lower().encode(), value.encode()) for name, value in fields.items())
        self.wire = _wire(Exchange(target="/post-quantum", headers=headers))
        assert 17_500 < len(self.wire) < 19_000
        self._server = server

    def send(self) -> int:
        """Return the status of the response."""
        with self._begin(self.wire) as connection:
            return _receive(connection, "GET").status

    def send_without_the_end(self) -> int:
        """Return the status of the response to all but the last byte, from a server that does not wait for it."""
        with self._begin(self.wire[:-1]) as connection:
            return _receive(connection, "GET").status

    def send_in_two_parts(self) -> int:
        """Return the status of the response. The server answers another request before the last byte arrives."""
        with self._begin(self.wire[:-1]) as connection:
            assert self._server.send(Exchange()).status == 401
            connection.sendall(self.wire[-1:])
            return _receive(connection, "GET").status

    def _begin(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._server.port), timeout=20)
        connection.sendall(data)
        return connection


@pytest.mark.rule("PQ-05")
def test_largest_token_and_proof_arrive_or_are_refused_as_documented(server: Server):
    if not ML_DSA_HERE:
        return
    limit = LIMITS.get(server.kind.name)
    if limit is None:
        assert Largest(server).send() == 200
    else:
        # hypercorn accepts a long head that arrives at once, as it may on loopback.
        largest = Largest(server)
        refused = largest.send_without_the_end() if server.kind.name == "hypercorn" else largest.send()
        assert refused == limit.status
        assert f"`{limit.setting}`" in SERVERS_PAGE


@pytest.mark.rule("PQ-05")
@pytest.mark.parametrize("name", ["gunicorn-gthread", "hypercorn"])
def test_documented_setting_raises_the_limit_of_header_fields(name: str, tmp_path: Path, interpreter: WarmInterpreter):
    if not ML_DSA_HERE:
        return
    (tmp_path / "hypercorn.toml").write_text(f"{LIMITS['hypercorn'].setting}\n", "ascii")
    (kind,) = (kind for kind in KINDS if kind.name == name)
    with _run(replace(kind, command=(*kind.command, *LIMITS[name].arguments)), tmp_path, interpreter) as server:
        assert Largest(server).send() == 200
        if name == "hypercorn":
            assert Largest(server).send_in_two_parts() == 200


def test_lifespan_reaches_the_app_behind_the_guard(server: Server):
    assert server.send(Exchange(target="/started")).status == 200


@pytest.mark.rule("H-02", "H-03")
@pytest.mark.parametrize("place", ["header", "query"])
def test_a_websocket_is_accepted_with_a_token_and_refused_without(server: Server, place: str):
    if not server.kind.websockets:
        return
    token = server.tokens["T"]
    url = f"ws://127.0.0.1:{server.port}/ws"
    headers = {"Authorization": f"Bearer {token}"} if place == "header" else {}
    query = f"?access_token={token}&x=1" if place == "query" else "?x=1"
    with connect(url + query, additional_headers=headers) as socket_:
        assert socket_.recv() == "client x=1"
    for bad in ("", "?access_token=" + server.tokens["EXPIRED"]):
        with pytest.raises(InvalidStatus) as refused:
            connect(url + bad)
        assert refused.value.response.status_code in (401, 403)


@pytest.mark.rule("H-04")
def test_a_websocket_ends_when_its_token_is_revoked_and_takes_a_new_one_before(server: Server):
    if not server.kind.websockets:
        return
    url = f"ws://127.0.0.1:{server.port}/held"

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    held, other = server.authority.mint(subject="held"), server.authority.mint(subject="other")
    with (
        connect(url, additional_headers=bearer(held)) as ending,
        connect(url, additional_headers=bearer(other)) as staying,
    ):
        for token, answer in ((other, "Denied"), (server.authority.mint(subject="held"), "Granted")):
            ending.send(token)
            assert ending.recv() == answer
        authorization = ((b"authorization", b"Bearer " + server.tokens["T"].encode()),)
        assert server.send(Exchange(target="/revoke", headers=authorization)).status == 204
        with pytest.raises(ConnectionClosed) as closed:
            ending.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "The access token was revoked")
        staying.send(other)
        assert staying.recv(timeout=20) == "Granted"
