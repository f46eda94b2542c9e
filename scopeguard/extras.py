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


def explain_missing(
    missing: ModuleNotFoundError, extra: str, *, library: str | None = None, needed_by: str | None = None
) -> ModuleNotFoundError:
    """Return an error like *missing* whose message says how to install *extra*.

    *library* is the package that the extra installs, and *needed_by* the module that imports it. By default both have
    the name of the extra. An error about another package is returned unchanged: then the library is installed, and one
    of its dependencies is not.
    """
    library = library or extra
    if (missing.name or "").partition(".")[0] != library:
        return missing
    message = f"{needed_by or f'scopeguard.{extra}'} needs {library}; {install_command(extra)}"
    return ModuleNotFoundError(message, name=library, path=missing.path)
