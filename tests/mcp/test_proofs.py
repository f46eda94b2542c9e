"""Proofs of possession (RFC 9449) in front of an MCP server."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from mcp_calls import RESOURCE, Answer, Server, call, new, tool_call
from scopeguard import DPoP, all_of
from scopeguard.mcp import Tool
from scopeguard.testing import ProofKey

KEY = ProofKey()
MESSAGE = tool_call("read_file", name="a")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.rule("D-01", "D-31", "D-32", "D-44", "D-54")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tools_are_called_with_a_proof(server: Server, backend: str):
    policy = DPoP(mode="required", nonce_keys=["a secret of the operator, 32 bytes or more"], nonce_lifetime=100)
    app = server.protect([Tool("read_*", all_of("read"))], guard=server.guard(dpop=policy))
    token = server.authority.mint("read", bound_to=KEY)

    def send(scheme: str = "DPoP", proof: str | None = None, **claims: Any) -> Answer:
        now = server.authority.clock.wall()
        proof = proof or KEY.proof(token, "POST", RESOURCE, at=now, claims=claims)
        headers = [(b"authorization", f"{scheme} {token}".encode()), (b"dpop", proof.encode())]
        headers += new("tools/call", "read_file")
        return anyio.run(partial(call, app, MESSAGE, *headers), backend=backend)

    def nonces(answer: Answer) -> list[str]:
        return [value.decode() for name, value in answer.headers if name == b"dpop-nonce"]

    refused = send()
    assert (refused.status, 'error="use_dpop_nonce"' in refused.challenge, refused.received) == (401, True, None)
    assert 'scope="read"' in refused.challenge
    (nonce,) = nonces(refused)
    server.authority.clock.advance(60)
    once = KEY.proof(token, "POST", RESOURCE, at=server.authority.clock.wall(), claims={"nonce": nonce})
    granted = send(proof=once)
    assert granted.status == 200
    (fresh,) = nonces(granted)
    assert fresh != nonce
    assert send(proof=once).status == 401
    stolen = send("Bearer", nonce=fresh)
    assert (stolen.status, stolen.challenge.partition(" ")[0]) == (401, "DPoP")
    assert send(nonce=fresh).status == 200
    assert send(nonce=fresh, htu=RESOURCE + "/other").status == 401
