"""The WSGI middleware beyond the table of scenarios: bodies, iterables, colliding names, logs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from doors import call_wsgi, guard_for
from scenarios import Exchange
from scopeguard import (
    ConfigurationError,
    Guard,
    InvalidRequest,
    RequestTooLarge,
    Rule,
    access_token,
    access_token_or_none,
    all_of,
)
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import ENVIRON_KEY, GuardMiddleware, read_form, request_view, strip_query_token


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


class App:
    """An app that records its environs."""

    def __init__(self) -> None:
        self.environs: list[Any] = []
        self.result: Any = [b"ok"]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.result


def bearer(token: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", f"Bearer {token}".encode()),)


def environ(**more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "https",
        **more,
    }


def test_app_finds_the_token_in_its_environ_and_through_the_accessor(authority: FakeAuthority):
    seen = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((environ[ENVIRON_KEY], access_token()))
        start_response("200 OK", [])
        return []

    call_wsgi(GuardMiddleware(app, guard=guard_for(authority)), Exchange(headers=bearer(authority.mint(subject="al"))))
    (pair,) = seen
    assert pair[0] is pair[1]
    assert pair[0].subject == "al"
    assert access_token_or_none() is None


@pytest.mark.rule("H-18")
def test_environ_key_cannot_be_set_by_a_client_or_a_server(authority: FakeAuthority):
    app = App()
    guarded = GuardMiddleware(app, guard=guard_for(authority), public=["/public"])
    answer = call_wsgi(guarded, Exchange(headers=((b"scopeguard.access-token", b"x"), (b"scopeguard", b"x"))))
    assert answer.status == 401
    started: list[Any] = []
    guarded(environ(PATH_INFO="/public", **{ENVIRON_KEY: "forged"}), lambda *a: started.append(a))
    assert ENVIRON_KEY not in app.environs[0]


def test_iterable_of_the_app_is_returned_unchanged(authority: FakeAuthority):
    class Lines:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"a"

        def close(self) -> None:
            self.closed = True

    app = App()
    app.result = Lines()
    guarded = GuardMiddleware(app, guard=guard_for(authority))
    headers = {"HTTP_AUTHORIZATION": f"Bearer {authority.mint()}"}
    assert guarded(environ(**headers), lambda *a: None) is app.result


def test_late_start_response_and_write_work(authority: FakeAuthority):
    written: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [("Cache-Control", "public")], None)
        write(b"early")
        yield b"late"

    guard = guard_for(authority, token_sources=["header", "query"])
    guarded = GuardMiddleware(app, guard=guard)
    started: list[Any] = []

    def start_response(*arguments: Any) -> Any:
        started.append(arguments)
        return written.append

    result = guarded(environ(QUERY_STRING=f"access_token={authority.mint()}"), start_response)
    assert started == []
    assert list(result) == [b"late"]
    assert written == [b"early"]
    status, headers, exc_info = started[0]
    assert (status, exc_info) == ("200 OK", None)
    assert ("cache-control", "private") in headers


@pytest.mark.rule("H-11")
@pytest.mark.parametrize("value", ["Bearer t\xe9", "Bearer \u212a", "Bearer\xa0abc", "Bearer t\x00"])
def test_non_ascii_characters_are_refused_and_not_decoded_again(authority: FakeAuthority, value: str):
    started: list[Any] = []
    GuardMiddleware(App(), guard=guard_for(authority))(
        environ(HTTP_AUTHORIZATION=value), lambda *arguments: started.append(arguments)
    )
    assert started[0][0] == "400 Bad Request"


@pytest.mark.rule("H-12")
def test_header_names_with_underscores_carry_no_credential(authority: FakeAuthority):
    app = App()
    guarded = GuardMiddleware(app, guard=guard_for(authority))
    # A client may send Client_Cert, X_Forwarded_Authorization or X_Ssl_Cert; none of them is a credential here.
    for name in ("HTTP_CLIENT_CERT", "HTTP_X_SSL_CERT", "HTTP_X_FORWARDED_AUTHORIZATION", "HTTP_X_AUTHORIZATION"):
        started: list[Any] = []
        guarded(environ(**{name: f"Bearer {authority.mint()}"}), lambda *a, to=started: to.append(a))
        assert started[0][0] == "401 Unauthorized"
    assert app.environs == []


@pytest.mark.rule("X-79", "B-31")
def test_token_is_removed_from_everything_a_server_may_log():
    seen = environ(
        QUERY_STRING="a=1&access_token=secret&b=2",
        RAW_URI="/x?a=1&access_token=secret&b=2",
        REQUEST_URI="/x?access_token=secret",
    )
    strip_query_token(seen)
    assert (seen["QUERY_STRING"], seen["RAW_URI"], seen["REQUEST_URI"]) == ("a=1&b=2", "/x?a=1&b=2", "/x")
    bare = environ(QUERY_STRING="access_token=secret", RAW_URI="/x")
    strip_query_token(bare)
    assert (bare["QUERY_STRING"], bare["RAW_URI"]) == ("", "/x")
    assert "REQUEST_URI" not in bare


class Trickle(io.RawIOBase):
    """A body that returns a few bytes per call, up to its length."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)
        self.asked: list[int] = []

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "some servers raise for read(-1)"
        self.asked.append(size)
        return self._body.read(min(size, 3))


