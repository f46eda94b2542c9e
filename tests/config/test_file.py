"""The configuration file: its settings, and the errors for everything else."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from environment import ROOT
from loopback import Certificates
from rsa_keys import rsa_key
from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    AuthZen,
    ChallengeStyle,
    ClientAuthentication,
    ConfigurationError,
    Denied,
    ErrorBody,
    HeaderList,
    Introspection,
    Issuer,
    KeySetPolicy,
    MachineSign,
    MissingCredentials,
    Profile,
    Reason,
    RequestView,
    Resource,
    RevocationPolicy,
    ScopeClaim,
    ScopeForm,
    StatusListPolicy,
    StrayQueryToken,
    TokenSource,
    TokenSources,
    Validation,
    all_of,
    any_of,
)
from scopeguard.config.file import read_settings, settings_from
from scopeguard.config.file.tables import (
    AUTHZEN,
    INTROSPECTION,
    ISSUER,
    KEY_SET,
    REFUSAL_LOG,
    REVOCATION,
    STATUS_LIST,
    TABLES,
    TOKEN_CACHE,
    TOKEN_SOURCES,
)
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.guard import Guard, engine_of
from scopeguard.mcp import McpPolicy, Method, Prompt, ResourceUri, Tool
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rules
from scopeguard.scopes import AUTHENTICATED
from scopeguard.stores.redis import RedisStore

BASE = Path("/etc/api")
MCP_KINDS = ("tools", "prompts", "resources", "methods")
ISSUERS = '[[issuers]]\nurl = "https://as.test"\naudience = "https://api.test"\n'
DECIDED = '[[rules]]\npath = "/x"\nauthenticated = true\ndecide = true\n'
KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode("ascii")
)
CONDITIONS = ("acr", "max_age", "authorization_details", "delegated_to", "machine")
RULES = "[[rules]]\n"
_SCHEMES = {
    "oauth": {"type": "oauth2", "flows": {"implicit": {"scopes": {"read": "From the document"}}}},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-key"},
}
_OPENAPI: dict[str, Any] = {"openapi": "3.1.0", "components": {"securitySchemes": _SCHEMES}}
_READ = {"get": {"security": [{"oauth": ["read"]}]}}
_DISCOVERY = {
    "kind": "discovery#restDescription",
    "servicePath": "v2/",
    "auth": {"oauth2": {"scopes": {"https://www.googleapis.com/auth/d": {"description": "D"}}}},
    "methods": {"d": {"id": "d", "path": "d", "httpMethod": "GET", "scopes": ["https://www.googleapis.com/auth/d"]}},
}
FILES = {
    "openapi.json": json.dumps({**_OPENAPI, "paths": {"/a": _READ}}),
    "shop.json": json.dumps(
        {**_OPENAPI, "paths": {"/a": _READ, "/b": {"get": {}}, "/c": {"get": {"security": [{"apiKey": []}]}}}}
    ),
    "bigquery.v2.json": json.dumps(_DISCOVERY),
    "resource-key.pem": KEY,
    "scopes.toml": '[descriptions]\nfile = "File"\nread = "From the file"\n',
}
ASKING = '[issuers.introspection]\nclient_id = "api"\nclient_secret = "sg-secret-7"\n'


def settings(text: str, **environment: str) -> tuple[tuple[Issuer, ...], dict[str, Any]]:
    return settings_from(tomllib.loads(text), BASE, file="api.toml", environment=environment)


def issuer(text: str, **environment: str) -> Issuer:
    (found,), _ = settings(ISSUERS + text, **environment)
    return found


def refusal(text: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(text, **environment)
    return str(caught.value)


# -- settings


def test_minimal_file_has_one_issuer_and_default_settings():
    issuers, arguments = settings('resource = "https://api.test"\n[[issuers]]\nurl = "https://as.test"')
    assert issuers == (Issuer("https://as.test", audience="https://api.test"),)
    assert arguments == {"resource": Resource("https://api.test")}


def test_audience_of_an_issuer_precedes_the_resource():
    text = 'resource = "https://api.test"\n[[issuers]]\nurl = "https://as.test"\naudience = ["a", "b"]'
    (found,), _ = settings(text)
    assert found.audiences == frozenset(("a", "b"))


def test_every_argument_of_the_guard_is_read():
    _, arguments = settings(
        'resource = "https://api.test"\nrealm = "it"\nrequire_https = true\ntoken_sources = ["header", "form"]\n'
        f"{ISSUERS}[scopes.implies]\nall = ['read', 'write']"
    )
    assert arguments == {
        "resource": Resource("https://api.test"),
        "realm": "it",
        "require_https": True,
        "token_sources": TokenSources().with_methods(["header", "form"]),
        "implies": {"all": ("read", "write")},
    }


@pytest.mark.parametrize(
    ("text", "realm"),
    [
        ("", "api"),
        ('resource = "https://api.test"', "https://api.test"),
        ('resource = "https://api.test"\nrealm = "it"', "it"),
    ],
    ids=["default", "resource", "realm"],
)
def test_error_body_sets_the_challenge_style_and_keeps_the_realm(text: str, realm: str):
    issuers, arguments = settings(f'error_body = "google"\n{text}\n{ISSUERS}')
    assert arguments["challenge"] == ChallengeStyle(realm=realm, body="google")
    challenge = Guard(*issuers, **arguments).style.challenges(MissingCredentials(Reason.NO_CREDENTIALS))[0]
    assert challenge.partition(", ")[0] == f'Bearer realm="{realm}"'


def test_challenge_table_sets_the_challenge_style():
    text = """
        realm = "it"
        error_body = "google"
        [challenge]
        parameters = { hint = "https://docs.test", tenant = "7" }
        error_uri = "env:ERRORS"
        hide_forbidden = true
        """
    issuers, arguments = settings(text + ISSUERS, ERRORS="https://docs.test/errors")
    assert arguments["challenge"] == ChallengeStyle(
        realm="it",
        body="google",
        parameters=(("hint", "https://docs.test"), ("tenant", "7")),
        error_uri="https://docs.test/errors",
        hide_forbidden=True,
    )
    assert "realm" not in arguments
    header = Guard(*issuers, **arguments).style.challenges(MissingCredentials(Reason.NO_CREDENTIALS))[0]
    assert header == 'Bearer realm="it", hint="https://docs.test", tenant="7"'


@pytest.mark.parametrize(
    ("lines", "contract", "body"),
    [
        ("", 'google_discovery = "bigquery.v2.json"', ErrorBody.GOOGLE),
        ("", 'google_discovery = "bigquery.v2.json"\nopenapi = "openapi.json"', ErrorBody.GOOGLE),
        ('realm = "it"', 'google_discovery = "bigquery.v2.json"', ErrorBody.GOOGLE),
        ('error_body = "problem"', 'google_discovery = "bigquery.v2.json"', ErrorBody.PROBLEM),
        ("", 'openapi = "openapi.json"', ErrorBody.PROBLEM),
    ],
)
def test_google_contract_uses_google_error_bodies(lines: str, contract: str, body: ErrorBody, tmp_path: Path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, "utf-8")
    issuers, arguments = settings_from(tomllib.loads(f"{lines}\n{ISSUERS}[contract]\n{contract}"), tmp_path)
    guard = Guard(*issuers, **arguments)
    assert guard.style.body == body
    assert guard.style.realm == ("it" if "realm" in lines else "api")
    decision = guard.check(RequestView(method="GET", path="/v2/d", headers=HeaderList([])))
    assert isinstance(decision, Denied)
    answer = json.loads(decision.response.body)
    assert (answer.get("error", {}).get("code") if body is ErrorBody.GOOGLE else answer["status"]) == 401


def test_token_sources_table_sets_the_size_limits():
    _, arguments = settings(f'{ISSUERS}[token_sources]\nmax_token_bytes = 4096\nstray_query_token = "refuse"')
    assert arguments["token_sources"] == TokenSources(max_token_bytes=4096, stray_query_token=StrayQueryToken.REFUSE)


def test_rules_keep_their_order_and_equal_those_in_python():
    _, arguments = settings(
        f"""
        public = ["/healthz"]
        {ISSUERS}
        [[rules]]
        path = "/a/{{name}}"
        methods = ["GET", "POST"]
        any_of = ["x", "y"]
        token_sources = ["header", "query"]
        [[rules]]
        path = "/b"
        all_of = ["x", "y"]
        [[rules]]
        path = "/c"
        public = true
        [[rules]]
        path = "/d"
        optional = true
        [[rules]]
        path = "/e"
        authenticated = true
        """
    )
    rules = arguments["rules"]
    assert isinstance(rules, Rules)
    assert [(rule.path, rule.access) for rule in rules.all] == [
        ("/healthz", PUBLIC),
        ("/a/{name}", any_of("x", "y")),
        ("/b", all_of("x", "y")),
        ("/c", PUBLIC),
        ("/d", OPTIONAL),
        ("/e", AUTHENTICATED),
    ]
    assert rules.all[1].methods == {"GET", "HEAD", "POST"}
    assert rules.all[1].sources == frozenset((TokenSource.HEADER, TokenSource.QUERY))
    assert rules.deny_unmatched


def test_public_paths_alone_do_not_close_other_routes():
    _, arguments = settings(f'public = ["/healthz"]\n{ISSUERS}')
    assert not arguments["rules"].deny_unmatched


ISSUER_SETTINGS = [
    ('typ = "at+jwt"', "types", frozenset(("at+jwt",))),
    ('typ = ["JWT", ""]', "types", frozenset(("jwt", None))),
    ('algorithms = ["ES256"]', "algorithms", ("ES256",)),
    ('jwks_uri = "https://as.test/jwks"', "jwks_uri", "https://as.test/jwks"),
    ('jwks_file = "keys/jwks.json"', "jwks_file", "/etc/api/keys/jwks.json"),
    ('jwks_file = "/run/jwks.json"', "jwks_file", "/run/jwks.json"),
    ('metadata_url = "https://as.test/m"', "metadata_url", "https://as.test/m"),
    ('aliases = { "https://old.test" = { tid = "7" } }', "aliases", {"https://old.test": {"tid": "7"}}),
    ('required_claims = ["jti"]', "required_claims", ("jti",)),
    ('expected_claims = { tid = "7", azp = ["a", "b"] }', "expected_claims", {"tid": {"7"}, "azp": {"a", "b"}}),
    (
        'scope_claims = ["scope", { claim = "scp", form = "list" }]',
        "scope_claims",
        (ScopeClaim("scope"), ScopeClaim("scp", ScopeForm.LIST)),
    ),
    ('scope_prefix = "https://scopes.test/"', "scope_prefix", "https://scopes.test/"),
    ('implies = { all = ["read"] }', "implies", {"all": ("read",)}),
    ("leeway = 5", "leeway", 5),
    ("max_lifetime = 3600.5", "max_lifetime", 3600.5),
    ("accept_id_tokens_dangerously = true", "accept_id_tokens_dangerously", True),
    ('validate = "jwt"', "validate", Validation.JWT),
    ('expected_claims = { ok = true, tid = ["7", false] }', "expected_claims", {"ok": {True}, "tid": {"7", False}}),
    ('claim_prefixes = { sub = ["system:"] }', "claim_prefixes", {"sub": {"system:"}}),
    ('token_header = "Cf-Access-Jwt-Assertion"', "token_header", "cf-access-jwt-assertion"),
    (
        'machine_signs = [{ machine = true, present = { gty = "cc" }, absent = ["scp"] }, { machine = false }]',
        "machine_signs",
        (MachineSign(machine=True, present={"gty": "cc"}, absent=("scp",)), MachineSign(machine=False)),
    ),
    ('key_url_template = "https://keys.test/{kid}"', "key_url_template", "https://keys.test/{kid}"),
    ('hints = { wrong_audience = "ask Ann" }', "hints", {"wrong_audience": "ask Ann"}),
    ("[issuers.key_set]\nttl = 60\nmax_keys = 7", "key_set", KeySetPolicy(ttl=60, max_keys=7)),
]


@pytest.mark.parametrize(("text", "name", "value"), ISSUER_SETTINGS, ids=[case[0] for case in ISSUER_SETTINGS])
def test_the_settings_of_an_issuer_are_read(text: str, name: str, value: object):
    assert getattr(issuer(text), name) == value


def test_any_audience_needs_its_dangerous_setting():
    text = '[[issuers]]\nurl = "https://as.test"\nany_audience_dangerously = true\nexpected_claims = { tid = "7" }'
    (found,), _ = settings(text)
    assert found.audience is ANY_AUDIENCE_DANGEROUSLY


@pytest.mark.parametrize(
    ("table", "home"),
    [
        (ISSUER, Issuer),
        (KEY_SET, KeySetPolicy),
        (TOKEN_SOURCES, TokenSources),
        (INTROSPECTION, Introspection),
        (REVOCATION, RevocationPolicy),
        (TOKEN_CACHE, TokenCachePolicy),
        (REFUSAL_LOG, RefusalLog),
        (STATUS_LIST, StatusListPolicy),
    ],
)
def test_tables_have_each_setting_of_the_classes(table: dict[str, object], home: Any):
    assert set(table) - {"any_audience_dangerously"} == {setting.name for setting in fields(home) if setting.init}


@pytest.fixture(scope="module")
def named_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that the examples name."""
    folder = tmp_path_factory.mktemp("named")
    for name, content in FILES.items():
        (folder / name).write_text(content, "utf-8")
    certificates = Certificates(folder)
    certificates.bundle.rename(folder / "ca.pem")
    certificates.issue("client").rename(folder / "client.pem")
    (folder / "key.pem").write_bytes(rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


@pytest.mark.parametrize(
    ("table", "key"), [pytest.param(t, k, id=f"{t} {k}") for t, keys in TABLES.items() for k in keys]
)
def test_examples_in_error_messages_are_valid(table: str, key: str, named_files: Path):
    line = f"{key} = {TABLES[table][key].example}"
    given = {
        "API_SECRET": "sg-secret-1",
        "API_TOKEN": "sg-secret-2",
        "STORE_SECRET": "sg-secret-3 of some length",
        "NONCE_KEY": "sg-secret-4 of thirty-two bytes or more",
    }
    given["PDP_TOKEN"] = "sg-secret-4"
    headers = {"the top level": "", "[[rules]]": '[[rules]]\npath = "/x"\n', "[[issuers]]": ""}
    text = headers.get(table, f"{table}\n") + line
    if table == "[[issuers]]":
        lines = {"url": 'url = "https://as.test"', "audience": 'audience = "a"', key: line}
        if key == "any_audience_dangerously":
            lines |= {"audience": 'expected_claims = { tid = "7" }'}
        if key == "introspection":
            lines |= {"validate": 'validate = "auto"'}
        if key in ("jwks_ca_file", "jwks_bearer_file"):
            lines |= {"place": 'jwks_uri = "https://as.test/jwks"'}
        if key == "header_claims":
            lines |= {"place": 'token_header = "x-proxy-token"'}
        if key == "opaque_prefixes":
            lines |= {"validate": 'validate = "auto"', "asking": ASKING}
        text = "[[issuers]]\n" + "\n".join(lines.values())
    elif table in ("[issuers.key_set]", "[issuers.experimental_status_list]"):
        text = ISSUERS + text
    elif table == "[issuers.introspection]":
        text = f'{ISSUERS}validate = "auto"\n{_introspection_table(key, line)}'
    elif table == "[mutual_tls]":
        rest = '\ntrusted_proxies = ["10.0.0.0/8"]' if key != "trusted_proxies" else ""
        rest += '\nsource = "nginx"' if key != "source" else ""
        text = f"{ISSUERS}{text}{rest if key != 'source' else ''}"
    elif table == "[api_keys]":
        lines = {"prefix": 'prefix = "acme"', "keys_file": 'keys_file = "keys.toml"', key: line}
        text = "\n".join([ISSUERS, "[api_keys]", *lines.values()])
    elif table == "[dpop]":
        text = f'resource = "https://api.test"\n{ISSUERS}{text}'
        if key == "trust_nonce_time":
            text += '\nnonce_keys = ["env:NONCE_KEY"]'
    elif table == "[resource]":
        text = f"{ISSUERS}{text}" if key == "url" else f'{ISSUERS}{text}\nurl = "https://api.test"'
    elif table == "[contract]" and key in ("base_path", "undeclared", "ignore_schemes"):
        text = f'{ISSUERS}{text}\nopenapi = "openapi.json"'
    elif table == "[store]" and key != "redis":
        text = f'{ISSUERS}{text}\nredis = "redis://127.0.0.1"'
    elif table.startswith("[[mcp."):
        setting = "uri" if table == "[[mcp.resources]]" else "name"
        named = "" if key == setting else f'{setting} = "a:b"'
        access = "" if key in ("any_of", "all_of", "authenticated", "denied") else "authenticated = true"
        text = f"{ISSUERS}\n{table}\n{line}\n{named}\n{access}"
    elif table == "[mcp]":
        text = f"{ISSUERS}{text}"
    elif table == "[authzen]":
        lines = {"url": 'url = "https://pdp.test"', key: line}
        text = "\n".join([ISSUERS, DECIDED, "[authzen]", *lines.values()])
    elif key == "authzen":
        text = f"{text}\n{ISSUERS}{DECIDED}"
    elif key == "issuers":
        text = f'resource = "https://api.test"\n{text}'
    else:
        if key == "decide":
            text = f'authzen = {{ url = "https://pdp.test" }}\n{text}'
        if table == "[[rules]]" and key in (
            "path",
            "methods",
            "extension_methods",
            "token_sources",
            "decide",
            "dpop",
            *CONDITIONS,
        ):
            text = (text if key != "path" else f"[[rules]]\n{line}") + "\nauthenticated = true"
        text = f"{text}\n{ISSUERS}"
    settings_from(tomllib.loads(text), named_files, file="api.toml", environment=given)


def _introspection_table(key: str, line: str) -> str:
    """Return the table of introspection with *line*, which sets *key*, and the settings that it needs."""
    if key == "ca_file":
        line = f'{line}\nendpoint = "https://as.test/introspect"'
    beside = {"private_key": 'client_id = "api"\nauth = "private_key_jwt"', "bearer_token": 'auth = "bearer"'}
    lines = [given for given in ASKING.splitlines()[1:] if not given.startswith(f"{key} ")]
    return "\n".join(["[issuers.introspection]", *([beside[key]] if key in beside else lines), line])


@pytest.mark.parametrize(
    ("table", "key"), [pytest.param(t, k, id=f"{t} {k}") for t, keys in TABLES.items() for k in keys]
)
def test_setting_of_another_type_is_refused(table: str, key: str):
    wrong = {key: date(1979, 5, 27)}
    issuers: list[dict[str, object]] = [{"url": "https://as.test", "audience": "a"}]
    documents: dict[str, dict[str, object]] = {
        "the top level": {"issuers": issuers, **wrong},
        "[[issuers]]": {"issuers": [{**issuers[0], **wrong}]},
        "[issuers.key_set]": {"issuers": [{**issuers[0], "key_set": wrong}]},
        "[issuers.introspection]": {"issuers": [{**issuers[0], "introspection": wrong}]},
        "[issuers.experimental_status_list]": {"issuers": [{**issuers[0], "experimental_status_list": wrong}]},
        "[mutual_tls]": {"issuers": issuers, "mutual_tls": wrong},
        "[api_keys]": {"issuers": issuers, "api_keys": wrong},
        "[dpop]": {"issuers": issuers, "dpop": wrong},
        "[resource]": {"issuers": issuers, "resource": {"url": "https://api.test", **wrong}},
        "[store]": {"issuers": issuers, "store": wrong},
        "[revocation]": {"issuers": issuers, "revocation": wrong},
        "[token_cache]": {"issuers": issuers, "token_cache": wrong},
        "[refusal_log]": {"issuers": issuers, "refusal_log": wrong},
        "[[rules]]": {"issuers": issuers, "rules": [{"path": "/", **wrong}]},
        "[token_sources]": {"issuers": issuers, "token_sources": wrong},
        "[scopes]": {"issuers": issuers, "scopes": wrong},
        "[contract]": {"issuers": issuers, "contract": wrong},
        "[transport]": {"issuers": issuers, "transport": wrong},
        "[challenge]": {"issuers": issuers, "challenge": wrong},
        "[authzen]": {"issuers": issuers, "authzen": wrong},
        "[mcp]": {"issuers": issuers, "mcp": wrong},
        **{f"[[mcp.{kind}]]": {"issuers": issuers, "mcp": {kind: [wrong]}} for kind in MCP_KINDS},
    }
    with pytest.raises(ConfigurationError) as caught:
        settings_from(documents[table], BASE, file="api.toml")
    assert f": {key}: " in str(caught.value)
    assert f", not a date or time, as in: {key} = " in str(caught.value)


# -- an MCP server


def test_mcp_tables_are_read():
    text = """
        [mcp]
        allowed_origins = ["https://app.test"]
        max_body_bytes = 1000
        [[mcp.tools]]
        name = "delete_*"
        all_of = ["files:write"]
        max_age = 300
        [[mcp.tools]]
        name = "*"
        authenticated = true
        [[mcp.prompts]]
        name = "secret"
        denied = true
        [[mcp.resources]]
        uri = "file:///reports/**"
        any_of = ["reports", "admin"]
        [[mcp.methods]]
        name = "tools/list"
        authenticated = true
        """
    _, arguments = settings(ISSUERS + text)
    rules = [
        Tool("delete_*", all_of("files:write", max_age=300)),
        Tool("*", AUTHENTICATED),
        Prompt("secret", DENIED),
        ResourceUri("file:///reports/**", any_of("reports", "admin")),
        Method("tools/list", AUTHENTICATED),
    ]
    assert arguments["mcp"] == McpPolicy(rules=rules, allowed_origins=["https://app.test"], max_body_bytes=1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[mcp.tools]]\nall_of = ["a"]', r"\[\[mcp.tools\]\] 1: name: is missing"),
        ('[[mcp.resources]]\nname = "a"\nall_of = ["a"]', r"\[\[mcp.resources\]\] 1: name: "),
        ('[[mcp.tools]]\nname = "a"', "exactly one of any_of, all_of, authenticated, denied$"),
        ('[[mcp.tools]]\nname = "a"\npublic = true', r"\[\[mcp.tools\]\] 1: public: "),
        ('[[mcp.tools]]\nname = "a"\nall_of = ["a b"]', "holds several scopes"),
        ('[[mcp.methods]]\nname = "tools/call"\nall_of = ["a"]', "write Tool"),
        ('[[mcp.resources]]\nuri = "a**b"\nall_of = ["a"]', "after the last slash"),
        ('[mcp]\nallowed_origins = ["app.test"]', "is not an origin"),
        ("[mcp]\nmax_body_bytes = 0", "max_body_bytes"),
        ('[[mcp.tools]]\nname = "*"\nall_of = ["a"]\n[[mcp.tools]]\nname = "b"\nall_of = ["b"]', "can never decide"),
    ],
)
def test_wrong_mcp_table_is_refused(text: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        settings(ISSUERS + text)


# -- policy decisions


def test_policy_decision_point_decides_about_the_rules_that_say_so():
    text = f"""
        insecure_http_dangerously = ["pdp:8181"]
        {ISSUERS}
        [authzen]
        url = "http://pdp:8181"
        authentication = "env:PDP_TOKEN"
        ttl = 5
        [[rules]]
        path = "/x"
        all_of = ["read"]
        decide = true
        [[rules]]
        path = "/y"
        authenticated = true
        """
    _, arguments = settings(text, PDP_TOKEN="sg-secret-7")
    decided, plain = arguments["rules"].all
    assert decided.decide == AuthZen(
        "http://pdp:8181", authentication="sg-secret-7", ttl=5, insecure_http_dangerously=["pdp:8181"]
    )
    assert (plain.decide, plain.is_plain, decided.is_plain) == (None, True, False)
    assert "sg-secret-7" not in repr(decided)


def test_policy_decision_point_lacks_only_functions_in_the_file():
    functions = {"subject", "action", "resource", "context", "evaluations", "semantics"}
    assert set(AUTHZEN) == {setting.name for setting in fields(AuthZen) if setting.init} - functions


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[[rules]]\npath = "/x"\nauthenticated = true\ndecide = true', r"\[\[rules\]\] 1: decide: needs a policy"),
        ('[authzen]\nurl = "https://pdp.test"', r"\[authzen\]: url: decides about no rule; add decide = true"),
        (f"{DECIDED}[authzen]\nttl = 1", r"\[authzen\]: url: is missing; as in: url = "),
        (f'{DECIDED}[authzen]\nurl = "http://pdp.test"', r"\[authzen\]: authzen.url: .* is cleartext"),
        (f'{DECIDED}[authzen]\nurl = "https://pdp.test"\nttl = -1', "authzen.ttl: must be at least 0 seconds"),
        (
            f'{DECIDED.replace("authenticated", "public")}[authzen]\nurl = "https://pdp.test"',
            r"\[\[rules\]\] 1: decide: needs an access token, and public requires none",
        ),
    ],
)
def test_mistakes_around_policy_decisions_are_named(text: str, error: str):
    with pytest.raises(ConfigurationError, match=error):
        settings(f"{ISSUERS}{text}")


