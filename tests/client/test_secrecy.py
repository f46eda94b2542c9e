"""Neither the secret nor a token shows in what a program prints, logs or reports (C-28)."""

from __future__ import annotations

import base64
import copy
import logging
import pickle
import traceback
from urllib.parse import quote_plus

import httpx
import pytest

from scopeguard.client import TokenEndpointError
from scopeguard.edge.http import HttpxTransport

SECRET = "sg-secret-ü/+1"
TOKEN = "sg-opaque-1"
FORMS = [
    SECRET,
    quote_plus(SECRET),
    base64.b64encode(f"client-1:{quote_plus(SECRET)}".encode()).decode(),
    TOKEN,
    "sg-opaque-2",
]


def assert_silent(*texts):
    for text in texts:
        assert not [form for form in FORMS if form in text]


def with_locals(error):
    """The report that an error tracker makes: every frame that *error* leads to, its causes and contexts included,
    with its local variables; without the frames of these tests, which know everything."""
    shown: list[str] = []
    while error is not None:
        shown += [str(error), repr(error)]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                shown += map(repr, frame.f_locals.values())
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


@pytest.mark.rule("C-28")
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_no_repr_and_no_log_shows_secret_or_token(call, credentials, endpoint, api, caplog, auth_method):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="httpx")  # a server of another test may have quieted it
    auth = credentials(client_secret=SECRET, auth_method=auth_method, scopes="read")
    assert call(auth, api((401, {"www-authenticate": "Bearer error=invalid_token"}), 200)).status_code == 200
    token = auth.token()
    assert_silent(repr(auth), str(auth), repr(auth._policy), repr(auth._fetcher), repr(token), str(token))
    assert_silent(repr(vars(auth)), repr(vars(auth._fetcher)), repr(endpoint.seen), caplog.text)
    assert "HTTP Request" in caplog.text
    assert repr(auth._policy.client_secret) == "Secret(...)"
    assert "read" in repr(auth)
    assert "client-1" in repr(auth)


@pytest.mark.rule("C-28")
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    "script",
    [
        lambda e: [e.answer(401, error="invalid_client", error_description=f"unknown secret {SECRET}")],
        lambda e: [e.answer(400, error="custom", error_uri=f"https://as.example/{SECRET}")],
        lambda e: [e.answer(access_token=f"{TOKEN}\r\n", token_type="Bearer")],
        lambda e: [e.answer(access_token=TOKEN, token_type="mac")],
        lambda e: [e.answer(access_token=TOKEN, token_type="Bearer", expires_in="soon")],
        lambda e: [e.answer(access_token=TOKEN, token_type="Bearer", scope="")],
        lambda e: [e.answer(503)] * 3,
        lambda e: [e.outage()] * 3,
    ],
)
def test_no_exception_shows_secret_or_token(call, credentials, endpoint, api, caplog, script, auth_method):
    endpoint.script = script(endpoint)
    auth = credentials(client_secret=SECRET, auth_method=auth_method, scopes="read", narrower_scope="refuse")
    with pytest.raises(Exception) as raised:
        call(auth, api())
    error = raised.value
    assert_silent(str(error), repr(error), with_locals(error), caplog.text)
    assert_silent(str(copy.copy(error)), pickle.dumps(error).decode("latin-1"))


@pytest.mark.rule("C-28")
def test_words_of_the_server_that_quote_the_secret_are_withheld_and_known_codes_are_not(credentials, endpoint, clock):
    endpoint.script = [
        endpoint.answer(400, error="invalid_client", error_description="client", error_uri="https://as.example/client"),
        endpoint.answer(400, error="my_client", error_description="other"),
    ]
    auth = credentials(client_secret="client")
    with pytest.raises(TokenEndpointError) as raised:
        auth.token()
    assert raised.value.error == "invalid_client"
    assert raised.value.error_description == raised.value.error_uri == "(withheld: it quotes the client secret)"
    clock.now += 60  # so long a refused client asks nothing
    with pytest.raises(TokenEndpointError) as raised:
        auth.token()
    assert raised.value.error_description == "other"
    assert "my_client" not in str(raised.value)


@pytest.mark.rule("C-28")
def test_failed_connection_shows_neither_secret_nor_token(call, credentials, api):
    """With the real transport, whose frames hold the request: an exception must not lead back to them."""
    auth = credentials("https://127.0.0.1:1/token", client_secret=SECRET, transport=HttpxTransport(), retries=0)
    with pytest.raises(Exception) as raised:
        call(auth, api())
    assert "authority_unreachable" in str(raised.value)
    assert_silent(str(raised.value), with_locals(raised.value))


@pytest.mark.rule("C-28")
def test_failed_request_shows_no_secret_in_frames_of_scopeguard(credentials, clock):
    def service(request):
        raise httpx.ConnectError("no route")

    auth = credentials(client_secret=SECRET)
    with (
        httpx.Client(transport=httpx.MockTransport(service), auth=auth) as client,
        pytest.raises(httpx.ConnectError) as raised,
    ):
        client.get("https://api.example/")
    assert_silent(with_locals(raised.value))
