"""examples/downstream as a whole: three servers on real sockets, and what each request gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from environment import ROOT, plain_environment

ANN = '200 {"tea":3,"asked for":"ann","asked by":"orders"}'


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.rule("G-27", "G-29")
def test_each_request_of_the_story_ends_as_its_readme_says(no_leaks: Callable[[str], None]):
    done = run("examples/downstream/run.py")
    assert done.returncode == 0, done.stdout + done.stderr
    no_leaks(done.stdout + done.stderr)
    results = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert [result.partition(" ")[0] for result in results] == ["200", "200", "401", "500", "403", "200", "503"]
    assert results[0] == results[5] == ANN
    assert results[1] == ANN.replace("ann", "bob")
    assert "Exchanges so far, one for each of the two: 2\n" in done.stdout


WITHOUT_POLICY = """
import sys
sys.path.insert(0, "examples/downstream")
import run
client = run.Client
run.Client = lambda **settings: client(**{**settings, "exchanges_for": ["https://other.example.com"]})
sys.exit(run.main())
"""


def test_the_policy_of_the_server_decides_and_an_unexpected_result_is_reported():
    done = run("-c", WITHOUT_POLICY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("UNEXPECTED") > 2
    assert '403 {"detail":"You may not use the stock API"}    UNEXPECTED' in done.stdout