def test_public_rule_has_no_mode_for_proofs():
    text = '[[rules]]\npath = "/x"\npublic = true\ndpop = "required"'
    with pytest.raises(ConfigurationError, match=r"\[\[rules\]\] 1: .*dpop: has no effect with PUBLIC"):
        settings(f"{ISSUERS}{text}")
    for access in ("optional", "authenticated"):
        assert settings(
            f"{ISSUERS}[dpop]\nmode = 'allowed'\nbase_url = 'https://api.test'\n" + text.replace("public", access)
        )


# -- introspection and shared state


def test_introspection_of_an_issuer_is_read():
    found = issuer(
        f"""
        validate = "introspection"
        opaque_prefixes = ["o_", "p_", "o_"]
        {ASKING.replace("sg-secret-7", "env:API_SECRET")}
        auth = "client_secret_post"
        endpoint = "https://as.test/introspect"
        token_type_hint = ""
        assertion_typ = ""
        ttl = 5
        """,
        API_SECRET="sg-secret-8",
    )
    assert found.validate is Validation.INTROSPECTION
    assert found.opaque_prefixes == ("o_", "p_")
    assert found.introspection == Introspection(
        client_id="api",
        client_secret="sg-secret-8",
        auth=ClientAuthentication.CLIENT_SECRET_POST,
        endpoint="https://as.test/introspect",
        token_type_hint=None,
        assertion_typ=None,
        ttl=5,
    )


