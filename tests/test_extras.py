"""What is missing is said with the command that installs it."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib

import pytest

from environment import ROOT
from scopeguard.extras import DISTRIBUTION, explained, installation

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("adapter", ["fastapi", "flask"])
def test_an_adapter_without_its_framework_says_what_to_install(adapter: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, f"scopeguard.{adapter}", raising=False)
    monkeypatch.setitem(sys.modules, adapter, None)
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.import_module(f"scopeguard.{adapter}")
    assert error.value.name == adapter
    assert str(error.value) == (
        f'scopeguard.{adapter} needs {adapter}; pip install "scopeguard[{adapter}]", or in a checkout pip install '
        f'".[{adapter}]"'
    )


def test_a_framework_that_lacks_something_itself_says_so_itself():
    error = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
    assert explained(error, "fastapi") is error


def test_the_name_stands_in_one_place_and_every_extra_that_is_named_exists():
    assert PROJECT["name"] == DISTRIBUTION
    sources = {path: path.read_text("utf-8") for path in (ROOT / "scopeguard").rglob("*.py")}
    named = {name for text in sources.values() for name in re.findall(r"installation\(['\"](\w+)['\"]\)", text)}
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
    assert all(f"[{name}]" in installation(name) for name in named)
    code = {str(path.relative_to(ROOT)) for path, text in sources.items() if "pip install" in _without_docstrings(text)}
    assert code == {"scopeguard/extras.py"}


def _without_docstrings(text: str) -> str:
    return re.sub(r'"""(?:.|\n)*?"""', "", text)
