"""Log lines about refused requests: what was found, what was expected, what to do; the same as fields for JSON."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pythonjsonlogger.json import JsonFormatter

from documentation import PAGES
from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    MACHINE,
    Denied,
    Guard,
    HeaderList,
    Issuer,
    Reason,
    RefusalLog,
    RequestView,
    Requirement,
    all_of,
    any_of,
)
from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.state.similar_names import SimilarNames
from scopeguard.testing import FakeAuthority, FakeClock

NOW = 1_800_000_000.0  # 15 January 2027, 08:00:00 GMT
FIELDS = {
    "reason", "status", "method", "path", "issuer", "token_fingerprint", "detail", "cause", "fix", "left_out",
}  # fmt: skip


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority(clock=FakeClock(wall=NOW))


def view(token: str | None = None, *more: tuple[bytes, bytes], query: bytes = b"") -> RequestView:
    bearer = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    return RequestView(method="POST", path="/rows", headers=HeaderList([*bearer, *more]), query=query)


def guard_of(authority: FakeAuthority, log: RefusalLog | None = None, **settings: Any) -> Guard:
    issuer = replace(authority.issuer, **settings)
    policy = RefusalLog(interval=0) if log is None else log
    return Guard(issuer, transport=authority.transport, clock=authority.clock, refusal_log=policy)


def refuse(
    caplog: pytest.LogCaptureFixture, guard: Guard, request: RequestView, needed: Requirement | None = None
) -> str:
    """Return the only line about the refusal of *request*."""
    caplog.clear()
    assert isinstance(guard.check(request, needed), Denied)
    (record,) = caplog.records
    return record.getMessage()


Mint = dict[str, Any]


@pytest.mark.parametrize(
    ("settings", "mint", "facts"),
    [
        (
            {},
            {"claims": {"iss": "https://as.test/"}},
            "iss=https://as.test/, configured=https://as.test, differs=only in ",
        ),
        ({}, {"claims": {"iss": None}}, "claim=iss"),
        ({}, {"claims": {"iss": 7}}, "claim=iss, found=a number (7), expected=a string"),
        (
            {},
            {"expires_in": -75},
            "now=15 Jan 2027 08:00:00 GMT by the clock of this host, differs=75 s ago, leeway=30 s",
        ),
        ({}, {"expires_in": -9000, "claims": {"iat": 0}}, "differs=2 h ago"),
        ({}, {"expires_in": -(10**7), "claims": {"iat": 0}}, "differs=116 days ago"),
        ({}, {"claims": {"exp": -5}}, "exp=-5, now=15 Jan"),
        (
            {},
            {"claims": {"nbf": NOW + 150}},
            "nbf=15 Jan 2027 08:02:30 GMT, now=15 Jan 2027 08:00:00 GMT by",
        ),
        ({}, {"claims": {"nbf": NOW + 150}}, "differs=2 min ahead"),
        ({}, {"claims": {"iat": NOW + 31}}, "differs=31 s ahead"),
        ({"past_claims": ["auth_time"]}, {"claims": {"auth_time": NOW + 31}}, "auth_time=15 Jan 2027 08:00:31 GMT"),
        ({"max_lifetime": 60}, {}, "lifetime=3600 s, limit=60 s"),
        ({}, {"audience": ["x", "y"]}, "aud=x y, expected=https://api.test"),
        (
            {},
            {"audience": "web", "claims": {"nonce": "n"}},
            "also=not_an_access_token (claim nonce), issuer=",
        ),
        ({}, {"audience": "web", "claims": {"typ": "ID"}}, "also=not_an_access_token (claim typ)"),
        ({}, {"audience": "web", "claims": {"token_type": "DPoP"}}, "expected=https://api.test, issuer="),
        ({}, {"claims": {"aud": []}}, "claim=aud, found=an array, expected=a non-empty string or an array of them"),
        ({}, {"claims": {"aud": ["x", None]}}, "claim=aud, found=null"),
        ({}, {"claims": {"exp": "1800000000"}}, "claim=exp, found=1800000000, expected=a number of seconds since 1970"),
        ({}, {"claims": {"sub": {}}}, "claim=sub, found=an object, expected=a string"),
        ({}, {"claims": {"act": True}}, "claim=act, found=a boolean (True), expected=an object"),
        ({}, {"claims": {"jti": None}}, "claim=jti, required_by=typ at+jwt"),
        ({"required_claims": ["tid"]}, {}, "claim=tid, required_by=required_claims"),
        ({"expected_claims": {"tid": ["b", "a"]}}, {}, "claim=tid, found=absent, expected=a or b"),
        (
            {"expected_claims": {"tid": ["b", "a"]}},
            {"claims": {"tid": "x\ny"}},
            r"found=x\ny, expected=a or b",
        ),
        (
            {"expected_claims": {"ok": [True]}},
            {"claims": {"ok": ""}},
            "found=an empty string, expected=a boolean",
        ),
        ({"claim_prefixes": {"sub": ["repo:"]}}, {}, "claim=sub, found=client, expected=repo:..."),
        ({"forbidden_claims": ["act"]}, {"claims": {"act": {}}}, "claim=act"),
        ({"expected_headers": {"v": "2"}}, {}, "parameter=v, found=absent, expected=2"),
        ({"expected_headers": {"v": "2"}}, {"headers": {"v": "1"}}, "parameter=v, found=1, expected=2"),
        ({"forbidden_headers": ["v"]}, {"headers": {"v": "1"}}, "parameter=v, expected=absent"),
        ({}, {"headers": {"sub": "other"}}, "claim=sub, header=other, payload=client"),
        ({}, {"headers": {"sub": "other"}, "claims": {"sub": None}}, "claim=sub, header=other, payload=absent"),
        ({}, {"headers": {"typ": "JOSE"}}, "typ=jose, accepted=at+jwt jwt none"),
        ({}, {"headers": {"typ": 7}}, "typ=a number (7), expected=a string"),
        ({}, {"headers": {"crit": ["x"]}}, "crit=['x']"),
        ({}, {"headers": {"zip": "DEF"}}, "parameter=zip, expected=absent"),
        ({}, {"headers": {"alg": "none"}}, "alg=none, accepted=RS256"),
        ({}, {"claims": {"token_use": "id"}}, "claim=token_use, found=id"),
        ({}, {"claims": {"scope": 7}}, "claim=scope, found=a number (7), expected=space"),
        ({}, {"claims": {"cnf": {"jkt": "x"}}}, "cnf=jkt, checked=none"),
        ({}, {"claims": {"cnf": "x"}}, "cnf=not an object, checked=none"),
        ({}, {"headers": {"kid": "k\n"}}, "kid=k\\n, alg=ES256, key_set=https://as.test/jwks, its_keys="),
    ],
)
def test_line_has_what_was_found_and_what_was_expected(
    authority: FakeAuthority, caplog: Any, settings: Mint, mint: Mint, facts: str
):
    token = authority.mint("read", **mint)
    line = refuse(caplog, guard_of(authority, **settings), view(token))
    assert facts in line
    assert line.isprintable()
    reason = line.partition("POST /rows: ")[2].partition(" ")[0]
    assert line.endswith(f"): {entry_of(Reason(reason)).advice}")
    assert token not in line
    if "iss=" not in facts and "claim=iss" not in facts and "alg=none" not in facts:
        assert "issuer=https://as.test" in line


def test_line_about_a_bad_signature_says_where_the_keys_come_from(authority: FakeAuthority, caplog: Any):
    good = authority.mint("read")
    line = refuse(caplog, guard_of(authority), view(good[:-8] + "AAAAAAAA"))
    assert "bad_signature (kid=" in line
    assert "key_set=https://as.test/" in line
    keys = {"keys": [{**authority.authority.keys.key_set(NOW)["keys"][0], "kid": f"k{number}"} for number in range(7)]}
    static = Issuer("https://as.test", audience="https://api.test", keys=keys)
    line = refuse(caplog, Guard(static, clock=authority.clock), view(good))
    assert "unknown_key (kid=" in line
    assert "key_set=the settings, its_keys=k0 k1 k2 k3 k4 and 2 more" in line


@pytest.mark.parametrize(
    ("needed", "scope", "facts"),
    [
        (all_of("write"), "read", "(needed=write, granted=read, client_id=client, token="),
        (all_of("write", "read"), "read", "(needed=write read, granted=read, missing=write, client_id=client, token="),
        (all_of("write"), None, "granted=no scope claim"),
        (all_of("write"), "", "granted=none"),
        (any_of("a", all_of("b", "c")), "read", "alternatives=a or b c"),
    ],
)
def test_line_about_scopes_has_what_the_token_has_and_what_it_lacks(
    authority: FakeAuthority, caplog: Any, needed: Requirement, scope: str | None, facts: str
):
    assert facts in refuse(caplog, guard_of(authority), view(authority.mint(scope)), needed)


def test_line_about_a_machine(authority: FakeAuthority, caplog: Any):
    line = refuse(caplog, guard_of(authority), view(authority.mint(subject="ann")), all_of("x", MACHINE) | MACHINE)
    assert "machine_required (machine=" in line


@pytest.mark.parametrize(
    ("request_", "facts"),
    [
        (view(None, (b"authorization", b"Basic dTpw")), "unsupported_scheme (scheme=basic): "),
        (view(None, (b"authorization", b"c2VjcmV0LXRva2Vu")), "unsupported_scheme: "),
        (
            view(None, (b"authorization", b"Basic x, Bearer y")),
            "repeated_authorization (found=two credentials in",
        ),
        (view(None, query=b"access_token=abc"), "no_credentials (ignored=the token in the query (token_sources)): "),
        (view("x" * 20_000), "token_too_large (source=header, bytes=20000, limit=16384): "),
    ],
)
def test_line_about_credentials_has_no_part_of_them(
    authority: FakeAuthority, caplog: Any, request_: RequestView, facts: str
):
    line = refuse(caplog, guard_of(authority), request_)
    assert facts in line
    assert not any(secret in line for secret in ("dTpw", "c2VjcmV0", "=abc", "xxx"))


@pytest.mark.parametrize("value", ["a" * 50_000, "\x1b[31m\n", "\u2028", {"a": ["b" * 9000]}, 10**400])
def test_values_of_a_token_are_bounded_and_escaped(authority: FakeAuthority, caplog: Any, value: object):
    guard = guard_of(authority, expected_claims={"tid": "a"}, audience=ANY_AUDIENCE_DANGEROUSLY)
    for claims in ({"tid": value}, {"iss": value}, {"exp": value}):
        token = authority.mint(claims=claims)
        (record,) = [record for record in [refuse(caplog, guard, view(token[:16_000]))] if record]
        assert record.isprintable()
        assert len(record) < 900


def test_record_has_stable_fields_for_json(authority: FakeAuthority, caplog: Any):
    token = authority.mint("read", expires_in=-75)
    refuse(caplog, guard_of(authority), view(token))
    (record,) = caplog.records
    assert set(vars(record)) - set(vars(logging.makeLogRecord({}))) - {"message", "taskName"} == FIELDS
    printed = json.loads(JsonFormatter("%(levelname)s %(name)s").format(record))
    fingerprint = printed.pop("token_fingerprint")
    assert len(fingerprint) == 12
    assert printed == {
        "levelname": "WARNING",
        "name": "scopeguard.decisions",
        "reason": "token_expired",
        "status": 401,
        "method": "POST",
        "path": "/rows",
        "issuer": "https://as.test",
        "detail": {
            "exp": "15 Jan 2027 07:58:45 GMT",
            "now": "15 Jan 2027 08:00:00 GMT by the clock of this host",
            "differs": "75 s ago",
            "leeway": "30 s",
        },
        "cause": "The token has expired.",
        "fix": entry_of(Reason.TOKEN_EXPIRED).fix.replace("`", ""),
        "left_out": 0,
    }


def test_fields_are_on_the_page():
    table = PAGES["docs/logging.md"].partition("| field of the record |")[2].partition("\n\n")[0]
    assert {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])} == FIELDS


def test_outage_has_the_same_fields(authority: FakeAuthority, caplog: Any):
    guard = guard_of(authority)
    with authority.outage():
        for _ in range(2):
            guard.check(view(authority.mint("read")))
    record, later = caplog.records
    assert set(vars(record)) >= FIELDS
    assert (record.reason, record.status, record.issuer) == ("authority_unreachable", 503, "https://as.test")
    assert "url" in record.detail
    assert "token" not in record.detail
    assert later.reason == "authority_backing_off"
    assert re.fullmatch(r"\d+ s", later.detail["retry_after"])
    assert f"retry_after={later.detail['retry_after']})" in later.getMessage()


def test_record_factory_of_the_app_may_use_the_same_names(authority: FakeAuthority, caplog: Any):
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.path = "of the app"
        return record

    logging.setLogRecordFactory(factory)
    try:
        assert "no_credentials" in refuse(caplog, guard_of(authority), view())
        assert caplog.records[0].path == "of the app"
    finally:
        logging.setLogRecordFactory(before)


def test_flood_computes_the_facts_of_written_lines_only(
    authority: FakeAuthority, caplog: Any, monkeypatch: pytest.MonkeyPatch
):
    """Strangers choose the issuer. To find the configured one that it resembles takes longer than to refuse it."""
    calls = []
    nearest: Callable[..., Any] = SimilarNames.nearest

    def count(names: SimilarNames, issuer: str) -> Any:
        calls.append(issuer)
        return nearest(names, issuer)

    monkeypatch.setattr(SimilarNames, "nearest", count)
    guard = guard_of(authority, RefusalLog(burst=3, interval=10))
    token = authority.mint(claims={"iss": "https://other.test"})
    for _ in range(200):
        guard.check(view(token))
    assert len(calls) == len(caplog.records) == 3


def test_facts_are_also_in_the_error(authority: FakeAuthority, caplog: Any):
    decision = guard_of(authority).check(view(authority.mint(claims={"iss": "https://other.test"})))
    assert isinstance(decision, Denied)
    assert decision.error.detail["configured"] == "https://as.test"
    assert str(decision.error).startswith("unknown_issuer (iss=https://other.test, configured=https://as.test, ")
