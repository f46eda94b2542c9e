"""``scopeguard api-key new``: makes an API key, prints it once, and stores its digest."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from scopeguard.config.api_keys import ApiKey, ApiKeys
from scopeguard.config.file import read_settings
from scopeguard.config.file.place import Place
from scopeguard.config.file.references import resolve
from scopeguard.edge.files import read_bytes
from scopeguard.errors import ConfigurationError
from scopeguard.spec.api_key import NEVER, MalformedKeyFile, make_key, read_keys

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,4})([dh])")
_SECONDS: Final = {"d": 86400, "h": 3600}
_HEAD: Final = "# API keys: scopeguard api-key new adds one. Add revoked = true to a key to revoke it.\n"


def run(
    *,
    config: str | None,
    keys_file: str | None,
    prefix: str | None,
    checksum_secret: str | None,
    subject: str | None,
    client_id: str | None,
    scopes: tuple[str, ...],
    expires: str,
) -> None:
    """Make a key, print it, and store its digest in the file. Without a file, print the entry to standard error.

    Raises :class:`ConfigurationError` for options that do not fit together, and for a file that cannot be used.
    """
    if config is not None:
        if keys_file is not None or prefix is not None:
            raise ConfigurationError("--config: names the file and the prefix; leave --keys-file and --prefix out")
        prefix, keys_file = _settings_of(config)
    elif prefix is None:
        raise ConfigurationError("--prefix: is missing; give it, or --config")
    secret = None
    if checksum_secret is not None:
        if keys_file is not None:
            raise ConfigurationError("--checksum-secret: is for keys that a lookup finds; leave the file out")
        secret = ApiKeys(prefix=prefix, lookup=_no_key, checksum_secret=read_secret(checksum_secret)).checksum_key
    else:
        ApiKeys(prefix=prefix, keys_file=keys_file or "none")
    now = int(time.time())
    identifier, text, digest = make_key(prefix, secrets.token_bytes, secret)
    key = ApiKey(
        id=identifier,
        sha256=digest,
        subject=subject,
        client_id=client_id,
        scopes=scopes,
        issued_at=now,
        expires_at=read_expiry(expires, now),
    )
    if keys_file is None:
        click.echo(entry_of(key), err=True)
    else:
        add_to_file(Path(keys_file), key)
        until = "does not expire" if key.expires_at is None else f"expires on {_moment(key.expires_at)}"
        click.echo(f"added key {identifier} to {keys_file}; it {until} and is not shown again", err=True)
    click.echo(text)


def _settings_of(config: str) -> tuple[str, str | None]:
    _, arguments = read_settings(config)
    keys = arguments.get("api_keys")
    if not isinstance(keys, ApiKeys):
        raise ConfigurationError(f'{config}: api_keys: is missing; add [api_keys] with prefix = "acme" and keys_file')
    return keys.prefix, None if keys.keys_file is None else os.fspath(keys.keys_file)


def read_secret(place: str) -> str:
    """Return the secret at *place*, ``env:NAME`` or ``file:PATH``.

    The secret itself is refused, because lists of processes show the command line.
    """
    if not place.startswith(("env:", "file:")):
        raise ConfigurationError("--checksum-secret: must be env:NAME or file:PATH, not the secret itself")
    return resolve(place, Place("scopeguard api-key", "command line", Path(), os.environ), "--checksum-secret")


def _no_key(key_id: str) -> None:
    del key_id


def read_expiry(text: str, now: float) -> float | None:
    """Return the time that *text* describes, the value of ``--expires``; ``None`` for ``never``."""
    if text == NEVER:
        return None
    period = _PERIOD.fullmatch(text)
    if period is not None:
        return now + int(period[1]) * _SECONDS[period[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            f"--expires: must be as in 90d, 12h, 2027-01-31T00:00:00Z (with a time zone) or never, not {text!r}"
        )
    if moment.timestamp() <= now:
        raise ConfigurationError(f"--expires: {text} is in the past")
    return moment.timestamp()


def entry_of(key: ApiKey) -> str:
    """Return the table of *key* for the file."""
    lines = ["[[keys]]", f"id = {_string(key.id)}", f"sha256 = {_string(key.sha256)}"]
    lines += [f"subject = {_string(key.subject)}"] if key.subject is not None else []
    lines += [f"client_id = {_string(key.client_id)}"] if key.client_id is not None else []
    lines.append(f"scopes = [{', '.join(map(_string, key.scopes))}]")
    lines += [f"issued_at = {_moment(key.issued_at)}"] if key.issued_at is not None else []
    lines.append(f"expires_at = {_string(NEVER) if key.expires_at is None else _moment(key.expires_at)}")
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML forbids DEL in strings


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def add_to_file(path: Path, key: ApiKey) -> None:
    """Add *key* to the file at *path*, which is replaced as a whole, so that no reader sees a part of it.

    A new file can be read by its owner only. Raises :class:`ConfigurationError` if the file already has a mistake.
    """
    try:
        before = read_bytes(path) if path.exists() else b""
        content = (before or _HEAD.encode()) + (b"" if before.endswith(b"\n") or not before else b"\n")
        content += b"\n" + entry_of(key).encode()
        if read_keys(content).get(key.id) != key:
            raise ConfigurationError(f"{path}: the key cannot be added to this file")
        mode = path.stat().st_mode & 0o777 if before else 0o600
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            os.chmod(name, mode)
            os.replace(name, target)
        except OSError:
            os.unlink(name)
            raise
    except MalformedKeyFile as problem:
        raise ConfigurationError(f"{path}: {problem}") from None
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be written: {problem.strerror}") from None
