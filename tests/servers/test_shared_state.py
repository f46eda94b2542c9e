"""Two worker processes with one real Redis and one real authorization server share their state."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from redis_server import RedisServer
from scopeguard.devserver import Authority, Client, DevServer
from scopeguard.testing import ProofKey
from server_process import server_environment
from warm_start import WarmInterpreter

# Each test starts two servers of its own, and waits for several seconds on a busy machine.
pytestmark = pytest.mark.timeout(180)

AUDIENCE = "https://api.test"
API, LOADER = "sg-secret-api", "sg-secret-loader"
MAX_LAG = 1.0
SERVERS = {
    "asgi": ("uvicorn", "sharing:asgi", "--port", "{port}", "--lifespan", "off", "--no-access-log"),
    "wsgi": ("waitress", "--threads", "8", "--listen", "127.0.0.1:{port}", "sharing:wsgi"),
}

COMMANDS = SERVERS | {
    "gunicorn": (
        "gunicorn",
        "sharing:wsgi",
        "--bind",
        "127.0.0.1:{port}",
        "--worker-class",
        "gthread",
        "--threads",
        "8",
    ),
}
COPIES = 50
PAUSE = 0.005  # seconds between requests of a thread, so that waiting for Redis leaves the processor to other tests


class Worker:
    """A process that serves the API."""

    def __init__(self, base: str, log: Path) -> None:
        self._client = httpx.Client(base_url=base, timeout=30)
        self._log = log

    def status(self, token: str) -> int:
        """Return the status of a request with *token*. A 503 must have ``Retry-After``."""
        answer = self._client.get("/", headers={"authorization": f"Bearer {token}"})
        assert ("retry-after" in answer.headers) == (answer.status_code == 503)
        assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
        return answer.status_code

    def revoke(self, **what: Any) -> int:
        """Return the response to a revocation request."""
        return self._client.post("/revoke", json=what).status_code

    def with_proof(self, token: str, proof: str) -> int:
        """Return the status of a request with *token*, which is bound to a key, and *proof*."""
        return self._client.get("/", headers={"authorization": f"DPoP {token}", "dpop": proof}).status_code

    def is_up(self) -> bool:
        """Return whether the worker answers."""
        try:
            return self._client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def output(self) -> str:
        """Return the output of the worker."""
        return self._log.read_text("utf-8", "replace")

    def close(self) -> None:
        self._client.close()


@dataclass
class Place:
    """Everything of one test."""

    folder: Path
    redis: RedisServer
    server: DevServer
    stack: ExitStack
    client: httpx.Client
    interpreter: WarmInterpreter
    kind: str = "asgi"
    workers: int = 0
    tokens: list[str] = field(default_factory=list)

    def worker(self, *, revocation: str = "", kind: str | None = None) -> Worker:
        """Start one more; all have the same configuration but for *revocation*."""
        self.workers += 1
        config = self.folder / f"worker{self.workers}.toml"
        config.write_text(
            f"""
            [[issuers]]
            url = "{self.server.url}"
            audience = "{AUDIENCE}"
            validate = "auto"
            [issuers.introspection]
            client_id = "api"
            client_secret = "env:API_SECRET"
            [store]
            redis = "env:REDIS_URL"
            secret = "env:STORE_SECRET"
            [revocation]
            max_lag = {MAX_LAG}
            {revocation}
            """
        )
        return self.stack.enter_context(self._run(config, kind or self.kind))

    @contextmanager
    def _run(self, config: Path, kind: str) -> Iterator[Worker]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            "SHARING_CONFIG": str(config),
            "API_SECRET": API,
            "REDIS_URL": self.redis.url,
            "STORE_SECRET": "sg-secret-of-the-store",
        }
        command = [part.format(port=port) for part in COMMANDS[kind]]
        log = config.with_suffix(".log")
        with log.open("wb") as output:
            process = self.interpreter.start(*command, cwd=self.folder, environment=environment, output=output.fileno())
        worker = Worker(f"http://127.0.0.1:{port}", log)
        try:
            wait_until(lambda: worker.is_up() or process.poll() is not None)
            assert process.poll() is None, worker.output
            yield worker
        finally:
            worker.close()
            process.terminate()
            process.wait(timeout=20)

    def token(self, client_id: str = "loader") -> str:
        """A token from the authorization server; ``loader``'s are opaque, those of ``signer`` JWTs."""
        form = {"grant_type": "client_credentials"}
        answer = self.client.post(f"{self.server.url}/token", auth=(client_id, LOADER), data=form)
        self.tokens.append(answer.json()["access_token"])
        return self.tokens[-1]

    def bound_token(self, key: ProofKey) -> str:
        """A JWT that is bound to *key*."""
        url = f"{self.server.url}/token"
        proof = key.proof("", "POST", url, at=time.time(), claims={"ath": None})
        form = {"grant_type": "client_credentials"}
        answer = self.client.post(url, auth=("signer", LOADER), data=form, headers={"dpop": proof})
        assert answer.json()["token_type"] == "DPoP"
        self.tokens.append(answer.json()["access_token"])
        return self.tokens[-1]

    @property
    def introspections(self) -> int:
        """Return the number of requests to the authorization server."""
        return sum("introspect" in request for request in self.server.authority.requests)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait up to thirty seconds for a condition in another process."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


