"""The wheel that users install: its contents, its requirements, and the import of each adapter from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from environment import ADAPTERS, ROOT, plain_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _run(*arguments: str, cwd: Path = ROOT, path: str = "") -> str:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=plain_environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the source distribution, and return their folder."""
    folder = tmp_path_factory.mktemp("built")
    _run("-m", "build", "--wheel", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the wheel and nothing else of this repository."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def metadata(installation: Path) -> Message:
    (file,) = installation.glob("scopeguard_oauth2-*.dist-info/METADATA")
    return message_from_bytes(file.read_bytes())


def test_wheel_contains_only_the_package(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "scopeguard").rglob("*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == sources
    assert "scopeguard/py.typed" in packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_source_distribution_contains_docs_and_tests(distributions: Path):
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    assert names >= pages | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml"}
    assert names >= {"scopeguard/py.typed", "tests/conftest.py", "examples/fastapi_app.py", "benchmarks/run.py"}


def test_the_index_name_differs_from_the_package_to_import(metadata: Message):
    assert metadata["Name"] == "scopeguard-oauth2"
    # hatchling expands a reference of an extra to another one, but only under the name of the project.
    needed = metadata.get_all("Requires-Dist", [])
    assert any('extra == "all"' in need or "extra == 'all'" in need for need in needed)
    assert not [need for need in needed if need.startswith("scopeguard")]


def test_version_is_defined_once(metadata: Message):
    version = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "scopeguard" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    assert version is not None
    assert metadata["Version"] == version[1]
    assert "version" in PROJECT["dynamic"]


def test_plain_installation_requires_five_libraries(metadata: Message):
    needed = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(re.split(r"[<>=~!\[ ]", need)[0] for need in needed) == [
        "anyio",
        "cryptography",
        "httpx",
        "pyjwt",
        "starlette",
    ]


def test_metadata_names_no_registry_host(metadata: Message):
    assert not re.search(r"pypi\.|pythonhosted", metadata.as_string())


@pytest.fixture(scope="module")
def imports(installation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each adapter its file and the modules that its import loads, in a fork of a process with scopeguard alone."""
    script = """
import importlib, json, os, sys
import scopeguard

for adapter in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        file = importlib.import_module(f"scopeguard.{adapter}").__file__
        print(json.dumps([adapter, file, *sys.modules]), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, adapter
"""
    lines = _run("-c", script, *ADAPTERS, cwd=tmp_path_factory.mktemp("imports"), path=str(installation)).splitlines()
    return {adapter: found for adapter, *found in map(json.loads, lines)}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_adapter_can_be_imported_alone_from_the_wheel(
    installation: Path, imports: dict[str, list[str]], adapter: str
):
    file, *loaded = imports[adapter]
    assert Path(file).is_relative_to(installation)
    others = {
        f"scopeguard.{name}" for name in (*set(ADAPTERS) - {"asgi", "wsgi"}, "client", "testing", "devserver", "cli")
    }
    if adapter == "fastapi":
        others.remove("scopeguard.starlette")
    assert not (others - {f"scopeguard.{adapter}"}) & set(loaded)


def test_entry_points_can_be_loaded(installation: Path, tmp_path: Path):
    script = """
from importlib.metadata import distribution
for point in distribution("scopeguard-oauth2").entry_points:
    print(point.group, point.name, point.load().__name__)
"""
    lines = _run("-c", script, cwd=tmp_path, path=str(installation)).splitlines()
    assert sorted(lines) == ["console_scripts scopeguard main", "pytest11 scopeguard scopeguard.testing.pytest_plugin"]


def test_oldest_tested_versions_are_the_lower_bounds():
    constraints = (ROOT / ".ci" / "oldest.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in constraints if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    # The MCP libraries are tested in the environment of `make apps`, at the versions that they need of each other.
    elsewhere = ("dev", "bench", "mcp", "fastmcp")
    named = [
        *PROJECT["dependencies"],
        *(need for extra, needs in extras.items() if extra not in elsewhere for need in needs),
    ]
    bounds = {found[1]: found[2] for need in named if (found := re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", need))}
    assert set(bounds) == set(tested)
    for name, bound in bounds.items():
        assert f"{tested[name]}.".startswith(f"{bound}."), f"{name}: {bound} is allowed and {tested[name]} tested"
