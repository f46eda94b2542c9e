"""Client addresses from forwarded headers, and the proxies that are trusted."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import ConfigurationError
from scopeguard.server.forwarded_fields import ASGIForwarded, Proxies, WSGIForwarded


async def fail_if_called(*_: Any) -> Any:
    raise AssertionError("is not called")


KNOWN = Proxies(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("sender", "told", "client"),
    [
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "evil, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.5, 10.9.9.9, 192.0.2.1", "203.0.113.5"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.5, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5,", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5, secret, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db9::5]:4711", "2001:db9::5"),
        ("10.0.0.1", "2001:db9::5", "2001:db9::5"),
        ("10.0.0.1", "::ffff:203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "2001:db9::5%eth0", "10.0.0.1"),
        ("10.0.0.1", "2001:db9::5%eth0\n127.0.0.1 GET /", "10.0.0.1"),
        ("10.0.0.1", "[2001:db9::5%\x1b[31m]:80", "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
    ],
)
def test_list_is_read_from_the_right_up_to_the_first_untrusted_address(sender: str, told: str, client: str):
    assert KNOWN.trusts(sender)
    assert KNOWN.client(sender, told) == client


@pytest.mark.parametrize("sender", ["203.0.113.5", "192.0.2.2", "::1", "2001:db9::1", "proxy", "", "unix", None])
def test_headers_of_untrusted_senders_are_ignored(sender: str | None):
    assert not KNOWN.trusts(sender)
    assert not Proxies().trusts(sender)


def test_unix_socket_peer_is_trusted_if_configured():
    assert Proxies(["unix"]).trusts(None)
    assert not Proxies(["unix"]).trusts("127.0.0.1")


@pytest.mark.parametrize("address", ["proxy.internal", "10.0.0.1/8", "*", "", "10.0.0.0/33"])
def test_invalid_proxy_address_is_refused(address: str):
    with pytest.raises(ConfigurationError, match=r"--trusted-proxy: .*write an IP address, a network"):
        Proxies([address])


@given(st.text())
def test_client_from_any_forwarded_header_is_an_address(told: str):
    ipaddress.ip_address(str(KNOWN.client("10.0.0.1", told)))


@pytest.mark.parametrize(
    ("proto", "scheme", "secure"),
    [
        ("https", "https", "wss"),
        ("HTTPS", "https", "wss"),
        ("https, http", "http", "ws"),
        ("http, https", "https", "wss"),
        ("gopher", "http", "ws"),
        ("", "http", "ws"),
    ],
)
@pytest.mark.anyio
async def test_scheme_is_that_of_the_nearest_proxy(proto: str, scheme: str, secure: str):
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["scheme"])

    headers = [(b"x-forwarded-proto", proto.encode())]
    for kind, plain in (("http", "http"), ("websocket", "ws")):
        scope = {"type": kind, "scheme": plain, "client": ("10.0.0.1", 1), "headers": headers}
        await ASGIForwarded(app, KNOWN)(scope, fail_if_called, fail_if_called)
    assert seen == [scheme, secure]
    environ = {"REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": proto}
    list(WSGIForwarded(lambda e, _: [e["wsgi.url_scheme"].encode()], KNOWN, unix=False)(environ, print))
    assert environ["wsgi.url_scheme"] == scheme


@pytest.mark.anyio
async def test_two_header_lines_form_one_list_and_lifespan_is_unchanged():
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    lines = [(b"x-forwarded-for", b"203.0.113.5"), (b"X-Forwarded-For", b"10.0.0.7")]
    await ASGIForwarded(app, KNOWN)(
        {"type": "http", "client": ("10.0.0.1", 1), "headers": lines}, fail_if_called, fail_if_called
    )
    await ASGIForwarded(app, KNOWN)({"type": "lifespan"}, fail_if_called, fail_if_called)
    assert seen[0]["client"] == ("203.0.113.5", 0)
    assert seen[1] == {"type": "lifespan"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["X-Forwarded-Prefix", "x_forwarded_for", "Forwarded", "X-Real-Ip", "X-Script-Name"])
async def test_forwarded_headers_of_untrusted_senders_do_not_reach_the_app(name: str):
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    headers = [(name.encode(), b"1"), (b"x-forward", b"2"), (b"host", b"3")]
    await ASGIForwarded(app, KNOWN)(
        {"type": "http", "client": ("127.0.0.1", 1), "headers": headers}, fail_if_called, fail_if_called
    )
    assert seen == [headers[1:]]
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_" + name.upper().replace("-", "_"): "1", "HTTP_HOST": "3"}
    list(WSGIForwarded(lambda e, _: [], KNOWN, unix=False)(environ, print))
    assert environ == {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "3"}
