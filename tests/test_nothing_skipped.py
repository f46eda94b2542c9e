"""A skipped test fails in CI (tests/support/nothing_skipped.py) and is skipped elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nothing_skipped
from environment import plain_environment

# The text of a file that a pytest of its own runs below. It has each way to skip a test, because the tests of this file
# check that each of them fails in CI, and that an expected failure stays one. None of it is a test of the project.
SKIPS = """
import pytest
from environment import skip_or_fail

@pytest.mark.skip(reason="must fail in CI, see above")
def test_marked(): ...

def test_inside(): pytest.skip("must fail in CI")

def test_missing(): skip_or_fail("no server here")

@pytest.mark.xfail(reason="stays an expected failure, see above")
def test_known(): raise ValueError

def test_fine(): ...
"""


@pytest.mark.parametrize(
    ("ci", "status", "summary"),
    [("", pytest.ExitCode.OK, "1 passed, 3 skipped, 1 xfailed"), ("1", 1, "2 failed, 1 passed, 1 xfailed, 1 error")],
    ids=["elsewhere", "in CI"],
)
def test_skip_is_a_failure_only_in_ci(tmp_path: Path, ci: str, status: int, summary: str):
    (tmp_path / "test_skips.py").write_text(SKIPS, "utf-8")
    support = str(Path(nothing_skipped.__file__).parent)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "nothing_skipped"],
        cwd=tmp_path,
        env=plain_environment() | {"PYTHONPATH": support, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == status
    assert summary in run.stdout


def test_file_skipped_at_import_fails_in_ci(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CI", "1")
    report = pytest.CollectReport("test_it.py", "skipped", ("test_it.py", 1, "Skipped: no flask"), None)
    assert nothing_skipped.fail_skipped(report).failed
    assert "no flask" in report.longreprtext
