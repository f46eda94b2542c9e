"""Start the command, or say which packages it lacks."""

from __future__ import annotations

import sys

from scopeguard.extras import install_command


def main() -> None:
    """Run the command. Exits with status 2 if the command line, the configuration or the installation is wrong."""
    try:
        from scopeguard.cli.commands import cli  # noqa: PLC0415 - its packages may be missing

        cli(prog_name="scopeguard")
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich", "uvicorn", "waitress"):
            raise
        print(f"scopeguard: the command line needs more packages: {install_command('cli')}", file=sys.stderr)
        raise SystemExit(2) from None
