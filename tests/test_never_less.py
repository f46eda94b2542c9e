"""A guard never enforces less after an upgrade or a reload, unless that is recorded with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import switches
from scopeguard import (
    ConfigurationError,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    Profile,
    RequestView,
    Resource,
    Rule,
    TokenSources,
    all_of,
)
from scopeguard.config.profiles import tighten_issuer
from scopeguard.core.starting import take_over
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority
from scopeguard.testing.forgeries.token_parts import Forge

RECORDED: dict[str, Any] = json.loads(switches.RECORD.read_text("utf-8"))
HOW = "record it with: python tests/support/switches.py"


# -- upgrades: the switches of this version, compared with the recorded ones


def test_no_switch_became_looser_without_a_recorded_reason():
    looser = switches.find_loosened(RECORDED["switches"], switches.current_switches())
    assert looser == [], f'these enforce less than recorded; if that is intended, {HOW} --because "the reason"'


def test_the_record_is_that_of_this_version():
    """Otherwise a switch could become stricter, and later looser again, without an entry."""
    current = switches.current_switches()
    recorded = RECORDED["switches"]
    assert {name for name in current | recorded if current.get(name) != recorded.get(name)} == set(), HOW


def test_each_loosened_switch_has_a_reason():
    for entry in RECORDED["loosened"]:
        assert set(entry) == {"switch", "because"}
        assert len(entry["because"].split()) >= 4, entry


def test_each_setting_of_an_issuer_is_a_switch_or_a_place():
    settings = {setting.name for setting in fields(Issuer) if setting.init}
    assert settings == switches.OF_ISSUER.keys() | switches.PLACES, (
        "add a new setting to OF_ISSUER in tests/support/switches.py, with the function that tells which change is "
        f"looser, or to PLACES; then {HOW}"
    )


ISSUER = Issuer(
    "https://as.example",
    audience="https://api.example",
    forbidden_claims=["a", "b"],
    forbidden_headers=["jku"],
    past_claims=["nbf"],
    required_claims=["jti", "sub"],
    expected_claims={"tid": ["1", "2"], "flag": [True]},
    expected_headers={"typ": ["at+jwt"]},
    claim_prefixes={"sub": ["user:"]},
    any_claims=["scope", "roles"],
    role_claims=["roles"],
    single_audience=True,
    require_sender_constraint=True,
    max_lifetime=600,
)
LOOSER: list[tuple[str, Any]] = [
    ("audience", ["https://api.example", "x"]),
    ("algorithms", ["RS256", "RS512"]),
    ("typ", ["at+jwt", "x"]),
    ("audience_claims", ["aud", "azp"]),
    ("aliases", {"https://old.example": {"tid": "1"}}),
    ("role_claims", ["roles", "groups"]),
    ("client_id_claims", ["client_id", "client"]),
    ("subject_claims", ["email"]),
    ("implies", {"write": ["read"]}),
    ("internal_hosts", ["keys.internal"]),
    ("insecure_http_dangerously", ["keycloak:8080"]),
    ("required_claims", ["sub"]),
    ("required_claims", None),
    ("forbidden_claims", ["a"]),
    ("forbidden_headers", []),
    ("past_claims", []),
    ("expected_claims", {"tid": ["1", "2", "3"], "flag": [True]}),
    ("expected_claims", {"tid": ["1"]}),
    ("expected_headers", {}),
    ("claim_prefixes", {"sub": ["user:", "service:"]}),
    ("any_claims", []),
    ("any_claims", ["scope", "azp"]),
    ("single_audience", False),
    ("mutual_tls", True),
    ("require_sender_constraint", False),
    ("canonicalize_audience", True),
    ("merge_scope_claims", True),
    ("roles_as_scopes", True),
    ("accept_id_tokens_dangerously", True),
    ("issuer_claim_optional_dangerously", True),
    ("leeway", 31),
    ("max_lifetime", 601),
    ("max_lifetime", None),
    ("scope_prefix", "x:"),
    ("machine_signs", []),
    ("key_set", replace(ISSUER.key_set, max_stale=90_000)),
]
STRICTER: list[tuple[str, Any]] = [
    ("algorithms", ["ES256"]),
    ("typ", ["at+jwt"]),
    ("client_id_claims", ["client_id"]),
    ("required_claims", ["jti", "sub", "iat"]),
    ("forbidden_claims", ["a", "b", "c"]),
    ("expected_claims", {"tid": ["1"], "flag": [True], "x": ["y"]}),
    ("claim_prefixes", {"sub": ["user:"], "x": ["y"]}),
    ("any_claims", ["scope"]),
    ("leeway", 0),
    ("max_lifetime", 60),
]


@pytest.mark.parametrize(("setting", "value"), LOOSER, ids=[f"{n} {case[0]}" for n, case in enumerate(LOOSER)])
def test_comparison_notices_each_looser_setting(setting: str, value: Any):
    before, after = (switches.of_issuer(issuer) for issuer in (ISSUER, replace(ISSUER, **{setting: value})))
    (found,) = switches.find_loosened({"x": before}, {"x": after})
    assert found.startswith(f"x: {setting}")


@pytest.mark.parametrize(("setting", "value"), STRICTER, ids=[case[0] for case in STRICTER])
def test_comparison_does_not_complain_of_stricter_settings(setting: str, value: Any):
    before, after = (switches.of_issuer(issuer) for issuer in (ISSUER, replace(ISSUER, **{setting: value})))
    assert before != after
    assert switches.find_loosened({"x": before}, {"x": after}) == []


UNCHANGED = ("canonicalize_audience", "accept_id_tokens_dangerously", "issuer_claim_optional_dangerously")
ACCEPTED_BY_PROFILES = [
    *STRICTER,
    *((name, value) for name, value in LOOSER if name not in (*UNCHANGED, "audience", "insecure_http_dangerously")),
]


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize(
    ("setting", "value"),
    ACCEPTED_BY_PROFILES,
    ids=[f"{n} {case[0]}" for n, case in enumerate(ACCEPTED_BY_PROFILES)],
)
def test_profile_loosens_no_setting(profile: Profile, setting: str, value: Any):
    """A profile refuses a setting, or leaves it at least as strict as it is."""
    issuer = replace(ISSUER, **{setting: value})
    try:
        tightened = tighten_issuer(profile, issuer, Resource("https://api.example"), revocable=True)
    except ConfigurationError:
        return
    before, after = switches.of_issuer(issuer), switches.of_issuer(tightened)
    assert switches.find_loosened({"x": before}, {"x": after}) == []


@pytest.mark.parametrize(
    ("switch", "old", "new"),
    [
        ("token_sources", ["header"], ["header", "query"]),
        ("stray_query_token", "refuse", "ignore"),
        ("require_https", True, False),
        ("forward_token_dangerously", False, True),
        ("cors_preflight", "guard", "pass"),
        ("resource", True, False),
        ("revocation.retention", 86400.0, 60.0),
        ("revocation.fail_open_dangerously", False, True),
        ("revocation_status", True, False),
        ("introspection.ttl", 0.0, 60.0),
        ("introspection.require_audience", True, False),
        ("experimental_status_list.fail_open_dangerously", False, True),
    ],
)
def test_comparison_notices_looser_switches_of_guards_and_parts(switch: str, old: Any, new: Any):
    assert len(switches.find_loosened({"x": {switch: old}}, {"x": {switch: new}})) == 1
    assert switches.find_loosened({"x": {switch: old}}, {"x": {switch: old}}) == []


def test_switch_or_subject_that_disappears_counts_as_looser():
    assert switches.find_loosened({"x": {"leeway": 30}}, {"x": {}}) == ["x: leeway: 30 -> missing"]
    assert switches.find_loosened({"x": {"leeway": 30}}, {}) == ["x: leeway: 30 -> missing"]
    assert switches.find_loosened({}, {"x": {"leeway": 30}}) == []


def test_looser_switch_is_recorded_only_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "switches.json"
    monkeypatch.setattr(switches, "RECORD", path)
    switches.record(None)
    monkeypatch.setattr(switches, "current_switches", lambda: {"default": {"leeway": 60}})
    path.write_text(json.dumps({"loosened": [], "switches": {"default": {"leeway": 30}}}), "utf-8")
    with pytest.raises(SystemExit, match="default: leeway: 30 -> 60"):
        switches.record(None)
    switches.record("clocks of a provider differ by a minute")
    written = json.loads(path.read_text("utf-8"))
    assert written["switches"] == {"default": {"leeway": 60}}
    assert [entry["switch"] for entry in written["loosened"]] == ["default: leeway: 30 -> 60"]


# -- reloads: the new guard enforces its own settings, whatever the old one accepted and cached


def check(guard: Guard, token: str) -> object:
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
    return guard.check(RequestView(method="GET", path="/", headers=headers), all_of("read"))


TIGHTER: list[tuple[str, dict[str, Any]]] = [
    ("audience", {"audience": "https://other.example"}),
    ("algorithms", {"algorithms": ["PS256"]}),
    ("typ", {"typ": "JWT"}),
    ("required_claims", {"required_claims": ["acr"]}),
    ("expected_claims", {"expected_claims": {"client_id": ["other"]}}),
    ("expected_headers", {"expected_headers": {"kid": ["other"]}}),
    ("any_claims", {"any_claims": ["roles"]}),
    ("forbidden_claims", {"forbidden_claims": ["scope"]}),
    ("forbidden_headers", {"forbidden_headers": ["kid"]}),
    ("claim_prefixes", {"claim_prefixes": {"sub": ["service:"]}}),
    ("max_lifetime", {"max_lifetime": 60}),
    ("single_audience", {"single_audience": True}),
    ("scope_claims", {"scope_claims": []}),
]


@pytest.mark.parametrize("settings", [case[1] for case in TIGHTER], ids=[case[0] for case in TIGHTER])
def test_cached_token_of_the_old_guard_is_checked_by_the_settings_of_the_new_one(settings: dict[str, Any]):
    authority = FakeAuthority()
    forge = Forge(authority)
    token = forge.sign(claims=forge.claims(aud=[authority.audience, "https://second.example"]))

    def make(issuer: Issuer) -> Guard:
        return Guard(issuer, transport=authority.transport, clock=authority.clock)

    old, new = make(authority.issuer), make(replace(authority.issuer, **settings))
    for _ in range(3):
        assert isinstance(check(old, token), Granted)
    take_over(engine_of(new), engine_of(old))
    for _ in range(3):
        assert isinstance(check(new, token), Denied)


FILE = """
[[issuers]]
url = "https://as.test"
audience = "https://api.test"