@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_private_key_may_be_in_a_file_or_in_a_table(tmp_path: Path, form: str):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    table: dict[str, Any] = {
        "client_id": "api",
        "auth": "private_key_jwt",
        "key_algorithm": "ES256",
        "private_key": "file:key.pem" if form == "pem" else ECAlgorithm.to_jwk(key, as_dict=True),
    }
    issuers = [{"url": "https://as.test", "audience": "a", "validate": "auto", "introspection": table}]
    (found,), _ = settings_from({"issuers": issuers}, tmp_path)
    assert found.introspection is not None
    assert isinstance(found.introspection.private_key, str if form == "pem" else dict)
    table["key_algorithm"] = "RS256"
    with pytest.raises(ConfigurationError, match="not a private key for RS256") as caught:
        settings_from({"issuers": issuers}, tmp_path)
    assert "PRIVATE KEY" not in str(caught.value)


def test_cors_preflight_is_read():
    _, arguments = settings(f'cors_preflight = "pass"\n{ISSUERS}')
    guard = Guard(Issuer("https://auth.example.com", audience="x"), **arguments)
    assert engine_of(guard).passes_preflights()
    with pytest.raises(ConfigurationError, match=r"top level: cors_preflight: 'yes' is not one of 'guard', 'pass'"):
        settings(f'cors_preflight = "yes"\n{ISSUERS}')


