"""The search for tokens and secrets in the output of the suite finds them.

The search itself is tests/support/leak_search.py; it runs beside every test.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import leak_search
from environment import plain_environment
from leak_search import OPAQUE, SECRET, leaks

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2FzIn0.c2lnbmF0dXJl"

LEAKING = {
    "standard output": f"def test_it(): print('got', '{TOKEN}')",
    "standard error": f"import sys\ndef test_it(): sys.stderr.write('{TOKEN}')",
    "a file descriptor": f"import os\ndef test_it(): os.write(2, b'{TOKEN}')",
    "our log at DEBUG": f"import logging\ndef test_it(): logging.getLogger('scopeguard.x').debug('%s', '{TOKEN}')",
    "another log at WARNING": f"import logging\ndef test_it(): logging.getLogger('other').warning('{SECRET}1')",
    "a traceback in the log": f"""
        import logging
        def test_it():
            try: raise ValueError('{OPAQUE}1')
            except ValueError: logging.getLogger('scopeguard').exception('oh')
        """,
    "the setup": f"""
        import pytest
        @pytest.fixture
        def loud(): print('{TOKEN}')
        def test_it(loud): pass
        """,
    "the teardown": f"""
        import pytest
        @pytest.fixture
        def loud():
            yield
            print('{TOKEN}')
        def test_it(loud): pass
        """,
    "the id of a test": f"""
        import pytest
        @pytest.mark.parametrize('token', ['{TOKEN}'])
        def test_it(token): pass
        """,
    "the import of a test file": f"print('{TOKEN}')\ndef test_it(): pass",
    "other output": f"def test_it(no_leaks): no_leaks(b'a page with {TOKEN}')",
}


QUIET = """
import logging
def test_it(no_leaks):
    print('eyJust a word. eyJ.eyJ and a fingerprint 0123456789ab')
    logging.getLogger('scopeguard').debug('denied: token_expired')
    no_leaks('nothing here')
"""


def _outcomes(folder: Path, sources: Mapping[str, str], *arguments: str) -> tuple[int, dict[str, str]]:
    """Return the exit status of a run of *sources*, each a test file, and the report on each.

    The output is not printed here: it holds tokens, and the search would find them in this test too.
    """
    files = {name: f"test_{number}.py" for number, name in enumerate(sources)}
    for name, source in sources.items():
        (folder / files[name]).write_text(textwrap.dedent(source), "utf-8")
    support = str(Path(leak_search.__file__).parent)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "leak_search", "--continue-on-collection-errors", *arguments],
        cwd=folder,
        env=plain_environment() | {"PYTHONPATH": support, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = run.stdout.partition("short test summary info")[2]
    return run.returncode, {
        name: next((line for line in summary.splitlines() if f" {file}" in line), "") for name, file in files.items()
    }


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["alone", "workers of xdist"])
def test_a_test_that_shows_a_token_or_a_secret_fails(tmp_path: Path, arguments: tuple[str, ...]):
    status, outcomes = _outcomes(tmp_path, {**LEAKING, "nothing": QUIET}, *arguments)
    assert status == pytest.ExitCode.TESTS_FAILED
    silent = [name for name, line in outcomes.items() if not line.startswith(("FAILED", "ERROR"))]
    assert silent == ["nothing"]


def test_failure_whose_report_shows_a_token_is_marked():
    report = pytest.TestReport("test_it", ("f.py", 1, "test_it"), {}, "failed", f"assert '{TOKEN}' == ''", "call")
    leak_search.judge(report)
    assert [(name, "the report of the failure shows a JWT" in text) for name, text in report.sections] == [
        ("leak search", True)
    ]


def test_a_run_that_shows_nothing_passes(tmp_path: Path):
    assert _outcomes(tmp_path, {"nothing": QUIET}) == (pytest.ExitCode.OK, {"nothing": ""})


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        TOKEN[:60],
        f"Bearer {TOKEN}",
        "eyJlbmMiOiJBMjU2R0NNIn0.ZW5jcnlwdGVkIGtleQ.aXY.Y2lwaGVydGV4dA.dGFn",
        f"client_secret={SECRET}a",
        f'"{OPAQUE}Zm9v"',
        *(base64.b64encode(f"{'c' * n}:{SECRET}0123456789".encode()).decode() for n in range(6)),
        *(base64.urlsafe_b64encode(f"{'c' * n}:{OPAQUE}ü?>".encode()).decode() for n in range(6)),
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
    ids=lambda text: f"{len(text)} characters",
)
def test_each_form_of_a_token_or_a_secret_is_found(text: str):
    assert leaks(f"some text {text} and more")


@pytest.mark.parametrize("text", ["", "eyJ", "secret", "sg-secret", "0123456789ab", "-----BEGIN PUBLIC KEY-----"])
def test_ordinary_text_is_not_taken_for_a_token(text: str):
    assert not leaks(text)


def test_found_secret_is_not_repeated():
    (finding,) = leaks(f"Bearer {TOKEN}")
    assert TOKEN[:8] not in finding
    assert TOKEN[-8:] not in finding


def test_output_that_pytest_does_not_capture_can_be_searched(no_leaks: Callable[[str | bytes], None]):
    no_leaks("quiet")
    with pytest.raises(pytest.fail.Exception) as caught:
        no_leaks(f"{SECRET}123")
    assert "123" not in str(caught.value)
