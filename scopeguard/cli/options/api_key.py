"""The options and the help of ``scopeguard api-key``."""

from __future__ import annotations

from typing import Any

import click


@click.group("api-key")
def api_key() -> None:
    """Make API keys, a second kind of credential besides access tokens."""


@api_key.command("new")
@click.option("--config", metavar="FILE", help="Add the key to the keys_file of this configuration, with its prefix.")
@click.option("--keys-file", metavar="FILE", help="Add the key to this TOML file, which is created if necessary.")
@click.option("--prefix", metavar="NAME", help="The prefix of keys: that of ApiKeys. Not with --config.")
@click.option(
    "--checksum-secret",
    metavar="PLACE",
    help="The checksum_secret of ApiKeys: env:NAME or file:PATH. For keys that are stored elsewhere.",
)
@click.option("--subject", metavar="ID", help="For whom the key acts: the sub of its access tokens.")
@click.option("--client-id", metavar="ID", help="Which client holds the key: the client_id of its access tokens.")
@click.option("--scope", "scopes", multiple=True, help="A scope that the key grants. May be given several times.")
@click.option(
    "--expires",
    default="90d",
    show_default=True,
    metavar="WHEN",
    help="A number of days or hours, as in 90d or 12h, a time as in 2027-01-31T00:00:00Z, or never.",
)
def new_api_key(**options: Any) -> None:
    """Make an API key and print it to standard output, once.

    Only its SHA-256 is stored. Without --config and --keys-file, the entry for the file is printed to standard error
    instead, for keys that are stored elsewhere.

    \b
    Exit status:
      0  the key was made
      2  the command line is wrong, or the file cannot be used
    """
    from scopeguard.cli.api_key import run

    run(**options)