def test_token_cache_limits_are_read():
    _, arguments = settings(f"{ISSUERS}[token_cache]\nmax_entries = 3000")
    assert arguments["token_cache"] == TokenCachePolicy(max_entries=3000)
    _, arguments = settings(f'token_cache = "off"\naudit = "error"\n{ISSUERS}')
    assert (arguments["token_cache"], arguments["audit"]) == ("off", "error")
    _, arguments = settings(f'refusal_log = "off"\n{ISSUERS}')
    assert arguments["refusal_log"] == "off"
    _, arguments = settings(f'{ISSUERS}[refusal_log]\nlevel = "info"\ninterval = 0')
    assert arguments["refusal_log"] == RefusalLog(level="info", interval=0)


def test_store_and_revocation_settings_are_read():
    _, arguments = settings(
        f"""
        {ISSUERS}
        [store]
        redis = "env:REDIS_URL"
        prefix = "api:"
        secret = "env:STORE_SECRET"
        timeout = 1
        [revocation]
        max_lag = 0.5
        retention = 3600
        fail_open_dangerously = true
        """,
        REDIS_URL="rediss://:sg-secret-9@redis.test:6380/1",
        STORE_SECRET="sg-secret-10 of sufficient length",
    )
    assert isinstance(arguments["store"], RedisStore)
    assert repr(arguments["store"]) == "RedisStore(prefix='api:')"
    assert arguments["revocation"] == RevocationPolicy(retention=3600, max_lag=0.5, fail_open_dangerously=True)


