"""The run-time records of issuers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.errors import ConfigurationError
from scopeguard.flow.issuers import has_keys
from scopeguard.spec.discovery import Metadata
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.keys import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.tokens import Unverified

NOW = 1000.0
METADATA = Metadata(
    issuer="https://as.test",
    jwks_uri="https://as.test/jwks",
    token_endpoint=None,
    introspection_endpoint=None,
    raw={},
)


def accept_all(metadata: Metadata) -> bool:
    return True


def record(policy: KeySetPolicy | None = None) -> IssuerRecord:
    issuer = Issuer("https://as.test", audience="https://api.test", key_set=policy or KeySetPolicy())
    return IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set))


def test_metadata_is_unknown_until_it_is_stored():
    assert record().cached_metadata(NOW, accept_all) is None


@pytest.mark.rule("A-18")
def test_metadata_is_used_for_the_maximum_age_of_a_key_set():
    known = record(KeySetPolicy(max_ttl=900))
    known.learn(METADATA, NOW, has_keys)
    assert known.cached_metadata(NOW + 899, accept_all) is METADATA
    assert known.cached_metadata(NOW + 900, accept_all) is None


def test_newer_document_replaces_the_one_for_the_same_endpoint():
    known, moved = record(), replace(METADATA, jwks_uri="https://as.test/moved")
    known.learn(METADATA, NOW, has_keys)
    known.learn(moved, NOW + 1, has_keys)
    assert known.metadata == (moved,)


def test_two_documents_are_kept_if_each_has_an_endpoint_the_other_lacks():
    known, asks = record(KeySetPolicy(max_ttl=900)), replace(METADATA, introspection_endpoint="https://as.test/ask")
    known.learn(METADATA, NOW, has_keys)
    assert known.cached_metadata(NOW, lambda found: found.introspection_endpoint is not None) is None
    known.learn(asks, NOW + 10, lambda found: found.introspection_endpoint is not None)
    assert known.cached_metadata(NOW + 10, lambda found: found.introspection_endpoint is not None) is asks
    assert known.cached_metadata(NOW + 10, accept_all) is METADATA
    assert known.cached_metadata(NOW + 900, accept_all) is None


@pytest.mark.rule("P-19")
def test_two_issuers_share_nothing():
    one, two = record(), record()
    one.learn(METADATA, NOW, has_keys)
    assert two.cached_metadata(NOW, accept_all) is None
    assert one.ring is not two.ring
    assert one != two
    assert len({one, two}) == 2


# -- the issuer of a token

ASKING = Introspection(client_id="api", client_secret="s")


def introspecting_record(url: str, *prefixes: str, **options: Any) -> IssuerRecord:
    issuer = Issuer(
        url,
        **{"audience": "https://api.test", "validate": "auto", "introspection": ASKING, **options},
        opaque_prefixes=prefixes,
    )
    return IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set))


def issuers(*trusted: IssuerRecord) -> Issuers:
    return Issuers(trusted, revocations=Revocations())


@pytest.mark.rule("P-18", "I-29")
@pytest.mark.parametrize("name", ["https://as.test/", "https://AS.test", "", "https://other.test"])
def test_issuer_is_found_by_its_exact_name(name: str):
    known = issuers(record())
    assert known.by_name("https://as.test") is not None
    assert known.by_name(name) is None


def test_issuer_is_found_by_its_aliases_and_counted_once():
    one = introspecting_record("https://as.test", aliases={"as.test": {}})
    known = issuers(one, introspecting_record("https://b.test", "b-"))
    assert known.by_name("as.test") is known.by_name("https://as.test") is one
    assert [entry.issuer.url for entry in known.all] == ["https://as.test", "https://b.test"]


@pytest.mark.parametrize(
    "second",
    [
        introspecting_record("https://a.test", "b-"),
        introspecting_record("https://b.test", "b-", aliases={"https://a.test": {}}),
    ],
)
def test_two_policies_for_one_issuer_are_refused(second: IssuerRecord):
    with pytest.raises(ConfigurationError, match="configured twice"):
        issuers(introspecting_record("https://a.test"), second)


@pytest.mark.rule("I-28")
def test_opaque_token_belongs_to_the_longest_prefix_or_the_issuer_without_one():
    short, long, any_ = (
        introspecting_record("https://a.test", "x-", "y-"),
        introspecting_record("https://b.test", "x-long-"),
        introspecting_record("https://c.test"),
    )
    for order in ((short, long, any_), (any_, long, short), (long, any_, short)):
        known = issuers(*order)
        assert [known.by_opaque_token(token) for token in ("x-1", "x-long-1", "y-1", "z", "x", "")] == [
            short, long, short, any_, any_, any_,
        ]  # fmt: skip


@pytest.mark.rule("I-28")
def test_opaque_token_without_a_matching_issuer_is_refused():
    assert issuers(introspecting_record("https://a.test", "x-")).by_opaque_token("y-1") is None
    assert issuers(record()).by_opaque_token("anything") is None


@pytest.mark.rule("I-28")
def test_ambiguous_issuers_are_refused_at_construction():
    with pytest.raises(ConfigurationError, match="'x-' is set for two issuers"):
        issuers(introspecting_record("https://a.test", "x-"), introspecting_record("https://b.test", "x-"))
    with pytest.raises(ConfigurationError, match="both introspect any opaque token"):
        issuers(introspecting_record("https://a.test"), introspecting_record("https://b.test"))


def test_headers_of_accepted_tokens_are_cached_within_a_limit():
    known = record()
    for number in range(1000):
        segment = str(number).encode()
        token = Unverified(header={}, claims={}, signed=b"", signature=b"", segment=segment, fingerprint="")
        known.remember_header(token, rfc9068=True)
        assert known.headers[segment] is True
        assert len(known.headers) <= 256


def test_scope_claims_of_accepted_tokens_are_cached_within_a_limit():
    known = record()
    for number in range(1000):
        known.remember_scopes({"scope": f"read {number}"}, ("read", str(number)))
        assert known.scope_texts[f"read {number}"] == ("read", str(number))
        assert len(known.scope_texts) <= 256
    kept = dict(known.scope_texts)
    for claims in ({"scope": "x" * 1025}, {"scope": ["read"]}, {"scp": "read"}, {}):
        known.remember_scopes(claims, ("read",))
    known.remember_scopes({"scope": "write"}, None)
    assert known.scope_texts == kept
