"""The options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Option(Protocol):
    """A decorator that adds an option to a command."""

    def __call__(self, command: Command, /) -> Command: ...


CONNECTIONS: Final = 1000
"""The default limit of open connections of a worker."""
GRACE: Final = 30
"""The default of the seconds for requests in progress when a server stops."""

config: Option = click.option(
    "--config",
    required=True,
    metavar="FILE",
    help="The TOML file with issuers and rules; docs/settings.md lists its keys.",
)
factory: Option = click.option(
    "--factory", is_flag=True, help="APP is a function without arguments that returns the app."
)
strict: Option = click.option("--strict", is_flag=True, help="Exit with status 1 for warnings as well.")

host: Option = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
uds: Option = click.option(
    "--uds", metavar="PATH", help="Listen on a Unix socket instead; the umask sets its permissions."
)
workers: Option = click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 512),
    help="Number of processes. One that crashes is replaced after a pause.",
)
access_log: Option = click.option(
    "--access-log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "off"]),
    help="Write a line for each finished request to standard output.",
)
readyz: Option = click.option(
    "--readyz",
    metavar="PATH",
    help="Answer GET requests for this path, as in /readyz, without a token: 200 when tokens can be checked, else 503.",
)


def port(default: int) -> Option:
    """Return the option for the port of a server whose port is *default* if none is given."""
    return click.option(
        "--port", default=default, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
    )
