"""``scopeguard pack-keys``: fetches the keys of an issuer at build time, for the setting ``jwks_seed``."""

from __future__ import annotations

import json

from scopeguard.doctor.tracing_transport import TracingTransport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.keys import fetch_keys
from scopeguard.guard import Guard, engine_of
from scopeguard.spec.packed_keys import pack_keys
from scopeguard.spec.strict_json import parse_object


def run(guard: Guard, *, issuer: str | None) -> tuple[str, int]:
    """Return the packed key set of *issuer*, or of the only issuer of *guard*, and the number of its keys.

    Only usable keys are packed. Raises :class:`ConfigurationError` for an issuer without one key set at a URL, and
    :class:`AuthorityUnavailable` if there is no usable answer.
    """
    engine = engine_of(guard)
    record = engine.configured_issuer(issuer)
    url = record.issuer.url
    if record.issuer.keys or record.issuer.jwks_file or record.by_id is not None or record.others:
        raise ConfigurationError(f"issuer {url!r}: has no single key set at a URL, which could be packed")
    engine.runtime.transport = watch = TracingTransport(engine.runtime.transport, engine.clock)
    try:
        keys, _ = engine.perform(fetch_keys(record, engine.clock))
    finally:
        guard.close()
    answer = watch.exchanges[-1].answer
    if answer is None:
        raise AssertionError("a fetch that succeeded has an answer")
    document = parse_object(answer.body, mark_ambiguous=True)
    unused = {key.position for key in keys.ignored}
    usable = [jwk for position, jwk in enumerate(document["keys"]) if position not in unused]
    return json.dumps(pack_keys({**document, "keys": usable}, url, engine.clock.wall()), indent=2) + "\n", len(usable)