@contextmanager
def _place(folder: Path, interpreter: WarmInterpreter, *, append_only: bool = False) -> Iterator[Place]:
    authority = Authority(
        audience=AUDIENCE,
        clients=[
            Client(client_id="loader", secret=LOADER, scopes=["read"], token_format="opaque"),
            Client(client_id="signer", secret=LOADER, scopes=["read"]),
            Client(client_id="api", secret=API, introspects=[AUDIENCE]),
        ],
    )
    with ExitStack() as stack:
        server = stack.enter_context(DevServer(authority))
        redis = stack.enter_context(RedisServer(folder, append_only=append_only))
        yield Place(folder, redis, server, stack, stack.enter_context(httpx.Client()), interpreter)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[WarmInterpreter]:
    """It has imported what the workers import."""
    ours = (
        "scopeguard.asgi",
        "scopeguard.config.file",
        "scopeguard.edge.http",
        "scopeguard.stores.redis",
        "scopeguard.wsgi",
    )
    others = ("gunicorn.app.wsgiapp", "httpcore", "httpx", "redis.asyncio", "uvicorn.protocols.http.auto", "waitress")
    with WarmInterpreter(*ours, *others, environment=server_environment()) as interpreter:
        yield interpreter


@pytest.fixture
def place(tmp_path: Path, interpreter: WarmInterpreter, no_leaks: Callable[[str], None]) -> Iterator[Place]:
    with _place(tmp_path, interpreter) as here:
        yield here
        stored = here.redis.dump() if here.redis.is_up else {}
    for number in range(1, here.workers + 1):
        no_leaks((tmp_path / f"worker{number}.log").read_text("utf-8", "replace"))
    for key, (content, left) in stored.items():
        assert left > 0, key
        assert not any(token in key or token.encode() in content for token in here.tokens)


def expect_refusal_in_time(worker: Worker, token: str, told: float) -> None:
    """*worker* refuses *token*, and accepted it in no request that began a whole lag after others were *told*."""
    deadline = time.monotonic() + 30
    while True:
        began = time.monotonic()
        if worker.status(token) == 401:
            return
        assert began < told + MAX_LAG
        assert began < deadline


@pytest.mark.rule("I-24")
@pytest.mark.parametrize("kind", SERVERS)
def test_token_introspected_by_one_process_is_known_to_the_other(place: Place, kind: str):
    place.kind = kind
    one, two = place.worker(), place.worker()
    token = place.token()
    assert [one.status(token), two.status(token), one.status(token)] == [200, 200, 200]
    assert place.introspections == 1
    assert [two.status("made-up"), one.status("made-up")] == [401, 401]
    assert place.introspections == 2


@pytest.mark.rule("E-10", "E-17")
@pytest.mark.parametrize("kind", SERVERS)
def test_token_revoked_in_one_process_is_refused_in_the_other_within_the_lag(place: Place, kind: str):
    place.kind = kind
    one, two = place.worker(), place.worker()
    opaque, signed, others, client = place.token(), place.token("signer"), place.token(), place.token("signer")
    for token in (opaque, signed, others, client):
        assert [one.status(token), two.status(token)] == [200, 200]
    for token, what in ((opaque, {"token": opaque}), (signed, {"token": signed}), (client, {"client_id": "signer"})):
        assert one.revoke(**what) == 204
        told = time.monotonic()
        assert one.status(token) == 401
        expect_refusal_in_time(two, token, told)
    assert [one.status(others), two.status(others)] == [200, 200]


class Load:
    """Threads that send requests to both workers until :meth:`stop`, and record every response."""

    def __init__(self, workers: list[Worker], tokens: dict[str, Callable[[], str]]) -> None:
        self._workers = workers
        self._tokens = tokens
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.phase = "before"
        self.seen: Counter[tuple[str, str, int]] = Counter()
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(worker, name)) for worker in workers for name in tokens
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, worker: Worker, name: str) -> None:
        try:
            for _ in range(20_000):
                if self._stop.wait(PAUSE):
                    return
                phase = self.phase
                status = worker.status(self._tokens[name]())
                with self._lock:
                    self.seen[phase, name, status] += 1
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.failures.append(error)

    def enter(self, phase: str, *, until: dict[str, int]) -> None:
        """From now on it is *phase*; return when each of the tokens *until* names was answered so, twice a worker."""
        self.phase = phase
        wait_until(
            lambda: (
                bool(self.failures)
                or all(self.seen[phase, name, status] >= 2 * len(self._workers) for name, status in until.items())
            )
        )

    def statuses(self, name: str, *phases: str) -> set[int]:
        """How requests with the token *name* that began in one of *phases*, in any if none is named, were answered."""
        return {status for phase, which, status in self.seen if which == name and phase in (phases or (phase,))}


