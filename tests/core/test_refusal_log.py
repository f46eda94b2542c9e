"""Log lines about refused requests: visible by default, one per request, limited in number, without tokens."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from environment import ROOT, plain_environment
from scopeguard import (
    ConfigurationError,
    Denied,
    Guard,
    HeaderList,
    Reason,
    RefusalLog,
    RequestView,
    Unavailable,
    all_of,
)
from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.testing import FakeAuthority
from server_process import server_process


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def new_guard(authority: FakeAuthority) -> Callable[..., Guard]:
    def make(**settings: Any) -> Guard:
        return Guard(
            settings.pop("issuer", authority.issuer), transport=authority.transport, clock=authority.clock, **settings
        )

    return make


def request(token: str | None = None, path: str = "/x") -> RequestView:
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    return RequestView(method="GET", path=path, headers=HeaderList(headers))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of at least level WARNING, which reach standard error without any logging configuration."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_refusal_is_logged_as_one_warning(new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any):
    token = authority.mint("read", expires_in=-60)
    assert isinstance(new_guard().check(request(token)), Denied)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("scopeguard.decisions", logging.WARNING)
    assert record.getMessage().startswith("denied with 401: GET /x: token_expired (")
    assert token not in record.getMessage()


@pytest.mark.parametrize("mode", ["dead", "unavailable"])
def test_outage_is_logged_as_one_warning(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any, mode: str
):
    guard, token = new_guard(), authority.mint("read")
    with authority.outage(*([] if mode == "dead" else [mode])):
        assert isinstance(guard.check(request(token)), Unavailable)
    (line,) = lines(caplog)
    assert line.startswith("not judged: GET /x: authority_unreachable (authority=https://as.test")
    assert "token=" in line


def test_outage_without_a_refused_request_is_logged(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any
):
    """Overdue keys stay in use while fetching fails; then the log has only the failure of the flight."""
    guard = new_guard()
    guard.check(request(authority.mint()))
    authority.clock.advance(700)
    with authority.outage():
        assert not isinstance(guard.check(request(authority.mint())), Denied | Unavailable)
    (line,) = lines(caplog)
    assert line.startswith("keys of https://as.test: authority_unreachable (")
    guard.close()


def test_lines_of_one_reason_are_limited_and_counted(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any
):
    guard = new_guard(refusal_log=RefusalLog(burst=2, interval=30))
    for _ in range(50):
        guard.check(request())
    guard.check(request("sg-opaque"))  # Another reason.
    assert [line.partition(": ")[2] for line in lines(caplog)] == [
        f"GET /x: no_credentials: {entry_of(Reason.NO_CREDENTIALS).advice}",
        f"GET /x: no_credentials: {entry_of(Reason.NO_CREDENTIALS).advice}",
        lines(caplog)[2].partition(": ")[2],
    ]
    authority.clock.advance(30)
    guard.check(request())
    assert lines(caplog)[3].endswith(" [and 48 more with this reason since the last such line]")


@pytest.mark.parametrize("level", ["warning", "info", "debug"])
def test_log_level_is_configurable(new_guard: Callable[..., Guard], caplog: Any, level: Any):
    caplog.set_level(logging.DEBUG, "scopeguard.decisions")
    new_guard(refusal_log=RefusalLog(level=level)).check(request())
    assert [record.levelname.lower() for record in caplog.records] == [level]


def test_refusal_log_can_be_switched_off(new_guard: Callable[..., Guard], caplog: Any):
    caplog.set_level(logging.DEBUG)
    new_guard(refusal_log="off").check(request())
    logging.getLogger("scopeguard.decisions").setLevel(logging.ERROR)
    try:
        new_guard().check(request())
    finally:
        logging.getLogger("scopeguard.decisions").setLevel(logging.NOTSET)
    assert caplog.records == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({"level": level} for level in ("loud", 30, None)),
        *({"burst": burst} for burst in (0, -1, 1.5, True, "3")),
        *({"interval": interval} for interval in (-1, "10", True, float("nan"))),
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=f"refusal_log: {next(iter(wrong))}"):
        RefusalLog(**wrong)


@pytest.mark.parametrize("wrong", [None, True, "on", {"level": "info"}])
def test_the_setting_is_a_policy_or_off(new_guard: Callable[..., Guard], wrong: Any):
    with pytest.raises(ConfigurationError, match='refusal_log: must be a RefusalLog or "off", not'):
        new_guard(refusal_log=wrong)


def test_line_about_an_unknown_issuer_names_the_configured_one(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any
):
    guard = new_guard()
    guard.check(request(authority.mint(claims={"iss": "https://as.test/"})))
    guard.check(request(authority.mint(claims={"iss": "https://other.test"})))
    slash, other = lines(caplog)
    assert "(iss=https://as.test/, configured=https://as.test, differs=only in the slash at the end, " in slash
    assert "(iss=https://other.test, configured=https://as.test, differs=only in the host, token=" in other


def test_line_names_the_header_in_which_an_issuer_is_trusted(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any
):
    guard = new_guard(issuer=replace(authority.issuer, token_header="X-Assertion"))
    headers = HeaderList([(b"x-assertion", authority.mint().encode())])
    assert not isinstance(guard.check(RequestView(method="GET", path="/", headers=headers)), Denied)
    other = FakeAuthority("https://other.test", clock=authority.clock)
    two = Guard(
        replace(authority.issuer, token_header="X-Assertion"),
        other.issuer,
        transport=other.transport,
        clock=other.clock,
    )
    two.check(request(authority.mint()))
    assert "its tokens are accepted in the field x-assertion only" in lines(caplog)[-1]


def test_line_about_a_missing_scope_lists_the_granted_scopes(
    new_guard: Callable[..., Guard], authority: FakeAuthority, caplog: Any
):
    new_guard().check(request(authority.mint("read list")), all_of("write"))
    assert "needed=write" in caplog.text
    assert "granted=read list" in caplog.text


@pytest.mark.parametrize("text", ["/a\nb", "/\x1b[31m", "/\u2028", "/" + "x" * 5000])
def test_text_of_a_request_cannot_forge_log_lines(new_guard: Callable[..., Guard], caplog: Any, text: str):
    new_guard().check(request(path=text))
    (line,) = lines(caplog)
    assert line.isprintable()
    assert len(line) < 700


def test_refusals_are_in_the_output_of_flask_run(tmp_path: Path):
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\n"
        "from scopeguard import Guard, Issuer\n"
        "from scopeguard.flask import ScopeGuard\n"
        "app = Flask(__name__)\n"
        "ScopeGuard(app, Guard(Issuer('https://as.test', audience='https://api.test')))\n"
    )
    command = ("flask", "--app", "{app}", "run", "--port", "{port}")
    with server_process(command, tmp_path, app="shop", environment={}) as server:
        line = f"denied with 401: GET /: no_credentials: {entry_of(Reason.NO_CREDENTIALS).advice}"
        assert line in server.output.splitlines()


def test_refusals_reach_standard_error_without_logging_configuration():
    """uvicorn, gunicorn and ``flask run`` configure only their own loggers, not the root logger."""
    code = (
        "import logging.config\n"
        "from uvicorn.config import LOGGING_CONFIG\n"
        "logging.config.dictConfig(LOGGING_CONFIG)\n"
        "from scopeguard import Guard, HeaderList, Issuer, RequestView\n"
        "guard = Guard(Issuer('https://as.test', audience='https://api.test'))\n"
        "guard.check(RequestView(method='GET', path='/x', headers=HeaderList([])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain_environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line == f"denied with 401: GET /x: no_credentials: {entry_of(Reason.NO_CREDENTIALS).advice}"
