"""Hostile tokens with names, to be sent at an app: each must be refused.

@pytest.mark.parametrize("name", NAMES)
def test_a_bad_token_is_refused(name, client, authority):
    bad = bad_tokens(authority)[name]
    assert client.get("/", headers=bad.headers).status_code == bad.status, bad.why
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scopeguard.config.checks import flag, instance, number
from scopeguard.testing.fake import FakeAuthority
from scopeguard.testing.forgeries import algorithms, claims, confusion, encryption, headers, structure
from scopeguard.testing.forgeries.forge import BadToken, Corpus, Forge

__all__ = ["BadToken", "bad_tokens"]


def bad_tokens(authority: FakeAuthority, *, leeway: float = 30.0, strict: bool = False) -> Mapping[str, BadToken]:
    """Tokens that an API which trusts *authority*, and is its audience, must refuse: names to tokens.

    All of them can be sent by an ordinary HTTP client. Each is one step away from a good token of *authority*, at the
    time its clock shows now. *leeway* is that of the guard, in seconds. *strict* adds the few that are refused by
    ``Issuer(..., typ="at+jwt")`` only.

    The authority publishes keys for RS256, PS256, ES256, ES384 and EdDSA from then on, with which most are genuinely
    signed: a guard that fetched its keys before knows some of them only after it fetches again.

    Not among them: what is no token (control characters, non-ASCII), what needs a bad key set
    (:func:`~scopeguard.testing.bad_keys`), a bad proof of possession (RFC 9449) or bad introspection answers.

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
    for kind in (structure, algorithms, headers, claims, confusion, encryption):
        kind.add_all(forge, corpus)
    return MappingProxyType({name: bad for name, bad in corpus.tokens.items() if strict or not bad.strict})
