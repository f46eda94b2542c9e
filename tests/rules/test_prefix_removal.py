"""The rule for a request if an app strips a prefix from the path before routing.

Fault: one reading of a path decides while a router sees another.
"""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import DENIED, OPTIONAL, PUBLIC, ConfigurationError, Rule, Rules, all_of, any_of
from scopeguard.rules.prefix_removal import MountPoint, Prefixes, RoutedRules, check_root_path, without_prefix
from scopeguard.scopes import AUTHENTICATED

ADMIN, READ, WRITE = all_of("admin"), all_of("read"), all_of("write")
UNSEEN = Prefixes(unknown=(MountPoint(),))
REST = Rule("/{rest:path}")


def access(rules: list[Rule], prefixes: Prefixes, path: str, root_path: str = "", method: str = "GET") -> Any:
    """Return the access for a path, ``None`` if each token is refused."""
    given = Rules(rules)
    rule = RoutedRules(given, prefixes).find(method, path, path.encode(), root_path)
    return None if rule is None or given.closes(rule) else rule.access


@pytest.mark.parametrize(
    ("path", "prefix", "left"),
    [
        ("/api/x", "/api", "/x"),
        ("/api", "/api", ""),
        ("/apis/x", "/api", "/apis/x"),
        ("/x", "/api", "/x"),
        ("/x", "", "/x"),
    ],
)
def test_prefix_is_stripped_at_a_slash(path: str, prefix: str, left: str):
    assert without_prefix(path, prefix) == left


def test_known_prefix_is_stripped():
    known = Prefixes(root_path="/api")
    rules = [Rule("/admin", ADMIN), REST]
    assert access(rules, known, "/api/admin") == ADMIN
    assert access(rules, known, "/admin") == ADMIN
    assert access(rules, known, "/api/other") == AUTHENTICATED
    # It replaces that of the server, as in FastAPI.
    assert access(rules, known, "/api/admin", "/other") == ADMIN
    assert access(rules, Prefixes(), "/api/admin", "/api") == ADMIN


def test_rule_for_the_whole_path_applies_beside_the_one_below_the_prefix():
    rules = [Rule("/api/admin", ADMIN), Rule("/open", PUBLIC), REST]
    for prefixes, root_path in ((Prefixes(root_path="/api"), ""), (Prefixes(), "/api")):
        assert access(rules, prefixes, "/api/admin", root_path) == ADMIN
        assert access(rules, prefixes, "/api/open", root_path) is PUBLIC
        assert access(rules, prefixes, "/api/other", root_path) == AUTHENTICATED


def test_path_that_a_mounted_app_sees_is_checked_too():
    mounted = Prefixes(mounted=((MountPoint(beginning="/v1", depth=1), "/v1/x"), (MountPoint(), "/api")))
    rules = [Rule("/v1/admin", ADMIN), Rule("/api/items", READ), Rule("/items", WRITE), Rule("/gone", DENIED), REST]
    assert access(rules, mounted, "/v1/x/admin") == ADMIN
    assert access(rules, mounted, "/v1/admin") == ADMIN
    assert access(rules, mounted, "/v2/x/admin") == AUTHENTICATED
    assert access(rules, mounted, "/api/items") == READ & WRITE
    assert access(rules, mounted, "/api/gone") is None
    assert access(rules, mounted, "/s/v1/x/admin", "/s") == AUTHENTICATED


def test_known_prefix_and_that_of_a_mounted_app_both_apply():
    both = Prefixes(root_path="/s", mounted=((MountPoint(beginning="/v1", depth=1), "/s/v1/x"),))
    rules = [Rule("/v1/admin", ADMIN), REST]
    assert access(rules, both, "/s/v1/x/admin") == ADMIN
    assert access(rules, both, "/s/v1/admin") == ADMIN


