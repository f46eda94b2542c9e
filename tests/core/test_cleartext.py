"""The warning about tokens in cleartext http: once, and not behind a trusted proxy that ends TLS."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import Denied, Granted, Guard, HeaderList, MutualTLS, RequestView, TokenSources
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority

PROXY, STRANGER = "10.0.0.1", "203.0.113.7"
HTTPS = (b"x-forwarded-proto", b"https")


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, **settings)


def view(authority: FakeAuthority, *more: tuple[bytes, bytes], client: str | None = PROXY) -> RequestView:
    bearer = (b"authorization", b"Bearer " + authority.mint("read").encode())
    return RequestView(method="GET", path="/", headers=HeaderList([bearer, *more]), secure=False, client=client)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "cleartext" in record.getMessage()]


SOURCES = TokenSources(methods=["header", "forwarded"], trusted_proxies=[PROXY])
CERTIFICATES = MutualTLS(source="nginx", trusted_proxies=["10.0.0.0/24"])


@pytest.mark.parametrize("settings", [{"token_sources": SOURCES}, {"mutual_tls": CERTIFICATES}], ids=["token", "cert"])
def test_trusted_proxy_that_ends_tls_causes_no_warning(authority: FakeAuthority, caplog: Any, settings: Any):
    guard = guard_of(authority, **settings)
    for _ in range(3):
        assert isinstance(guard.check(view(authority, HTTPS)), Granted)
    assert warnings(caplog) == []
    assert isinstance(guard.check(view(authority, HTTPS, client=STRANGER)), Granted)
    (line,) = warnings(caplog)
    assert line.startswith("203.0.113.7 sent a token in cleartext http; ")
    assert isinstance(guard.check(view(authority, client=STRANGER)), Granted)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "fields", [(), ((b"x-forwarded-proto", b"http"),), (HTTPS, HTTPS), ((b"x-forwarded-proto", b"https, http"),)]
)
def test_proxy_that_does_not_say_https_is_reported(authority: FakeAuthority, caplog: Any, fields: Any):
    guard_of(authority, token_sources=SOURCES).check(view(authority, *fields))
    assert len(warnings(caplog)) == 1


def test_proxy_that_is_not_configured_is_not_believed(authority: FakeAuthority, caplog: Any):
    guard_of(authority).check(view(authority, HTTPS))
    assert len(warnings(caplog)) == 1


def test_requests_through_such_a_proxy_take_the_short_way(authority: FakeAuthority, caplog: Any):
    """recall() takes no token from the cache while the warning is due, so it has to know these proxies."""
    guard = guard_of(authority, mutual_tls=CERTIFICATES)
    request = view(authority, HTTPS)
    (field,) = request.headers.get_all("authorization")
    for _ in range(2):
        guard.check(request)
    assert engine_of(guard).recall(field, None, b"", (PROXY, 1)) is not None
    assert engine_of(guard).recall(field, None, b"", (STRANGER, 1)) is None
    assert warnings(caplog) == []


def test_require_https_believes_only_the_server(authority: FakeAuthority):
    guard = guard_of(authority, token_sources=SOURCES, require_https=True)
    refused = guard.check(view(authority, HTTPS))
    assert isinstance(refused, Denied)
    assert refused.error.detail == {"scheme": "http", "client": PROXY}
