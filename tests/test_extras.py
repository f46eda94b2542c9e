"""Errors about missing packages name the command that installs them."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib

import pytest

from environment import ROOT
from scopeguard.extras import DISTRIBUTION, explain_missing, install_command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("adapter", ["aiohttp", "django", "falcon", "fastapi", "flask", "grpc", "litestar", "quart"])
def test_adapter_without_its_framework_says_what_to_install(adapter: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, f"scopeguard.{adapter}", raising=False)
    monkeypatch.setitem(sys.modules, adapter, None)
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.import_module(f"scopeguard.{adapter}")
    assert error.value.name == adapter
    assert str(error.value) == (
        f'scopeguard.{adapter} needs {adapter}; pip install "scopeguard-oauth2[{adapter}]", or in a checkout '
        f'pip install ".[{adapter}]"'
    )


def test_part_for_the_rest_framework_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "scopeguard.django.rest_framework", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rest_framework"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rest_framework", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs rest_framework; pip install .*\[drf\]") as error:
        importlib.import_module("scopeguard.django.rest_framework")
    assert error.value.name == "rest_framework"


def test_missing_dependency_of_a_framework_is_reported_unchanged():
    error = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
    assert explain_missing(error, "fastapi") is error


def test_distribution_name_is_defined_once_and_named_extras_exist():
    assert PROJECT["name"] == DISTRIBUTION
    sources = {path: path.read_text("utf-8") for path in (ROOT / "scopeguard").rglob("*.py")}
    named = {name for text in sources.values() for name in re.findall(r"install_command\(['\"](\w+)['\"]\)", text)}
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
    assert all(f"[{name}]" in install_command(name) for name in named)
    code = {str(path.relative_to(ROOT)) for path, text in sources.items() if "pip install" in _without_docstrings(text)}
    assert code == {"scopeguard/extras.py"}


# Texts that would install the security scanner of that name: a hint, a requirement, or an extra of it.
STRAY = re.compile(
    r"""pip3? install (?:-[-\w]+ )*["'`]?scopeguard(?!-oauth2|\S*/)|["'`]scopeguard\[|^scopeguard(\[|[=<>~])""",
    re.MULTILINE,
)


def _texts() -> dict[str, str]:
    names = ("*.md", "*.py", "*.toml", "*.txt", "*.yaml", "Dockerfile", "Makefile")
    places = [ROOT / name for name in ("scopeguard", "docs", "examples", "tests", "benchmarks", ".ci")]
    paths = {path for place in places for name in names for path in place.rglob(name)}
    paths |= {path for name in names for path in ROOT.glob(name)}
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in paths
        if "node_modules" not in path.parts and path.name != "test_extras.py"
    }


def test_no_text_says_to_install_the_other_distribution_of_that_name():
    texts = _texts()
    assert {"README.md", "CONTRIBUTING.md", "scopeguard/extras.py", "docs/settings.md", "Makefile"} <= set(texts)
    strays = {(name, found[0]) for name, text in texts.items() for found in STRAY.finditer(text)}
    assert not strays


@pytest.mark.parametrize(
    ("text", "stray"),
    [
        ("pip install scopeguard", True),
        ('pip install "scopeguard[cli]"', True),
        ("pip install --upgrade scopeguard", True),
        ('needs = ["scopeguard[all]"]', True),
        ("scopeguard[cli]\n", True),
        ("scopeguard==0.1.0", True),
        ('pip install "scopeguard-oauth2[cli]"', False),
        ("pip install scopeguard-oauth2", False),
        ("import scopeguard", False),
        ('pip install ".[cli]"', False),
    ],
)
def test_wrong_distribution_name_is_recognised(text: str, stray: bool):
    assert bool(STRAY.search(text)) is stray


def _without_docstrings(text: str) -> str:
    return re.sub(r'"""(?:.|\n)*?"""', "", text)
