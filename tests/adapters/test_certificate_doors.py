"""Certificate-bound tokens through every door, with the certificate in the field of a proxy."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from doors import DOORS, Door, guard_for
from environment import ROOT
from framework_doors import FRAMEWORK_DOORS
from scenarios import Answered, Exchange
from scopeguard import DPoP, MutualTLS
from scopeguard.testing import FakeAuthority

PEM = (ROOT / "tests" / "data" / "rfc8705-appendix-a.pem").read_text("ascii")
THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
PROXY = "192.0.2.1"  # the sender of every exchange
FIELD = b"x-ssl-client-cert"
CERTIFICATE = (FIELD, quote(PEM).encode("ascii"))
# Guard.check is told the sender by its caller; tests/core/test_mutual_tls.py calls it.
EVERY_DOOR = {door.name: door for door in (*DOORS, *FRAMEWORK_DOORS) if door.saw}


class CertificateApi:
    """The API behind one door, and a token that is bound to a certificate."""

    def __init__(self, door: Door, proxy: str = PROXY) -> None:
        authority = FakeAuthority()
        mutual_tls = MutualTLS(source="nginx", trusted_proxies=[proxy])
        # The doors have a route that requires DPoP.
        guard = guard_for(authority, mutual_tls=mutual_tls, dpop=DPoP(base_url="https://api.test"))
        self._send = door.opened(guard)
        self._bound = authority.mint("read write", claims={"cnf": {"x5t#S256": THUMBPRINT}})
        self._unbound = authority.mint("read write")

    def send(self, *fields: tuple[bytes, bytes], bound: bool = True) -> Answered:
        token = self._bound if bound else self._unbound
        credential = (b"authorization", f"Bearer {token}".encode())
        return self._send(Exchange(target="/both", headers=(credential, *fields)))


@pytest.mark.rule("M-01", "M-03", "M-12", "M-13")
@pytest.mark.parametrize("name", EVERY_DOOR)
def test_each_adapter_accepts_the_certificate_in_the_field_of_a_proxy(name: str):
    door = EVERY_DOOR[name]
    api = CertificateApi(door)
    assert api.send(CERTIFICATE).status == 200
    assert api.send().status == 401
    assert api.send((FIELD, b"x")).status == 401
    assert api.send(CERTIFICATE, CERTIFICATE).status == 401
    assert CertificateApi(door, "10.0.0.1").send(CERTIFICATE).status == 401


@pytest.mark.rule("M-15")
@pytest.mark.parametrize("name", EVERY_DOOR)
def test_a_response_that_depends_on_a_certificate_names_its_field_in_vary(name: str):
    api = CertificateApi(EVERY_DOOR[name])
    for _ in range(2):  # from the token cache as well
        assert FIELD.decode() in vary_fields(api.send(CERTIFICATE))
    assert api.send().all("cache-control") == ["no-store"]
    assert vary_fields(api.send(CERTIFICATE, bound=False)) <= {"authorization"}  # in Django, because of its cache


def vary_fields(answer: Answered) -> set[str]:
    """Return the names in the ``Vary`` fields of *answer*."""
    return {name.strip().lower() for value in answer.all("vary") for name in value.split(",")}
