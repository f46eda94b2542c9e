"""Providers to mint with: their samples, dated anew and signed with fresh keys, and a network that publishes these."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, get_default_algorithms

from rsa_keys import rsa_key
from scopeguard import Guard, HeaderList, Issuer, RequestView
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision
from scopeguard.testing import FakeClock

SAMPLES = Path(__file__).parents[1] / "data" / "providers"
DATES = ("exp", "iat", "nbf", "auth_time")
JSON = {"content-type": "application/json"}


@cache
def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))
    return found


@cache
def private_key(algorithm: str) -> Any:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa_key()


def jwk(algorithm: str, kid: str, **members: Any) -> dict[str, Any]:
    """The public key, as sparse as Entra publishes it: no ``alg``."""
    kind = ECAlgorithm if algorithm == "ES256" else RSAAlgorithm
    public = json.loads(kind.to_jwk(private_key(algorithm).public_key()))
    return {"kty": public["kty"], "kid": kid, "use": "sig", **public, "key_ops": ["verify"], **members}


def padded_segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def pem(key: Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def shift(members: Mapping[str, Any], by: float) -> dict[str, Any]:
    """*members* with every date later by *by* seconds, in numbers and in strings of digits."""
    moved = dict(members)
    for name in DATES:
        if name in moved:
            moved[name] = type(moved[name])(int(moved[name]) + int(by))
    return moved


def mint_sample(
    name: str,
    now: float,
    *,
    claims: Mapping[str, Any] | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Sample *name* as a token of now; *claims* and *header* replace members, ``None`` removes them."""
    given = sample(name)
    if given["kind"] == "opaque":
        return str(given["token"])
    head = _replace(shift(given["header"], now - given["time_base"]), header)
    if given["kind"] == "jwe":
        return segment(json.dumps(head).encode()) + "..aXY.Y2lwaGVy.dGFn"
    body = _replace(shift(given["claims"], now - given["time_base"]), claims)
    return sign(head, body, padded="encoding" in given)


def sign(head: Mapping[str, Any], body: Mapping[str, Any], *, padded: bool = False) -> str:
    encode = padded_segment if padded else segment
    content = ".".join(encode(json.dumps(part).encode()) for part in (head, body))
    signer = get_default_algorithms()[head["alg"]]
    return f"{content}.{encode(signer.sign(content.encode(), private_key(head['alg'])))}"


def _replace(members: Mapping[str, Any], by: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in {**members, **(by or {})}.items() if value is not None}


class Internet:
    """Publishes metadata of *issuer* and the keys *keys* wherever they are looked for; *introspects* answers POSTs."""

    def __init__(
        self, issuer: Issuer, keys: list[dict[str, Any]], introspects: Callable[[Send], Answer] | None = None
    ) -> None:
        self.sends: list[Send] = []
        self._issuer, self._keys, self.introspects = issuer, keys, introspects

    def send(self, request: Send, /) -> Answer:
        self.sends.append(request)
        if request.form is not None or request.url.endswith("/oauth/token/info"):
            assert self.introspects is not None
            return self.introspects(request)
        if request.url.startswith("https://public-keys.auth.elb."):
            return Answer(200, pem(private_key("ES256").public_key()), {"content-type": "application/octet-stream"})
        if "/.well-known/o" in request.url:  # and not jwks.json, which is there as well
            return Answer(200, json.dumps({"issuer": self._issuer.url, "jwks_uri": f"{KEYS}/jwks"}).encode(), JSON)
        return Answer(200, json.dumps({"keys": self._keys}).encode(), JSON)

    async def asend(self, request: Send, /) -> Answer:
        return self.send(request)

    def close(self) -> None:
        pass


KEYS = "https://keys.example"


def published_keys() -> list[dict[str, Any]]:
    """The keys of every sample, under its own key id, and keys of both kinds called ``k``."""
    heads = [sample(path.stem)["header"] for path in sorted(SAMPLES.glob("*.json")) if "header" in sample(path.stem)]
    pairs = dict.fromkeys((head["alg"], head["kid"]) for head in heads if "kid" in head)
    return [jwk(algorithm, kid) for algorithm, kid in (*pairs, ("ES256", "k"))]


class World:
    """A guard that trusts *issuers*, the network they are on, and the time."""

    def __init__(
        self,
        *issuers: Issuer,
        keys: list[dict[str, Any]] | None = None,
        introspects: Callable[[Send], Answer] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.internet = Internet(issuers[0], published_keys() if keys is None else keys, introspects)
        self.guard = Guard(*issuers, transport=self.internet, clock=self.clock)

    @property
    def now(self) -> float:
        return self.clock.wall()

    def judge(self, token: str, header: str = "Authorization") -> Decision:
        value = f"Bearer {token}" if header == "Authorization" else token
        fields = HeaderList([(header.lower().encode(), value.encode())])
        return self.guard.check(RequestView(method="GET", path="/", headers=fields))

    def judge_sample(self, name: str, **changes: Any) -> Decision:
        """Sample *name*, sent where its provider sends it."""
        return self.judge(mint_sample(name, self.now, **changes), sample(name).get("request_header", "Authorization"))
