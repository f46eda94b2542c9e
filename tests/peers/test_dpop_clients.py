"""openid-client and oauth4webapi call a guarded API with bound tokens of oidc-provider. Both servers demand nonces."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import jwt
import pytest

from environment import plain_environment
from peers import NODE, Peer, node_command, secret_of
from scopeguard import DecisionEvent, DPoP, Guard, Introspection, Issuer, Reason
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen
from scopeguard.testing import ProofKey

ALGORITHMS = ("ES256", "RS256", "PS256", "Ed25519")
NONCE_KEY = "a secret of the operator, 32 bytes or more"


class Case(NamedTuple):
    """A client, the kind of its token (a signature algorithm, else opaque), and the algorithm of its proofs."""

    library: str
    kind: str
    algorithm: str

    @property
    def resource(self) -> str:
        """The resource for which oidc-provider issues tokens of this kind."""
        return f"https://api.example/{self.kind.lower()}"


CASES = [
    Case(library, kind, algorithm)
    for library in ("openid-client", "oauth4webapi")
    for algorithm in ALGORITHMS
    for kind in (algorithm, "opaque")
]


class Api:
    """The guarded API, what its guard decided last, and what each client sent to it."""

    def __init__(self, url: str, reasons: list[Reason | None]) -> None:
        self.url = url
        self.results: dict[Case, Any] = {}
        self._reasons = reasons

    def refusal(self, scheme: str, token: str, proof: str | None = None) -> tuple[int, str, Reason | None]:
        """Send a request. Return the status, the challenge of *scheme*, and the reason of the decision."""
        headers = {"authorization": f"{scheme} {token}"} | ({} if proof is None else {"dpop": proof})
        response = httpx.get(self.url, headers=headers, trust_env=False)
        challenges = response.headers.get_list("www-authenticate")
        return response.status_code, next(c for c in challenges if c.startswith(f"{scheme} ")), self._reasons[-1]


async def _rows(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"rows"})


@pytest.fixture(scope="module")
def api(oidc_provider: Peer) -> Iterator[Api]:
    """The API, after all clients have called it from one process."""
    reasons: list[Reason | None] = []

    def note(event: DecisionEvent) -> None:
        reasons.append(event.reason)

    issuer = f"{oidc_provider.url}/tenant"
    with listen("127.0.0.1", 0) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        guard = Guard(
            Issuer(
                issuer,
                audience=sorted({case.resource for case in CASES}),
                algorithms=ALGORITHMS,
                validate="auto",
                introspection=Introspection(client_id="api:basic", client_secret=secret_of("api:basic")),
            ),
            dpop=DPoP(base_url=origin, algorithms=ALGORITHMS, nonce_keys=[NONCE_KEY]),
            on_decision=note,
            audit="off",
        )
        api = Api(f"{origin}/rows", reasons)
        with closing(guard), Serving(GuardMiddleware(_rows, guard=guard), listener):
            settings = {
                "issuer": issuer,
                "api": api.url,
                "client_id": "machine:1",
                "client_secret": secret_of("machine:1"),
                "cases": [{**case._asdict(), "resource": case.resource} for case in CASES],
            }
            api.results = dict(zip(CASES, run(settings), strict=True))
            yield api


def run(settings: dict[str, Any]) -> list[Any]:
    """Run all cases in one process of Node.js."""
    done = subprocess.run(
        [*node_command("dpop_clients.mjs", package="openid-client"), json.dumps(settings)],
        cwd=NODE,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def nonce_of(proof: str) -> str | None:
    nonce: str | None = jwt.decode(proof, options={"verify_signature": False}).get("nonce")
    return nonce


@pytest.mark.rule("D-01", "D-26", "D-28")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_client_finds_the_nonces_of_both_servers_and_is_admitted(api: Api, oidc_provider: Peer, case: Case):
    result = api.results[case]
    assert result["token_type"].lower() == "dpop"
    assert result["statuses"] == [200, 200]
    if case.kind == "opaque":
        assert "." not in result["token"]
    else:
        assert jwt.get_unverified_header(result["token"])["alg"] == case.kind
    at_token_endpoint = [sent for sent in result["requests"] if sent["url"].startswith(oidc_provider.url)]
    at_api = [sent for sent in result["requests"] if sent["url"] == api.url]
    assert [sent["status"] for sent in at_token_endpoint] == [400, 200]
    assert [sent["status"] for sent in at_api] == [401, 200, 200]
    refused, repeated, next_one = at_api
    assert {jwt.get_unverified_header(sent["dpop"])["alg"] for sent in at_api} == {case.algorithm}
    assert nonce_of(refused["dpop"]) is None
    assert 'error="use_dpop_nonce"' in refused["challenge"]
    assert nonce_of(repeated["dpop"]) == nonce_of(next_one["dpop"]) == refused["nonce"]
    assert len({sent["dpop"] for sent in at_api}) == 3


@pytest.mark.rule("D-43", "D-44", "D-45", "D-54", "D-73")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_thief_with_the_token_and_the_proofs_is_refused(api: Api, case: Case):
    token, used = api.results[case]["token"], api.results[case]["requests"][-1]
    own_proof = ProofKey().proof(token, "GET", api.url, at=time.time(), claims={"nonce": nonce_of(used["dpop"])})
    for scheme, proof, error, reason in (
        ("Bearer", None, "invalid_token", Reason.SENDER_CONSTRAINT_UNPROVEN),
        ("Bearer", used["dpop"], "invalid_token", Reason.SENDER_CONSTRAINT_UNPROVEN),
        ("DPoP", None, "invalid_dpop_proof", Reason.PROOF_MISSING),
        ("DPoP", own_proof, "invalid_token", Reason.WRONG_PROOF_KEY),
        ("DPoP", used["dpop"], "invalid_dpop_proof", Reason.PROOF_USED),
    ):
        status, challenge, found = api.refusal(scheme, token, proof)
        assert (status, found) == (401, reason)
        assert f'error="{error}"' in challenge
