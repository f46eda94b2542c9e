"""``kill -HUP``: a new configuration during requests; none is dropped, and none is checked by a mixture."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from scopeguard.devserver import Authority
from serving import ASGI, CONFIG, KINDS, PATIENCE, dev_server, port_of, prepare, serve, token, write

CLOSED = CONFIG.replace('any_of = ["read"]', 'any_of = ["admin"]')
HAMMERS = 4
PAUSE = 0.005  # seconds between requests of a thread, so that the reload has the processor too


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def reload(command: Any, folder: Path, config: str) -> None:
    write(folder / "api.toml", config)
    command.process.send_signal(signal.SIGHUP)


class Hammer:
    """Threads that repeat a request on persistent connections and count the results."""

    def __init__(self, url: str, good: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._headers = {"Authorization": f"Bearer {good}"}
        self._end = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._ask) for _ in range(HAMMERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, trust_env=False, timeout=PATIENCE) as client:
            while not self._end.wait(PAUSE):
                try:
                    answer = client.get("/a")
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                else:
                    with self._changed:
                        self.statuses[answer.status_code] += 1
                        self._changed.notify_all()
                    challenge = answer.headers.get("www-authenticate", "")
                    legal = (
                        answer.text.startswith("http 127.0.0.1 robot")
                        if answer.status_code == 200
                        else answer.status_code == 403 and 'scope="admin"' in challenge
                    )
                    if not legal:
                        self.wrong.append(f"{answer.status_code} {challenge} {answer.text[:200]}")

    def wait_for(self, status: int, more: int) -> None:
        """Wait until *more* responses with *status* have arrived."""
        with self._changed:
            wanted = self.statuses[status] + more
            assert self._changed.wait_for(lambda: self.statuses[status] >= wanted, PATIENCE), (
                self.statuses,
                self.wrong,
            )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", KINDS)
def test_each_request_during_reloads_gets_one_of_the_two_responses(
    what: tuple[str, ...],
    workers: int,
    start: Callable[..., Any],
    folder: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.INFO, "scopeguard.devserver"):
        command, url = serve(start, folder, authority.issuer, *what, "--workers", str(workers), "--access-log", "off")
        for _ in range(workers):
            command.wait_for("ready")
        with Hammer(url, token(authority)) as hammer:
            hammer.wait_for(200, 5)
            for status, config in [(403, CLOSED), (200, CONFIG)] * 4:
                reload(command, folder, config)
                for _ in range(workers):
                    assert "1 issuers, 3 rules" in command.wait_for("reloaded: ")
                # The line was written after the switch, so each new request gets the new response.
                assert (
                    httpx.get(f"{url}/a", headers=hammer._headers, trust_env=False, timeout=PATIENCE).status_code
                    == status
                )
                hammer.wait_for(status, 5)
        assert command.end(signal.SIGTERM) == 0
    assert hammer.wrong == []
    assert set(hammer.statuses) == {200, 403}
    fetches = [record for record in caplog.records if "/jwks" in record.getMessage()]
    assert len(fetches) == workers  # The keys of an unchanged issuer are kept.


def test_invalid_file_changes_nothing_and_is_reported(start: Callable[..., Any], folder: Path, authority: Authority):
    for workers in ("1", "2"):
        write(folder / "api.toml", CONFIG)
        command, url = serve(start, folder, authority.issuer, *ASGI, "--workers", workers)
        command.wait_for("ready")
        headers = {"Authorization": f"Bearer {token(authority)}"}
        for bad, said in [
            (CLOSED.replace("any_of", "any_off"), "api.toml: [[rules]] 2: any_off"),
            (CLOSED.replace("[[rules]]", "[[rules"), "not TOML"),
            (CLOSED + 'methods = ["get"]', "capitals"),
            (f'profile = "oauth21"\ntoken_sources = ["query"]\n{CLOSED}', "query contradicts profile 'oauth21'"),
        ]:
            reload(command, folder, bad)
            line = command.wait_for("not reloaded, the previous configuration stays in force")
            assert said in line
            assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 200
        (folder / "api.toml").unlink()
        command.process.send_signal(signal.SIGHUP)
        assert "No such file" in command.wait_for("not reloaded")
        reload(command, folder, CLOSED)
        command.wait_for("reloaded: ")
        assert command.end(signal.SIGTERM) == 0


def test_old_configuration_stays_active_if_the_authority_is_down(
    start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *ASGI)
    command.wait_for("ready")
    headers = {"Authorization": f"Bearer {token(authority)}"}
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    moved = CLOSED.replace('"env:AUTHORITY"', f'"env:AUTHORITY"\njwks_uri = "http://127.0.0.1:{closed}/jwks"')
    reload(command, folder, moved)
    line = command.wait_for("not reloaded yet")
    assert "authority_unreachable" in line
    assert "next attempt in 1 s" in line
    assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 200
    assert "next attempt in 2 s" in command.wait_for("not reloaded yet")
    reload(command, folder, CLOSED)
    command.wait_for("reloaded: ")
    assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 403
    assert command.end(signal.SIGTERM) == 0


def test_request_keeps_the_guard_with_which_it_started(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI)
    command.wait_for("ready")
    good = token(authority)
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        head = f"POST /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {good}\r\nContent-Length: 4\r\n\r\n"
        connection.sendall(head.encode())
        received = b""
        while b"first" not in received:
            received += connection.recv(65536)
        reload(command, folder, CLOSED)
        command.wait_for("reloaded: ")
        assert (
            httpx.get(
                f"{url}/a", headers={"Authorization": f"Bearer {good}"}, trust_env=False, timeout=PATIENCE
            ).status_code
            == 403
        )
        connection.sendall(b"done")
        while b"last" not in received:
            data = connection.recv(65536)
            assert data
            received += data
    assert command.end(signal.SIGTERM) == 0


def test_revocations_are_kept(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI)
    command.wait_for("ready")
    headers = {"Authorization": f"Bearer {token(authority)}"}
    assert httpx.get(f"{url}/revoke", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 200
    reload(command, folder, CONFIG + "\n")
    command.wait_for("reloaded: ")
    assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 401
    assert command.end(signal.SIGTERM) == 0


def test_new_worker_starts_with_the_last_valid_configuration(
    start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *ASGI, "--workers", "2")
    headers = {"Authorization": f"Bearer {token(authority)}"}
    ready = [command.wait_for(" is ready") for _ in range(2)]
    reload(command, folder, CLOSED)
    for _ in range(2):
        command.wait_for("reloaded: ")
    reload(command, folder, "nonsense")
    command.wait_for("not reloaded")
    for line in ready:
        os.kill(int(line.partition(" worker ")[2].split()[0]), signal.SIGKILL)
    for _ in range(2):
        command.wait_for(" is ready")
    for _ in range(8):
        assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).status_code == 403
    assert command.end(signal.SIGTERM) == 0