# -- references for secrets and URLs


def test_url_may_be_in_the_environment_or_in_a_file(tmp_path: Path):
    (tmp_path / "as.txt").write_text("https://as.test\n", "utf-8")
    text = 'resource = "env:RESOURCE"\n[[issuers]]\nurl = "file:as.txt"\njwks_file = "env:KEYS"'
    (found,), arguments = settings_from(
        tomllib.loads(text), tmp_path, environment={"RESOURCE": "https://api.test", "KEYS": "keys.json"}
    )
    assert (found.url, arguments["resource"].url) == ("https://as.test", "https://api.test")
    assert found.audiences == frozenset(("https://api.test",))
    assert found.jwks_file == str(tmp_path / "keys.json")


def test_scope_similar_to_a_reference_is_a_scope():
    _, arguments = settings(f'{ISSUERS}[[rules]]\npath = "/x"\nany_of = ["env:read"]')
    assert arguments["rules"].all[0].access == all_of("env:read")


# -- contracts and the catalog of scopes


def test_contract_follows_the_rules_and_defines_scopes(tmp_path: Path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, "utf-8")
    text = f"""
        public = ["/healthz"]
        {ISSUERS}
        [[rules]]
        path = "/a"
        methods = ["DELETE"]
        denied = true
        [contract]
        openapi = ["shop.json"]
        google_discovery = "bigquery.v2.json"
        undeclared = "authenticated"
        ignore_schemes = ["apiKey"]
        [scopes]
        catalog = "scopes.toml"
        implies = {{ write = ["read"] }}
        [scopes.descriptions]
        own = "Own"
        """
    issuers, arguments = settings_from(tomllib.loads(text), tmp_path, file="api.toml")
    assert [(rule.path, rule.access, rule.source) for rule in arguments["rules"].all[1:]] == [
        ("/a", DENIED, "api.toml: [[rules]] 1"),
        ("/a", all_of("read"), "shop.json: GET /a"),
        ("/b", AUTHENTICATED, "shop.json: GET /b"),
        ("/c", DENIED, "shop.json: GET /c"),
        ("/v2/d", all_of("https://www.googleapis.com/auth/d"), "bigquery.v2.json: GET /v2/d (d)"),
    ]
    guard = Guard(*issuers, **arguments)
    assert {"read", "d", "own", "file", "write"} <= {name.rpartition("/")[2] for name in guard.catalog}
    assert (guard.catalog.describe("read"), guard.catalog.describe("d")) == ("From the file", "D")


def test_contract_alone_denies_undescribed_routes(tmp_path: Path):
    (tmp_path / "shop.json").write_text(FILES["shop.json"], "utf-8")
    contract = '[contract]\nopenapi = "shop.json"\nbase_path = "/v1"\nundeclared = "deny"'
    with pytest.raises(ConfigurationError, match=r"\[contract\]: openapi: shop.json: GET /c: security: apiKey"):
        settings_from(tomllib.loads(f"{ISSUERS}{contract}"), tmp_path, file="api.toml")
    text = f'{ISSUERS}{contract}\nignore_schemes = ["apiKey"]'
    _, arguments = settings_from(tomllib.loads(text), tmp_path, file="api.toml")
    assert arguments["rules"].deny_unmatched
    assert arguments["rules"].find("GET", "/v1/a").access == all_of("read")
    with pytest.raises(ConfigurationError, match=r"ignore_schemes: other is not a security scheme of any document"):
        settings_from(tomllib.loads(text.replace('"apiKey"', '"apiKey", "other"')), tmp_path, file="api.toml")
    with pytest.raises(ConfigurationError, match=r"\[contract\]: undeclared: 'open' is not one of"):
        settings_from(tomllib.loads(text.replace('"deny"', '"open"')), tmp_path, file="api.toml")


def test_two_prefixes_are_refused_with_their_place(tmp_path: Path):
    (tmp_path / "bigquery.v2.json").write_text(FILES["bigquery.v2.json"], "utf-8")
    text = f'{ISSUERS}[contract]\ngoogle_discovery = "bigquery.v2.json"\n[scopes]\nprefix = "x:"'
    with pytest.raises(ConfigurationError, match=r"api.toml: \[scopes\]: prefix: .* different prefixes"):
        settings_from(tomllib.loads(text), tmp_path, file="api.toml")


# -- errors

