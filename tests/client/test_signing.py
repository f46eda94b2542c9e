"""Requests of the client: sent with a token, repeated after a refusal, or not sent."""

from __future__ import annotations

import io
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from scopeguard.client import OriginNotAllowed, required_scopes

REFUSED: tuple[int, dict[str, str]] = (401, {"www-authenticate": 'Bearer realm="api", error="invalid_token"'})
ONE, TWO, THREE = (f"Bearer sg-opaque-{number}" for number in (1, 2, 3))


def test_a_request_carries_the_token_and_the_next_one_the_same(call, credentials, endpoint, api):
    auth, service = credentials(), api()
    call(auth, service)
    call(auth, service, method="POST", json={"a": 1}, headers={"Authorization": "Basic replaced"})
    assert service.tokens == [ONE, ONE]
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-37")
def test_one_object_works_with_httpx_and_requests_sync_and_async(credentials, endpoint, api):
    auth = credentials()
    for library in (httpx, httpx2):
        service = api(library=library)
        with library.Client(transport=library.MockTransport(service), auth=auth) as client:
            client.get("https://api.example/")

        async def get(library=library, service=service):
            async with library.AsyncClient(transport=library.MockTransport(service), auth=auth) as client:
                await client.get("https://api.example/")

        for backend in ("asyncio", "trio"):
            anyio.run(get, backend=backend)
        assert service.tokens == [ONE] * 3
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-21", "C-42")
@pytest.mark.parametrize(
    "challenges",
    [
        'Bearer error="invalid_token"',
        "bearer ERROR=invalid_token",
        'Basic realm="x, Bearer", DPoP algs="ES256", Bearer realm="a", error="invalid_token"',
    ],
)
def test_a_refused_token_is_replaced_once_and_the_request_sent_once_more(call, credentials, endpoint, api, challenges):
    auth, service = credentials(), api((401, {"www-authenticate": challenges}), 200)
    assert call(auth, service, method="PUT", content=b'{"a":1}').status_code == 200
    assert service.tokens == [ONE, TWO]
    assert [request.content for request in service.seen] == [b'{"a":1}'] * 2
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-21", "C-42")
@pytest.mark.parametrize("said", ["invalid_token", "nothing"])
def test_second_refusal_is_returned_and_later_ones_fetch_less_often(
    call, library, credentials, endpoint, api, clock, said
):
    call.library = library
    refused = [("www-authenticate", 'Negotiate, Bearer error="invalid_token"'), ("www-authenticate", "Basic realm=x")]
    auth, service = credentials(), api((401, refused if said == "invalid_token" else []), library=library)
    assert call(auth, service).status_code == 401
    assert (len(service.seen), len(endpoint.seen)) == (2, 2)
    for pause, fetched in [(0.0, 2), (0.9, 2), (0.1, 3), (1.9, 3), (0.1, 4), (4, 5), (8, 6), (16, 7), (32, 8), (60, 9)]:
        clock.now += pause
        assert call(auth, service).status_code == 401
        assert len(endpoint.seen) == fetched
    clock.now += 59
    assert call(auth, service).status_code == 401
    assert len(endpoint.seen) == 9


def test_a_token_that_was_accepted_is_renewed_at_its_first_refusal_but_once_a_second_at_most(
    call, credentials, endpoint, api, clock
):
    auth = credentials()
    for second in range(5):
        service = api(401, 200, 401)
        assert [call(auth, service).status_code for _ in range(2)] == [200, 401]
        assert len(endpoint.seen) == second + 2
        clock.now += 1


def test_an_api_that_refuses_all_tokens_costs_no_token_request_for_each_call(call, credentials, endpoint, api):
    auth, service = credentials(), api(REFUSED)
    for _ in range(50):
        call(auth, service)
    assert len(endpoint.seen) == 2


@pytest.mark.parametrize("status", [200, 204, 302, 403])
def test_response_to_an_accepted_token_ends_the_pause(call, credentials, endpoint, api, clock, status):
    auth = credentials()
    for _ in range(3):
        call(auth, api(REFUSED))
        clock.now += 2
    assert len(endpoint.seen) == 4
    call(auth, api(status))
    assert call(auth, api(REFUSED, 200)).status_code == 200
    assert len(endpoint.seen) == 5


