"""Tokens in a field beside ``Authorization``, through every door: no cache gives their responses to other callers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doors import DOORS, Door
from framework_doors import FRAMEWORK_DOORS
from scenarios import REALM, Answered, Exchange
from scopeguard import ChallengeStyle, Guard, TokenSources
from scopeguard.testing import FakeAuthority

PROXY = "192.0.2.1"  # the sender of every exchange
FORWARDED, ASSERTION = "x-forwarded-authorization", "cf-access-jwt-assertion"
# Guard.check has no response of the app.
EVERY_DOOR = {door.name: door for door in (*DOORS, *FRAMEWORK_DOORS) if door.saw}


class FieldApi:
    """The API behind one door, whose guard accepts tokens in *field* and in ``Authorization``."""

    def __init__(self, door: Door, field: str) -> None:
        self._authority = authority = FakeAuthority()
        self._field = field
        issuers = [authority.issuer]
        sources = TokenSources(methods=["header"])
        if field == FORWARDED:
            sources = TokenSources(methods=["header", "forwarded"], trusted_proxies=[PROXY])
        else:
            issuers.append(replace(authority.issuer, token_header=field))
        guard = Guard(
            *issuers,
            challenge=ChallengeStyle(realm=REALM),
            token_sources=sources,
            transport=authority.transport,
            clock=authority.clock,
        )
        self._send = door.opened(guard)

    def send(self, target: str, field: str | None = None) -> Answered:
        token = self._authority.mint("read write")
        value = token if field == ASSERTION else f"Bearer {token}"
        headers = () if field is None else ((field.encode("ascii"), value.encode("ascii")),)
        return self._send(Exchange(target=target, headers=headers))


@pytest.mark.parametrize("field", [FORWARDED, ASSERTION])
@pytest.mark.parametrize("name", EVERY_DOOR)
def test_no_shared_cache_may_store_the_response_to_a_token_in_another_field(name: str, field: str):
    """RFC 9111 section 3.5 protects responses to requests with Authorization only."""
    api = FieldApi(EVERY_DOOR[name], field)
    for target in ("/both", "/optional"):
        answer = api.send(target, field)
        directives = ", ".join(answer.all("cache-control")).split(", ")
        assert (answer.status, "private" in directives, "public" in directives) == (200, True, False)
        usual = api.send(target, "authorization")
        assert (usual.status, "private" in ", ".join(usual.all("cache-control"))) == (200, False)


@pytest.mark.rule("B-54")
@pytest.mark.parametrize("field", [FORWARDED, ASSERTION])
@pytest.mark.parametrize("name", EVERY_DOOR)
def test_response_of_an_optional_route_varies_with_each_field(name: str, field: str):
    fields = ", ".join(FieldApi(EVERY_DOOR[name], field).send("/optional").all("vary"))
    assert {"authorization", field} <= set(fields.lower().split(", "))
