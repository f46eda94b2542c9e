"""The largest token and proof through nginx, HAProxy and Envoy: as docs/servers.md says, and with its settings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from algorithms import ML_DSA_HERE
from environment import ROOT
from scopeguard import DPoP, Guard
from scopeguard.testing import FakeAuthority, ProofKey
from tls_proxies import LARGE_HEADS, Certificates, run_proxy, serve_app

PAGE = (ROOT / "docs" / "servers.md").read_text("utf-8")
ORIGIN = "https://api.test"
REFUSALS = {"nginx": 400, "haproxy": 400}


@pytest.mark.rule("PQ-05")
@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "envoy"])
def test_the_largest_token_and_proof_pass_with_the_documented_setting(proxy: str, tmp_path: Path):
    if not ML_DSA_HERE:
        return
    authority = FakeAuthority(audience=ORIGIN, algorithm="ML-DSA-87")
    policy = DPoP(base_url=ORIGIN, algorithms=("ML-DSA-87",), max_proof_bytes=16384)
    guard = Guard(authority.issuer, dpop=policy, transport=authority.transport, clock=authority.clock, audit="off")
    key = ProofKey("ML-DSA-87")
    token = authority.mint(claims=key.confirmation)
    certificates = Certificates(tmp_path)
    statuses = {}
    with serve_app("wsgi", guard) as app:
        for large_heads in (False, True) if proxy in LARGE_HEADS else (False,):
            folder = tmp_path / f"large-heads-{large_heads}"
            folder.mkdir()
            with ExitStack() as stack:
                port = stack.enter_context(run_proxy(proxy, folder, app, certificates, large_heads=large_heads))
                client = stack.enter_context(httpx.Client(verify=certificates.context(None), trust_env=False))
                headers = key.headers(token, "GET", f"{ORIGIN}/", at=authority.clock.wall())
                assert sum(map(len, headers.values())) > 17_000
                statuses[large_heads] = client.get(f"https://127.0.0.1:{port}/", headers=headers).status_code
    if proxy in LARGE_HEADS:
        assert statuses == {False: REFUSALS[proxy], True: 200}
        assert f"`{LARGE_HEADS[proxy].rpartition('    ')[2]}`" in PAGE
    else:
        assert statuses == {False: 200}
