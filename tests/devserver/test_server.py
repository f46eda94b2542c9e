"""The development server on a real socket: where it listens, what it says about itself, how it breaks down."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import textwrap

import httpx
import pytest

from environment import plain_environment
from scopeguard import AuthorityUnavailable, ConfigurationError, HeaderList, Issuer, Reason, RequestView
from scopeguard.devserver import Authority, Client, DevServer, KeyRing, serve
from scopeguard.guard import Granted, Guard

GRANT = {"grant_type": "client_credentials"}
ROBOT = Client(client_id="robot", secret="sg-secret-robot", scopes=["read"])


def authority(issuer: str = "", **settings) -> Authority:
    return Authority(issuer, audience="https://api.example", clients=[ROBOT], keys=KeyRing("ES256"), **settings)


def http() -> httpx.Client:
    return httpx.Client(trust_env=False, timeout=10)


@pytest.mark.rule("T-06", "T-07")
@pytest.mark.parametrize("path", ["", "/t1"])
def test_a_guard_and_a_client_need_only_its_address(path):
    with DevServer(authority(path)) as server, http() as client:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.url.endswith(path)
        guard = Guard(Issuer(server.url, audience="https://api.example", typ="at+jwt"))
        answer = client.post(f"{server.url}/token", data=GRANT, auth=("robot", "sg-secret-robot"))
        assert answer.headers["cache-control"] == "no-store"
        token = answer.json()["access_token"].encode()
        request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token)]))
        assert isinstance(guard.check(request), Granted)
        guard.close()


@pytest.mark.rule("T-12")
@pytest.mark.parametrize("mode", ["redirect", "oversize", "gzip_bomb", "garbage", "truncated", "empty"])
def test_a_fault_reaches_a_guard_over_the_wire(mode):
    served = authority()
    with DevServer(served) as server:
        guard = Guard(Issuer(server.url, audience="https://api.example"))
        with served.faults.mode("jwks", mode), pytest.raises(AuthorityUnavailable) as caught:
            guard.warm()
        assert caught.value.reason is Reason.AUTHORITY_ANSWER_INVALID
        assert "GET /jwks" in served.requests
        assert "GET /canary" not in served.requests
        guard.close()


@pytest.mark.rule("T-12")
def test_an_outage_without_answers_is_a_broken_connection():
    served = authority()
    with DevServer(served) as server, http() as client:
        with served.faults.outage(), pytest.raises(httpx.TransportError):
            client.get(f"{server.url}/jwks")
        assert client.get(f"{server.url}/jwks").status_code == 200
        guard = Guard(Issuer(server.url, audience="https://api.example"))
        with served.faults.outage(), pytest.raises(AuthorityUnavailable) as caught:
            guard.warm()
        assert caught.value.reason is Reason.AUTHORITY_UNREACHABLE
        guard.close()


@pytest.mark.rule("T-12")
def test_a_slow_answer_comes_late(monkeypatch):
    served = authority()
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("scopeguard.devserver.app.anyio.sleep", sleep)
    with DevServer(served) as server, http() as client, served.faults.slow(3):
        assert client.get(f"{server.url}/jwks").status_code == 200
    assert waited == [3.0]


def test_the_control_endpoint_works_over_the_wire():
    served = authority()
    with DevServer(served) as server, http() as client:
        assert client.post(f"{server.url}/control/outage", json={"kind": "unavailable"}).status_code == 200
        assert client.get(f"{server.url}/jwks").status_code == 503
        assert client.post(f"{server.url}/control/outage", json={"kind": None}).status_code == 200
        assert client.get(f"{server.url}/jwks").status_code == 200


@pytest.mark.rule("T-11")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "dev.example", "", "127.0.0.1.example"])
def test_server_refuses_an_address_that_others_can_reach(host):
    with pytest.raises(ConfigurationError, match="allow_remote"):
        serve(authority(), host, 0)
    with pytest.raises(ConfigurationError, match="allow_remote"):
        DevServer(authority(), host=host)


@pytest.mark.rule("T-11")
def test_remote_access_needs_a_configured_issuer():
    with pytest.raises(ConfigurationError, match="issuer"):
        serve(authority(), "0.0.0.0", 0, allow_remote=True)


@pytest.mark.rule("T-11")
def test_start_is_logged(caplog):
    with DevServer(authority()) as server:
        pass
    (record,) = [record for record in caplog.records if record.name == "scopeguard.devserver"]
    assert record.levelno == logging.WARNING
    assert "FOR DEVELOPMENT ONLY" in record.getMessage()
    assert server.url in record.getMessage()


def test_second_block_serves_on_the_same_port():
    server = DevServer(authority())
    with server:
        url = server.url
    with server, http() as client:
        assert server.url == url
        assert client.get(f"{url}/jwks").status_code == 200


def test_server_stops_listening_after_the_block():
    with DevServer(authority()) as server:
        pass
    with http() as client, pytest.raises(httpx.ConnectError):
        client.get(f"{server.url}/jwks")


def test_a_port_that_is_taken_is_an_error_of_the_system():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = DevServer(authority(), port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"), server:
            pass  # never reached


def test_missing_uvicorn_is_an_error_with_the_install_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "scopeguard.devserver.uvicorn_server", raising=False)  # imports uvicorn
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigurationError, match="pip install"), DevServer(authority()):
        pass  # never reached


def test_a_settled_issuer_stays_as_it_is():
    with DevServer(authority("https://as.example")) as server:
        assert server.url == "https://as.example"


def test_server_supports_ipv6_loopback():
    with DevServer(authority(), host="::1") as server, http() as client:
        assert server.url.startswith("http://[::1]:")
        assert client.get(f"{server.url}/jwks").status_code == 200
        assert client.post(f"{server.url}/control/reset", json={}).status_code == 200


def test_serve_runs_until_it_is_interrupted(no_leaks):
    """In a process of its own, which gets the signal of Ctrl-C in a terminal."""
    script = """
        from scopeguard.devserver import Authority, Client, KeyRing, serve
        client = Client(client_id="robot", secret="sg-secret-robot")
        serve(Authority(audience="https://api.example", clients=[client], keys=KeyRing("ES256")), port=0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=plain_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "FOR DEVELOPMENT ONLY" in said
        url = said.split()[-1]
        with http() as client:
            assert client.get(f"{url}/jwks").status_code == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    no_leaks(said + rest)
