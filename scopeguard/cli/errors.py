"""The errors that end a command, with their exit status."""

from __future__ import annotations

import click


class Refused(click.ClickException):
    """Usage error: one line on stderr, exit status 2."""

    exit_code = 2


class Failed(click.ClickException):
    """Runtime failure: one line on stderr, exit status 1."""

    exit_code = 1
