"""Certificate-bound tokens behind the proxies that end TLS: nginx, HAProxy and Envoy, in front of ASGI and WSGI."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from scopeguard import Guard, MutualTLS
from scopeguard.spec.certificate_fields import thumbprint
from scopeguard.testing import FakeAuthority
from tls_proxies import PROXIES, Certificates, run_proxy, serve_app

HEADERS = {"nginx": "X-SSL-Client-Cert", "haproxy": "X-SSL-Client-DER", "envoy": "X-Forwarded-Client-Cert"}
VALUES: dict[str, Callable[[bytes], str]] = {
    "nginx": lambda der: quote(ssl.DER_cert_to_PEM_cert(der), safe=""),
    "haproxy": lambda der: base64.b64encode(der).decode("ascii"),
    "envoy": lambda der: f'Cert="{quote(ssl.DER_cert_to_PEM_cert(der), safe="")}"',
}


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
        app = stack.enter_context(serve_app(interface, guard))
        port = stack.enter_context(run_proxy(proxy, tmp_path, app, certificates))

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
        # A field that the holder of the certificate sends has no effect, because the proxy replaces it.
        assert get("client", **{name: VALUES[proxy](certificates.der("other"))}) == 200