@pytest.mark.parametrize("kind", SERVERS)
def test_redis_restart_under_load_admits_no_revoked_token(tmp_path: Path, interpreter: WarmInterpreter, kind: str):
    """Redis keeps the revocations on disk. Revocations fail closed: 503 until Redis is back, and never 200. What a
    process knows to be revoked stays refused.
    """
    with _place(tmp_path, interpreter, append_only=True) as place:
        place.kind = kind
        one, two = place.worker(), place.worker()
        good, revoked = place.token(), place.token()
        assert one.revoke(token=revoked) == 204
        wait_until(lambda: two.status(revoked) == 401)
        tokens = {"good": lambda: good, "revoked": lambda: revoked, "made up": lambda: "made-up"}
        with Load([one, two], tokens) as load:
            load.enter("up", until={"good": 200, "revoked": 401, "made up": 401})
            place.redis.kill()
            load.enter("down", until={"good": 503, "revoked": 401})
            assert one.revoke(client_id="signer") == 503
            place.redis.start()
            load.enter("back", until={"good": 200, "revoked": 401, "made up": 401})
        assert not load.failures
        assert load.statuses("good") <= {200, 503}
        assert load.statuses("revoked") == {401}
        assert load.statuses("made up") <= {401, 503}
        assert load.statuses("good", "up") <= {200, 503}  # a request that began before may end after
        assert place.worker().status(revoked) == 401  # one that was not there when it was revoked


def test_fail_open_accepts_tokens_during_an_outage_of_redis(place: Place):
    """``fail_open_dangerously``: revocations known to a process still apply, unknown ones do not."""
    one, two = (place.worker(revocation="fail_open_dangerously = true") for _ in range(2))
    good, revoked, later = place.token(), place.token(), place.token()
    assert one.revoke(token=revoked) == 204
    wait_until(lambda: two.status(revoked) == 401)
    fresh = iter([place.token() for _ in range(200)])
    lock = threading.Lock()

    def take_token() -> str:
        with lock:
            return next(fresh, good)

    with Load([one, two], {"good": lambda: good, "revoked": lambda: revoked, "fresh": take_token}) as load:
        load.enter("up", until={"good": 200, "revoked": 401})
        asked = place.introspections
        place.redis.kill()
        load.enter("down", until={"good": 200, "revoked": 401, "fresh": 200})
        assert place.introspections > asked
        assert one.revoke(token=later) == 503  # it alone knows
        assert [one.status(later), two.status(later)] == [401, 200]
        place.redis.start()
        load.enter("back", until={"good": 200, "revoked": 401})
    assert not load.failures
    assert load.statuses("good") == load.statuses("fresh") == {200}
    assert load.statuses("revoked") == {401}
    assert one.revoke(token=later) == 204
    told = time.monotonic()
    expect_refusal_in_time(two, later, told)


@pytest.mark.rule("D-54", "D-58", "D-60")
@pytest.mark.parametrize("kind", ["asgi", "gunicorn"])
def test_requests_with_one_proof_are_granted_once_by_all_processes(place: Place, kind: str):
    place.kind = kind
    workers = [place.worker(revocation='[dpop]\nmode = "required"\nbase_url = "https://api.test"') for _ in range(2)]
    key = ProofKey()
    token = place.bound_token(key)

    def proof() -> str:
        return key.proof(token, "GET", "https://api.test/", at=time.time())

    with ThreadPoolExecutor(COPIES) as pool:
        for _ in range(10):
            once = proof()
            statuses = Counter(pool.map(lambda n, once=once: workers[n % 2].with_proof(token, once), range(COPIES)))
            assert statuses == {200: 1, 401: COPIES - 1}
        once = proof()
        place.redis.kill()
        for sent in (once, proof()):
            statuses = Counter(pool.map(lambda n, sent=sent: workers[n % 2].with_proof(token, sent), range(COPIES)))
            assert statuses == {503: COPIES}
        place.redis.start()
        wait_until(lambda: workers[0].with_proof(token, proof()) == 200)
    assert workers[1].status(token) == 401


def answers(worker: Worker, token: str, status: int) -> bool:
    return worker.status(token) == status


def test_hanging_redis_causes_a_short_delay_only(place: Place):
    one, two = place.worker(), place.worker(kind="wsgi")
    good, revoked = place.token(), place.token()
    assert one.revoke(token=revoked) == 204
    for worker in (one, two):
        wait_until(partial(answers, worker, revoked, 401))
        assert worker.status(good) == 200
    with place.redis.keep_frozen():
        for worker in (one, two):
            wait_until(partial(answers, worker, good, 503))
            assert worker.status(revoked) == 401
        assert one.revoke(token=good) == 503
    wait_until(lambda: two.status(good) == 200)
    assert two.status(revoked) == 401
    assert one.status(good) in (401, 503)
