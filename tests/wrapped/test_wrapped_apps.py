"""Unmodified third-party apps behind the guard: with a token, their responses are the same."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from server_process import ServerProcess
from wrapped_apps import PASSWORD
from wrapped_table import ASKED, BIG, INITIALIZE, Ask, Pair

pytestmark = pytest.mark.timeout(120)  # two servers for each app, of which some take seconds to start

PLACES = [
    ("datasette", "uvicorn-httptools"),
    ("datasette", "serve"),
    ("django-asgi", "uvicorn-h11"),
    ("django-wsgi", "gunicorn"),
    ("fastmcp", "uvicorn-httptools"),
    ("httpbin", "gunicorn"),
    ("httpbin", "waitress"),
    ("httpbin", "serve"),
    ("litestar", "uvicorn-httptools"),
    ("pypiserver", "waitress"),
    ("quart", "uvicorn-h11"),
    ("radicale", "gunicorn"),
    ("strawberry", "uvicorn-h11"),
]


def _run_on(*apps: str) -> pytest.MarkDecorator:
    places = [place for place in PLACES if not apps or place[0] in apps]
    return pytest.mark.parametrize("pair", places, indirect=True, ids="-".join)


_VARIES = re.compile(
    rb"(?im)^(?:date|server|last-modified|expires): .*\r\n"  # of the server, and of files made a moment apart
    rb'|(?<="query_ms": )[0-9.]+|(?<=Queries took )[0-9.]+|(?<=took )[0-9.]+(?=ms)'  # datasette's stop-watch
    rb"|(?<=ds_csrftoken=)[^;]+|(?<=csrfmiddlewaretoken\" value=\")\w+|(?<=csrftoken=)\w+|(?<=expires=)[^;]+"
    rb"|(?<=set-cookie: session=)\w+|(?<=mcp-session-id: )\w+|(?<=name=\"csrftoken\" value=\")[^\"]+"
)


def _comparable(answer: bytes, pair: Pair) -> bytes:
    for token in (pair.token, pair.weak):
        answer = answer.replace(token.encode(), b"TOKEN")  # httpbin shows it, and no report of a failure should
    for server in (pair.bare, pair.guarded):
        answer = answer.replace(str(server.log.parent).encode(), b"FOLDER")
    head, end, body = answer.partition(b"\r\n\r\n")
    head = _VARIES.sub(b"", head + b"\r\n")
    body = _VARIES.sub(b"", body) if len(body) < 200_000 else body  # no page with a form or a stop-watch is larger
    if b"transfer-encoding: chunked" in head.lower():  # how it was cut depends on what came when
        body = re.sub(rb"(?:^|\r\n)[0-9a-fA-F]+\r\n", b"", body).replace(b"\r\n", b"")
    return head + end + body


@_run_on()
def test_responses_to_requests_with_a_token_are_unchanged(pair: Pair):
    different = []
    for ask in ASKED[pair.name]:
        wire = ask.wire(pair.token)
        bare, guarded = (_comparable(server.send(wire), pair) for server in (pair.bare, pair.guarded))
        assert bare.startswith(b"HTTP/1.1 "), (ask.method, ask.target)
        if bare != guarded:
            at = next(
                (i for i, (a, b) in enumerate(zip(bare, guarded, strict=False)) if a != b), min(len(bare), len(guarded))
            )
            near = slice(max(0, at - 80), at + 120)
            different.append(f"{ask.method} {ask.target}\n  bare    {bare[near]!r}\n  guarded {guarded[near]!r}")
    assert not different, "\n".join(different)


@pytest.mark.rule("B-12", "B-46", "H-17")
@_run_on()
def test_each_request_without_a_token_is_refused_with_a_challenge(pair: Pair):
    for ask in ASKED[pair.name]:
        if len(ask.body) < 100_000 and not ask.chunked:  # another test covers bodies that the app does not read
            answer = pair.guarded.send(ask.wire(""))
            head = answer.partition(b"\r\n\r\n")[0].lower()
            assert head.startswith(b"http/1.1 401 "), (ask.method, ask.target, head)
            assert b'\r\nwww-authenticate: bearer realm="' in head, head
            assert b'scope="use"' in head
            assert b"error=" not in head
            assert b"set-cookie" not in head
            weak = pair.guarded.send(ask.wire(pair.weak)).partition(b"\r\n\r\n")[0].lower()
            assert weak.startswith(b"http/1.1 403 ")
            assert b'error="insufficient_scope"' in weak
            assert b'scope="use"' in weak


@pytest.mark.rule("H-17")
@_run_on("httpbin", "pypiserver", "strawberry", "radicale")
def test_an_upload_without_a_token_changes_nothing_and_is_answered(pair: Pair):
    target = {"radicale": "/u/c/x.ics", "strawberry": "/graphql", "httpbin": "/put"}.get(pair.name, "/")
    answer = pair.guarded.send(Ask("PUT", target, body=BIG[:400_000]).wire(""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    answer = pair.guarded.send(Ask("POST", target, body=BIG[:100_000], chunked=True).wire(""))
    assert answer.startswith(b"HTTP/1.1 401 ")


@_run_on("httpbin", "strawberry")
def test_expect_100_continue_works_behind_the_guard(pair: Pair):
    target = "/graphql" if pair.name == "strawberry" else "/post"
    body = b'{"query": "{ echo(text: \\"x\\") }"}'
    headers = ("Content-Type: application/json", "Expect: 100-continue", f"Content-Length: {len(body)}")
    heads = [
        Ask("POST", target, headers).wire(token).replace(b"Content-Length: 0\r\n", b"") for token in (pair.token, "")
    ]

    def send_head(server: ServerProcess, head: bytes) -> tuple[bytes, bytes]:
        with server.connect() as connection:
            connection.sendall(head)
            first = connection.recv(65536)
            answer = b""
            if first.startswith(b"HTTP/1.1 100"):
                connection.sendall(body)
                answer = first.partition(b"\r\n\r\n")[2]
                first = first[: len(first) - len(answer)]
                while data := connection.recv(65536):
                    answer += data
            return first, _comparable(answer, pair) if answer else b""

    assert send_head(pair.bare, heads[0]) == send_head(pair.guarded, heads[0])
    assert send_head(pair.bare, heads[0])[1].startswith(b"HTTP/1.1 200 ")
    first, answer = send_head(pair.guarded, heads[1])
    assert (answer or first).startswith(b"HTTP/1.1 401 ")


@_run_on("httpbin")
def test_the_first_byte_of_a_stream_comes_before_the_last_is_made(pair: Pair):
    with pair.guarded.connect() as connection:
        connection.sendall(Ask("GET", "/drip?numbytes=3&duration=3&delay=0").wire(pair.token))
        answer = b""
        while b"*" not in (early := answer.partition(b"\r\n\r\n")[2]):
            answer += connection.recv(65536)
        assert len(early) < 3
        while data := connection.recv(65536):
            answer += data
        assert answer.partition(b"\r\n\r\n")[2] == b"***"


@_run_on("datasette", "httpbin", "pypiserver")
def test_server_works_after_a_client_disconnects_midway(pair: Pair):
    download = {"datasette": "/things/things.csv?_stream=on", "httpbin": "/range/102400?chunk_size=100"}
    target = download.get(pair.name, "/packages/example-2.0.tar.gz")
    for _ in range(5):
        with pair.guarded.connect() as connection:
            connection.sendall(Ask("GET", target).wire(pair.token))
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        with pair.guarded.connect() as connection:
            connection.sendall(Ask("POST", "/post", body=BIG[:50_000]).wire(pair.token)[:-20_000])
    wire = Ask("GET", target).wire(pair.token)
    assert _comparable(pair.guarded.send(wire), pair) == _comparable(pair.bare.send(wire), pair)


@_run_on("django-asgi", "django-wsgi")
def test_the_admin_of_django_is_used_with_session_and_csrf_as_ever(pair: Pair):
    def visit(server: ServerProcess) -> list[tuple[int, str | None, str]]:
        pages = []
        headers = {"Authorization": f"Bearer {pair.token}", "Host": "localhost"}
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=30) as client:

            def note(answer: httpx.Response) -> None:
                text = re.sub(r'(?<=csrfmiddlewaretoken" value=")\w+', "", answer.text)
                pages.append((answer.status_code, answer.headers.get("location"), text))
                assert answer.headers.get("content-encoding") == ("gzip" if len(answer.text) > 200 else None)

            def form(target: str, **fields: str) -> None:
                client.cookies = httpx.Cookies({cookie.name: cookie.value or "" for cookie in client.cookies.jar})
                note(client.post(target, data={**fields, "csrfmiddlewaretoken": client.cookies["csrftoken"]}))

            note(client.get("/admin/login/"))
            form("/admin/login/?next=/admin/", username="admin", password=PASSWORD)
            note(client.get("/admin/auth/group/"))
            form("/admin/auth/group/add/", name="made here")
            note(client.get("/admin/auth/group/"))
            form("/admin/logout/")
            note(client.get("/admin/auth/group/"))
        return pages

    bare, guarded = visit(pair.bare), visit(pair.guarded)
    assert [page[0] for page in guarded] == [200, 302, 200, 302, 200, 200, 302]
    assert "made here" in guarded[4][2]
    assert guarded == bare


@pytest.mark.rule("H-02", "H-03")
@_run_on("strawberry")
def test_a_graphql_subscription_over_a_websocket(pair: Pair):
    def receive_counts(server: ServerProcess, token: str) -> list[str]:
        url = f"ws://127.0.0.1:{server.port}/graphql"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], additional_headers=headers) as socket:
            socket.send('{"type": "connection_init"}')
            heard = [str(socket.recv())]
            query = "subscription { count(target: 4) }"
            socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
            while "complete" not in heard[-1]:
                heard.append(str(socket.recv()))
            return heard

    assert receive_counts(pair.guarded, pair.token) == receive_counts(pair.bare, "")
    assert len(receive_counts(pair.guarded, pair.token)) == 6
    for token, status in (("", 401), (pair.weak, 403)):
        with pytest.raises(InvalidStatus) as refused:
            receive_counts(pair.guarded, token)
        assert refused.value.response.status_code == status


@_run_on("fastmcp")
def test_a_tool_of_an_mcp_server_is_called_and_streams(pair: Pair):
    headers = {
        "Authorization": f"Bearer {pair.token}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{pair.guarded.port}", headers=headers, timeout=30) as client:
        begun = client.post("/mcp", content=INITIALIZE)
        client.headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
        assert client.post("/mcp", json=_call(None, "notifications/initialized")).status_code == 202
        added = client.post("/mcp", json=_call(2, "tools/call", name="add", arguments={"a": 2, "b": 3}))
        assert '"text":"5"' in added.text.replace(" ", "")
        waiting = _call(3, "tools/call", name="wait", arguments={}, _meta={"progressToken": "p"})
        with client.stream("POST", "/mcp", json=waiting) as answer:
            lines = answer.iter_lines()
            assert any("notifications/progress" in line for line in lines)
            (pair.guarded.log.parent / "go-on").touch()  # what is made from here on was not there before
            assert any("done" in line for line in lines)
        without = client.post("/mcp", json=waiting, headers={"Authorization": ""})
        assert without.status_code == 401


def _call(number: int | None, method: str, **parameters: object) -> dict[str, object]:
    request: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": parameters}
    return request if number is None else {**request, "id": number}
