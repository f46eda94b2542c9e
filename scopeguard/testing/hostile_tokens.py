"""Hostile tokens, by name, that an app must refuse.

@pytest.fixture(scope="module")
def tokens(authority):
    return bad_tokens(authority)

@pytest.mark.parametrize("name", NAMES)
def test_a_bad_token_is_refused(name, client, tokens):
    bad = tokens[name]
    assert client.get("/", headers=bad.headers).status_code == bad.status, bad.why
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scopeguard.config.checks import flag, instance, number
from scopeguard.config.leeway import LEEWAY
from scopeguard.testing.fake import FakeAuthority
from scopeguard.testing.forgeries import algorithms, claims, confusion, encryption, headers, ml_dsa, structure
from scopeguard.testing.forgeries.token_parts import BadToken, Corpus, Forge

__all__ = ["BadToken", "bad_tokens"]


def bad_tokens(authority: FakeAuthority, *, leeway: float = LEEWAY, strict: bool = False) -> Mapping[str, BadToken]:
    """Return tokens, by name, that an API with the audience of *authority* must refuse.

    Each differs in one respect from a valid token of *authority*, at the current time of its clock. Any HTTP client
    can send them.

    * *leeway*: the leeway of the guard, in seconds.
    * *strict*: include the tokens that only ``Issuer(..., typ="at+jwt")`` refuses.

    Most tokens are signed with keys of the authority for RS256, PS256, ES256, ES384 and EdDSA, and for ML-DSA if
    ``cryptography`` has it. This function makes the authority publish these keys. A guard that fetched the key set
    before needs to fetch it again.

    Not included: header values that are not tokens (control characters, non-ASCII), tokens for bad key sets
    (:func:`~scopeguard.testing.bad_keys`), proofs of possession (RFC 9449), and bad introspection answers.

    >>> from scopeguard.testing import FakeAuthority
    >>> tokens = bad_tokens(FakeAuthority())
    >>> tokens["alg-none-nOnE"].status, tokens["json-general"].status
    (401, 400)
    """
    instance(authority, FakeAuthority, "authority", "a FakeAuthority")
    number(leeway, "leeway")
    flag(strict, "strict")
    forge = Forge(authority, leeway=leeway)
    corpus = Corpus()
    for kind in (structure, algorithms, headers, claims, confusion, encryption, ml_dsa):
        kind.add_all(forge, corpus)
    return MappingProxyType({name: bad for name, bad in corpus.tokens.items() if strict or not bad.strict})
