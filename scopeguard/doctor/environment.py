"""The Python and the libraries that the guard runs on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from scopeguard.doctor.advisories import ADVISORIES, DATE, PYTHON_ENDS, TESTED, known_advisories, release
from scopeguard.doctor.finding import Finding, error, ok, warning
from scopeguard.doctor.thresholds import DAYS_LEFT_OF_PYTHON

_PYTHON: Final = "Python"
_PACKAGES: Final = ("anyio", "cryptography", "h11", "httpcore", "httpx", "idna", "pyjwt", "starlette")


def installed_versions() -> dict[str, str]:
    """Return the versions of the libraries that scopeguard uses, without those that are not installed."""
    found: dict[str, str] = {}
    for package in dict.fromkeys((*_PACKAGES, *(advisory.package for advisory in ADVISORIES))):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_python(running: tuple[int, int], today: date) -> Finding:
    """Check whether the *running* version of Python gets security fixes *today*."""
    name = f"{running[0]}.{running[1]}"
    end = PYTHON_ENDS.get(running)
    if running not in TESTED:
        tested = ", ".join(f"{major}.{minor}" for major, minor in TESTED)
        text = f"{name} is not one of the versions that this scopeguard is tested with ({tested})"
        return warning(_PYTHON, "version", text, fix="update scopeguard, or run one of these versions")
    if end is not None and today > end:
        text = f"{name} has had no security fixes since {end:%Y-%m}"
        return error(_PYTHON, "version", text, fix="update Python")
    if end is not None and (end - today).days < DAYS_LEFT_OF_PYTHON:
        text = f"{name} gets no security fixes after {end:%Y-%m}"
        return warning(_PYTHON, "version", text, fix="plan the update of Python")
    return ok(_PYTHON, "version", name if end is None else f"{name}, with security fixes until {end:%Y-%m}")


def check_versions(installed: Mapping[str, str]) -> list[Finding]:
    """Compare *installed* libraries with the table of advisories, and name the date of the table."""
    findings: list[Finding] = []
    for package, number in installed.items():
        known = known_advisories(package, number)
        if known:
            named = "; ".join(f"{advisory.identifier}: {advisory.text}" for advisory in known)
            needed = max((advisory.fixed for advisory in known), key=release)
            findings.append(
                warning(
                    "libraries", package, f"{number} has known advisories: {named}", fix=f"update to {needed} or newer"
                )
            )
    clean = [f"{package} {number}" for package, number in installed.items() if not known_advisories(package, number)]
    if clean:
        text = f"no advisory known on {DATE.isoformat()} for {', '.join(clean)}"
        findings.insert(0, ok("libraries", "advisories", text))
    return findings
