"""The token endpoint as the issuer's metadata names it."""

from __future__ import annotations

import json

import pytest

from scopeguard.client import TokenEndpointError, TokenEndpointUnavailable
from scopeguard.flow.effects import Answer, Send

ISSUER = "https://as.example/t1"
OAUTH = "https://as.example/.well-known/oauth-authorization-server/t1"
OPENID = "https://as.example/.well-known/openid-configuration/t1"
APPENDED = "https://as.example/t1/.well-known/openid-configuration"
GOOD = {"issuer": ISSUER, "token_endpoint": "https://login.example/token"}


@pytest.fixture
def documents(endpoint):
    """``published[url] = answer``: what lies where; everything else is the token endpoint."""
    places: dict[str, Answer] = {}
    inner = endpoint.send

    def send(request):
        if ".well-known" not in request.url:
            return inner(request)
        asked.append(request)
        return places.get(request.url, Answer(404, b"", {}))

    asked: list[Send] = []
    endpoint.send = send
    endpoint.asked = asked
    return places


def document(**members):
    return Answer(200, json.dumps(members).encode(), {"content-type": "application/json; charset=utf-8"})


@pytest.mark.rule("C-30")
@pytest.mark.parametrize(
    "place, asked", [(OAUTH, [OAUTH]), (OPENID, [OAUTH, OPENID]), (APPENDED, [OAUTH, OPENID, APPENDED])]
)
def test_the_metadata_is_found_and_the_endpoint_it_names_is_used(call, credentials, endpoint, documents, place, asked):
    documents[place] = document(**GOOD)
    auth = credentials(issuer=ISSUER, scopes="read")
    assert call.token(auth).access_token == "sg-opaque-1"
    assert [request.url for request in endpoint.asked] == asked
    assert [request.url for request in endpoint.seen] == ["https://login.example/token"]
    assert all(request.form is None and request.authorization is None for request in endpoint.asked)
    assert "https://as.example/t1" in repr(auth)


@pytest.mark.rule("C-30")
@pytest.mark.parametrize(
    "members, problem",
    [
        ({**GOOD, "issuer": "https://as.example/t1/"}, "issuer"),
        ({**GOOD, "issuer": "https://AS.example/t1"}, "issuer"),
        ({**GOOD, "issuer": "https://evil.example"}, "issuer"),
        ({**GOOD, "token_endpoint": "http://login.example/token"}, "token_endpoint"),
        ({**GOOD, "token_endpoint": "https://169.254.169.254/token"}, "token_endpoint"),
    ],
)
def test_metadata_that_must_not_be_used_is_not(call, credentials, endpoint, documents, members, problem):
    documents[OAUTH] = document(**members)
    documents[APPENDED] = document(**GOOD)
    with pytest.raises(TokenEndpointError, match=problem):
        call.token(credentials(issuer=ISSUER))
    assert endpoint.seen == []


@pytest.mark.rule("C-30")
@pytest.mark.parametrize(
    "first",
    [
        document(token_endpoint="https://as.example/token"),
        document(issuer=ISSUER),
        document(error="not found"),
        Answer(200, b"[]", {"content-type": "application/json"}),
        Answer(401, b"", {}),
        Answer(503, b"", {}),
    ],
    ids=["no issuer", "no token_endpoint", "error", "array", "401", "503"],
)
def test_the_search_continues_after_a_document_that_does_not_name_it(credentials, endpoint, documents, first):
    documents[OAUTH] = first
    documents[APPENDED] = document(**GOOD)
    credentials(issuer=ISSUER).token()
    assert endpoint.seen[0].url == "https://login.example/token"


def test_metadata_that_name_no_endpoint_anywhere_are_an_error(credentials, endpoint, documents):
    documents[OPENID] = document(issuer=ISSUER)
    with pytest.raises(TokenEndpointError, match="has no token_endpoint; set token_url"):
        credentials(issuer=ISSUER).token()
    assert endpoint.seen == []


@pytest.mark.rule("C-30")
def test_a_web_page_for_every_path_is_passed_over(credentials, endpoint, documents):
    documents[OAUTH] = Answer(200, b"<html>", {"content-type": "text/html"})
    documents[OPENID] = Answer(302, b"", {"location": "https://evil.example/"})
    documents[APPENDED] = document(**GOOD)
    credentials(issuer=ISSUER).token()
    assert endpoint.seen[0].url == "https://login.example/token"


def test_no_metadata_anywhere_is_an_error_that_names_the_places(credentials, endpoint, documents):
    with pytest.raises(TokenEndpointError, match=r"oauth-authorization-server/t1 nor .*openid-configuration") as raised:
        credentials(issuer=ISSUER).token()
    assert raised.value.status == 404
    assert endpoint.seen == []


def test_an_outage_of_the_metadata_is_an_outage(credentials, endpoint, documents):
    documents[OAUTH] = Answer(503, b"", {})
    with pytest.raises(TokenEndpointUnavailable, match="503"):
        credentials(issuer=ISSUER).token()
    assert [request.url for request in endpoint.asked] == [OAUTH] * 3 + [OPENID, APPENDED]


def test_the_endpoint_is_looked_up_again_after_an_hour_and_after_a_failure(credentials, endpoint, documents, clock):
    documents[OAUTH] = document(**GOOD)
    endpoint.expires_in = 0
    auth = credentials(issuer=ISSUER)
    auth.token()
    clock.now += 3599
    auth.token()
    assert len(endpoint.asked) == 1
    clock.now += 1
    auth.token()
    assert len(endpoint.asked) == 2
    clock.now += 1
    endpoint.script = [endpoint.answer(404)]
    with pytest.raises(TokenEndpointError):
        auth.token()
    auth.token()
    assert len(endpoint.asked) == 3
