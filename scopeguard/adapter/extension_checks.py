"""What the extensions of Flask, Litestar and Quart check before they protect an app."""

from __future__ import annotations

from typing import cast

from scopeguard.config.checks import instance
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard


def check_extension(guard: object, *, has_another: bool) -> Guard:
    """Return *guard*, for an app that is about to get a ``ScopeGuard``.

    Raises :class:`ConfigurationError` unless it is a guard, and if the app *has_another* extension.
    """
    instance(guard, Guard, "guard", "a scopeguard.Guard, as in ScopeGuard(app, guard)")
    if has_another:
        raise ConfigurationError(
            "ScopeGuard: this app has a ScopeGuard already; for several issuers, give a list of them to one Guard"
        )
    return cast("Guard", guard)
