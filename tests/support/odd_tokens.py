"""Signed tokens with odd claims, odd JSON and odd base64, for a comparison of the two ways to judge a new token.

    python tests/support/odd_tokens.py 300000     # compares that many; the suite compares a few thousand

Most faults are single: a claim with a value of another type, at a limit, or with the text of another claim. A few
tokens have several.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.authenticate import validate
from scopeguard.flow.credentials import Credential
from scopeguard.flow.immediate import verify_at_once
from scopeguard.guard import Guard, engine_of
from scopeguard.state.token_cache import TokenCache
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import AccessToken

NAMES = (
    "iss", "aud", "exp", "iat", "nbf", "sub", "jti", "client_id", "scope", "cnf", "act", "nonce", "events", "at_hash",
    "token_use", "token_type", "typ", "type", "purpose", "scp", "azp", "cid", "roles", "groups", "auth_time", "status",
    "htm", "status_list", "vct", "tid",
)  # fmt: skip
ENDS = (
    '"NaN":NaN', '"i":Infinity', '"n":-0', '"n":1E2', '"n":1e400', '"n":01', '"s":"\\ud800"', '"s":"\\u0041"',
    '"s":"\t"', '"s":"\\/"', '"o":{"a":1,"a":2}', '"d":' + "[" * 40 + "]" * 40, '"n":' + "9" * 40, '"n":-' + "9" * 400,
    '"s":"\u00e9"',
)  # fmt: skip


def odd_values(audience: str, issuer: str, now: float) -> tuple[Any, ...]:
    """Return values that a claim may have: of each JSON type, at limits, and those of other claims."""
    return (
        None, "", 0, 1, -1, 1.5, True, False, [], ["x"], [""], [1], {}, {"a": 1}, {"jkt": "x"}, "x", " x", "x  y", " ",
        1e15, 1e17, -1e17, 2**53, 2**53 + 2, 10**400, -(10**400), now, now - 100, now + 100, int(now),
        int(now) - 30, int(now) + 30,
        now + 29.9, now + 30.1, str(int(now) + 60), audience, [audience], [audience, ""], [audience, 1],
        [audience, audience], audience + "/", "JWT", "id", "access", "refresh", "Bearer", "DPoP", "\u00e9",
        "\U0001f600", "a\\b", 'q"q', issuer, issuer + "/", issuer.upper(),
    )  # fmt: skip


class OddTokens:
    """An endless series of odd tokens of *authority*, the same for the same *seed*."""

    def __init__(self, authority: FakeAuthority, seed: int, **claims: Any) -> None:
        self._random = random.Random(seed)
        good = authority.mint("read write", **claims)
        self._header, payload, _ = good.split(".")
        self._claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
        audience = self._claims["aud"]
        self._values = odd_values(
            audience if isinstance(audience, str) else audience[0], self._claims["iss"], authority.clock.wall()
        )
        self._sign: Callable[[bytes], bytes] = authority.key().sign

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self._token()

    def _token(self) -> str:
        draw = self._random
        claims = dict(self._claims, jti=f"{draw.getrandbits(64):x}")
        for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3))):
            name = draw.choice(NAMES)
            if draw.random() < 0.25:
                claims.pop(name, None)
            else:
                claims[name] = draw.choice(self._values)
        payload = _encode(self._text(claims).encode("utf-8", "surrogatepass"))
        if draw.random() < 0.03:
            payload += "="
        if draw.random() < 0.03:
            payload = payload[:-1] + draw.choice("ABCDwxyz-_+/")
        signed = f"{self._header}.{payload}"
        signature = bytearray(self._sign(signed.encode()))
        if draw.random() < 0.05:
            signature[draw.randrange(len(signature))] ^= 1 << draw.randrange(8)
        last = _encode(bytes(signature))
        if draw.random() < 0.03:
            last = last[:-1] + draw.choice("ABCDwxyz-_")
        if draw.random() < 0.02:
            last += draw.choice(("AAAA", ".", "=", ""))
        return f"{signed}.{last}"

    def _text(self, claims: dict[str, Any]) -> str:
        draw = self._random
        text = json.dumps(claims, separators=draw.choice(((",", ":"), (", ", ": "))), ensure_ascii=draw.random() < 0.3)
        if draw.random() < 0.8:
            return text
        again = f"{json.dumps(draw.choice(NAMES))}:{json.dumps(draw.choice(self._values))}"
        return draw.choice(
            (
                f"{text[:-1]},{again}}}", f"{text[:-1]},{draw.choice(ENDS)}}}", " " + text, text + " ", text + "\n",
                text + "x", text + "{}", f"[{text}]", "\ufeff" + text, text.replace(":", " :", 2), text[:-1], "",
                "null",
            )
        )  # fmt: skip


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Comparison:
    """Judges tokens by :func:`verify_at_once` and by the flow of *guard*, which has accepted the header of *known*."""

    def __init__(self, guard: Guard, known: str) -> None:
        self._engine = engine_of(guard)
        cache = self._engine.context.token_cache
        assert cache is not None
        self._cache: TokenCache = cache
        assert isinstance(self.judge_by_flow(known), AccessToken)
        self.granted = self.left = self.refused = 0

    def judge_by_flow(self, token: str) -> AccessToken | str:
        """Return the access token, or the reason of the refusal."""
        self._cache.clear()
        try:
            return self._engine.perform(
                validate(Credential(token=token, source=TokenSource.HEADER), self._engine.context)
            )
        except (InvalidToken, AuthorityUnavailable) as error:
            return error.reason

    def judge_at_once(self, token: str) -> AccessToken | None:
        """Return the access token, or ``None`` for a token that is left to the flow."""
        self._cache.clear()
        for record in self._engine.issuers.all:  # as if each token came long after the last forged one
            record.left_to_flow_until = 0.0
        octets = token.encode()
        return verify_at_once(
            octets, sha256(octets).digest(), self._engine.context, self._cache, self._engine.clock.wall()
        )

    def compare(self, token: str) -> str | None:
        """Judge *token* in both ways. Return what differs, or ``None``."""
        quick, thorough = self.judge_at_once(token), self.judge_by_flow(token)
        if quick is None:
            self.left += isinstance(thorough, AccessToken)
            self.refused += not isinstance(thorough, AccessToken)
            return None
        self.granted += 1
        if not isinstance(thorough, AccessToken):
            return f"granted at once, refused by the flow: {thorough}"
        if quick != thorough or quick.claims != thorough.claims or repr(quick) != repr(thorough):
            return f"{quick!r} is not {thorough!r}"
        return None


def main(count: int) -> None:
    """Compare *count* tokens and print the result."""
    authority = FakeAuthority(algorithm="EdDSA")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    comparison = Comparison(guard, authority.mint("read"))
    for number, token in zip(range(count), OddTokens(authority, seed=random.getrandbits(32)), strict=False):
        problem = comparison.compare(token)
        if problem is not None:
            raise SystemExit(f"token {number}: {problem}")
    print(
        f"{count:,} tokens: {comparison.granted:,} granted at once, {comparison.refused:,} refused by the flow, "
        f"{comparison.left:,} left to the flow and granted; no difference"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
