"""Each example runs against a real development authorization server and does what its comments say.

The apps are one API in each framework, so one test suffices for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import httpx
import pytest
from django.conf import LazySettings
from django.test import override_settings
from google.protobuf.struct_pb2 import Struct

from aiohttp_calls import call_aiohttp
from django_project import set_up_django
from doors import call_asgi, call_wsgi
from environment import ROOT, plain_environment, skip_or_fail
from scenarios import Answered, Exchange
from scopeguard.devserver import Authority, Client, DevServer

EXAMPLES = sorted((ROOT / "examples").glob("*_app.py"))
WSGI = ("django_app", "falcon_app", "flask_app", "wsgi_app")
AUDIENCE = "http://127.0.0.1:8000"
LOADER = "sg-secret-loader"


@pytest.fixture(scope="module")
def devserver() -> Iterator[DevServer]:
    scopes = ["bigquery.insertdata", "bigquery.readonly"]
    authority = Authority(
        audience=AUDIENCE,
        clients=[
            Client(client_id="loader", secret=LOADER, scopes=scopes),
            Client(client_id="reader", secret=LOADER, scopes=["bigquery.readonly"]),
        ],
    )
    with DevServer(authority) as server:
        yield server


def token(server: DevServer, client_id: str) -> bytes:
    """Return a header with a token that *client_id* fetches by client credentials."""
    form = {"grant_type": "client_credentials"}
    answer = httpx.post(f"{server.url}/token", auth=(client_id, LOADER), data=form)
    return f"Bearer {answer.json()['access_token']}".encode()


Call = Callable[..., Answered]


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def call(request: pytest.FixtureRequest, devserver: DevServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Send a request to an example, with the token of a client."""
    monkeypatch.setenv("ISSUER", devserver.url)
    path: Path = request.param
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    settings = contextlib.ExitStack()
    if path.stem == "django_app":
        set_up_django()
        # Django can be configured once for each process.
        given = {"ALLOWED_HOSTS": ["*"]}
        monkeypatch.setattr(
            LazySettings, "configure", lambda _, **own: settings.enter_context(override_settings(**own | given))
        )
    spec.loader.exec_module(module)

    def send(method: str, target: str, client_id: str | None = None, row: Any = None) -> Answered:
        headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        if client_id is not None:
            headers.append((b"authorization", token(devserver, client_id)))
        body = b"" if row is None else json.dumps(row).encode()
        exchange = Exchange(method=method, target=target, headers=tuple(headers), body=body)
        if path.stem == "aiohttp_app":
            return call_aiohttp(module.make_app, exchange)
        return call_wsgi(module.app, exchange) if path.stem in WSGI else anyio.run(call_asgi, module.app, exchange)

    with settings:
        yield send
    module.guard.close()


def test_example_behaves_as_described(call: Call):
    rows = "/tables/departures/rows"
    assert call("GET", "/healthz").body.strip(b'"') == b"ok"
    assert call("GET", rows).status == 401
    assert call("POST", rows, row={"n": 1}).status == 401
    lacking = call("POST", rows, "reader", {"n": 1})
    assert lacking.status == 403
    assert 'scope="bigquery.insertdata"' in lacking.all("www-authenticate")[0]
    inserted = call("POST", rows, "loader", {"n": 1})
    assert (inserted.status, json.loads(inserted.body)) == (201, {"rows": 1})
    assert json.loads(call("GET", rows, "reader").body) == [{"n": 1}]
    assert json.loads(call("GET", "/me", "reader").body)["client"] == "reader"
    assert call("GET", "/me").status == 401
    assert call("DELETE", "/me").status in (401, 405)  # In a FastAPI app without the middleware, routing answers.


def test_the_grpc_server_behaves_as_described(devserver: DevServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ISSUER", devserver.url)
    module = runpy.run_path(str(ROOT / "examples" / "grpc_server.py"))
    asyncio.run(_call_grpc_example(devserver, module))
    module["guard"].close()


async def _call_grpc_example(devserver: DevServer, module: dict[str, Any]) -> None:
    messages = {"request_serializer": Struct.SerializeToString, "response_deserializer": Struct.FromString}
    row = Struct()
    row.update({"table": "t", "n": 1})
    server = module["make_server"]()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        insert = channel.unary_unary("/rows.v1.Rows/Insert", **messages)
        read = channel.unary_stream("/rows.v1.Rows/Read", **messages)
        loader, reader = ([("authorization", token(devserver, name).decode())] for name in ("loader", "reader"))
        assert dict(await insert(row, metadata=loader)) == {"client": "loader", "rows": 1}
        assert [each async for each in read(row, metadata=reader)] == [row]
        for metadata, code in ((reader, "PERMISSION_DENIED"), (None, "UNAUTHENTICATED")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await insert(row, metadata=metadata)
            assert refused.value.code().name == code
    await server.stop(None)


def test_each_example_says_how_to_run_it():
    for path in EXAMPLES:
        text = path.read_text("utf-8")
        assert "scopeguard devserver" in text
        assert re.search(
            rf"^    (uvicorn|waitress-serve|flask|python -m aiohttp.web) .*examples\.{path.stem}\b", text, re.MULTILINE
        ), path.name


def test_the_example_of_introspection_runs(no_leaks: Callable[[str], None]):
    done = subprocess.run(
        [sys.executable, "-W", "error", "examples/introspection.py"],
        cwd=ROOT,
        env=plain_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    no_leaks(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    first, *calls = done.stdout.splitlines()
    assert first.startswith("an opaque token of ")
    assert calls[:2] == ["200 hello loader; introspection requests so far: 1"] * 2
    assert calls[2].startswith("401 ")


@pytest.mark.parametrize(
    ("example", "statuses"),
    [("api_keys", ["200", "200", "400", "401", "401"]), ("spiffe", ["200", "401", "401", "200", "401"])],
)
def test_an_example_of_other_credentials_runs(no_leaks: Callable[[str], None], example: str, statuses: list[str]):
    done = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{example}.py"],
        cwd=ROOT,
        env=plain_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    no_leaks(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == statuses


def test_used_proofs_are_known_after_a_failover_of_redis(capsys: pytest.CaptureFixture[str]):
    if shutil.which("redis-server") is None:
        skip_or_fail("no redis-server: make system installs it")
    runpy.run_path(str(ROOT / "examples/redis_failover.py"), run_name="__main__")
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "with the replica: accepted",
        "the same proof again: 401",
        "while the replica is stopped: 503",
        "with the replica again: accepted",
    ]
    # The replica may have got the proof of the refused request as well, when it went on.
    assert re.fullmatch("the new primary knows [23] used proofs", last)


def test_the_example_of_lambda_runs(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(ROOT / "examples" / "lambda_handler.py"))["main"]()
    *calls, decision = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in calls] == ["200", "401", "403", "200"]
    assert json.loads(decision.removeprefix("authorizer "))["isAuthorized"] is True
