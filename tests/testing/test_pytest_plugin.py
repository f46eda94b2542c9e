"""The pytest fixture is available to users and costs nothing if it is not used."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from environment import ROOT, plain_environment
from scopeguard.testing import FakeAuthority, pytest_plugin


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_fixture_is_an_authority_of_the_tests_own(authority):
    assert isinstance(authority, FakeAuthority)
    assert (authority.url, authority.audience) == ("https://as.test", "https://api.test")
    assert pytest_plugin.authority.__doc__ is not None


def test_importing_the_plugin_loads_and_prints_nothing():
    said = run(
        """
        import sys
        import pytest
        import scopeguard
        before = set(sys.modules)
        import scopeguard.testing.pytest_plugin
        print(*sorted(set(sys.modules) - before))
        """
    )
    assert said.split() == ["scopeguard.testing", "scopeguard.testing.pytest_plugin"]


def test_a_users_suite_finds_the_fixture(tmp_path):
    (tmp_path / "test_user.py").write_text(
        textwrap.dedent(
            """
            from scopeguard.guard import Guard, Granted
            from scopeguard import HeaderList, RequestView

            def test_insert(authority):
                guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
                headers = [(name.lower().encode(), value.encode()) for name, value in authority.bearer("read").items()]
                decision = guard.check(RequestView(method="GET", path="/", headers=HeaderList(headers)))
                assert isinstance(decision, Granted)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "scopeguard.testing.pytest_plugin", "."],
        cwd=tmp_path,
        env={**plain_environment(), "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
