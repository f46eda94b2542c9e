"""Certificate-bound tokens behind the proxies that end TLS: nginx, HAProxy and Envoy, in front of ASGI and WSGI."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from waitress.server import create_server

from scopeguard import Guard, MutualTLS
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.serving import Serving
from scopeguard.spec.client_certificate import thumbprint
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuardMiddleware
from tls_proxies import PROXIES, Certificates, running

HEADERS = {"nginx": "X-SSL-Client-Cert", "haproxy": "X-SSL-Client-DER", "envoy": "X-Forwarded-Client-Cert"}
VALUES: dict[str, Callable[[bytes], str]] = {
    "nginx": lambda der: quote(ssl.DER_cert_to_PEM_cert(der), safe=""),
    "haproxy": lambda der: base64.b64encode(der).decode("ascii"),
    "envoy": lambda der: f'Cert="{quote(ssl.DER_cert_to_PEM_cert(der), safe="")}"',
}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"in"]


@contextmanager
def served(interface: str, guard: Guard) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    if interface == "asgi":
        with Serving(GuardMiddleware(asgi_app, guard=guard), listener):
            yield port
        return
    server = create_server(WSGIGuardMiddleware(wsgi_app, guard=guard), sockets=[listener], threads=2)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.close()
        thread.join(20)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.rule("M-01", "M-02", "M-03", "M-12", "M-16", "M-17")
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_a_bound_token_opens_the_api_for_the_holder_of_its_certificate_only(
    proxy: str, interface: str, certificates: Certificates, tmp_path: Path
):
    authority = FakeAuthority(audience="https://api.test")
    mutual_tls = MutualTLS(source=proxy, trusted_proxies=["127.0.0.1"])
    guard = Guard(
        authority.issuer, mutual_tls=mutual_tls, transport=authority.transport, clock=authority.clock, audit="off"
    )
    der = certificates.der("client")
    token = {"authorization": f"Bearer {authority.mint(claims={'cnf': {'x5t#S256': thumbprint(der)}})}"}
    name, value = HEADERS[proxy], VALUES[proxy](der)
    with ExitStack() as stack:
        app = stack.enter_context(served(interface, guard))
        port = stack.enter_context(running(proxy, tmp_path, app, certificates))

        def get(holder: str | None, **more: str) -> int:
            with httpx.Client(verify=certificates.context(holder), trust_env=False) as client:
                return client.get(f"https://127.0.0.1:{port}/", headers=token | more).status_code

        assert get("client") == 200
        assert get("other") == 401
        assert get(None) == 401
        # The client writes the field of the proxy itself, in the spellings that WSGI servers treat as one.
        for spelling in (name, name.lower(), name.replace("-", "_"), name.upper().replace("-", "_")):
            assert get("other", **{spelling: value}) == 401, spelling
            assert get(None, **{spelling: value}) == 401, spelling
        # The holder is not kept out by a field of its own: the proxy replaces it.
        assert get("client", **{name: VALUES[proxy](certificates.der("other"))}) == 200
