"""Tokens that an AWS load balancer passes on, and forged ones."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loopback import Certificates
from providers import Internet, World, jwk, mint_sample, padded_segment, pem, private_key, sample
from rsa_keys import rsa_key
from scopeguard import ConfigurationError, Denied, Granted, Guard, Issuer, KeySetPolicy, Reason, Unavailable, presets
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/acme/6284be65b827c598"
IDP = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI"
CLIENT = "4fmvht22tjrgd7d3k3tghttct7"
ALB = presets.aws_alb("eu-central-1", ARN, IDP, CLIENT)
FIELD = "x-amzn-oidc-data"
KID = sample("aws-alb")["header"]["kid"]
KEYS = "https://public-keys.auth.elb.eu-central-1.amazonaws.com/"
NOBODY = Answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"content-type": "application/xml"})


class Bucket(Internet):
    """The keys of the region: only that of the sample."""

    def __init__(self) -> None:
        super().__init__(ALB, [])
        self.document = pem(private_key("ES256").public_key())
        self.answer: Callable[[Send], Answer] | None = None

    def send(self, request: Send, /) -> Answer:
        self.sends.append(request)
        if self.answer is not None:
            return self.answer(request)
        return Answer(200, self.document) if request.url == KEYS + KID else NOBODY


class Region(World):
    def __init__(self, *issuers: Issuer) -> None:
        super().__init__(*(issuers or (ALB,)))
        self.internet = self.bucket = Bucket()
        self.guard = Guard(*(issuers or (ALB,)), transport=self.internet, clock=self.clock)

    def judge_forwarded(self, **changes: Any) -> Decision:
        return self.judge(mint_sample("aws-alb", self.now, **changes), FIELD)

    def with_kid(self, kid: object) -> Decision:
        return self.judge_forwarded(header={"kid": kid})


def reason(decision: Decision) -> Reason:
    assert isinstance(decision, Denied | Unavailable), decision
    return decision.error.reason


def test_token_of_the_load_balancer_is_accepted_and_its_key_fetched_once():
    region = Region()
    assert isinstance(region.judge_forwarded(), Granted)
    assert isinstance(region.judge_forwarded(), Granted)
    decision = region.judge_forwarded()
    assert isinstance(decision, Granted)
    token = decision.access_token
    assert (token.subject, token.client_id, token.audience, token.machine) == (
        "23d498b2-3031-70d2-8a15-49dd886a087b", CLIENT, (ARN,), False,
    )  # fmt: skip
    assert token.issuer == IDP
    assert [send.url for send in region.bucket.sends] == [KEYS + KID]
    assert region.bucket.sends[0].authorization is None


def test_iss_and_exp_in_the_header_count():
    assert isinstance(Region().judge_forwarded(claims={"iss": None, "exp": None}), Granted)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"header": {"signer": ARN.replace("acme", "evil")}}, Reason.WRONG_AUDIENCE),
        ({"header": {"signer": None}}, Reason.MISSING_CLAIM),
        ({"header": {"signer": [ARN.replace("acme", "evil")]}}, Reason.WRONG_AUDIENCE),
        ({"header": {"signer": None}, "claims": {"signer": ARN}}, Reason.MISSING_CLAIM),
        ({"header": {"client": "another"}}, Reason.UNEXPECTED_CLAIM),
        ({"header": {"client": None}}, Reason.UNEXPECTED_CLAIM),
        ({"header": {"exp": 1767225720}}, Reason.REPLICATED_CLAIM),
        ({"header": {"exp": 1767225720}, "claims": {"exp": None}}, Reason.TOKEN_EXPIRED),
        ({"header": {"exp": 1767225720}, "claims": {"exp": 1767225720}}, Reason.TOKEN_EXPIRED),
        ({"header": {"exp": True}, "claims": {"exp": None}}, Reason.MALFORMED_CLAIM),
        ({"header": {"exp": None}, "claims": {"exp": None}}, Reason.MISSING_CLAIM),
        ({"header": {"iss": "https://evil.example"}}, Reason.REPLICATED_CLAIM),
        ({"header": {"iss": "https://evil.example"}, "claims": {"iss": None}}, Reason.UNKNOWN_ISSUER),
        ({"header": {"typ": "at+jwt"}}, Reason.TYPE_REFUSED),
        ({"claims": {"sub": ""}}, Reason.MISSING_CLAIM),
    ],
)
def test_mismatching_token_is_refused_without_a_fetch(changes: Any, expected: Reason):
    region = Region()
    decision = region.judge_forwarded(**changes)
    assert reason(decision) is expected
    assert region.bucket.sends == []


def test_token_is_accepted_only_in_its_header_which_accepts_no_other():
    region = Region()
    token = mint_sample("aws-alb", region.now)
    assert isinstance(region.judge(token), Denied)
    unpadded = ".".join(part.rstrip("=") for part in token.split("."))
    assert "=" in token
    assert reason(region.judge(unpadded, FIELD)) is Reason.MALFORMED_TOKEN
    assert region.bucket.sends == []


# -- the key id, the only part of a token that is used in a URL


@pytest.mark.rule("P-18")
@pytest.mark.parametrize(
    "kid",
    [
        "../" + KID, KID + "/../x", "..", ".", "", "/", f"{KID}?x=y", f"{KID}#", f"{KID}\n", f" {KID}", f"{KID}%2e",
        "@evil.example/" + KID, "//evil.example/" + KID, "https://evil.example/" + KID, "\\evil.example", KID.upper(),
        KID.replace("-", ""), KID[:-1], KID + "0", "g" + KID[1:], KID.replace("c2f8", "\uff432f8"), f"{{{KID}}}",
        KID.replace("-", "\u2010"), "{kid}", "c" * 1000, "latest", KID + "\x00", f"{KID}.evil.example",
    ],
)  # fmt: skip
def test_only_a_uuid_is_used_in_a_url(kid: str):
    region = Region()
    assert reason(region.with_kid(kid)) is Reason.UNKNOWN_KEY
    assert region.bucket.sends == []


@pytest.mark.parametrize("kid", [7, ["x"], {"a": KID}, True])
def test_key_id_that_is_not_a_string_is_refused(kid: object):
    region = Region()
    assert reason(region.with_kid(kid)) is Reason.MALFORMED_TOKEN
    assert region.bucket.sends == []


def test_token_without_a_kid_is_refused():
    region = Region()
    assert reason(region.with_kid(None)) is Reason.UNKNOWN_KEY
    assert region.bucket.sends == []


@pytest.mark.rule("P-18")
def test_no_url_of_the_token_is_fetched():
    region = Region()
    evil = dict.fromkeys(("jku", "x5u"), "https://evil.example/k") | {"jwk": jwk("ES256", KID)}
    assert isinstance(region.judge_forwarded(header=evil), Granted)
    assert [send.url for send in region.bucket.sends] == [KEYS + KID]


def test_flood_of_unknown_keys_stays_within_the_budget_with_one_fetch_per_key():
    region = Region()
    policy = ALB.key_set
    kids = [str(uuid.UUID(int=n)) for n in range(300)]
    for kid in kids[: policy.refetch_burst]:
        assert reason(region.with_kid(kid)) is Reason.UNKNOWN_KEY
        assert reason(region.with_kid(kid)) is Reason.UNKNOWN_KEY
    assert len(region.bucket.sends) == policy.refetch_burst
    for kid in kids[policy.refetch_burst :]:
        decision = region.with_kid(kid)
        assert isinstance(decision, Unavailable)  # It is unknown whether there is such a key.
        assert 0 < (decision.error.retry_after or 0) <= policy.refetch_interval
    assert len(region.bucket.sends) == policy.refetch_burst
    region.clock.advance(policy.refetch_interval)
    for kid in kids:
        region.with_kid(kid)
    assert len(region.bucket.sends) == policy.refetch_burst + 1


def test_flood_of_invented_keys_does_not_starve_an_existing_one():
    """The last fetch of the budget goes to the most requested key, even if a request for another key begins it."""
    region = Region()
    policy, made_up = ALB.key_set, (str(uuid.UUID(int=n)) for n in range(10_000))
    for _ in range(policy.refetch_burst):
        assert reason(region.with_kid(next(made_up))) is Reason.UNKNOWN_KEY
    told = []
    for _ in range(15):
        for _ in range(20):
            assert isinstance(region.with_kid(next(made_up)), Unavailable)
        told.append(region.judge_forwarded())
        region.clock.advance(1)
    region.guard.close()
    assert [type(decision) for decision in told[:10]] == [Unavailable] * 10
    assert [type(decision) for decision in told[10:]] == [Granted] * 5
    assert len(region.bucket.sends) == policy.refetch_burst + 1


def test_flood_evicts_no_held_key():
    region = Region(replace(ALB, key_set=KeySetPolicy(max_keys=1, negative_kids=4)))
    assert isinstance(region.judge_forwarded(), Granted)
    for n in range(50):
        region.with_kid(str(uuid.UUID(int=n)))
        region.clock.advance(2)
    before = len(region.bucket.sends)
    assert isinstance(region.judge_forwarded(), Granted)
    assert len(region.bucket.sends) == before


def test_concurrent_requests_with_one_unknown_key_cause_one_fetch():
    region = Region()
    asked, goes_on = threading.Event(), threading.Event()

    def slow(request: Send) -> Answer:
        asked.set()
        goes_on.wait(30)
        return NOBODY

    region.bucket.answer = slow
    found: list[Reason] = []
    kid = str(uuid.UUID(int=7))
    threads = [threading.Thread(target=lambda: found.append(reason(region.with_kid(kid)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert asked.wait(30)
    goes_on.set()
    for thread in threads:
        thread.join(30)
    assert found == [Reason.UNKNOWN_KEY] * 8
    assert len(region.bucket.sends) == 1


def test_a_bad_signature_causes_no_further_fetch():
    region = Region()
    assert isinstance(region.judge_forwarded(), Granted)
    for _ in range(5):
        head, body, _ = mint_sample("aws-alb", region.now).split(".")
        assert reason(region.judge(f"{head}.{body}.{padded_segment(bytes(64))}", FIELD)) is Reason.BAD_SIGNATURE
    assert len(region.bucket.sends) == 1


# -- what may be under the URL


def certificate(tmp_path: Any) -> bytes:
    return bytes(Certificates(tmp_path).bundle.read_bytes())


def private_pem(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


DOCUMENTS: dict[str, Callable[[Any], bytes]] = {
    "an RSA key": lambda _: pem(private_key("RS256").public_key()),
    "a weak RSA key": lambda _: pem(rsa_key(1024).public_key()),
    "another curve": lambda _: pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
    "a private key": lambda _: private_pem(private_key("ES256")),
    "a certificate": certificate,
    "two keys": lambda _: pem(private_key("ES256").public_key()) * 2,
    "a key and more": lambda _: pem(private_key("ES256").public_key()) + b"more",
    "nothing": lambda _: b"",
    "garbage": lambda _: b"\x00\xff" * 100,
    "empty PEM": lambda _: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "a JWK Set": lambda _: json.dumps({"keys": [jwk("ES256", KID)]}).encode(),
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_unusable_key_document_is_an_outage_and_not_fetched_again_at_once(what: str, tmp_path: Any):
    region = Region()
    region.bucket.document = DOCUMENTS[what](tmp_path)
    for _ in range(3):
        decision = region.judge_forwarded()
        assert isinstance(decision, Unavailable), decision
        assert decision.response.status == 503
    assert len(region.bucket.sends) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, b""),
        Answer(429, b"", {"retry-after": "7"}),
        Answer(302, b"", {"location": "https://evil.example/k"}),
    ],
    ids=["500", "429", "redirect"],
)
def test_unusable_response_is_an_outage(answer: Answer):
    region = Region()
    region.bucket.answer = lambda request: answer
    assert isinstance(region.judge_forwarded(), Unavailable)
    region.bucket.answer = None
    assert isinstance(region.judge_forwarded(), Unavailable)
    region.clock.advance(ALB.key_set.refetch_interval)
    assert isinstance(region.judge_forwarded(), Granted)
    assert [send.url for send in region.bucket.sends] == [KEYS + KID] * 2


# -- what the operator may write


@pytest.mark.parametrize(
    "arn", ["acme", "*", ARN.replace("eu-central-1", "eu-west-1"), ARN + "\n", ARN.replace("app/", "net/")]
)
def test_load_balancer_is_configured_by_its_arn_in_the_region(arn: str):
    with pytest.raises(ConfigurationError, match="load_balancers: "):
        presets.aws_alb("eu-central-1", arn, IDP, CLIENT)


def test_key_url_of_other_regions_can_be_configured():
    template = "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1/{kid}"
    arn = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:1:loadbalancer/app/a/1"
    found = presets.aws_alb("us-gov-west-1", arn, IDP, CLIENT, key_url_template=template)
    assert found.key_url_template == template


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"key_url_template": "https://keys.example/"}, "key_url_template: must end in /{kid}"),
        ({"key_url_template": "https://{kid}.example/"}, "key_url_template: must end in /{kid}"),
        ({"key_url_template": "https://keys.example/{kid}/x"}, "key_url_template: must end in /{kid}"),
        ({"key_url_template": "https://keys.example/k{kid}"}, "key_url_template: must end in /{kid}"),
        ({"key_url_template": "https://keys.example?k=/{kid}"}, "key_url_template: .*query or fragment"),
        ({"key_url_template": "http://keys.example/{kid}"}, "key_url_template: .*cleartext"),
        ({"key_url_template": "https:///{kid}"}, "key_url_template: .*not an https URL"),
        ({"key_url_template": ["https://keys.example/{kid}"]}, "key_url_template: must be a string, not list"),
        ({"jwks_uri": "https://as.example/k"}, "jwks_uri and key_url_template exclude each other"),
        ({"token_header": None}, "padded_segments: has no effect without token_header"),
        ({"token_header": None, "padded_segments": False}, "header_claims: has no effect without token_header"),
        ({"padded_segments": "false"}, "padded_segments: must be true or false, not str"),
    ],
)
def test_invalid_settings_are_refused(settings: Any, problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        replace(ALB, **settings)


def test_issuers_that_share_a_header_must_read_it_alike():
    other = replace(ALB, url="https://other.example", padded_segments=False)
    with pytest.raises(ConfigurationError, match=r"token_header: .* give both the same values"):
        Guard(ALB, other)
    Guard(ALB, replace(ALB, url="https://other.example"))


def test_a_revoked_token_stays_revoked_with_another_signature():
    region = Region()
    token = mint_sample("aws-alb", region.now)
    assert isinstance(region.judge(token, FIELD), Granted)
    region.guard.revoke(token=token)
    assert reason(region.judge(token, FIELD)) is Reason.TOKEN_REVOKED
    head, body, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert reason(region.judge(f"{head}.{body}.{padded_segment(twin)}", FIELD)) is Reason.TOKEN_REVOKED


def test_warm_up_fetches_no_keys_of_the_load_balancer():
    region = Region()
    region.guard.warm()
    assert region.bucket.sends == []
