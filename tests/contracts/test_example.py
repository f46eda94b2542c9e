"""The example behaves as its comments say."""

from __future__ import annotations

from environment import ROOT
from scopeguard import AUTHENTICATED, Guard, all_of


def test_the_example_enforces_its_document():
    guard = Guard.from_file(str(ROOT / "examples" / "contract" / "scopeguard.toml"))
    assert guard.rules is not None
    expected = {
        ("GET", "/me"): AUTHENTICATED,
        ("GET", "/tables/t/rows"): all_of("bigquery.readonly"),
        ("POST", "/tables/t/rows"): all_of("bigquery.insertdata"),
    }
    for (method, path), access in expected.items():
        rule = guard.rules.find(method, path)
        assert rule is not None
        assert rule.access == access
    assert guard.rules.closes(guard.rules.find("GET", "/tables/t/export"))
    assert guard.rules.closes(guard.rules.find("DELETE", "/tables/t/rows"))
    assert guard.catalog.describe("bigquery") == "Do everything with tables"
    assert list(guard.catalog.implies["bigquery"]) == ["bigquery.insertdata", "bigquery.readonly"]
