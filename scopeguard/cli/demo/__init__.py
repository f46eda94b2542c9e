"""``scopeguard demo``: the whole story on loopback, and with ``--serve`` a place to try things out afterwards."""

from __future__ import annotations

import logging
import threading
from typing import Final

from scopeguard.cli.demo.api import INSERT, READ
from scopeguard.cli.demo.show import Screen
from scopeguard.cli.demo.story import Story, Surprise
from scopeguard.cli.demo.world import World
from scopeguard.cli.devserver import curl

log: Final = logging.getLogger("scopeguard")


def run(*, serve: bool, color: bool) -> int:
    """Tell the story; the exit status: 0, or 1 when a step went otherwise than expected."""
    screen = Screen(color=color)
    # The story tells what the log would say, and says itself that the authority is for development only.
    silence = logging.NullHandler()
    log.addHandler(silence)
    propagate, log.propagate = log.propagate, False
    try:
        with World() as world:
            return _tell(world, screen, serve=serve)
    except KeyboardInterrupt:
        return 0
    finally:
        log.propagate = propagate
        log.removeHandler(silence)


def _tell(world: World, screen: Screen, *, serve: bool) -> int:
    screen.line("scopeguard: is the access token on this request good enough for this route?", "bold")
    screen.line(f"  {world.server.url}  an authorization server, for development only")
    screen.line(f"  {world.api}  an API with tables, behind scopeguard")
    screen.line(f"  two clients: loader may have tokens for {INSERT}, reader for {READ}")
    screen.line(f"  {screen.LEGEND}", "dim")
    story = Story(world, screen)
    try:
        steps = story.tell()
    except Surprise as surprise:
        screen.line()
        screen.line(f"UNEXPECTED: {surprise}", "bold red")
        return 1
    screen.line()
    screen.line(f"All {steps} steps went as expected.", "bold green")
    if serve:
        _invite(world, screen)
        threading.Event().wait()
    return 0


def _invite(world: World, screen: Screen) -> None:
    world.clock.return_to_now()
    clients = world.authority.registry.clients
    rows, export = f"{world.api}/tables/trips/rows", f"{world.api}/tables/trips/export"
    control = f"curl -s -H 'content-type: application/json' {world.server.url}/control"
    for line in (
        "",
        "Everything goes on running until Ctrl-C. In another shell:",
        "",
        curl(f"{world.server.url}/token", clients["loader"]),
        f'curl -i -X POST -H "Authorization: Bearer $TOKEN" {rows}',
        f"curl -i -X POST {rows}",
        "",
        curl(f"{world.server.url}/token", clients["reader"]),
        f'curl -i -X POST -H "Authorization: Bearer $TOKEN" {rows}',
        f'curl -i "{export}?access_token=$TOKEN"',
        "",
        "A new signing key; an outage; its end:",
        f"{control}/rotate -d '{{}}'",
        f'{control}/outage -d \'{{"kind": "unreachable"}}\'',
        f"{control}/reset -d '{{}}'",
    ):
        screen.line(line)
