"""What is known about one issuer at run time."""

from __future__ import annotations

import pytest

from scopeguard.config import Issuer, KeySetPolicy
from scopeguard.spec.discovery import Metadata
from scopeguard.state.keyring import KeyRing
from scopeguard.state.trust import Trust

NOW = 1000.0
METADATA = Metadata(
    issuer="https://as.test",
    jwks_uri="https://as.test/jwks",
    token_endpoint=None,
    introspection_endpoint=None,
    raw={},
)


def trust(policy: KeySetPolicy | None = None) -> Trust:
    issuer = Issuer("https://as.test", audience="https://api.test", key_set=policy or KeySetPolicy())
    return Trust(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set))


def test_metadata_is_unknown_until_it_is_learnt():
    assert trust().known_metadata(NOW) is None


@pytest.mark.rule("A-18")
def test_metadata_is_used_as_long_as_the_longest_life_of_a_key_set():
    known = trust(KeySetPolicy(max_ttl=900))
    known.learn(METADATA, NOW)
    assert known.known_metadata(NOW + 899) is METADATA
    assert known.known_metadata(NOW + 900) is None


def test_metadata_that_leads_nowhere_is_asked_for_again():
    known = trust()
    known.learn(METADATA, NOW)
    known.forget()
    assert known.known_metadata(NOW) is None
    known.learn(METADATA, NOW + 1)
    assert known.known_metadata(NOW + 1) is METADATA


@pytest.mark.rule("P-19")
def test_two_issuers_share_nothing():
    one, two = trust(), trust()
    one.learn(METADATA, NOW)
    assert two.known_metadata(NOW) is None
    assert one.ring is not two.ring
    assert one != two
    assert len({one, two}) == 2
