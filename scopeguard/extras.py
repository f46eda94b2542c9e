"""What is installed beside the library, and what to do where it is missing."""

from __future__ import annotations

from typing import Final

DISTRIBUTION: Final = "scopeguard"
"""What pip calls this library: the name in pyproject.toml, and the only place in the code that has it."""


def installation(extra: str) -> str:
    """The command that installs *extra*, from an index and from a checkout of the repository."""
    return f'pip install "{DISTRIBUTION}[{extra}]", or in a checkout pip install ".[{extra}]"'


def explained(missing: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """*missing*, raised by an import of what *extra* installs, with a message that says so.

    An error about anything else is returned as it is: the library is there, and something that it needs is not.
    """
    if missing.name != extra:
        return missing
    message = f"scopeguard.{extra} needs {missing.name}; {installation(extra)}"
    return ModuleNotFoundError(message, name=missing.name, path=missing.path)
