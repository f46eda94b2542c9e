"""Find the keys of a set that can verify the tokens of an issuer. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from scopeguard.config.algorithms import SUPPORTED_ALGORITHMS
from scopeguard.doctor.finding import Finding, error, ok, warning
from scopeguard.spec.jwks import IgnoredKey, KeySet, VerificationKey

_CHECK = "keys"


def check_keys(subject: str, keys: KeySet, algorithms: Sequence[str], place: str) -> list[Finding]:
    """Compare *keys*, which were read from *place*, with the *algorithms* that the issuer accepts.

    One finding counts the keys that are used. Each key that is not used has a finding of its own: a warning if its
    publisher or the operator should act.
    """
    used = [key for key in keys.keys if _accepted_algorithms(key, algorithms)]
    idle = [key for key in keys.keys if not _accepted_algorithms(key, algorithms)]
    total = len(keys.keys) + len(keys.ignored)
    shown = ", ".join(_describe(key, algorithms) for key in used)
    if used:
        first = ok(subject, _CHECK, f"{len(used)} of {total} from {place} can verify tokens: {shown}")
    else:
        possible = sorted({algorithm for key in idle for algorithm in key.algorithms})
        first = error(
            subject,
            _CHECK,
            f"none of {total} keys from {place} fits algorithms = {list(algorithms)}: every token is refused",
            fix=f"add the algorithm that the authorization server signs with to algorithms; its keys allow {possible}",
        )
    findings = [
        first,
        *(_check_idle(subject, key) for key in idle),
        *(_check_ignored(subject, k) for k in keys.ignored),
    ]
    return findings + _check_names(subject, used)


def _accepted_algorithms(key: VerificationKey, algorithms: Sequence[str]) -> list[str]:
    return [algorithm for algorithm in algorithms if algorithm in key.algorithms]


def key_type(key: VerificationKey) -> str:
    """Return the ``kty`` of *key*."""
    name = min(key.algorithms)
    prefixes = {"RS": "RSA", "PS": "RSA", "ES": "EC", "ML": "AKP"}
    return prefixes.get(name[:2], "OKP")


def _describe(key: VerificationKey, algorithms: Sequence[str]) -> str:
    return f"{_name(key.kid)} ({key_type(key)}, {'/'.join(_accepted_algorithms(key, algorithms))})"


def _name(kid: str | None) -> str:
    return "a key without kid" if kid is None else f"kid {ascii(kid)[:60]}"


def _check_idle(subject: str, key: VerificationKey) -> Finding:
    possible = sorted(key.algorithms & SUPPORTED_ALGORITHMS)
    return warning(
        subject,
        _CHECK,
        f"{_name(key.kid)} ({key_type(key)}) is not used: algorithms has none of {possible}",
        fix=f"add one of {possible} to algorithms if the authorization server signs access tokens with this key",
    )


def _check_ignored(subject: str, key: IgnoredKey) -> Finding:
    name = f"{_name(key.kid)} (number {key.position + 1}) is ignored: {key.reason}"
    if not key.alarming:
        return ok(subject, _CHECK, name)
    return warning(subject, _CHECK, name, fix="have the authorization server publish the public part of a sound key")


def _check_names(subject: str, used: Sequence[VerificationKey]) -> list[Finding]:
    """Report several keys without ``kid``: each token then costs up to one verification for each key."""
    nameless = sum(key.kid is None for key in used)
    if nameless < 2:
        return []
    return [
        warning(
            subject,
            _CHECK,
            f"{nameless} keys have no kid, so that a token cannot say which of them signed it",
            fix="have the authorization server publish a kid with each key",
        )
    ]
