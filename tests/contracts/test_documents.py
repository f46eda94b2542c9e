"""Documents from files: JSON, and YAML if a parser is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from scopeguard import ConfigurationError
from scopeguard.config.api_documents import read_document


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": {"b": [1, "\xc3\xa4"]}}'),
        ("a.json", b'\xef\xbb\xbf{"a": {"b": [1, "\xc3\xa4"]}}'),
        ("a", b'{"a": {"b": [1, "\xc3\xa4"]}}'),
        ("a.yaml", b'{"a": {"b": [1, "\xc3\xa4"]}}'),
        ("a.YML", b"a:\n  b:\n  - 1\n  - \xc3\xa4\n"),
        ("a.yml", b"x: &x {b: [1, \xc3\xa4]}\na:\n  <<: *x\n"),
    ],
)
def test_format_of_a_file_follows_its_name(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, str(tmp_path / name)):
        found = read_document(path)
        assert found.name == name
        assert found.content["a"] == {"b": [1, "\u00e4"]}
        assert "\u00e4" not in repr(found)


def test_parsed_document_is_used_unchanged():
    given = {"a": 1}
    assert read_document(given, "shop").content is given
    assert str(read_document(given, "shop").error("odd")) == "shop: odd"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", None, "cannot be read: No such file or directory"),
        ("a.json", b"a: 1", "a.json: must be JSON in UTF-8 .YAML is read from files named"),
        ("a.json", b"\xff", "a.json: must be JSON in UTF-8"),
        ("a.json", b"[" * 100_000, "a.json: must be JSON in UTF-8"),
        ("a.json", b"[]", "a.json: the document must be an object"),
        ("a.json", b'{"x": {"a": 1, "a": 2}}', "a.json: an object has the member a twice"),
        ("a.yaml", b"x:\n  a: 1\n  a: 2\n", "a.yaml: an object has the member a twice"),
        ("a.yaml", b"a: [", "a.yaml: not YAML"),
        ("a.yaml", b"!!python/object/apply:os.system [x]", "a.yaml: not YAML"),
        ("a.yaml", b"", "a.yaml: the document must be an object"),
    ],
)
def test_unreadable_file_is_refused_with_its_name(tmp_path: Path, name: str, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_document(tmp_path / name)


@pytest.mark.parametrize("source", ["a\x00b", 7, None])
def test_argument_that_is_not_a_path_is_refused(source: Any):
    with pytest.raises(ConfigurationError, match="must be a document or the path of one"):
        read_document(source)


def test_yaml_without_a_parser_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("a: 1", "utf-8")
    with pytest.raises(
        ConfigurationError, match=r"a.yaml: reading YAML needs PyYAML; pip install .scopeguard-oauth2\[yaml\]"
    ):
        read_document(tmp_path / "a.yaml")
