"""A revoked token stays revoked in each equivalent form."""

from __future__ import annotations

import base64

import pytest

from scopeguard import Denied, Granted, Guard, Introspection, Issuer, Reason, Validation
from scopeguard.request import HeaderList, RequestView
from scopeguard.testing import FakeAuthority

# FIPS 186-4, D.1.2.3: the order of the group of P-256.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def rewritten(token: str) -> str:
    """Return *token* with its other valid signature: (r, n - s) for (r, s), which anyone can compute."""
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    other = r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big")
    return f"{signed}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}"


def request(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())]))


@pytest.mark.rule("E-17")
def test_jwt_is_revoked_with_each_valid_signature():
    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    token, neighbour = (authority.mint("read", algorithm="ES256") for _ in range(2))
    other = rewritten(token)
    assert other != token
    assert isinstance(guard.check(request(other)), Granted)
    guard.revoke(token=token)
    for form in (token, other):
        refused = guard.check(request(form))
        assert isinstance(refused, Denied)
        assert refused.error.reason is Reason.TOKEN_REVOKED
    assert isinstance(guard.check(request(neighbour)), Granted)


def test_opaque_token_with_dots_is_revoked_as_a_whole():
    authority = FakeAuthority()
    issuer = Issuer(
        authority.url,
        audience=authority.audience,
        validate=Validation.AUTO,
        introspection=Introspection(client_id=authority.api.client_id, client_secret=authority.api.secret),
    )
    guard = Guard(issuer, transport=authority.transport, clock=authority.clock)
    token = authority.mint("read", token_format="opaque")
    guard.revoke(token="sg-opaque-v4.public.one")
    assert isinstance(guard.check(request(token)), Granted)
    guard.revoke(token=token)
    refused = guard.check(request(token))
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.TOKEN_REVOKED
