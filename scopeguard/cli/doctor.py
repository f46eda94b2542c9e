"""``scopeguard doctor``: examines a configuration and what a guard with it depends on."""

from __future__ import annotations

import json
from typing import Any

import click

from scopeguard.doctor.examination import Request, examine
from scopeguard.doctor.report import as_json, as_text
from scopeguard.server.serve import load


def run(
    target: str | None,
    *,
    config: str,
    factory: bool,
    offline: bool,
    strict: bool,
    json_output: bool,
    host: str,
    uds: str | None,
    trusted_proxies: tuple[str, ...],
) -> int:
    """Print the diagnosis. Return the exit status: 1 if there is an error, or with *strict* a warning; else 0.

    Raises :class:`ConfigurationError` if *target* is not an app.
    """
    app: Any = None if target is None else load(target, factory=factory)
    diagnosis = examine(
        Request(
            file=config,
            app=app,
            target=target or "",
            offline=offline,
            host=None if uds is not None else host,
            trusted_proxies=trusted_proxies,
        )
    )
    if json_output:
        click.echo(json.dumps(as_json(diagnosis), indent=2))
    else:
        click.echo(as_text(diagnosis))
    return diagnosis.status(strict=strict)
