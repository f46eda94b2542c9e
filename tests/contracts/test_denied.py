"""A rule may deny: it ends the search, and more general rules after it do not apply."""

from __future__ import annotations

import pytest

from scopeguard import DENIED, PUBLIC, Rule, Rules, all_of


@pytest.mark.parametrize("template", ["/a/secret", "/a/{name}.secret", "/a/{all:segments}:secret"])
def test_rules_after_a_denying_one_do_not_apply(template: str):
    rules = Rules([Rule(template, DENIED, ["GET"]), Rule("/a/{rest:path}", PUBLIC), Rule("/a/secret", PUBLIC, ["PUT"])])
    path = {"/a/secret": "/a/secret", "/a/{name}.secret": "/a/x.secret"}.get(template, "/a/x/y:secret")
    denial = rules.all[0]
    assert rules.find("GET", path) is rules.find("HEAD", path) is rules.find("get", path) is denial
    assert rules.find("GET", path, path.encode()) is denial
    assert rules.closes(denial)
    assert not rules.closes(rules.find("PUT", path))
    assert not rules.closes(rules.find("GET", "/a/other"))
    assert rules.closes(None)
    assert not Rules(public=["/a"]).closes(None)


def test_denial_of_any_reading_of_a_path_denies_it():
    rules = Rules([Rule("/a", DENIED), Rule("/b", all_of("read")), Rule("/{x}", PUBLIC)])
    denial, _, other = rules.all
    assert rules.find("GET", "/a", b"/%61") is denial
    assert rules.find("GET", "/%61", b"/%2561") is denial
    assert rules.find("GET", "/%62", b"/%2562") is None  # Two rules, and neither denies.
    assert rules.find("GET", "/%63", b"/%2563") is other


def test_denial_applies_with_and_without_a_trailing_slash():
    rules = Rules([Rule("/a/secret", DENIED), Rule("/a/{rest:path}", all_of("read"))])
    assert rules.find("GET", "/a/secret/") is rules.all[0]
    assert rules.find("GET", "/a/open/") is not None