@pytest.mark.rule("B-27")
def test_form_in_pieces_is_read_completely_and_left_for_the_app():
    seen = environ(CONTENT_LENGTH="10")
    seen["wsgi.input"] = stream = Trickle(b"0123456789next request")
    assert read_form(seen, 100) == b"0123456789"
    assert sum(min(size, 3) for size in stream.asked) >= 10
    assert seen["wsgi.input"].read() == b"0123456789"


@pytest.mark.parametrize(
    "terminated", [{"wsgi.input_terminated": True}, {"HTTP_TRANSFER_ENCODING": "chunked"}], ids=["flag", "header"]
)
def test_form_without_a_length_is_read_if_the_server_marks_its_end(terminated: dict[str, Any]):
    seen = environ(**terminated)
    seen["wsgi.input"] = Trickle(b"0123456789")
    assert read_form(seen, 100) == b"0123456789"


@pytest.mark.rule("X-31", "B-26")
def test_form_without_a_length_is_read_up_to_the_limit():
    seen = environ(**{"wsgi.input_terminated": True})
    seen["wsgi.input"] = stream = Trickle(b"x" * 1000)
    with pytest.raises(RequestTooLarge):
        read_form(seen, 10)
    assert sum(min(size, 3) for size in stream.asked) < 20


def test_request_without_a_length_and_an_end_has_no_body():
    seen = environ()
    seen["wsgi.input"] = Trickle(b"whatever comes next on the connection")
    assert read_form(seen, 100) == b""


@pytest.mark.parametrize("length", ["-1", "1e3", "\u0661", "10, 10"])
def test_length_that_is_not_a_number_is_refused(length: str):
    with pytest.raises(InvalidRequest):
        read_form(environ(CONTENT_LENGTH=length), 100)


def test_a_form_that_ends_too_early_is_refused():
    seen = environ(CONTENT_LENGTH="10")
    seen["wsgi.input"] = Trickle(b"012")
    with pytest.raises(InvalidRequest):
        read_form(seen, 100)


@pytest.mark.rule("B-26")
@pytest.mark.parametrize("length", ["101", "1" * 5000], ids=["101", "5000 digits"])
def test_form_with_a_too_large_content_length_is_not_read(length: str):
    seen = environ(CONTENT_LENGTH=length)
    seen["wsgi.input"] = stream = Trickle(b"x" * 101)
    with pytest.raises(RequestTooLarge):
        read_form(seen, 100)
    assert stream.asked == []


@pytest.mark.rule("H-06")
def test_rules_match_the_path_below_the_mount(authority: FakeAuthority):
    guarded = GuardMiddleware(App(), guard=guard_for(authority), rules=[Rule("/items/{item}", all_of("x"))])
    headers = {"HTTP_AUTHORIZATION": f"Bearer {authority.mint('x')}"}
    for prefix, path, expected in (
        ("/v1", "/items/1", "200 OK"),
        ("", "/v1/items/1", "403 Forbidden"),
        ("", "/items/1/2", "403 Forbidden"),
        ("", "/items/\xc3\xa9", "200 OK"),
        ("", "/items/..", "403 Forbidden"),
        ("", "/items/\xff", "403 Forbidden"),
    ):
        started: list[Any] = []
        guarded(environ(SCRIPT_NAME=prefix, PATH_INFO=path, **headers), lambda *a, to=started: to.append(a))
        assert started[0][0] == expected


def test_request_view_is_built_from_an_environ():
    view = request_view(environ(REMOTE_ADDR="192.0.2.7", QUERY_STRING="a=\xe9", CONTENT_TYPE="text/plain"))
    assert (view.method, view.path, view.query, view.secure, view.client) == ("GET", "/", b"a=\xe9", True, "192.0.2.7")
    assert view.headers.get_all("content-type") == (b"text/plain",)
    assert view.headers.get_all("authorization") == ()
    unix = request_view(environ(REMOTE_ADDR="", **{"wsgi.url_scheme": "http"}))
    assert (unix.client, unix.secure) == (None, False)


@pytest.mark.rule("H-05")
def test_exception_in_a_decision_is_raised_and_grants_nothing(
    authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
):
    def raise_bug(request: object) -> None:
        raise RuntimeError("a bug")

    app = App()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    monkeypatch.setattr(authority.transport, "send", raise_bug)
    with pytest.raises(RuntimeError, match="a bug"):
        call_wsgi(GuardMiddleware(app, guard=guard), Exchange(headers=bearer(authority.mint())))
    assert app.environs == []


@pytest.mark.rule("H-19")
def test_an_outage_is_a_503_with_retry_after_and_without_a_challenge(authority: FakeAuthority):
    authority.outage()
    answer = call_wsgi(GuardMiddleware(App(), guard=guard_for(authority)), Exchange(headers=bearer(authority.mint())))
    assert answer.status == 503
    assert int(answer.all("retry-after")[0]) >= 1
    assert answer.all("www-authenticate") == []


def test_a_middleware_without_a_guard_is_refused():
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="guard="):
        GuardMiddleware(App(), guard=nothing)
