"""Hints at the configured issuer that is most similar to an unknown name."""

from __future__ import annotations

import pytest

from scopeguard.state.similar_names import SimilarNames

NAMES = ("https://as.test/", "https://sso.test/realms/acme", "https://four.test", "https://five.test:8443")


@pytest.mark.parametrize(
    ("given", "configured", "differs"),
    [
        ("https://as.test", "https://as.test/", "only in the slash at the end"),
        ("https://as.test//", "https://as.test/", "only in the slash at the end"),
        ("https://sso.test/realms/acme/", "https://sso.test/realms/acme", "only in the slash at the end"),
        ("https://sso.test/realms/ACME", "https://sso.test/realms/acme", "only in upper and lower case"),
        ("http://sso.test/realms/acme", "https://sso.test/realms/acme", "only in the scheme"),
        ("sso.test/realms/acme", "https://sso.test/realms/acme", "only in the scheme"),
        ("https://four.test:443", "https://four.test", "only in how it is written"),
        ("http://four.test:80", "https://four.test", "only in the scheme"),
        ("https://FIVE.test:8443/", "https://five.test:8443", "only in how it is written"),
        ("https://five.test:9443", "https://five.test:8443", "only in the port"),
        ("https://five.test", "https://five.test:8443", "only in the port"),
        ("https://five.test:x", "https://as.test/ https://sso.test/realms/acme https://four.test and 1 more", None),
        ("https://sso.test/realms/other", "https://sso.test/realms/acme", "only in the realm"),
        ("https://sso.test/realms/other/", "https://sso.test/realms/acme", "only in the realm"),
        ("https://sso.test/realms/a/b", "https://sso.test/realms/acme", "only in the path"),
        ("https://sso.test/auth/realms/acme", "https://sso.test/realms/acme", "only in the path"),
        ("https://SSO.test", "https://sso.test/realms/acme", "only in the path"),
        ("https://ssso.test/realms/acme", "https://sso.test/realms/acme", "only in the host"),
        ("http://ssso.test:8080/Realms/acme/", "https://sso.test/realms/acme", "in the scheme and the host and the "),
    ],
)
def test_most_similar_name_is_shown_with_the_difference(given: str, configured: str, differs: str | None):
    told = SimilarNames(NAMES).nearest(given)
    assert told["configured"] == configured
    assert told.get("differs") == differs or told["differs"].startswith(str(differs))


@pytest.mark.parametrize("given", ["https://evil.test", "", "://", "\u0000", "https://[::1", "x" * 20_000, "/"])
def test_configured_issuers_are_shown_if_none_is_similar(given: str):
    assert SimilarNames(NAMES).nearest(given) == {
        "configured": "https://as.test/ https://sso.test/realms/acme https://four.test and 1 more"
    }
    told = SimilarNames(NAMES[:1]).nearest(given)
    assert told.pop("differs", "only in the host") == "only in the host"
    assert told == {"configured": "https://as.test/"}
    assert SimilarNames(()).nearest(given) == {}