[[rules]]
path = "/{rest:path}"
all_of = ["read"]
"""
FILES: list[Callable[[str], str]] = [
    lambda text: f'profile = "oauth21"\n{text}',
    lambda text: f'resource = "https://api.test"\nprofile = "mcp"\n{text}',
    lambda text: f"require_https = true\n{text}",
    lambda text: text.replace("[[rules]]", 'algorithms = ["ES256"]\n[[rules]]'),
    lambda text: text.replace("[[rules]]", "single_audience = true\nleeway = 0\n[[rules]]"),
    lambda text: text.replace('["read"]', '["read", "write"]'),
]


def enforcement_of(guard: Guard) -> tuple[Any, ...]:
    rules = () if guard.rules is None else guard.rules.all
    issuers = [switches.of_issuer(issuer) for issuer in guard.issuers]
    limit = guard.sources.limit
    places = None if limit is None else (limit.allowed, limit.refuse_query)
    return issuers, switches.of_guard(guard), rules, guard.profile, places


@pytest.mark.parametrize("edit", FILES, ids=range(len(FILES)))
def test_guard_of_an_edited_file_enforces_that_file(tmp_path: Path, edit: Callable[[str], str]):
    path = tmp_path / "scopeguard.toml"
    path.write_text(FILE, "utf-8")
    old = Guard.from_file(str(path))
    path.write_text(edit(FILE), "utf-8")
    fresh = Guard.from_file(str(path))
    authority = FakeAuthority("https://as.test", "https://api.test")
    new = Guard.from_file(str(path), transport=authority.transport, clock=authority.clock)
    take_over(engine_of(new), engine_of(old))
    assert enforcement_of(new) == enforcement_of(fresh)
    assert enforcement_of(new) != enforcement_of(old)
    before, after = ({"file": {**found[0][0], **found[1]}} for found in (enforcement_of(old), enforcement_of(new)))
    assert switches.find_loosened(before, after) == []


@pytest.mark.parametrize(
    "broken",
    [
        f'profile = "none"\n{FILE}',
        f'profile = "fapi2"\n{FILE}',
        f'profile = "mcp"\n{FILE}',
        f'profile = "oauth21"\ntoken_sources = ["query"]\n{FILE}',
        FILE + 'token_sources = ["somewhere"]\n',
        FILE.replace("audience", "audiens"),
        "nonsense",
        "",
    ],
)
def test_broken_file_makes_no_guard_and_does_not_change_the_old_one(tmp_path: Path, broken: str):
    path = tmp_path / "scopeguard.toml"
    path.write_text(FILE, "utf-8")
    old = Guard.from_file(str(path))
    before = enforcement_of(old)
    path.write_text(broken, "utf-8")
    with pytest.raises(ConfigurationError):
        Guard.from_file(str(path))
    assert enforcement_of(old) == before


def test_sources_of_a_route_keep_the_limits_of_the_guard():
    guard = Guard(
        Issuer("https://as.test", audience="https://api.test"),
        token_sources=TokenSources(methods=["header"], stray_query_token="refuse", max_token_bytes=100),
        rules=[Rule("/x", token_sources=["header", "form"])],
    )
    narrowed = guard.sources.with_methods(["header", "form"])
    assert narrowed.max_token_bytes == 100
    assert narrowed.stray_query_token == "refuse"
