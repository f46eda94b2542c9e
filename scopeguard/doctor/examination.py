"""All checks of one configuration file, in their order."""

from __future__ import annotations

import logging
import sys
import time
import tomllib
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scopeguard.doctor.api_keys import check_api_keys
from scopeguard.doctor.decision_points import check_decision_point
from scopeguard.doctor.environment import check_python, check_versions, installed_versions
from scopeguard.doctor.files import check_files
from scopeguard.doctor.finding import Diagnosis, Finding, error, ok, skipped, warning
from scopeguard.doctor.issuers import check_issuer, static_findings
from scopeguard.doctor.proxies import ServerAddress, check_server, check_trusted
from scopeguard.doctor.resource import check_resource
from scopeguard.doctor.rules import check_app, check_rules
from scopeguard.doctor.store import SUBJECT as STORE
from scopeguard.doctor.store import check_store
from scopeguard.doctor.tracing_transport import TracingTransport
from scopeguard.edge.files import read_text
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of

_CHECK: Final = "settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to examine.

    * ``file``: the configuration file. ``app``, ``target``: the app and its name, if there is one.
    * ``offline``: leave everything out that needs a network.
    * ``host``, ``trusted_proxies``: as for ``scopeguard serve``; ``host`` is ``None`` for a Unix socket.
    * ``overrides``: arguments of the guard that replace those of the file; for tests.
    """

    file: str
    app: Any = None
    target: str = ""
    offline: bool = False
    host: str | None = "127.0.0.1"
    trusted_proxies: tuple[str, ...] = ()
    overrides: Mapping[str, Any] | None = None


def examine(request: Request) -> Diagnosis:
    """Perform the checks. If the configuration file has a mistake, that is a finding, and most checks are skipped."""
    findings = [*_check_environment(), *_check_permissions(request.file)]
    guard, settings = build_guard(request)
    findings += settings
    if guard is not None:
        with closing(guard):
            findings += _check_guard(guard, request)
    return Diagnosis(file=request.file, findings=tuple(findings))


def _check_environment() -> list[Finding]:
    running, today = (sys.version_info[0], sys.version_info[1]), datetime.now(UTC).date()
    return [check_python(running, today), *check_versions(installed_versions())]


def _check_permissions(file: str) -> list[Finding]:
    try:
        document = tomllib.loads(read_text(file))
    except (OSError, ValueError):
        return []  # build_guard() reports it
    return check_files(Path(file), document, Path(file).absolute().parent)


class _Collector(logging.Handler):
    """Adds every record to a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def build_guard(request: Request) -> tuple[Guard | None, list[Finding]]:
    """Return the guard that the file describes, and the findings about its settings.

    What the guard logs when it is constructed is a finding: it warns of dangerous settings.
    """
    records: list[logging.LogRecord] = []
    handler = _Collector(records)
    log = logging.getLogger("scopeguard")
    propagates, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            guard = Guard.from_file(request.file, **dict(request.overrides or {}))
            if guard.rules is not None:
                engine_of(guard).check_rules(guard.rules)  # prepares the policy decision points, as adapters do
    except ConfigurationError as problem:
        return None, [
            error(request.file, _CHECK, str(problem), fix="correct this setting; docs/settings.md explains it")
        ]
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
    texts = [record.getMessage() for record in records] + [str(each.message) for each in raised]
    fix = "remove the setting unless you accept the risk that it states"
    found = [warning(request.file, _CHECK, text, fix=fix) for text in dict.fromkeys(texts)]
    number = len(guard.issuers)
    return guard, [ok(request.file, _CHECK, f"valid, {number} issuer{'' if number == 1 else 's'}"), *found]


def _check_guard(guard: Guard, request: Request) -> list[Finding]:
    engine = engine_of(guard)
    findings: list[Finding] = []
    if request.offline:
        for record in engine.issuers.all:
            findings += static_findings(record)
        findings += [] if engine.store is None else [skipped(STORE, "connection", "not checked (--offline)")]
    else:
        watch = TracingTransport(engine.runtime.transport, engine.clock)
        engine.runtime.transport = watch
        for record in engine.issuers.all:
            findings += check_issuer(record, engine, watch)
        for point in engine.context.points.values():
            findings += check_decision_point(point, engine, watch)
        findings += check_store(engine, time.monotonic)
    findings += check_api_keys(guard)
    findings += check_resource(engine, offline=request.offline)
    findings.append(check_rules(guard, audited=request.app is not None))
    if request.app is not None:
        findings.append(check_app(request.app, request.target, request.file, guard))
    server = ServerAddress(
        host=request.host, trusted=request.trusted_proxies, needs_https=engine.settings.require_https
    )
    return [*findings, *check_server(server), *_check_certificates(guard)]


def _check_certificates(guard: Guard) -> list[Finding]:
    settings = engine_of(guard).settings.mutual_tls
    return [] if settings is None else check_trusted("server", "mutual_tls.trusted_proxies", settings.trusted_proxies)
