"""Fills the Grafana dashboard of this folder with data, and checks that each of its queries finds some.

``make observability`` (or ``python examples/observability/run.py``) starts an authorization server, the API of
``api.py`` and Prometheus on loopback, and sends requests for a minute: good and bad ones, while the authorization
server rotates its keys, fails for a while, and returns. Then it asks Prometheus every query of ``dashboard.json``. It
exits with 0 only if each has data. ``--picture FILE`` draws the panels with matplotlib, because Debian has no Grafana.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from api import make_app
from prometheus_client import CollectorRegistry, start_http_server
from traffic import Caller, call_in_background

from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen

FOLDER = Path(__file__).parent
JOB = "scopeguard"
INTERVAL = "1s"
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "8s", "$job": JOB}
SECRET = "for development"
# What happens, and for how many seconds.
STEPS = (
    ("good and bad requests", 20),
    ("a rotation of the keys", 12),
    ("an outage", 14),
    ("the end of the outage", 20),
)


@dataclass(frozen=True)
class Series:
    """One line of a panel: its name in the legend, and its points."""

    name: str
    times: list[float]
    values: list[float]


class Prometheus:
    """A Prometheus server on loopback that scrapes *target*."""

    def __init__(self, target: str, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        text = (FOLDER / "prometheus.yml").read_text("utf-8")
        text = text.replace("127.0.0.1:9464", target).replace("scrape_interval: 15s", f"scrape_interval: {INTERVAL}")
        config = folder / "prometheus.yml"
        config.write_text(text, "utf-8")
        self._log = folder / "prometheus.log"
        command = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - all of it is above

    def wait_until_ready(self) -> None:
        for _ in range(100):
            try:
                if httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"Prometheus does not start:\n{self._log.read_text('utf-8')}")

    def query(self, expression: str, legend: str, begin: float, end: float) -> list[Series]:
        """Return the series of *expression* that have a value."""
        parameters = {"query": expression, "start": str(begin), "end": str(end), "step": "1"}
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=parameters, trust_env=False).json()
        if answer["status"] != "success":
            raise SystemExit(f"{expression}: {answer['error']}")
        found = []
        for result in answer["data"]["result"]:
            points = [(float(at), float(value)) for at, value in result["values"] if not math.isnan(float(value))]
            if points:
                name = name_of(legend, result["metric"])
                found.append(Series(name, [at for at, _ in points], [value for _, value in points]))
        return found

    def version(self) -> str:
        answer = httpx.get(f"{self.url}/api/v1/status/buildinfo", trust_env=False).json()
        version: str = answer["data"]["version"]
        return version

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def name_of(legend: str, labels: dict[str, str]) -> str:
    """Return *legend* with the values of its ``{{labels}}``."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend).strip() or "(none)"


@contextmanager
def prometheus(target: str) -> Iterator[Prometheus]:
    with tempfile.TemporaryDirectory() as folder:
        server = Prometheus(target, Path(folder))
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


def fill(caller: Caller, server: DevServer) -> None:
    """Send requests through all :data:`STEPS`."""
    with call_in_background(caller):
        for name, seconds in STEPS:
            print(f"{seconds:3} s  {name}", flush=True)
            if name == "a rotation of the keys":
                caller.authority.rotate()
            elif name == "an outage":
                server.__exit__(None, None, None)
            elif name == "the end of the outage":
                server.__enter__()
            time.sleep(seconds)


def read_panels(dashboard: dict[str, Any], server: Prometheus, begin: float, end: float) -> dict[int, list[Series]]:
    """Return the series of each panel by its ``id``, and print what each query has found."""
    found: dict[int, list[Series]] = {}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression: str = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            series = server.query(expression, target["legendFormat"], begin, end)
            found.setdefault(panel["id"], []).extend(series)
            points = sum(len(each.values) for each in series)
            print(f"{'ok' if series else 'NO DATA':8}{len(series):3} series {points:5} points  {panel['title']}")
    return found


def is_complete(dashboard: dict[str, Any], found: dict[int, list[Series]]) -> bool:
    """Return whether every panel has as many series as queries, or more."""
    return all(len(found[panel["id"]]) >= len(panel["targets"]) for panel in dashboard["panels"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the panels into this file (PNG)")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        raise SystemExit("Prometheus is not installed; on Debian: apt install prometheus")
    logging.getLogger("scopeguard").setLevel(logging.ERROR)  # the refusals and the outage are intended
    dashboard = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    registry = CollectorRegistry()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        api = Client(client_id="api", secret=SECRET, introspects=[url])
        authority = Authority(audience=url, clients=[api], keys=KeyRing("ES256"), jwks_max_age=10)
        server = DevServer(authority)
        with server:
            app = make_app(server.url, url, SECRET, registry)
            exporter, _ = start_http_server(0, "127.0.0.1", registry)
            with Serving(app, listener), prometheus(f"127.0.0.1:{exporter.server_port}") as database:
                begin = time.time()
                fill(Caller(url, authority), server)
                end = time.time()
                found = read_panels(dashboard, database, begin, end)
                version = httpx.get(f"{database.url}/api/v1/status/buildinfo", trust_env=False).json()["data"][
                    "version"
                ]
            exporter.shutdown()
    if options.picture is not None:
        from picture import draw  # noqa: PLC0415 - needs matplotlib

        draw(dashboard, found, options.picture, note=f"Prometheus {version}, {time.strftime('%Y-%m-%d')}")
        print(f"drawn: {options.picture}")
    return 0 if is_complete(dashboard, found) else 1


if __name__ == "__main__":
    sys.exit(main())
