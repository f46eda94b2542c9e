"""The demo: a complete run on real sockets, and its reaction to unexpected responses."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scopeguard import AUTHENTICATED, OPTIONAL, Rule, Rules
from scopeguard.cli.demo import api, story, world
from scopeguard.cli.demo.run import run

THIEF = [200, 401, 401, 401]
STATUSES = [200, 401, 403, 200, 400, 200, 401, 401, 401, 401, 200, 200, 200, *THIEF, 200, 503, 200]


def test_demo_runs_to_its_end(capsys: pytest.CaptureFixture[str], no_leaks: Callable[[str], None]):
    assert run(serve=False, color=False) == 0
    told = capsys.readouterr()
    no_leaks(told.out + told.err)
    assert [int(status) for status in re.findall(r"^    < (\d{3}) ", told.out, re.MULTILINE)] == STATUSES
    assert re.findall(r"^ ?(\d+)\. ", told.out, re.MULTILINE) == [str(n) for n in range(1, 12)]
    assert told.out.endswith("All 11 steps went as expected.\n")
    assert len(told.out.splitlines()) <= 125
    assert "\x1b" not in told.out
    assert told.err == ""


def test_no_secret_of_the_demo_is_shown(capsys: pytest.CaptureFixture[str]):
    assert run(serve=False, color=True) == 0
    told = capsys.readouterr().out
    assert [client.client_id for client in world.CLIENTS if client.secret in told] == []


def test_unexpected_response_ends_the_demo_and_names_the_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "RULES", Rules([Rule("/{rest:path}", AUTHENTICATED)], public=["/healthz"]))
    assert run(serve=False, color=False) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "UNEXPECTED: step 2, 'A valid token without the required scope': expected status 403, got 200"
    )


def test_token_in_a_response_of_the_app_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_leaks: Callable[[str], None]
):
    monkeypatch.setattr(api, "RULES", Rules([Rule("/tables/{table}/export", OPTIONAL)], public=["/healthz"]))
    monkeypatch.setattr(story, "STEPS", (story.query_token,))
    assert run(serve=False, color=False) == 1
    told = capsys.readouterr().out
    assert '"query_the_app_sees":"format=csv&access_token=<a token>"' in told
    assert "expected 'format=csv', got 'format=csv&access_token=<a token>'" in told
    no_leaks(told)


EXPECTATIONS = [
    (story.Expected(401), "expected status 401, got 200"),
    (story.Expected(200, "invalid_token"), "expected error code invalid_token, got None"),
    (story.Expected(200, body=(("status", "well"),)), "status: expected 'well', got 'ok'"),
    (
        story.Expected(200, authority_requests=("GET /jwks",)),
        "requests to the authorization server: expected ['GET /jwks'], got []",
    ),
]


@pytest.mark.parametrize(("expected", "problem"), EXPECTATIONS)
def test_each_part_of_an_expectation_is_checked(
    expected: story.Expected, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def step(told: story.Story) -> None:
        told.step("One step")
        told.exchange("GET", "/healthz", expected)

    monkeypatch.setattr(story, "STEPS", (step,))
    assert run(serve=False, color=False) == 1
    assert f"UNEXPECTED: step 1, 'One step': {problem}" in capsys.readouterr().out


def test_401_without_a_challenge_and_503_without_retry_after_are_unexpected():
    told = object.__new__(story.Story)
    told._step, told._title = 1, "One step"
    for status, problem in ((401, "expected a challenge"), (503, "expected Retry-After")):
        with pytest.raises(story.StepFailed, match=problem):
            told._check(httpx.Response(status), [], story.Expected(status))


def test_missing_response_is_reported_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def step(told: story.Story) -> None:
        told.step("No server")
        told.exchange("GET", "/", story.Expected(200), base="http://127.0.0.1:1")

    monkeypatch.setattr(story, "STEPS", (step,))
    assert run(serve=False, color=False) == 1
    assert "UNEXPECTED: step 1, 'No server': ConnectError instead of a response" in capsys.readouterr().out


def test_servers_keep_running_after_the_demo(
    start: Callable[..., Any], shell: Callable[[str], str], no_leaks: Callable[[str], None]
):
    command = start("demo", "--serve", "--no-color")
    command.wait_for("Ctrl-C")
    command.wait_for("/control/reset")
    lines = [line for line in command.lines if line.startswith(("TOKEN=", "curl "))]
    answers = shell("\n".join(lines))
    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["200", "401", "403", "200"]
    assert re.findall(r'"done": ?"(\w+)"', answers) == ["rotate", "outage", "reset"]
    command.wait_for("accepted: POST /tables/trips/rows: loader with bigquery.insertdata")
    command.wait_for("POST /tables/trips/rows: no_credentials: ")
    command.wait_for("POST /tables/trips/rows: insufficient_scope (needed=bigquery.insertdata, ")
    command.wait_for("accepted: GET /tables/trips/export: reader with ")
    assert command.end(signal.SIGINT) == 0
    no_leaks(command.output)
