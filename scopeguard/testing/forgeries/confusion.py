"""Genuine JWTs of the same authority that are not access tokens."""

from __future__ import annotations

from typing import Any, Final

from scopeguard.testing.forgeries.token_parts import Corpus, Forge, attacker_key

# These are signed with the authority's key and have the API as audience and all claims of an access token. Only their
# typ shows that they are not access tokens; with a claim missing, they would be refused for that reason.
_TYPES: Final[tuple[tuple[str, str, str], ...]] = (
    ("id-token", "id_token+jwt", "P-01"),
    ("logout-token", "logout+jwt", "X-41"),
    ("security-event-token", "secevent+jwt", "X-42"),
    ("introspection-response", "token-introspection+jwt", "X-43"),
    ("dpop-proof", "dpop+jwt", "X-44"),
    ("client-assertion", "client-authentication+jwt", "X-45"),
    ("authorization-grant", "authorization-grant+jwt", "X-45"),
    ("status-list", "statuslist+jwt", "X-46"),
    ("transaction-token", "txntoken+jwt", "X-47"),
    ("transaction-token-named", "txn_token", "X-47"),
    ("transaction-token-na", "N_A", "X-47"),
    ("identity-assertion", "oauth-id-jag+jwt", "IJ-01"),
    ("identity-assertion-media-type", "application/oauth-id-jag+jwt", "IJ-01"),
    ("workload-identity", "wit+jwt", "X-47"),
    ("workload-proof", "wpt+jwt", "X-47"),
    ("request-object", "oauth-authz-req+jwt", "X-47"),
    ("entity-statement", "entity-statement+jwt", "X-47"),
    ("resource-metadata", "oauth-protected-resource+jwt", "X-48"),
    ("software-statement", "software-statement+jwt", "X-48"),
    ("verifiable-credential", "vc+jwt", "X-47"),
    ("selective-disclosure", "dc+sd-jwt", "X-29"),
    ("key-binding", "kb+jwt", "X-29"),
    ("client-attestation", "oauth-client-attestation+jwt", "X-45"),
    ("client-attestation-proof", "oauth-client-attestation-pop+jwt", "X-45"),
    ("refresh-token", "rt+jwt", "X-49"),
    ("passport", "passport", "P-01"),
    ("jose", "JOSE", "P-01"),
    ("jose-json", "JOSE+JSON", "X-15"),
)


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    for name, typ, rule in _TYPES:
        why = f"its typ is {typ}: signed with the same key, but not an access token"
        corpus.bad(f"kind-{name}", forge.sign(forge.header(typ=typ)), why, rule, "J-63", "P-01")
    _plain_jwts(forge, corpus)
    _marked_by_a_claim(forge, corpus)
    _not_of_the_authority(forge, corpus)


def _id_claims(forge: Forge, **more: Any) -> dict[str, Any]:
    now = forge.now
    return {
        "iss": forge.authority.url,
        "aud": forge.authority.audience,
        "sub": "alice",
        "exp": now + 3600,
        "iat": now,
        **more,
    }


def _plain_jwts(forge: Forge, corpus: Corpus) -> None:
    """Add tokens of other kinds with the ``typ`` ``JWT`` or none, as most servers send them. Claims show the kind."""
    event = "http://schemas.openid.net/event/backchannel-logout"
    kinds: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("id-token-nonce", _id_claims(forge, nonce="n", azp="client", auth_time=forge.now), "X-40"),
        ("id-token-at-hash", _id_claims(forge, at_hash="x", azp="client"), "X-40"),
        ("id-token-c-hash", _id_claims(forge, c_hash="x", azp="client"), "X-40"),
        ("id-token-bare", _id_claims(forge, email="alice@as.test", email_verified=True), "X-40"),
        ("id-token-keycloak", _id_claims(forge, typ="ID", azp="client", scope="openid"), "X-40"),
        ("id-token-cognito", _id_claims(forge, token_use="id", client_id="client"), "X-40"),
        ("refresh-token-keycloak", _id_claims(forge, typ="Refresh", azp="client", scope="read"), "X-49"),
        ("offline-token-keycloak", _id_claims(forge, typ="Offline", azp="client", scope="read"), "X-49"),
        ("logout-token-untyped", _id_claims(forge, events={event: {}}, sid="s", jti="j"), "X-41"),
        ("logout-token-keycloak", _id_claims(forge, typ="Logout", events={event: {}}, azp="client"), "X-41"),
        ("user-info", {"iss": forge.authority.url, "aud": forge.authority.audience, "sub": "alice"}, "X-48"),
        ("authorization-response", _id_claims(forge, code="c", state="s"), "X-47"),
    )
    for name, claims, rule in kinds:
        for typ, header in (("jwt", forge.header(typ="JWT")), ("untyped", forge.header(None, "typ"))):
            why = "its claims show that it is an ID token or another kind of token, not an access token"
            corpus.bad(f"kind-{name}-{typ}", forge.sign(header, claims), why, rule, "J-63", "P-14")
    claims = _id_claims(forge, azp="client", acr="1")
    corpus.bad(
        "kind-id-token-indistinguishable",
        forge.sign(forge.header(typ="JWT"), claims),
        "an ID token with the claims of an access token: only typ could show the difference, and it is JWT",
        "X-40", "P-14", strict=True,
    )  # fmt: skip


def _marked_by_a_claim(forge: Forge, corpus: Corpus) -> None:
    """Add tokens of other kinds without a ``typ`` of their own, each with a claim that access tokens lack."""
    kinds: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("dpop-proof", {"htm": "GET", "htu": forge.authority.audience}, "X-44"),
        ("introspection-response", {"token_introspection": {"active": True}}, "X-43"),
        ("status-list", {"status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ"}}, "X-46"),
        ("workload-proof", {"wth": "x"}, "X-47"),
        ("transaction-token", {"txn": "1", "req_wl": "https://svc.test"}, "X-47"),
        ("key-binding", {"sd_hash": "x", "nonce": "n"}, "X-29"),
        ("verifiable-credential", {"vct": "https://vct.test"}, "X-47"),
        ("entity-statement", {"authority_hints": ["https://trust.test"]}, "X-47"),
    )
    for name, marks, rule in kinds:
        for typ, header in (("jwt", forge.header(typ="JWT")), ("untyped", forge.header(None, "typ"))):
            why = "an access token with a claim that only another kind of token has"
            corpus.bad(f"kind-{name}-{typ}", forge.sign(header, forge.claims(**marks)), why, rule, "J-63")


def _not_of_the_authority(forge: Forge, corpus: Corpus) -> None:
    key = attacker_key("ES256")
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.public_jwk()}
    proof = {"jti": "1", "htm": "GET", "htu": forge.authority.audience, "iat": forge.now}
    corpus.bad(
        "dpop-proof",
        forge.sign(header, proof, key),
        "a DPoP proof is signed with a key of the client, so anyone can make one",
        "X-44", "J-25",
    )  # fmt: skip
    assertion = {
        "iss": "client",
        "sub": "client",
        "aud": forge.authority.url,
        "exp": forge.now + 60,
        "iat": forge.now,
        "jti": "1",
    }
    corpus.bad(
        "client-assertion",
        forge.sign({"alg": "ES256", "typ": "JWT", "kid": "client-key"}, assertion, key),
        "a client assertion is for the authorization server, not for an API",
        "X-45", "P-18",
    )  # fmt: skip
