"""Requests with proofs of possession (DPoP, RFC 9449): one table for every door.

The API is that of the scenarios, behind a guard that accepts bound tokens and bearer tokens. Its route ``/bound``
requires a proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from doors import Door, guard_for
from framework_doors import FRAMEWORK_DOORS
from scenarios import Answered, Exchange
from scopeguard import DPoP, Guard
from scopeguard.testing import FakeAuthority, ProofKey

ORIGIN = "https://api.test"
NONCE_KEY = "a secret of the operator, 32 bytes or more"
KEY = ProofKey()
OTHER = ProofKey()

# The doors at which a route has no mode of its own.
WITHOUT_MODES = frozenset(door.name for door in FRAMEWORK_DOORS if door.name == "fastapi-asyncio")


class ProofApi:
    """The API behind one door, and requests to it with a token that is bound to :data:`KEY`."""

    def __init__(
        self,
        door: Door,
        *,
        authority: FakeAuthority | None = None,
        settings: dict[str, Any] | None = None,
        **policy: Any,
    ) -> None:
        self.door = door
        self.authority = authority or FakeAuthority()
        given = {"dpop": DPoP(base_url=ORIGIN, **policy), **(settings or {})}
        self.guard: Guard = guard_for(self.authority, **given)
        self.send = door.opened(self.guard)
        self.bound = self.authority.mint("read write", bound_to=KEY)
        self.bound_reader = self.authority.mint("read", bound_to=KEY)
        self.unbound = self.authority.mint("read write")

    def proof(self, target: str = "/both", method: str = "GET", *, key: ProofKey = KEY, **overrides: Any) -> str:
        token = overrides.pop("token", self.bound)
        now = self.authority.clock.wall()
        return key.proof(token, method, ORIGIN + target.partition("?")[0], at=now, **overrides)

    def request(
        self,
        *proofs: str,
        target: str = "/both",
        method: str = "GET",
        scheme: str = "DPoP",
        token: str | None = None,
        more: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Exchange:
        headers = [(b"authorization", f"{scheme} {token or self.bound}".encode())]
        headers += [(b"dpop", proof.encode()) for proof in proofs]
        return Exchange(method=method, target=target, headers=(*headers, *more))

    def good(self, target: str = "/both", method: str = "GET", **overrides: Any) -> Exchange:
        """Return a request with a good proof of its own."""
        return self.request(self.proof(target, method, **overrides), target=target, method=method)


@dataclass(frozen=True, slots=True)
class ProofScenario:
    """A request, its status, and the error in the challenge of each scheme that the response offers."""

    name: str
    make: Callable[[ProofApi], Exchange]
    status: int
    errors: dict[str, str | None]
    needs_modes: bool = False


def tokens_by_scheme(bearer: str | None = None, dpop: str | None = None) -> dict[str, str | None]:
    return {"Bearer": bearer, "DPoP": dpop}


PROOF_SCENARIOS: tuple[ProofScenario, ...] = (
    ProofScenario("a good proof", lambda api: api.good(), 200, {}),
    ProofScenario("a good proof for a POST", lambda api: api.good(method="POST"), 200, {}),
    ProofScenario("a good proof for HEAD", lambda api: api.good(method="HEAD"), 200, {}),
    ProofScenario("a query beside the proof", lambda api: api.request(api.proof("/none"), target="/none?a=1"), 200, {}),
    ProofScenario("a good proof where one is required", lambda api: api.good("/bound"), 200, {}),
    ProofScenario("optional, a good proof", lambda api: api.good("/optional"), 200, {}),
    ProofScenario("a bearer token", lambda api: api.request(scheme="Bearer", token=api.unbound), 200, {}),
    ProofScenario(
        "a bearer token where a proof is required",
        lambda api: api.request(scheme="Bearer", token=api.unbound, target="/bound"),
        401,
        tokens_by_scheme(),
        needs_modes=True,
    ),
    ProofScenario("no credentials", lambda api: Exchange(), 401, tokens_by_scheme()),
    ProofScenario(
        "the proof of another path",
        lambda api: api.request(api.proof("/none")),
        401,
        tokens_by_scheme(dpop="invalid_dpop_proof"),
    ),
    ProofScenario(
        "the proof of another method",
        lambda api: api.request(api.proof(method="POST")),
        401,
        tokens_by_scheme(dpop="invalid_dpop_proof"),
    ),
    ProofScenario("no proof", lambda api: api.request(), 401, tokens_by_scheme(dpop="invalid_dpop_proof")),
    ProofScenario(
        "two proofs",
        lambda api: api.request(api.proof(), api.proof()),
        401,
        tokens_by_scheme(dpop="invalid_dpop_proof"),
    ),
    ProofScenario(
        "the proof of another key",
        lambda api: api.request(api.proof(key=OTHER)),
        401,
        tokens_by_scheme(dpop="invalid_token"),
    ),
    ProofScenario(
        "an unbound token with a proof",
        lambda api: api.request(api.proof(token=api.unbound), token=api.unbound),
        401,
        tokens_by_scheme(dpop="invalid_token"),
    ),
    ProofScenario(
        "stolen, as a bearer token", lambda api: api.request(scheme="Bearer"), 401, tokens_by_scheme("invalid_token")
    ),
    ProofScenario(
        "stolen, with the proof of the owner",
        lambda api: api.request(api.proof(), scheme="Bearer"),
        401,
        tokens_by_scheme("invalid_token"),
    ),
    ProofScenario(
        "stolen, in the query",
        lambda api: Exchange(target=f"/query?access_token={api.bound}"),
        401,
        tokens_by_scheme("invalid_token"),
    ),
    ProofScenario(
        "in a forwarded field",
        lambda api: Exchange(
            headers=(
                (b"x-forwarded-authorization", f"DPoP {api.bound}".encode()),
                (b"dpop", api.proof().encode()),
            )
        ),
        401,
        tokens_by_scheme(),
    ),
    ProofScenario(
        "a scope missing",
        lambda api: api.request(api.proof(token=api.bound_reader), token=api.bound_reader),
        403,
        {"DPoP": "insufficient_scope"},
    ),
    ProofScenario(
        "a weak sign-in", lambda api: api.good("/gold"), 401, tokens_by_scheme(dpop="insufficient_user_authentication")
    ),
    ProofScenario(
        "optional, stolen",
        lambda api: api.request(scheme="Bearer", target="/optional"),
        401,
        tokens_by_scheme("invalid_token"),
    ),
    ProofScenario(
        "optional, no proof",
        lambda api: api.request(target="/optional"),
        401,
        tokens_by_scheme(dpop="invalid_dpop_proof"),
    ),
)


def challenges(answer: Answered) -> dict[str, str]:
    """Return the parameters of each challenge, by scheme. Each scheme occurs once."""
    values = answer.all("www-authenticate")
    found = dict(value.partition(" ")[::2] for value in values)
    assert len(found) == len(values), values
    return found


def errors(answer: Answered) -> dict[str, str | None]:
    """Return the error in each challenge, by scheme."""
    found = {}
    for scheme, parameters in challenges(answer).items():
        error = parameters.partition('error="')[2].partition('"')[0]
        found[scheme] = error or None
    return found