@pytest.mark.parametrize(
    "path", ["/api/admin", "/a/b/c/admin", "/admin/admin", "/admin", "/x/admin", "/public/admin", "/open/x/admin"]
)
def test_rule_around_an_unknown_app_applies_to_each_path_with_its_ending(path: str):
    rules = [
        Rule("/admin", ADMIN),
        Rule("/public/{page}", PUBLIC),
        Rule("/open/{rest:path}", OPTIONAL),
        Rule("/x/{a}", AUTHENTICATED),
        REST,
    ]
    assert access(rules, UNSEEN, path) == ADMIN


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/items/{id}", "/api/items/7"),
        ("/{table}:drop", "/api/x:drop"),
        ("/data/{file}.{format}", "/api/data/a.json"),
        ("/{a}-x-{b}", "/api/1-x-2"),
        ("/{name:segments}:drop", "/api/x/y:drop"),
        ("/files/{rest:path}", "/api/files/a/b"),
        ("/{any:segments}/secret", "/api/x/y/secret"),
        ("/", "/api/"),
        ("/v1/admin", "/v1/x/admin"),  # Stripped behind a mount.
        ("/a/b/c/admin", "/a/b/c/x/y/admin"),
    ],
)
def test_rules_that_name_a_segment_count(template: str, path: str):
    assert access([Rule(template, ADMIN), REST], UNSEEN, path) == ADMIN
    assert access([Rule("/api/{rest:path}", READ), Rule(template, ADMIN), REST], UNSEEN, path) in (ADMIN, READ & ADMIN)


def test_ordinary_unknown_apps_are_not_affected():
    rules = [
        Rule("/admin", ADMIN),
        Rule("/users/{id}/admin", WRITE),
        Rule("/users/{id}", READ),
        Rule("/orgs/{org}/users/{id}", WRITE),
        Rule("/me/users", PUBLIC),
        Rule("/{page}", PUBLIC),
        Rule("/{rest:path}", all_of("api")),
    ]
    expected = {
        "/users/7/admin": WRITE,
        "/users/7": READ,
        "/orgs/a/users/7": WRITE,
        "/me/users": PUBLIC,
        "/about": PUBLIC,
        "/a/b/c": all_of("api"),
        "/admin": ADMIN,
    }
    assert {path: access(rules, UNSEEN, path) for path in expected} == expected


def test_reading_without_a_rule_neither_opens_nor_closes_another():
    rules = [Rule("/items/{id}", READ), Rule("/admin", ADMIN)]
    assert access(rules, UNSEEN, "/items/7") == READ
    assert access(rules, UNSEEN, "/api/admin") is None
    assert access([Rule("/items/{id}", DENIED), REST], UNSEEN, "/api/items/7") is None
    assert access([Rule("/admin", PUBLIC), Rule("/{rest:path}", READ)], UNSEEN, "/api/admin") == READ


def test_ambiguity_below_a_mount_does_not_affect_other_paths():
    unseen = Prefixes(unknown=(MountPoint(beginning="/files", depth=1),))
    rules = [Rule("/files/admin", ADMIN), REST]
    assert access(rules, unseen, "/files/x/admin") == ADMIN
    assert access(rules, unseen, "/other/files/admin") == AUTHENTICATED


def test_scopes_add_up_and_methods_stay_separate():
    rules = [Rule("/admin", any_of("root", "admin"), ["GET"]), Rule("/api/{x}", any_of("root", "read")), REST]
    assert access(rules, UNSEEN, "/api/admin") == any_of("root", "read") & any_of("root", "admin")
    assert access(rules, UNSEEN, "/api/admin", method="POST") == any_of("root", "read")
    implied = [Rule("/admin", all_of("read")), Rule("/api/{x}", all_of("read", "write"))]
    assert access(implied, UNSEEN, "/api/admin") == all_of("read", "write")


def test_combined_rule_names_its_parts_and_is_built_once():
    rules = Rules(
        [Rule("/admin", ADMIN, token_sources=["query"], source="a"), Rule("/{rest:path}", PUBLIC, source="b")]
    )
    routed = RoutedRules(rules, UNSEEN)
    rule = routed.find("GET", "/api/admin")
    assert rule is not None
    assert (rule.source, rule.sources) == ("b and a", rules.all[0].sources)
    assert routed.find("GET", "/other/admin") is rule


