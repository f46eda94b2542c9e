"""``scopeguard audit``: reports what each route of an app requires, and any problems."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from scopeguard import __version__
from scopeguard.adapter.declarations import ServeLayer
from scopeguard.audit.findings import audit_app
from scopeguard.audit.page import as_html
from scopeguard.audit.report import Provenance, Report
from scopeguard.audit.text import as_markdown, as_table
from scopeguard.cli.mcp_tools import registered_tools
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.issuers import discover
from scopeguard.guard import Guard, engine_of
from scopeguard.server.serve import load
from scopeguard.spec.discovery import Metadata


def _as_json(report: Report) -> str:
    return json.dumps(report.as_json(), indent=2) + "\n"


FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "table": as_table,
    "json": _as_json,
    "markdown": as_markdown,
    "html": as_html,
}


def run(
    target: str,
    *,
    config: str | None,
    factory: bool,
    format_name: str,
    output: str | None,
    public: Iterable[str],
    online: bool,
    strict: bool,
) -> int:
    """Write the report on *target*. Return the exit status: 1 if a problem was found, else 0.

    Raises :class:`ConfigurationError` for wrong options or settings.
    """
    app: Any = load(target, factory=factory)
    if config is not None:
        app = ServeLayer(app, Guard.from_file(config))
    report = audit_app(app, target=target, public=public, list_tools=registered_tools)
    if online:
        report = audit_app(
            app, target=target, public=public, granted=_published_scopes(report), list_tools=registered_tools
        )
    made = Provenance(day=datetime.now(UTC).date().isoformat(), version=__version__, configuration=config)
    text = FORMATS[format_name](replace(report, provenance=made))
    if output is None:
        sys.stdout.write(text)
    else:
        try:
            Path(output).write_text(text, "utf-8")
        except OSError as problem:
            raise ConfigurationError(f"--output: cannot write {output}: {problem.strerror}") from None
        click.echo(f"{report.target}: {report.summary}", err=True)
    return 1 if report.errors or (strict and report.warnings) else 0


def _lists_scopes(metadata: Metadata) -> bool:
    return isinstance(metadata.raw.get("scopes_supported"), list)


def _published_scopes(report: Report) -> dict[str, frozenset[str]]:
    """Return ``scopes_supported`` (RFC 8414 section 2) by issuer, without the issuers that do not publish it."""
    found: dict[str, frozenset[str]] = {}
    for guard in report.guards:
        engine = engine_of(guard)
        for issuer in guard.issuers:
            with closing(guard):
                try:
                    known = engine.configured_issuer(issuer.url)
                    metadata = engine.perform(discover(known, engine.clock, _lists_scopes))
                except AuthorityUnavailable as problem:
                    raise ConfigurationError(f"--online: {problem}") from None
            scopes = metadata.raw.get("scopes_supported")
            if isinstance(scopes, list):
                found[issuer.url] = frozenset(scope for scope in scopes if isinstance(scope, str))
    return found
