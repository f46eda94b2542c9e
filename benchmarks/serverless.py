"""Measures the cold start of a serverless function: from the start of its module to the answer to its first event.

    python -m benchmarks.serverless [--quick]

Each start is a new interpreter, which measures its own processor time and the time on the clock on the wall: imports, a
guard, and one event of API Gateway with a valid RS256 token. The interpreter itself is not included. The key set comes
from a server on loopback, whose answers take no time, or is packed with the function. PyJWT checks signature, issuer,
audience and expiry, and its function reads the event itself. The contestants take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.material import AUDIENCE
from benchmarks.measuring import figure, machine, table
from scopeguard.spec.packed_keys import pack_keys
from scopeguard.testing import FakeAuthority, FakeClock

ROOT = Path(__file__).parent.parent
OURS = "scopeguard.aws_lambda, packed keys"
THEIRS = "PyJWT, packed keys"

_GUARD = """
from scopeguard import Guard, Issuer
from scopeguard.aws_lambda import protect
guard = Guard(Issuer({url!r}, audience={audience!r}, {keys}), audit="off")
@protect(guard)
def handler(event, context):
    return {{"statusCode": 200, "body": "rows"}}
"""
_PYJWT = """
import json, jwt
{keys}
def handler(event, context):
    token = event["headers"]["authorization"].removeprefix("Bearer ")
    options = {{"require": ["exp", "iss", "aud"]}}
    jwt.decode(token, key_of(token), algorithms=["RS256"], audience={audience!r}, issuer={url!r}, options=options)
    return {{"statusCode": 200, "body": "rows"}}
"""
_FETCHED = "client = jwt.PyJWKClient({uri!r})\ndef key_of(token): return client.get_signing_key_from_jwt(token).key"
_PACKED = """keys = {{key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.load(open({file!r}))).keys}}
def key_of(token): return keys[jwt.get_unverified_header(token)["kid"]]"""
CONTESTANTS = {
    OURS: (_GUARD, "jwks_uri={uri!r}, jwks_seed={file!r}"),
    "scopeguard.aws_lambda, keys fetched": (_GUARD, "jwks_uri={uri!r}"),
    THEIRS: (_PYJWT, _PACKED),
    "PyJWT, keys fetched": (_PYJWT, _FETCHED),
}
_RUN = """
import sys, time
cpu, wall = time.process_time(), time.perf_counter()
{function}
answer = handler({event!r}, None)
print(time.process_time() - cpu, time.perf_counter() - wall)
sys.stdout.flush()
assert answer["statusCode"] == 200, answer
import os
os._exit(0)  # a fetch in the background has not ended
"""


@contextmanager
def _key_server(document: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()


def time_start(function: str, event: dict[str, Any]) -> tuple[float, float]:
    """Return the processor time and the wall time of one start, in milliseconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTHON"))}
    script = _RUN.format(function=function, event=event)
    run = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    cpu, wall = map(float, run.stdout.split())
    return cpu * 1e3, wall * 1e3


def starts(rounds: int) -> dict[str, list[tuple[float, float]]]:
    authority = FakeAuthority(audience=AUDIENCE, algorithm="RS256", clock=FakeClock(time.time()))
    now = authority.clock.wall()
    document = pack_keys(authority.authority.keys.key_set(now), authority.url, now)
    event = {
        "version": "2.0",
        "rawPath": "/rows",
        "rawQueryString": "",
        "headers": {"authorization": authority.bearer("rows.read")["Authorization"]},
        "requestContext": {"http": {"method": "GET", "path": "/rows", "sourceIp": "192.0.2.1"}, "stage": "$default"},
        "isBase64Encoded": False,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder, _key_server(json.dumps(document).encode()) as uri:
        file = Path(folder) / "keys.json"
        file.write_text(json.dumps(document), "utf-8")
        for number in range(rounds + 1):
            for name, (template, keys) in CONTESTANTS.items():
                where = keys.format(uri=uri, file=str(file))
                taken = time_start(template.format(url=authority.url, audience=AUDIENCE, keys=where), event)
                if number:  # the first round compiles bytecode
                    found[name].append(taken)
    return found


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure all contestants."""
    rows = {
        name: {
            "processor": statistics.median(cpu for cpu, _ in taken),
            "least": min(cpu for cpu, _ in taken),
            "wall": statistics.median(wall for _, wall in taken),
        }
        for name, taken in starts(2 if quick else 20).items()
    }
    ours, theirs = rows[OURS]["processor"], rows[THEIRS]["processor"]
    title = "cold start with packed keys: imports, a guard and the first event"
    return {
        "starts": rows,
        "figures": [figure(title, round(ours, 1), "", unit="ms", peer=round(theirs, 1), peer_name="PyJWT")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    results = measure(quick=parser.parse_args().quick)
    columns = ["", "least ms", "median ms", "median ms on the wall"]
    rows = [
        [name, f"{row['least']:.0f}", f"{row['processor']:.0f}", f"{row['wall']:.0f}"]
        for name, row in results["starts"].items()
    ]
    print(table("Cold start of a function, in processor time", columns, rows))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
