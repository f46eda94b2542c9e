"""Checks of the permissions of the configuration file and of the files that it names.

They read the file as a TOML document, because the parsed settings no longer show where a value came from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from scopeguard.doctor.finding import Finding, error, ok, skipped, warning

_CHECK: Final = "permissions"
SECRET_KEYS: Final = frozenset(
    ("client_secret", "private_key", "bearer_token", "secret", "nonce_keys", "signing_key", "redis", "proxy")
)
"""The keys whose values are secrets, in any table. A URL in ``redis`` or ``proxy`` is one only if it has a password."""
_URLS: Final = frozenset(("redis", "proxy"))
_SECRET_PATHS: Final = frozenset(("jwks_bearer_file", "cert_file", "keys_file", "bearer_file"))
PATH_KEYS: Final = _SECRET_PATHS | {
    "jwks_file",
    "jwks_seed",
    "jwks_ca_file",
    "ca_file",
    "openapi",
    "google_discovery",
    "catalog",
}
"""The keys whose values are paths themselves, without ``file:``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """A file that the configuration names. ``setting`` is its place, as in ``issuers.introspection.client_secret``."""

    setting: str
    path: Path
    secret: bool


def named_files(document: Mapping[str, Any], base: Path) -> list[NamedFile]:
    """Return the files that *document* names, relative to *base*, each once with the first setting that names it."""
    found: dict[Path, NamedFile] = {}
    for setting, key, value in _strings(document, ()):
        text = os.environ.get(value.removeprefix("env:"), "") if value.startswith("env:") else value
        if value.startswith("file:"):
            path = base / value.removeprefix("file:")
            found.setdefault(path, NamedFile(setting=setting, path=path, secret=key in SECRET_KEYS))
        elif key in PATH_KEYS and text:
            found.setdefault(base / text, NamedFile(setting=setting, path=base / text, secret=key in _SECRET_PATHS))
    return list(found.values())


def written_secrets(document: Mapping[str, Any]) -> list[str]:
    """Return the settings whose secrets are in *document* itself, and not in a file or an environment variable."""
    settings = [
        setting
        for setting, key, value in _strings(document, ())
        if key in SECRET_KEYS and not value.startswith(("env:", "file:")) and (key not in _URLS or _has_password(value))
    ]
    return list(dict.fromkeys(settings))


def _has_password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return True


def _strings(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the last key and the text of each string. Strings in a private JWK have its place and key."""
    match value:
        case str():
            yield ".".join(place), place[-1], value
        case Mapping():
            for name, inner in value.items():
                below_secret = bool(place) and place[-1] in SECRET_KEYS
                yield from _strings(inner, place if below_secret else (*place, str(name)))
        case list():
            for inner in value:
                yield from _strings(inner, place)


def check_files(file: Path, document: Mapping[str, Any], base: Path) -> list[Finding]:
    """Check the permissions of the configuration *file*, which holds *document*, and of the files that it names."""
    if os.name == "nt":
        return [skipped(str(file), _CHECK, "the permissions of files are not checked on Windows")]
    secrets = written_secrets(document)
    findings = [_check_file(str(file), file, f"the secret in {', '.join(secrets)}" if secrets else None)]
    for named in named_files(document, base):
        what = f"the secret of {named.setting}" if named.secret else None
        findings.append(_check_file(f"{named.path} ({named.setting})", named.path, what))
    return findings


def _check_file(subject: str, path: Path, secret: str | None) -> Finding:
    """Check *path*. *secret* describes the secret in it, if there is one."""
    try:
        mode, folder = path.stat().st_mode, path.parent.stat().st_mode
    except (OSError, ValueError) as problem:  # ValueError: the text cannot be a path
        text = getattr(problem, "strerror", None) or "not a path"
        return warning(subject, _CHECK, f"cannot be read: {text}", fix="correct the path, or create it")
    if mode & stat.S_IWOTH:
        text = f"every user of this machine can change it (mode {stat.S_IMODE(mode):04o})"
        return error(subject, _CHECK, text, fix=f"chmod o-w {path}")
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        text = f"every user of this machine can replace it, because its folder has mode {stat.S_IMODE(folder):04o}"
        return error(subject, _CHECK, text, fix=f"chmod o-w {path.parent}")
    if secret is not None and mode & stat.S_IROTH:
        text = f"every user of this machine can read {secret} (mode {stat.S_IMODE(mode):04o})"
        return warning(subject, _CHECK, text, fix=f"chmod o-r {path}")
    return ok(subject, _CHECK, f"mode {stat.S_IMODE(mode):04o}")
