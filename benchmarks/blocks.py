"""All contestants in one server, in turns of a few hundred requests, with the processor time of each turn.

``benchmarks.sockets`` starts the server and sends the requests. A request to ``/rows`` goes to the contestant whose
turn it is; ``/3/rows`` goes to contestant 3, and ``/blocks`` returns the measurements. The token
caches are emptied at the beginning of each block, so a new token is new even if an earlier block had it. The first
requests of a block are not counted: the caches of the processor still hold the instructions and data of the previous
contestant, and the known tokens are verified again.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contestants import all_contestants
from benchmarks.material import Material
from benchmarks.measuring import silence
from scopeguard.guard import engine_of

# The requests that are not counted are enough for each known token to come several times. Tests set a smaller number.
BLOCK = int(os.environ.get("BENCH_BLOCK", "600"))
NOT_COUNTED = BLOCK // 3
# In the first cycles, caches fill and the interpreter specialises the code.
CYCLES_NOT_COUNTED = 2
PLACE, NAMES, KEYS = "/blocks", "BENCH_APPS", "BENCH_KEYS"


@dataclass
class Blocks:
    """Assigns requests to contestants in turns, and measures the turns.

    *forget*: for each contestant, functions that empty its token caches. *counted*: for each contestant, the
    microseconds of processor time and of real time for one request, by the number of the cycle. In each cycle every
    contestant has one block, and no contestant always follows the same one.
    """

    forget: Sequence[Sequence[Callable[[], None]]]
    counted: list[dict[int, tuple[float, float]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _begun: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.counted = [{} for _ in self.forget]

    def next(self) -> int:
        """Return the contestant that answers the next request."""
        block, place = divmod(next(self._numbers), BLOCK)
        cycle, turn = divmod(block, len(self.forget))
        contestant = (turn + cycle) % len(self.forget)
        if place == 0:
            for clear in self.forget[contestant]:
                clear()
        elif place == NOT_COUNTED:
            self._begun = time.process_time_ns(), time.perf_counter_ns()
        elif place == BLOCK - 1 and self._begun is not None and cycle >= CYCLES_NOT_COUNTED:
            requests = BLOCK - 1 - NOT_COUNTED
            processor, real = time.process_time_ns() - self._begun[0], time.perf_counter_ns() - self._begun[1]
            self.counted[contestant][cycle] = processor / requests / 1e3, real / requests / 1e3
        return contestant


def _contestants() -> tuple[list[Any], Blocks]:
    """Return the apps that the environment names, and their turns."""
    silence()
    key_file, names = Path(os.environ[KEYS]), json.loads(os.environ[NAMES])
    all_of_them, _ = all_contestants("RS256")
    by_name = {each.name: each for each in all_of_them}
    apps, forget = [], []
    for name in names:
        material = Material("RS256", key_file=key_file)
        apps.append(by_name[name].app(material))
        caches = [engine_of(guard).context.token_cache for guard in material.guards]
        forget.append([cache.clear for cache in caches if cache is not None])
    # Otherwise a collection would visit the objects of all contestants, which a server with one of them does not have.
    gc.collect()
    gc.freeze()
    return apps, Blocks(forget)


def asgi_app() -> Any:
    """Return the ASGI app with all contestants. The servers call it."""
    apps, blocks = _contestants()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/rows":
            await apps[blocks.next()](scope, receive, send)
        elif path == PLACE:
            body = json.dumps(blocks.counted).encode()
            fields = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": body})
        else:
            number = int(path.split("/")[1])
            await apps[number]({**scope, "path": "/rows", "raw_path": b"/rows"}, receive, send)

    return app


def wsgi_app() -> Any:
    """Return the WSGI app with all contestants. The servers call it."""
    apps, blocks = _contestants()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/rows":
            found: Iterable[bytes] = apps[blocks.next()](environ, start_response)
            return found
        if path == PLACE:
            body = json.dumps(blocks.counted).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        chosen: Iterable[bytes] = apps[int(path.split("/")[1])]({**environ, "PATH_INFO": "/rows"}, start_response)
        return chosen

    return app