INTROSPECTED = f'{ISSUERS}validate = "auto"\n'
TWO_OPAQUE = INTROSPECTED + ASKING + INTROSPECTED.replace("as.test", "two.test") + ASKING
RIVALS = TWO_OPAQUE.replace("validate", "opaque_prefixes = ['o_']\nvalidate")
JWT_PROOF = "[issuers.introspection]\nclient_id = 'x'\nauth = 'private_key_jwt'\nprivate_key = 'x'"
REFUSED = [
    # incomplete files
    ("", "top level: issuers: is missing"),
    ('[[issuers]]\naudience = "a"', "[[issuers]] 1: url: is missing"),
    ('[[issuers]]\nurl = "https://as.test"', "[[issuers]] 1: audience: is missing"),
    # unknown, misplaced, later
    (f'resorce = "https://api.test"\n{ISSUERS}', "top level: resorce: unknown key; did you mean resource?"),
    (f"{ISSUERS}algoritms = []", "[[issuers]] 1: algoritms: unknown key; did you mean algorithms?"),
    (f"error_body = 'html'\n{ISSUERS}", "top level: error_body: must be one of 'problem', 'google', not 'html'"),
    (f"error_body = 1\n{ISSUERS}", "top level: error_body: "),
    (f"zzz = 1\n{ISSUERS}", "top level: zzz: unknown key; use one of api_keys, audit, authzen, challenge, contract, "),
    (f"{ISSUERS}[issuers.key_set]\ntll = 1", "[issuers.key_set] of [[issuers]] 1: tll: unknown key; did you mean ttl?"),
    (f"{ISSUERS}[scopes]\nimplis = 1", "[scopes]: implis: unknown key; did you mean implies?"),
    (f"{ISSUERS}[token_sources]\nmethod = []", "[token_sources]: method: unknown key; did you mean methods?"),
    (f'{ISSUERS}[[rules]]\npath = "/"\nanyof = []', "[[rules]] 1: anyof: unknown key; did you mean any_of?"),
    (f'{ISSUERS}realm = "x"', "the top level, not in this table; move it, or use one of accept_id_tokens_"),
    (f"{ISSUERS}[store]\nurl = 'x'", "not in this table; move it, or use one of prefix, redis, replicas, secret"),
    (f"issuer = 'x'\n{ISSUERS}", "issuer: belongs in [api_keys], not in this table; move it, or did you mean issuers?"),
    (f"{ISSUERS}[store]\nkind = 'x'", "[store]: kind: unknown key; use one of prefix, redis, replicas, "),
    (f'leeway = 3\n{ISSUERS}', "top level: leeway: belongs in [[issuers]], not in this table"),
    (f'{ISSUERS}preset = "entra"', "[[issuers]] 1: url: is not an argument of the preset entra, which takes tenant"),
    # contracts
    (f"{ISSUERS}[contract]", "[contract]: openapi: is missing; name a document"),
    (f"{ISSUERS}[contract]\nopenapi = []", "openapi: must be a path or a list of paths, not an empty list"),
    (f"{ISSUERS}[contract]\nopenapi = 'x'", "[contract]: openapi: /etc/api/x: cannot be read: No such file"),
    (f"{ISSUERS}[contract]\ngoogle_discovery = 'x'", "[contract]: google_discovery: /etc/api/x: cannot be read"),
    (f"{ISSUERS}[contract]\nopenapi = 'file:x'", "[contract]: openapi: must be the path itself"),
    (f"{ISSUERS}[contract]\nopen_api = 'x'", "[contract]: open_api: unknown key; did you mean openapi?"),
    (f"{ISSUERS}[contract]\nopenapi = ['a', 'b']\nbase_path = '/v1'", "base_path: cannot apply to several documents"),
    (f"{ISSUERS}[scopes]\ncatalog = 'x.toml'", "[scopes]: catalog: x.toml: cannot be read: No such file"),
    (f"{ISSUERS}[scopes]\nprefix = 'a b'", "[scopes]: prefix: 'a b' holds several scopes"),
    (f"{ISSUERS}[scopes.descriptions]\n'a b' = 'x'", "[scopes]: descriptions: 'a b' holds several scopes"),
    (f"{ISSUERS}[scopes.descriptions]\na = 7", "[scopes]: descriptions: a: must be a string, not a whole number"),
    (f'profile = "fapi1"\n{ISSUERS}', "top level: profile: 'fapi1' is not one of 'oauth21', 'fapi2', 'mcp'"),
    (f"profile = 2\n{ISSUERS}", "top level: profile: must be a string, not a whole number"),
    (f'{ISSUERS}validate = "auto"', "[[issuers]] 1: introspection: validate = 'auto' needs an Introspection"),
    (f'{ISSUERS}validate = "saml"', "[[issuers]] 1: validate: 'saml' is not one of 'jwt', 'introspection', 'auto'"),
    (f"{ISSUERS}{ASKING}", '[[issuers]] 1: introspection: has no effect with validate = "jwt"'),
    # introspection
    (f"{ISSUERS}introspection = 5", "[[issuers]] 1: introspection: must be a table, not a whole number"),
    (f"{ISSUERS}[issuers.introspection]\nsecret = 'x'", "[issuers.introspection] of [[issuers]] 1: secret: belongs in"),
    (f"{ISSUERS}[issuers.introspection]\nclient_id = 'x'", "1: introspection.client_secret: is missing; auth ="),
    (f"{ISSUERS}{ASKING}auth = 'x'", "[issuers.introspection] of [[issuers]] 1: introspection.auth: 'x' is not one of"),
    (f"{ISSUERS}{ASKING}ttl = -1", "introspection.ttl: must be at least 0 seconds, not -1"),
    (f"{ISSUERS}validate = 'auto'\n{ASKING}endpoint = 'http://x.test'", "endpoint: 'http://x.test' is cleartext"),
    (f"{ISSUERS}{ASKING}key_id = 'env:NOPE'", "key_id: the environment variable NOPE is not set"),
    (f"{ISSUERS}{JWT_PROOF}", "private_key: private_key_jwt: not a private key for RS256"),
    (f"{ISSUERS}{ASKING}private_key = 5", "private_key: must be a string with PEM text, or a table with a JWK"),
    (TWO_OPAQUE, "[[issuers]] 2: opaque_prefixes: is missing here and in [[issuers]] 1"),
    (RIVALS, "2: opaque_prefixes: 'o_' is already a prefix of [[issuers]] 1"),
    (f"{ISSUERS}opaque_prefixes = ['']\nvalidate = 'auto'\n{ASKING}", "opaque_prefixes: an empty prefix matches every"),
    # the network
    (f"insecure_http_dangerously = ['keycloak']\n{ISSUERS}", "dangerously: 'keycloak' is not a host with a port"),
    (f"insecure_http_dangerously = 'a:1'\n{ISSUERS}", "dangerously: must be a list of strings, not a string"),
    (f"{ISSUERS}insecure_http_dangerously = ['*:80']", "1: insecure_http_dangerously: '*:80' is not a host"),
    (f"resource = 'http://api:8000'\n{ISSUERS}", "resource: 'http://api:8000' is cleartext; use https; for a"),
    (f"{ISSUERS}jwks_uri = 'http://k/'", 'set insecure_http_dangerously = ["k:80"]'),
    (f"{ISSUERS}[transport]\nca_file = 'nothing.pem'", "[transport]: ca_file: '/etc/api/nothing.pem' is not a"),
    (f"{ISSUERS}[transport]\ncert_file = 'none.pem'", "[transport]: cert_file: /etc/api/none.pem: not a readable"),
    (f"{ISSUERS}[transport]\nproxy = 'proxy:3128'", "[transport]: proxy: write a URL, as in"),
    (f"{ISSUERS}[transport]\nproxy = 'env:NOPE'", "[transport]: proxy: the environment variable NOPE is not set"),
    (f"{ISSUERS}[transport]\ncafile = 'x'", "[transport]: cafile: unknown key; did you mean ca_file?"),
    (f"proxy = 'http://p:1'\n{ISSUERS}", "top level: proxy: belongs in [transport], not in this table"),
    # challenges
    (f"{ISSUERS}[challenge]\nrealm = 'x'", "[challenge]: realm: belongs in the top level, not in this table"),
    (f"{ISSUERS}[challenge]\nparameters = {{ scope = 'x' }}", "[challenge]: challenge parameter 'scope': not a token"),
    (f"{ISSUERS}[challenge]\nerror_uri = 'x'", "[challenge]: error_uri: 'x' is not an absolute URI"),
    (f"{ISSUERS}[challenge]\nbody = 'google'", "[challenge]: body: unknown key; use one of error_uri, hide_forbidden"),
    # shared state
    (f"{ISSUERS}[store]\nredis = 'x'", "[store]: redis: the Redis URL must begin with redis://"),
    (f"{ISSUERS}[store]\nprefix = 'x'", "[store]: redis: is missing; set it to a URL, as in: redis = "),
    (f"{ISSUERS}[store]\nredis = 'redis://x'\ntimeout = 0", "[store]: timeout must be a number of seconds"),
    (f"{ISSUERS}[store]\nredis = 'redis://x'\nsecret = 'env:EMPTY'", "secret: the environment variable EMPTY is empty"),
    (f"{ISSUERS}[token_cache]\nmax_bytes = 0", "[token_cache]: token_cache: max_bytes: must be greater than 0, not 0"),
    (f"token_cache = \"on\"\n{ISSUERS}", 'token_cache: must be "off", or a table, not a string'),
    (f"{ISSUERS}[revocation]\nmax_lag = 0", "[revocation]: revocation.max_lag: must be greater than 0, not 0"),
    (f"{ISSUERS}[revocation]\nfail_open = true", "fail_open: unknown key; did you mean fail_open_dangerously?"),
    # kinds
    (f"resource = 1\n{ISSUERS}", "top level: resource: must be a string, or a table, not a whole number"),
    (f"require_https = 'yes'\n{ISSUERS}", "require_https: must be true or false, not a string, as in: require_https"),
    (f"public = '/x'\n{ISSUERS}", "top level: public: must be a list of strings, not a string, as in: public = "),
    (f"public = [1, '/x']\n{ISSUERS}", "must be a list of strings, not a list with a string and a whole number"),
    (f"token_sources = 'header'\n{ISSUERS}", "token_sources: must be a list of strings, or a table, not a string"),
    ("[issuers]\nurl = 'x'", "issuers: must be a list of tables, which [[issuers]] begin, not a table"),
    (f"{ISSUERS}leeway = '30'", "[[issuers]] 1: leeway: must be a number, not a string, as in: leeway = 30"),
    (f"{ISSUERS}leeway = true", "[[issuers]] 1: leeway: must be a number, not true"),
    (f"{ISSUERS}algorithms = 'RS256'", "[[issuers]] 1: algorithms: must be a list of strings, not a string"),
    (f"{ISSUERS}typ = [1.5]", "[[issuers]] 1: typ: must be a string or a list of strings, not a list with a number"),
    (f"{ISSUERS}key_set = 5", "[[issuers]] 1: key_set: must be a table, not a whole number"),
    (f"{ISSUERS}[issuers.key_set]\nmax_keys = 1.5", "max_keys: must be a whole number, not a number"),
    (f"{ISSUERS}expected_claims = {{ tid = 7 }}", "expected_claims: tid: must be a string, true or false"),
    (f"{ISSUERS}aliases = {{ a = {{ tid = 7 }} }}", "[[issuers]] 1: aliases: a: tid: must be a string"),
    (f"{ISSUERS}scope_claims = [[]]", "scope_claims: must be a list of claims, each a string or a table"),
    (f"{ISSUERS}scope_claims = [{{ form = 'list' }}]", "[[issuers]] 1: scope_claims: an item has no claim"),
    (f"{ISSUERS}implies = {{ all = 'read' }}", "[[issuers]] 1: implies: all: must be a list of strings"),
    (f'{ISSUERS}[[rules]]\npath = "/"\npublic = false', "[[rules]] 1: public: must be true or left out, not false"),
    # values
    (f"resource = 'http://api.test'\n{ISSUERS}", "top level: resource: 'http://api.test' is cleartext"),
    (f"realm = 'ü'\n{ISSUERS}", "top level: realm: 'ü' is not allowed in a header"),
    (f"public = ['x']\n{ISSUERS}", "top level: public: rule 'x': a path must begin with /"),
    (f"token_sources = ['cookie']\n{ISSUERS}", "token_sources: 'cookie' is not one of 'header', 'query', 'form'"),
    (f"token_sources = []\n{ISSUERS}", "top level: token_sources: name at least one place"),
    (f"{ISSUERS}[token_sources]\nmax_form_bytes = 0", "[token_sources]: max_form_bytes: must be greater than 0, not 0"),
    ("[[issuers]]\nurl = 'http://as.test'\naudience = 'a'", "[[issuers]] 1: url: 'http://as.test' is cleartext"),
    ("[[issuers]]\nurl = ''\naudience = 'a'", "[[issuers]] 1: url: must be the URL of the authorization server"),
    (f"{ISSUERS}{ISSUERS}", "[[issuers]] 2: url: 'https://as.test' is already the issuer of [[issuers]] 1"),
    (f"{ISSUERS}leeway = 301", "[[issuers]] 1: leeway: must be from 0 to 300 seconds, not 301"),
    (f"{ISSUERS}algorithms = ['HS256']", "[[issuers]] 1: algorithms: HS256 is symmetric"),
    (f"{ISSUERS}jwks_uri = 'ftp://x'", "[[issuers]] 1: jwks_uri: 'ftp://x' is not an https URL"),
    (f"{ISSUERS}jwks_file = 'file:x'", "[[issuers]] 1: jwks_file: must be the path itself"),
    (f"{ISSUERS}jwks_file = 'x'\njwks_uri = 'https://x'", "jwks_file and jwks_uri exclude each other; keep one"),
    (f"{ISSUERS}any_audience_dangerously = true", "[[issuers]] 1: audience: contradicts any_audience_dangerously"),
    (f"{ISSUERS}scope_claims = [{{ claim = 'x', form = 'y' }}]", "[[issuers]] 1: scope_claims['x']: 'y'"),
    (f"{ISSUERS}implies = {{ 'a b' = ['c'] }}", "[[issuers]] 1: implies: 'a b' holds several scopes"),
    (f"{ISSUERS}keys = {{ keys = [{{ kty = 'oct', k = 'x' }}] }}", "[[issuers]] 1: keys: "),
    (f"{ISSUERS}[issuers.key_set]\nttl = 1", "key_set] of [[issuers]] 1: key_set: must have min_ttl <= ttl"),
    (f"{ISSUERS}[issuers.key_set]\nttl = 0", "key_set] of [[issuers]] 1: key_set.ttl: must be greater than 0, not 0"),
    (f"{ISSUERS}[scopes.implies]\n'a b' = ['c']", "[scopes]: implies: 'a b' holds several scopes"),
    (f"{ISSUERS}[[rules]]\npublic = true", "[[rules]] 1: path: is missing"),
    (f"{ISSUERS}[[rules]]\npath = '/'", "[[rules]] 1: path: a rule needs exactly one of any_of, all_of, public"),
    (f"{ISSUERS}[[rules]]\npath = '/'\npublic = true\noptional = true", "public and optional: contradict each other"),
    (f"{ISSUERS}[[rules]]\npath = 'x'\npublic = true", "[[rules]] 1: path: rule 'x': a path must begin with /"),
    (f"{ISSUERS}[[rules]]\npath = '/x/*'\npublic = true", "[[rules]] 1: path: rule '/x/*': wildcards are"),
    (f"{ISSUERS}[[rules]]\npath = '/'\nany_of = []", "[[rules]] 1: any_of: any_of() needs at least one scope"),
    (f"{ISSUERS}[[rules]]\npath = '/'\nall_of = ['a b']", "[[rules]] 1: all_of: 'a b' holds several scopes"),
    (f"{ISSUERS}[[rules]]\npath = '/'\npublic = true\nmethods = ['get']", "1: methods: rule '/': 'get' is not"),
    (f"{ISSUERS}[[rules]]\npath = '/'\npublic = true\nmethods = []", "[[rules]] 1: methods: rule '/': name a method"),
    (f"{ISSUERS}[[rules]]\npath = '/'\npublic = true\ntoken_sources = ['x']", "1: token_sources: 'x' is not one"),
    # references
    (f"resource = 'env:NOPE'\n{ISSUERS}", "top level: resource: the environment variable NOPE is not set"),
    (f"resource = 'env:EMPTY'\n{ISSUERS}", "top level: resource: the environment variable EMPTY is empty"),
    (f"resource = 'file:no/such'\n{ISSUERS}", "resource: the file no/such cannot be read: No such file or directory"),
    (f"resource = 'file:/dev/null'\n{ISSUERS}", "resource: the file /dev/null cannot be read: it is a device"),
    (f"resource = 'file:\\u0000'\n{ISSUERS}".replace("'", '"'), "cannot be read: not a path"),
]  # fmt: skip