@pytest.mark.parametrize("status", [400, 404, 407, 429, 500, 503])
def test_other_errors_of_the_api_do_not_show_that_the_token_was_accepted(
    call, credentials, endpoint, api, clock, status
):
    auth = credentials()
    for _ in range(3):
        call(auth, api(REFUSED))
        clock.now += 2
    call(auth, api(status))
    call(auth, api(REFUSED))
    assert len(endpoint.seen) == 4


def test_an_equal_token_from_a_renewal_is_not_sent_again(call, credentials, endpoint, api):
    endpoint.script = [endpoint.answer(access_token="sg-opaque-same", token_type="Bearer")] * 2
    auth, service = credentials(), api(REFUSED)
    assert call(auth, service).status_code == 401
    assert (len(service.seen), len(endpoint.seen)) == (1, 2)


@pytest.mark.parametrize("challenge", [REFUSED[1], {}], ids=["invalid_token", "none"])
def test_refusal_is_returned_if_no_newer_token_can_be_fetched_and_other_apis_are_not_affected(
    call, credentials, endpoint, api, challenge
):
    """One API that errs must not cut off the others while the token endpoint is down."""
    auth = credentials(origins=["https://api.example", "https://other.example"], retries=0)
    call(auth, api())
    endpoint.script = [endpoint.answer(503)]
    assert call(auth, api((401, challenge))).status_code == 401
    assert call(auth, api((401, challenge))).status_code == 401  # the token endpoint is left alone
    service = api()
    assert call(auth, service, url="https://other.example/").status_code == 200
    assert service.tokens == [ONE]
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-22")
@pytest.mark.parametrize(
    "status, challenge",
    [
        (401, "Bearer"),
        (401, 'Bearer realm="api"'),
        (401, 'Bearer error="insufficient_user_authentication", acr_values="high"'),
        (401, 'Bearer error="invalid_request"'),
        (401, 'Bearer error="invalid_token", error="x"'),
        (401, 'DPoP error="invalid_token"'),
        (401, 'Basic realm="Bearer error=invalid_token"'),
        (401, "Negotiate"),
        (403, None),
        (407, None),
        (403, 'Bearer error="insufficient_scope", scope="a"'),
        (403, 'Bearer error="invalid_token"'),
        (400, 'Bearer error="invalid_token"'),
        (200, 'Bearer error="invalid_token"'),
    ],
)
def test_other_responses_cause_no_repetition(call, credentials, endpoint, api, status, challenge):
    auth, service = credentials(), api((status, {} if challenge is None else {"www-authenticate": challenge}))
    assert call(auth, service).status_code == status
    assert (len(service.seen), len(endpoint.seen)) == (1, 1)


@pytest.mark.parametrize("lines", [[], [""], [" "], ["", "\t"]])
def test_a_401_without_a_challenge_renews_the_token_and_sends_the_request_once_more(
    call, library, credentials, endpoint, api, lines
):
    """Gateways answer so, against RFC 9110 section 15.5.2; AWS API Gateway is one."""
    call.library = library
    bare = (401, [("www-authenticate", line) for line in lines])
    auth, service = credentials(), api(bare, 200, library=library)
    assert call(auth, service, method="PUT", content=b"a").status_code == 200
    assert service.tokens == [ONE, TWO]
    assert [request.content for request in service.seen] == [b"a", b"a"]
    assert len(endpoint.seen) == 2


