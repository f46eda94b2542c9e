"""Run the steps of the demo, and with ``--serve`` keep its servers running afterwards."""

from __future__ import annotations

import logging
import threading
from typing import Final

from scopeguard.cli.demo.api import INSERT, READ
from scopeguard.cli.demo.show import Screen
from scopeguard.cli.demo.story import StepFailed, Story
from scopeguard.cli.demo.world import World
from scopeguard.cli.devserver import curl
from scopeguard.core.decision import DecisionEvent, Granted
from scopeguard.log_values import printable

log: Final = logging.getLogger("scopeguard")


def run(*, serve: bool, color: bool) -> int:
    """Run all steps. Return the exit status: 0, or 1 if a response differs from the expected one."""
    screen = Screen(color=color)
    # The output shows the reasons that the log would contain, and says that the server is for development only.
    silence = logging.NullHandler()
    log.addHandler(silence)
    propagate, log.propagate = log.propagate, False
    try:
        with World() as world:
            status = _run_steps(world, screen)
            if serve and status == 0:
                log.removeHandler(silence)
                _serve(world, screen)
            return status
    except KeyboardInterrupt:
        return 0
    finally:
        log.propagate = propagate
        log.removeHandler(silence)


def _run_steps(world: World, screen: Screen) -> int:
    screen.line("scopeguard checks the access token of each request, and the scopes that the route requires.", "bold")
    screen.line(f"  {world.server.url}  an authorization server, for development only")
    screen.line(f"  {world.api}  an API with tables, protected by scopeguard")
    screen.line(f"  clients: loader may get the scope {INSERT}, reader {READ}; biller is for another API")
    screen.line(f"  {screen.LEGEND}", "dim")
    story = Story(world, screen)
    try:
        steps = story.run()
    except StepFailed as failure:
        screen.line()
        screen.line(f"UNEXPECTED: {failure}", "bold red")
        return 1
    screen.line()
    screen.line(f"All {steps} steps went as expected.", "bold green")
    return 0


def _serve(world: World, screen: Screen) -> None:
    """Show what the user may try, and then the log and a line for each accepted request."""
    _print_commands(world, screen)
    handler = _OnScreen(screen)
    log.addHandler(handler)
    world.on_event = lambda event: _print_accepted(event, screen)
    try:
        threading.Event().wait()
    finally:
        log.removeHandler(handler)


class _OnScreen(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.line(self.format(record), "yellow")


def _print_accepted(event: DecisionEvent, screen: Screen) -> None:
    if isinstance(event.decision, Granted):
        token = event.decision.access_token
        scopes = " ".join(token.granted_scopes or ())
        screen.line(f"accepted: {event.method} {printable(event.path)}: {token.client_id} with {scopes}", "green")


def _print_commands(world: World, screen: Screen) -> None:
    world.clock.return_to_now()
    clients = world.authority.registry.clients
    rows, export = f"{world.api}/tables/trips/rows", f"{world.api}/tables/trips/export"
    control = f"curl -s -H 'content-type: application/json' {world.server.url}/control"
    for line in (
        "",
        "The servers run until you press Ctrl-C. Try these lines in another shell; the log appears here.",
        "A client that may insert rows, and a request without a token:",
        "",
        curl(f"{world.server.url}/token", clients["loader"]),
        f'curl -i -X POST -H "Authorization: Bearer $TOKEN" {rows}',
        f"curl -i -X POST {rows}",
        "",
        "A client that may only read, and a token in the query string:",
        curl(f"{world.server.url}/token", clients["reader"]),
        f'curl -i -X POST -H "Authorization: Bearer $TOKEN" {rows}',
        f'curl -i "{export}?access_token=$TOKEN"',
        "",
        "Make the authorization server change its signing key, become unreachable, and recover:",
        f"{control}/rotate -d '{{}}'",
        f'{control}/outage -d \'{{"kind": "unreachable"}}\'',
        f"{control}/reset -d '{{}}'",
    ):
        screen.line(line)
