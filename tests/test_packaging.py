"""The wheel that users install: what is in it, what it asks for, and that each adapter works from it alone."""

from __future__ import annotations

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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    _run("-m", "build", "--wheel", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the wheel, and nothing of this repository."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def metadata(installed: Path) -> Message:
    (file,) = installed.glob("scopeguard_oauth2-*.dist-info/METADATA")
    return message_from_bytes(file.read_bytes())


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "scopeguard").rglob("*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == sources
    assert "scopeguard/py.typed" in packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_what_its_readers_need(built: Path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    assert names >= pages | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml"}
    assert names >= {"scopeguard/py.typed", "tests/conftest.py", "examples/fastapi_app.py", "benchmarks/run.py"}


def test_the_index_name_differs_from_the_package_to_import(metadata: Message):
    assert metadata["Name"] == "scopeguard-oauth2"
    # hatchling replaces a reference of an extra to itself by what it stands for, but only under the project's own name.
    needed = metadata.get_all("Requires-Dist", [])
    assert any('extra == "all"' in need or "extra == 'all'" in need for need in needed)
    assert not [need for need in needed if need.startswith("scopeguard")]


def test_the_version_is_told_once(metadata: Message):
    version = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "scopeguard" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    assert version is not None
    assert metadata["Version"] == version[1]
    assert "version" in PROJECT["dynamic"]


def test_a_plain_installation_asks_for_five_libraries(metadata: Message):
    needed = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(re.split(r"[<>=~!\[ ]", need)[0] for need in needed) == [
        "anyio",
        "cryptography",
        "httpx",
        "pyjwt",
        "starlette",
    ]


def test_the_metadata_name_no_host_of_a_registry(metadata: Message):
    assert not re.search(r"pypi\.|pythonhosted", metadata.as_string())


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_adapter_can_be_imported_alone_from_the_wheel(installed: Path, adapter: str, tmp_path: Path):
    script = f"import scopeguard.{adapter} as it, sys; print(it.__file__); print(*sys.modules, sep='\\n')"
    file, *loaded = _run("-c", script, cwd=tmp_path, path=str(installed)).splitlines()
    assert Path(file).is_relative_to(installed)
    others = {
        f"scopeguard.{name}" for name in ("fastapi", "flask", "starlette", "client", "testing", "devserver", "cli")
    }
    if adapter == "fastapi":
        others.remove("scopeguard.starlette")
    assert not (others - {f"scopeguard.{adapter}"}) & set(loaded)


def test_the_entry_points_lead_somewhere(installed: Path, tmp_path: Path):
    script = """
from importlib.metadata import distribution
for point in distribution("scopeguard-oauth2").entry_points:
    print(point.group, point.name, point.load().__name__)
"""
    lines = _run("-c", script, cwd=tmp_path, path=str(installed)).splitlines()
    assert sorted(lines) == ["console_scripts scopeguard main", "pytest11 scopeguard scopeguard.testing.pytest_plugin"]


def test_the_oldest_versions_under_test_are_the_lower_bounds():
    constraints = (ROOT / ".ci" / "oldest.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in constraints if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    named = [
        *PROJECT["dependencies"],
        *(need for extra, needs in extras.items() if extra not in ("dev", "bench") for need in needs),
    ]
    bounds = {found[1]: found[2] for need in named if (found := re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", need))}
    assert set(bounds) == set(tested)
    for name, bound in bounds.items():
        assert f"{tested[name]}.".startswith(f"{bound}."), f"{name}: {bound} is allowed and {tested[name]} tested"
