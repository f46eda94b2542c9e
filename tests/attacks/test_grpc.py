"""Hostile tokens and proofs in the metadata of gRPC calls: refused as over ASGI, and no status shows them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from doors import guard_for
from grpc_servers import GrpcServer, Outcome
from scopeguard import DPoP, Rule, all_of
from scopeguard.testing import FakeAuthority, bad_proofs, bad_tokens

URI = "https://api.test/plain/x"
RULES = [Rule("/plain/{method}", all_of("read"))]


def is_printable(value: str) -> bool:
    """Return whether a client sends *value*: it refuses other metadata itself."""
    return all(" " <= character < "\x7f" for character in value) and len(value) < 8000


def shows(outcome: Outcome, secret: str) -> bool:
    text = outcome.details + "".join(str(value) for _, value in outcome.trailing)
    return any(len(segment) > 12 and segment in text for segment in secret.split("."))


@pytest.mark.rule("X-01", "X-02", "X-04", "X-17", "X-40")
def test_each_hostile_token_is_refused(grpc_server: GrpcServer):
    authority, wrong, sent = FakeAuthority(), [], 0
    name = grpc_server.add_guarded(guard_for(authority), rules=RULES)

    def call(token: str) -> Outcome:
        return grpc_server.call(name, "/plain/x", [("authorization", f"Bearer {token}")])

    assert call(authority.mint("read")).code is grpc.StatusCode.OK
    for bad_name, bad in bad_tokens(authority).items():
        if not is_printable(bad.token):
            continue
        sent += 1
        outcome = call(bad.token)
        if outcome.code is grpc.StatusCode.UNAVAILABLE:  # its key is unknown, and the budget for fetches is spent
            wall = authority.clock.wall()
            authority.clock.advance(float(outcome.all("retry-after")[0]))
            authority.clock.set_wall(wall)  # so that the tokens of the corpus do not expire
            outcome = call(bad.token)
        error = "invalid_token" if bad.status == 401 else "invalid_request"
        (challenge,) = outcome.all("www-authenticate")
        if outcome.code is not grpc.StatusCode.UNAUTHENTICATED or f'error="{error}"' not in challenge:
            wrong.append(f"{bad_name}: {outcome.code} {challenge}")
        if shows(outcome, bad.token):
            wrong.append(f"{bad_name}: the status shows the token")
    assert sent > 120
    assert not wrong, "\n".join(wrong)


@pytest.mark.rule("D-03", "D-17", "D-44", "D-45", "D-46")
def test_each_bad_proof_is_refused(grpc_server: GrpcServer):
    authority, wrong, sent = FakeAuthority(), [], 0
    name = grpc_server.add_guarded(guard_for(authority, dpop=DPoP(base_url="https://api.test")), rules=RULES)
    for bad_name, bad in bad_proofs(authority, uri=URI, method="POST").items():
        fields: Any = [(field.lower(), value) for field, value in bad.headers]
        if not all(is_printable(value) for _, value in fields):
            continue
        sent += 1
        outcome = grpc_server.call(name, "/plain/x", fields)
        challenges = dict(value.partition(" ")[::2] for value in outcome.all("www-authenticate"))
        errors = {scheme: text.partition('error="')[2].partition('"')[0] or None for scheme, text in challenges.items()}
        other = {"DPoP": "Bearer", "Bearer": "DPoP"}[bad.scheme]
        if outcome.code is not grpc.StatusCode.UNAUTHENTICATED or errors != {bad.scheme: bad.error, other: None}:
            wrong.append(f"{bad_name}: {outcome.code} {errors}, not {bad.error}")
        if any(shows(outcome, secret) for secret in (bad.token, *bad.proofs)):
            wrong.append(f"{bad_name}: the status shows the token or the proof")
    assert sent > 110
    assert not wrong, "\n".join(wrong)
