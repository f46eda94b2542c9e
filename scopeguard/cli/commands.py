"""The list of commands. Their options are in :mod:`scopeguard.cli.options`."""

from __future__ import annotations

from typing import Any

import click

from scopeguard import __version__
from scopeguard.cli.errors import Refused
from scopeguard.cli.options.api_key import api_key
from scopeguard.cli.options.audit import audit
from scopeguard.cli.options.authorize import authorize
from scopeguard.cli.options.demo import demo
from scopeguard.cli.options.devserver import devserver
from scopeguard.cli.options.doctor import doctor
from scopeguard.cli.options.explain import explain
from scopeguard.cli.options.pack_keys import pack_keys
from scopeguard.cli.options.serve import serve
from scopeguard.cli.options.token import token
from scopeguard.errors import ConfigurationError


class Commands(click.Group):
    """Reports a :class:`ConfigurationError` as one line, with exit status 2, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise Refused(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scopeguard")
def cli() -> None:
    """Protect an API with OAuth 2.0 access tokens, and try it out."""


for _command in (demo, serve, authorize, audit, doctor, devserver, token, explain, api_key, pack_keys):
    cli.add_command(_command)
