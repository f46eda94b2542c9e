"""SPIFFE IDs, and the bundle of a trust domain. The kind of fault: an ID or a key of another purpose counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import jwk
from scopeguard import ConfigurationError, InvalidToken, Reason
from scopeguard.spec.jwks import MalformedKeySet, parse_configured_key_set, parse_key_set
from scopeguard.spec.spiffe import KEY_USE, check_id, trust_domain_of

DOMAIN = "prod.example.com"


@pytest.mark.parametrize("path", ["a", "ns/etl/sa/ingest", "A.b_c-d", "...", ".a", "a..b", "9", "a/" * 900 + "a", "-"])
def test_id_of_a_workload_passes(path: str):
    check_id({"sub": f"spiffe://{DOMAIN}/{path}"}, DOMAIN)


@pytest.mark.parametrize(
    "subject",
    [
        f"spiffe://{DOMAIN}",
        f"spiffe://{DOMAIN}/",
        f"spiffe://{DOMAIN}/a/",
        f"spiffe://{DOMAIN}//a",
        f"spiffe://{DOMAIN}/a//b",
        f"spiffe://{DOMAIN}/.",
        f"spiffe://{DOMAIN}/a/../b",
        f"spiffe://{DOMAIN}/a%2fb",
        f"spiffe://{DOMAIN}/a b",
        f"spiffe://{DOMAIN}/a\n",
        f"spiffe://{DOMAIN}/é",
        f"spiffe://{DOMAIN}/a?b",
        f"spiffe://{DOMAIN}/a#b",
        f"spiffe://{DOMAIN}:443/a",
        f"spiffe://user@{DOMAIN}/a",
        f"spiffe://{DOMAIN.upper()}/a",
        f"SPIFFE://{DOMAIN}/a",
        f"https://{DOMAIN}/a",
        f"spiffe:/{DOMAIN}/a",
        f"spiffe://{DOMAIN}/" + "a" * 2048,
        "spiffe:///a",
        "",
        7,
        ["spiffe://prod.example.com/a"],
        True,
    ],
)
def test_other_subject_is_malformed(subject: Any):
    with pytest.raises(InvalidToken) as caught:
        check_id({"sub": subject}, DOMAIN)
    assert caught.value.reason is Reason.MALFORMED_CLAIM


@pytest.mark.rule("SP-02")
@pytest.mark.parametrize("domain", ["prod.example.co", "prod.example.com.evil.test", "evil.test", "xprod.example.com"])
def test_id_of_another_trust_domain_is_refused(domain: str):
    with pytest.raises(InvalidToken) as caught:
        check_id({"sub": f"spiffe://{domain}/a"}, DOMAIN)
    assert caught.value.reason is Reason.UNEXPECTED_CLAIM


def test_token_without_a_subject_lacks_a_claim():
    with pytest.raises(InvalidToken) as caught:
        check_id({}, DOMAIN)
    assert caught.value.reason is Reason.MISSING_CLAIM


@given(st.text() | st.from_regex(r"spiffe://[a-z.:/%@]{0,20}", fullmatch=True))
def test_trust_domain_of_an_id_that_passes_is_the_one_that_selects(subject: str):
    domain = trust_domain_of({"sub": subject})
    try:
        check_id({"sub": subject}, domain or DOMAIN)
    except InvalidToken:
        return
    assert domain is not None
    assert subject.startswith(f"spiffe://{domain}/")


@pytest.mark.parametrize("subject", [None, 7, "", "x", "https://x/y", "spiffe:"])
def test_other_subjects_have_no_trust_domain(subject: Any):
    assert trust_domain_of({} if subject is None else {"sub": subject}) is None


# -- the bundle


def bundle(*keys: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"keys": list(keys), **members}


def svid_key(kid: str = "1", **members: Any) -> dict[str, Any]:
    given = {**jwk("ES256", kid, use=KEY_USE), **members}
    return {name: value for name, value in given.items() if name != "key_ops" and value is not None}


@pytest.mark.rule("SP-01")
def test_only_keys_for_jwt_svids_are_used():
    certificate = {**svid_key("2"), "use": "x509-svid", "x5c": ["MII="]}
    others = [svid_key("3", use="sig"), svid_key("4", use=None), svid_key("5", use="JWT-SVID")]
    others.append({name: value for name, value in svid_key().items() if name != "kid"})
    found = parse_key_set(bundle(certificate, svid_key(), *others), use=KEY_USE)
    assert [key.kid for key in found.keys] == ["1"]
    assert len(found.ignored) == 5
    assert not any(key.alarming for key in found.ignored)


def test_keys_for_jwt_svids_verify_nothing_else():
    with pytest.raises(MalformedKeySet, match="use is 'jwt-svid'"):
        parse_key_set(bundle(svid_key()))


def test_bundle_without_keys_for_jwt_svids_is_not_used():
    for keys in ([], [{**svid_key(), "use": "x509-svid"}]):
        with pytest.raises(MalformedKeySet):
            parse_key_set(bundle(*keys), use=KEY_USE)
    with pytest.raises(ConfigurationError):
        parse_configured_key_set(bundle(), use=KEY_USE)


@pytest.mark.parametrize(
    ("hint", "sequence", "wanted"),
    [
        (300, 7, (300.0, 7)),
        (0, 0, (None, 0)),
        (-1, -1, (None, None)),
        (True, False, (None, None)),
        ("300", "7", (None, None)),
        (1.5, 1.5, (None, None)),
        (10**30, 10**30, (None, 10**30)),
        (None, None, (None, None)),
    ],
)
def test_members_of_the_bundle_are_read_and_wrong_ones_ignored(hint: Any, sequence: Any, wanted: Any):
    document = bundle(svid_key(), spiffe_refresh_hint=hint, spiffe_sequence=sequence)
    found = parse_key_set(document, use=KEY_USE)
    assert (found.refresh_hint, found.sequence) == wanted
    plain = parse_key_set({**document, "keys": [jwk("ES256", "1")]})
    assert (plain.refresh_hint, plain.sequence) == (None, None)