class Streaming(httpx.BaseTransport, httpx.AsyncBaseTransport, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport that sends a body as it comes, like the real one. MockTransport reads it into memory first."""

    def __init__(self, service):
        self.service = service
        self.bodies: list[bytes] = []

    def handle_request(self, request):
        self.bodies.append(b"".join(request.stream))
        return self.service(request)

    async def handle_async_request(self, request):
        self.bodies.append(b"".join([part async for part in request.stream]))
        return self.service(request)


@pytest.mark.rule("C-23")
@pytest.mark.parametrize("refused", [REFUSED, 401], ids=["invalid_token", "bare"])
@pytest.mark.parametrize("body", ["generator", "file", "multipart"])
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_body_that_cannot_be_sent_twice_is_not_and_the_next_request_has_a_new_token(
    credentials, endpoint, api, body, library, refused
):
    bodies: dict[str, dict[str, Any]] = {
        "generator": {"content": (part for part in (b"a", b"b"))},
        "file": {"content": io.BytesIO(b"ab")},
        "multipart": {"files": {"file": io.BytesIO(b"ab")}},
    }
    auth, service = credentials(), api(refused, 200, library=library)
    transport = Streaming(service)
    with library.Client(transport=transport, auth=auth) as client:
        assert client.post("https://api.example/", **bodies[body]).status_code == 401
        assert (service.tokens, len(endpoint.seen)) == ([ONE], 1)
        assert client.get("https://api.example/").status_code == 200
        assert [b"ab" in body for body in transport.bodies] == [True, False]
    assert service.tokens == [ONE, TWO]


@pytest.mark.rule("C-23")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_asynchronous_stream_is_not_sent_twice_either(credentials, api, backend):
    async def parts():
        yield b"a"

    async def main():
        auth, service = credentials(), api(REFUSED, 200)
        transport = Streaming(service)
        async with httpx.AsyncClient(transport=transport, auth=auth) as client:
            assert (await client.post("https://api.example/", content=parts())).status_code == 401
            assert (await client.get("https://api.example/")).status_code == 200
            assert transport.bodies == [b"a", b""]
        assert service.tokens == [ONE, TWO]

    anyio.run(main, backend=backend)


@pytest.mark.rule("C-23")
@pytest.mark.parametrize("options", [{"content": b"ab"}, {"data": {"a": "b"}}, {"json": [1]}, {}])
def test_a_body_in_memory_is_sent_again_whole(call, library, credentials, api, options):
    call.library = library
    service = api(REFUSED, 200, library=library)
    transport = Streaming(service)
    assert call(credentials(), transport, method="POST", **options).status_code == 200
    first, second = transport.bodies
    assert first == second
    assert bool(first) == bool(options)


# -- where the token may go


class Redirecting:
    """An API whose /old redirects to *location*; everything else, wherever it is, answers 401."""

    def __init__(self, location):
        self.location = location
        self.tokens: list[str | None] = []

    def __call__(self, request):
        self.tokens.append(request.headers.get("authorization"))
        if request.url.path == "/old":
            return httpx.Response(307, headers={"location": self.location})
        return httpx.Response(REFUSED[0], headers=REFUSED[1])


@pytest.mark.rule("C-25")
@pytest.mark.parametrize(
    "location",
    ["https://evil.example/new", "https://api.example:444/new", "http://api.example/new", "//evil.example/new"],
)
def test_a_redirect_to_another_origin_does_not_take_the_token_along(call, credentials, endpoint, location):
    service = Redirecting(location)
    response = call(credentials(), service, url="https://api.example/old", follow_redirects=True)
    assert response.status_code == 401
    assert service.tokens == [ONE, None]
    assert len(endpoint.seen) == 1  # and its 401 is not about our token


@pytest.mark.rule("C-25")
def test_a_redirect_that_comes_back_by_another_origin_has_lost_the_token(call, credentials):
    def service(request):
        seen.append(request.headers.get("authorization"))
        hops = {"/old": "https://evil.example/hop", "/hop": "https://api.example/new"}
        location = hops.get(request.url.path)
        return httpx.Response(307, headers={"location": location}) if location else httpx.Response(200)

    seen: list[str | None] = []
    call(credentials(), service, url="https://api.example/old", follow_redirects=True)
    assert seen == [ONE, None, None]


@pytest.mark.rule("C-21", "C-25")
def test_after_a_redirect_only_the_refused_request_is_repeated(call, credentials):
    def service(request):
        seen.append((request.method, request.url.path, request.headers.get("authorization")))
        if request.url.path == "/old":
            return httpx.Response(303, headers={"location": "/new"})
        return httpx.Response(REFUSED[0], headers=REFUSED[1]) if len(seen) == 2 else httpx.Response(200)

    seen: list[tuple[str, str, str | None]] = []
    response = call(
        credentials(), service, url="https://api.example/old", method="POST", json={}, follow_redirects=True
    )
    assert response.status_code == 200
    assert seen == [("POST", "/old", ONE), ("GET", "/new", ONE), ("GET", "/new", TWO)]


@pytest.mark.rule("C-25")
def test_by_default_the_token_is_for_the_origin_of_the_first_request(call, credentials, api):
    auth, service = credentials(), api()
    call(auth, service, url="https://api.example/a")
    call(auth, service, url="https://API.example:443/b")
    for elsewhere in ("https://evil.example/", "https://api.example:444/", "https://api.example.evil.example/"):
        with pytest.raises(OriginNotAllowed, match="origins"):
            call(auth, service, url=elsewhere)
    assert len(service.seen) == 2
    assert call(None, service, url="https://evil.example/").status_code == 200
    assert service.tokens[-1] is None


@pytest.mark.rule("C-25")
def test_configured_origins_and_no_others_get_the_token(call, credentials, api):
    auth = credentials(origins=["https://a.example", "https://b.example:8443/", "http://[::1]:8080"])
    service = api()
    allowed = ["https://a.example/x", "https://b.example:8443/", "http://[::1]:8080/", "wss://a.example/socket"]
    for url in allowed:
        call(auth, service, url=url)
    assert service.tokens == [ONE] * len(allowed)
    for elsewhere in ("https://b.example/", "https://c.example/", "http://[::1]/", "https://sub.a.example/"):
        with pytest.raises(OriginNotAllowed):
            call(auth, service, url=elsewhere)
    assert len(service.seen) == len(allowed)


@pytest.mark.rule("C-25")
@pytest.mark.parametrize("url", ["http://api.example/", "http://localhost.evil.example/", "http://127.0.0.1.nip.io/"])
def test_cleartext_beyond_loopback_is_refused_and_nothing_is_fetched_for_it(call, credentials, endpoint, api, url):
    service = api()
    with pytest.raises(OriginNotAllowed, match="https"):
        call(credentials(), service, url=url)
    assert (service.seen, endpoint.seen) == ([], [])


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/", "http://localhost/", "http://[::1]:1/"])
def test_loopback_may_be_cleartext(call, credentials, api, url):
    service = api()
    call(credentials(), service, url=url)
    assert service.tokens == [ONE]


def test_a_host_in_another_alphabet_is_the_same_origin_as_its_ascii_form(call, credentials, api):
    service = api()
    call(credentials(origins="https://xn--bcher-kva.example"), service, url="https://bücher.example/")
    assert service.tokens == [ONE]


# -- scopes in challenges


@pytest.mark.rule("C-22", "C-38")
def test_a_403_comes_back_untouched_and_its_scopes_can_be_read(call, library, credentials, endpoint, api):
    call.library = library
    challenge = 'Basic realm=x, Bearer error="insufficient_scope", scope="bigquery  bigquery.insertdata bigquery"'
    response = call(credentials(), api((403, {"www-authenticate": challenge}), library=library))
    assert required_scopes(response) == ("bigquery", "bigquery.insertdata")
    with pytest.raises(library.HTTPStatusError) as raised:
        response.raise_for_status()
    assert required_scopes(raised.value.response) == ("bigquery", "bigquery.insertdata")
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-38")
@pytest.mark.parametrize(
    "lines, scopes",
    [
        ([], ()),
        (["Bearer realm=x, scope=a"], ()),
        (["Bearer error=insufficient_scope"], ()),
        (["Bearer error=invalid_token, scope=a"], ()),
        (["Basic error=insufficient_scope, scope=a"], ()),
        (["DPoP error=insufficient_scope, scope=a"], ("a",)),
        (['Bearer error=insufficient_scope, scope="a b"', "DPoP error=insufficient_scope, scope=c"], ("a", "b", "c")),
    ],
)
def test_only_challenges_about_scope_name_required_scopes(lines, scopes):
    response = httpx.Response(403, headers=[("www-authenticate", line) for line in lines])
    assert required_scopes(response) == scopes