def test_combination_that_no_single_rule_can_express_is_refused():
    many = [any_of(*(f"{letter}{number}" for number in range(40))) for letter in "ab"]
    assert access([Rule("/admin", many[0]), Rule("/{rest:path}", many[1])], UNSEEN, "/api/admin") is None


def test_number_of_cached_combined_rules_is_bounded():
    rules = Rules([*(Rule(f"/t{number}", all_of(f"s{number}")) for number in range(1100)), REST])
    routed = RoutedRules(rules, UNSEEN)
    for number in range(1100):
        rule = routed.find("GET", f"/api/t{number}")
        assert rule is not None
        assert rule.access == all_of(f"s{number}")


def test_long_ambiguous_path_is_refused():
    rules = [Rule("/admin", ADMIN), REST]
    assert access(rules, UNSEEN, "/a" * 31 + "/admin") == ADMIN
    assert access(rules, UNSEEN, "/a" * 32 + "/admin") is None
    assert access(rules, UNSEEN, "/a" * 1000) == AUTHENTICATED


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [Rule("/a", PUBLIC), REST],
        [Rule("/rows/{id}", READ), Rule("/files/{id}", WRITE)],  # Of equal length: none is the ending of another.
        [Rule("/a/{x}", READ), Rule("/b/{x}/{y}", READ)],  # Of equal requirements.
        [Rule("/a", READ), Rule("/b/c", WRITE)],  # Without parameters.
        [
            Rule("/a", AUTHENTICATED),
            Rule("/b/{x}", READ),
            Rule("/{rest:path}", READ & WRITE),
        ],  # Of weaker or equal requirements.
        [Rule("/{x}", READ), Rule("/{x}/{y}", WRITE)],  # Naming no segment.
    ],
)
def test_other_readings_are_skipped_if_they_cannot_change_the_result(rules: list[Rule]):
    assert RoutedRules(Rules(rules), UNSEEN).is_plain


def test_path_has_several_readings_if_a_prefix_is_stripped():
    rules = Rules([Rule("/admin", ADMIN), REST])
    assert RoutedRules(rules, Prefixes()).is_plain
    assert not RoutedRules(rules, UNSEEN).is_plain
    assert not RoutedRules(rules, Prefixes(root_path="/api")).is_plain
    assert not RoutedRules(rules, Prefixes(mounted=((MountPoint(), "/api"),))).is_plain
    assert RoutedRules(Rules(public=["/x"]), Prefixes(mounted=((MountPoint(), "/api"),))).is_plain


@pytest.mark.parametrize("mounts", [1, 3])
def test_long_ambiguous_path_to_mounted_apps_is_refused(mounts: int):
    prefixes = Prefixes(mounted=tuple((MountPoint(), f"/m{at}") for at in range(mounts)))
    rules = [Rule("/admin/{rest:path}", ADMIN), REST]
    for length in (250, 5000):
        assert access(rules, prefixes, "/m0/" + "x/" * length + "y") == AUTHENTICATED
    assert access(rules, prefixes, "/m0/admin/" + "x/" * 250 + "y") == ADMIN
    assert access(rules, prefixes, "/m0/admin/" + "x/" * 300 + "y") is None
    assert access(rules, prefixes, "/m0/" + "x/" * 5000 + "admin") is None


@pytest.mark.parametrize("wrong", ["api", "/api/", "/", "/a//b", "/a/../b", "/a?b", "/{a}", "/a#b", 7, True, ["/a"]])
def test_root_path_must_be_a_prefix_or_empty(wrong: Any):
    with pytest.raises(ConfigurationError, match="root_path: must be the prefix that the app removes from paths"):
        check_root_path(wrong)
    assert [check_root_path(given) for given in (None, "", "/api", "/a/b")] == [None, "", "/api", "/a/b"]
