"""Optional dependencies: the commands that install them, and the error when one is missing."""

from __future__ import annotations

from typing import Final

DISTRIBUTION: Final = "scopeguard-oauth2"
"""The name of the distribution on a package index, as in ``pyproject.toml``. The package to import is ``scopeguard``.

Every installation hint takes the name from here.
"""


def install_command(extra: str) -> str:
    """Return the command that installs *extra* from a package index, and the one for a checkout."""
    return f'pip install "{DISTRIBUTION}[{extra}]", or in a checkout pip install ".[{extra}]"'


def upgrade_command(distribution: str, version: str) -> str:
    """Return the command that installs *version* of *distribution*, which is required anyway, or a newer one."""
    return f'pip install "{distribution}>={version}"'


def explain_missing(missing: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Return an error like *missing* whose message says how to install *extra*.

    An error about another module is returned unchanged: then *extra* is installed, and one of its dependencies is not.
    """
    if missing.name != extra:
        return missing
    message = f"scopeguard.{extra} needs {missing.name}; {install_command(extra)}"
    return ModuleNotFoundError(message, name=missing.name, path=missing.path)
