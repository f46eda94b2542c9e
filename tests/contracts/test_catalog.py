"""The catalog of the scopes of an API: descriptions, implications, and use by a guard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scopeguard import ConfigurationError, Granted, Guard, HeaderList, Issuer, RequestView, ScopeCatalog, all_of
from scopeguard.testing import FakeAuthority

PREFIX = "https://scopes.test/"


def test_names_include_described_and_implied_scopes():
    catalog = ScopeCatalog(descriptions={"write": "Change", "read": "Look"}, implies={"admin": ["write", "audit"]})
    assert catalog.names == tuple(catalog) == ("write", "read", "admin", "audit")
    assert len(catalog) == 4
    assert "audit" in catalog
    assert "other" not in catalog
    assert 7 not in catalog
    assert (catalog.describe("read"), catalog.describe("audit"), catalog.describe("x")) == ("Look", None, None)
    assert (catalog.nearest("raed"), catalog.nearest("zzzz")) == ("read", None)


def test_catalog_is_read_only():
    catalog = ScopeCatalog(descriptions={"read": "Look"}, implies={"write": ["read"]})
    mappings: tuple[Any, ...] = (catalog.descriptions, catalog.implies)
    for mapping in mappings:
        with pytest.raises(TypeError):
            mapping["x"] = "y"


def test_a_scope_is_known_in_both_spellings_of_the_prefix():
    catalog = ScopeCatalog(descriptions={PREFIX + "read": "Look", "write": "Change"}, prefix=PREFIX)
    assert all(name in catalog for name in ("read", PREFIX + "read", "write", PREFIX + "write"))
    assert catalog.describe("read") == catalog.describe(PREFIX + "read") == "Look"
    assert catalog.describe(PREFIX + "write") == "Change"


def test_two_catalogs_can_be_merged():
    one = ScopeCatalog(descriptions={"a": "A", "b": "old"}, implies={"a": ["b"]}, prefix=PREFIX)
    two = ScopeCatalog(descriptions={"b": "new", "c": "", "a": ""}, implies={"a": ["c"]})
    joined = one | two
    assert dict(joined.descriptions) == {"b": "new", "c": "", "a": "A"}
    assert {scope: set(implied) for scope, implied in joined.implies.items()} == {"a": {"b", "c"}}
    assert joined.prefix == (two | one).prefix == PREFIX
    with pytest.raises(ConfigurationError, match="different prefixes"):
        one | ScopeCatalog(prefix="https://other.test/")
    no_catalog: Any = {"a": "A"}
    with pytest.raises(TypeError):
        one | no_catalog


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"descriptions": {"a b": ""}}, "descriptions: 'a b' holds several scopes"),
        ({"descriptions": {"a": 7}}, r"descriptions\['a'\]: must be a string, not int"),
        ({"descriptions": ["a"]}, "descriptions: must be a table of scopes and texts"),
        ({"implies": {"a": "b"}}, r"implies\['a'\]: must be a list"),
        ({"prefix": 7}, "prefix: must be a string"),
        ({"prefix": "a b"}, "prefix: 'a b' holds several scopes"),
    ],
)
def test_invalid_catalog_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        ScopeCatalog(**settings)


def test_catalog_is_read_from_documents():
    flows = {
        "implicit": {"scopes": {"read": "Look"}},
        "password": {"scopes": {"write": "Change", "read write": "Both", "": "Nothing"}},
        "x-own": {"scopes": {"no": "no"}},
    }
    schemes = {"a": {"type": "oauth2", "flows": flows}, "b": {"type": "apiKey"}, "c": []}
    found = ScopeCatalog.from_openapi({"components": {"securitySchemes": schemes}})
    assert dict(found.descriptions) == {"read": "Look", "write": "Change"}
    assert ScopeCatalog.from_openapi({}) == ScopeCatalog()
    google = "https://www.googleapis.com/auth/"
    scopes = {google + "a": {"description": "A"}, "https://mail.google.com/": {}}
    found = ScopeCatalog.from_google_discovery({"auth": {"oauth2": {"scopes": scopes}}})
    assert (found.prefix, found.describe("a")) == (google, "A")
    assert "https://mail.google.com/" in found
    assert ScopeCatalog.from_google_discovery({}).prefix == ""
    with pytest.raises(ConfigurationError, match="scopes: must be an object with a description"):
        ScopeCatalog.from_google_discovery({"auth": {"oauth2": {"scopes": []}}})


def test_catalog_is_read_from_toml(tmp_path: Path):
    file = tmp_path / "scopes.toml"
    file.write_text(f'prefix = "{PREFIX}"\n[descriptions]\nread = "Look"\n[implies]\nwrite = ["read"]', "utf-8")
    expected = ScopeCatalog(descriptions={"read": "Look"}, implies={"write": ["read"]}, prefix=PREFIX)
    assert ScopeCatalog.from_toml(file) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description = {}", "scopes.toml: description: unknown key; use one of prefix, descriptions, implies"),
        ("descriptions = ", "scopes.toml: not TOML"),
        ("prefix = 7", "scopes.toml: prefix: must be a string"),
        ("implies = 7", "scopes.toml: implies: must map scopes"),
        (None, "scopes.toml: cannot be read: No such file"),
    ],
)
def test_file_without_a_catalog_is_refused_with_its_name(tmp_path: Path, text: str | None, message: str):
    file = tmp_path / "scopes.toml"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=message):
        ScopeCatalog.from_toml(file)


@pytest.mark.parametrize(
    ("own_prefix", "granted", "needed", "allowed"),
    [
        ("", "read", PREFIX + "read", True),
        ("", PREFIX + "read", "read", True),
        ("", "admin", "read", True),
        ("", PREFIX + "admin", "read", True),
        ("", "owner", "read", True),
        ("", "boss", "read", True),
        ("", "read", "admin", False),
        ("", "https://own.test/read", "read", False),
        ("https://own.test/", "https://own.test/read", "read", True),
        ("https://own.test/", PREFIX + "read", "read", False),
        ("https://own.test/", "https://own.test/admin", "read", True),
    ],
)
def test_guard_uses_the_catalog_and_an_issuer_keeps_its_prefix(
    own_prefix: str, granted: str, needed: str, allowed: bool
):
    authority = FakeAuthority()
    issuer = Issuer(authority.url, audience=authority.audience, scope_prefix=own_prefix, implies={"owner": ["admin"]})
    guard = Guard(
        issuer,
        transport=authority.transport,
        clock=authority.clock,
        catalog=ScopeCatalog(implies={"admin": ["read"]}, prefix=PREFIX),
        implies={"boss": ["owner"]},
    )
    bearer = authority.bearer(granted)["Authorization"].encode()
    request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", bearer)]))
    assert isinstance(guard.check(request, all_of(needed)), Granted) is allowed
    assert {"admin", "boss", "owner", "read"} == set(guard.catalog.names)
