"""Every block of Python defines what it uses, and every block of TOML is read by a guard.

``test_blocks.py`` and its neighbours run each block by its name.
"""

from __future__ import annotations

import re
import symtable
import tomllib
from pathlib import Path

import pytest

from documentation import BLOCKS, MANUAL, NAMED, undefined_names
from loopback import Certificates
from scopeguard import Guard
from scopeguard.config.file import settings_from

ISSUER, API = "https://auth.example.com", "https://api.example.com"


@pytest.mark.parametrize("page", MANUAL)
def test_every_name_of_a_python_block_is_defined_above_it_on_the_page(page: str):
    """So every block is complete, or a continuation. What the reader has is imported from ``myapp``."""
    known: set[str] = set()
    for block in (block for block in BLOCKS if block.page == page and block.language == "python"):
        assert undefined_names(block.source, known) == set(), f"{page}:{block.line}"
        known |= set(symtable.symtable(block.source, page, "exec").get_identifiers())


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("import os\nfrom a.b import c as d\nd(os, print)", set()),
        ("app = wrap(app)", {"app", "wrap"}),
        ("def f(x: int = y): return x, later, __name__\nlater = 1", {"y"}),
        ("class A:\n  b: c = 1\n  def m(self): return [e for e in d]", {"c", "d"}),
        ("for row in rows:\n  print(row)", {"rows"}),
        ("@mark\nasync def f(): return lambda: g", {"mark", "g"}),
        ("print(x)\nx = 1", {"x"}),
    ],
)
def test_undefined_names_are_found(source: str, missing: set[str]):
    assert undefined_names(source) == missing
    assert undefined_names(source, missing) == set()


# Every block of TOML is a settings file, or a part of one; this one is a file with keys.
SETTINGS_FILES = [block.name for block in BLOCKS if block.language == "toml" and block.name != "api_key_entry"]


@pytest.mark.parametrize("name", SETTINGS_FILES)
def test_every_settings_file_makes_a_guard(name: str, tmp_path: Path):
    """With an issuer and a resource, if the block leaves them out."""
    Certificates(tmp_path).bundle.rename(tmp_path / "corporate-ca.pem")
    (tmp_path / "introspection_secret").write_text("sg-secret-of-the-api", "utf-8")
    document = tomllib.loads(NAMED[name].source.replace("/run/secrets", str(tmp_path)))
    document.setdefault("issuers", [{"url": ISSUER}])
    if not any("audience" in issuer for issuer in document["issuers"]):
        document.setdefault("resource", API)
    variables = dict.fromkeys(re.findall(r'"env:(\w+)"', NAMED[name].source), "http://127.0.0.1:3128")
    issuers, arguments = settings_from(document, tmp_path, environment=variables | {"REDIS_URL": "redis://127.0.0.1"})
    guard = Guard(*issuers, **arguments)
    assert guard.issuers == issuers
    guard.close()
