"""The options and the help of ``scopeguard pack-keys``."""

from __future__ import annotations

from pathlib import Path

import click

from scopeguard.cli.errors import Failed
from scopeguard.errors import AuthorityUnavailable, ConfigurationError


@click.command("pack-keys")
@click.option(
    "--config", required=True, metavar="FILE", help="The TOML file with the issuer; docs/settings.md lists its keys."
)
@click.option("--issuer", metavar="URL", help="The issuer, if the file has several.")
@click.option("--output", metavar="FILE", help="The file to write.  [default: standard output]")
def pack_keys(config: str, issuer: str | None, output: str | None) -> None:
    """Fetch the keys of an issuer at build time, to be packed with a serverless function.

    Writes them as JSON with the issuer and the time. The setting jwks_seed names the file. A new instance then answers
    its first request without waiting for keys, and fetches the current ones in the background.

    \b
    Exit status:
      0  the keys were written
      1  they could not be fetched
      2  the command line or the file is wrong
    """
    from scopeguard.cli.pack_keys import run
    from scopeguard.guard import Guard

    try:
        text, count = run(Guard.from_file(config, audit="off"), issuer=issuer)
    except AuthorityUnavailable as error:
        raise Failed(f"no keys: {error}") from None
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output: {output!r} cannot be written: {error.strerror}") from None
    click.echo(f"{output}: {count} key{'' if count == 1 else 's'}", err=True)