def test_empty_file_in_the_place_of_a_value_is_refused(tmp_path: Path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "api.toml").write_text(f"resource = 'file:empty'\n{ISSUERS}")
    with pytest.raises(ConfigurationError, match="top level: resource: the file empty is empty"):
        Guard.from_file(tmp_path / "api.toml")


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[f"{n} {case[1][:40]}" for n, case in enumerate(REFUSED)])
def test_invalid_setting_is_refused_with_its_place_and_a_fix(text: str, message: str):
    said = refusal(text, EMPTY="")
    assert said.startswith("api.toml: ")
    assert message in said


def test_unknown_key_with_any_text_is_shown_on_one_line():
    assert "\n" not in refusal(f'"a\\nb\\u001b[2J" = 1\n{ISSUERS}')


def test_profile_is_read_and_reaches_the_guard(tmp_path: Path):
    path = tmp_path / "api.toml"
    path.write_text(f'profile = "oauth21"\n{ISSUERS}', "utf-8")
    assert read_settings(path)[1]["profile"] is Profile.OAUTH21
    assert Guard.from_file(str(path)).profile is Profile.OAUTH21
    path.write_text(f'profile = "oauth21"\ntoken_sources = ["header", "query"]\n{ISSUERS}', "utf-8")
    with pytest.raises(ConfigurationError, match="token_sources: query contradicts profile 'oauth21'"):
        Guard.from_file(str(path))


# -- the file itself


def test_paths_are_relative_to_the_file(tmp_path: Path):
    (tmp_path / "api.toml").write_text(f'{ISSUERS}jwks_file = "jwks.json"', "utf-8")
    (found,), _ = read_settings(tmp_path / "api.toml")
    assert found.jwks_file == str(tmp_path / "jwks.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "cannot be read: it is not UTF-8"),
        (b"x" * (1024 * 1024 + 1), "cannot be read: it is larger than 1048576 bytes"),
        (b"a = ", "not TOML: Invalid value"),
    ],
)
def test_error_about_an_unreadable_file_states_the_cause(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "api.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"api\.toml: ") as caught:
        read_settings(path)
    assert message in str(caught.value)


def test_guard_from_a_file_has_its_settings_and_the_overrides():
    path = str(ROOT / "examples" / "scopeguard.toml")
    guard = Guard.from_file(path, realm="another")
    assert [issuer.url for issuer in guard.issuers] == ["http://127.0.0.1:9000"]
    assert guard.rules is not None
    assert guard.rules.deny_unmatched
    assert guard.style.realm == "another"


# -- any input

KEYS = st.sampled_from(sorted({key for keys in TABLES.values() for key in keys})) | st.text(max_size=8)
SCALARS = (
    st.text(max_size=12)
    | st.sampled_from(["https://as.test", "http://[::1", "env:X", "file:x", "jwt", "/a/{b}", "/a/{", "a b", "header"])
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4), st.lists(VALUES))
@example({}, {"keys": {"keys": [{"kty": "RSA", "n": 1}]}}, [])
@example({"realm": "\ud800"}, {}, [])
def test_any_document_is_read_or_refused(top: dict[str, Any], one: dict[str, Any], rules: list[Any]):
    document = {"resource": "https://api.test", "issuers": [{"url": "https://as.test", **one}], "rules": rules, **top}
    try:
        issuers, arguments = settings_from(document, BASE, file="api.toml", environment={"X": "https://x.test"})
    except ConfigurationError as error:
        refused = str(error)
    else:
        refused = ""
        Guard(*issuers, **arguments)
    assert not refused or refused.startswith("api.toml: ")
