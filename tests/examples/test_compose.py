"""examples/compose: the file is one that Compose reads, and its two services do what its README says.

No container engine is needed. The commands of the file run as processes on loopback with the environment it gives; the
name of each service leads to 127.0.0.1 there, as it leads to its container in the network of Compose, and the ports are
free ones.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from environment import ROOT
from scopeguard import presets
from scopeguard.config.file import settings_from

FOLDER = ROOT / "examples" / "compose"
README = (FOLDER / "README.md").read_text("utf-8")
PATIENCE = 30.0

# Imported by every Python process that has its folder on the path: names are looked up as Compose's resolver would.
RESOLVER = """
import os, socket
look_up, names = socket.getaddrinfo, os.environ["SERVICES"].split()
def getaddrinfo(host, *rest, **options):
    name = host.decode() if isinstance(host, bytes) else host
    return look_up("127.0.0.1" if name in names else host, *rest, **options)
socket.getaddrinfo = getaddrinfo
"""


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
    return document


@dataclass
class Network:
    """The services as processes, and what has become of the ports that the files name."""

    ports: Mapping[str, str]
    folder: Path
    environment: Mapping[str, str]

    def map_ports(self, text: str) -> str:
        """*text* of the example with the ports of this run."""
        return re.sub("|".join(self.ports), lambda port: self.ports[port[0]], text)

    def run(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        program, *arguments = command
        assert program == "scopeguard"
        arguments = [self.map_ports(argument).replace("0.0.0.0", "127.0.0.1") for argument in arguments]
        return subprocess.Popen(
            [sys.executable, "-m", "scopeguard", *arguments],
            cwd=self.folder,
            text=True,
            env=self.environment,
            **options,
        )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    services = compose()["services"]
    folder, resolver = tmp_path_factory.mktemp("example"), tmp_path_factory.mktemp("resolver")
    (resolver / "sitecustomize.py").write_text(RESOLVER, "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = {"9000": str(one.getsockname()[1]), "8000": str(two.getsockname()[1])}
    environment = {
        **os.environ,
        "PYTHONPATH": f"{resolver}{os.pathsep}{ROOT}",
        "SERVICES": " ".join(services),
    }
    network = Network(ports, folder, environment)
    for name in ("app.py", "scopeguard.toml"):
        (folder / name).write_text(network.map_ports((FOLDER / name).read_text("utf-8")), "utf-8")
    running = []
    with (folder / "log").open("w", encoding="utf-8") as log:
        for service in services.values():
            given = {name: network.map_ports(value) for name, value in service.get("environment", {}).items()}
            network.environment = {**environment, **given}
            running.append(network.run(service["command"], stdout=log, stderr=log))
        try:
            for port in ports.values():
                _wait_for(int(port), folder / "log")
            yield network
        finally:
            for process in running:
                process.send_signal(signal.SIGINT)
            for process in running:
                process.wait(PATIENCE)


def _wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail(f"nothing listens: {log.read_text('utf-8')}")
            time.sleep(0.05)
        else:
            return


def test_the_file_has_the_members_that_compose_reads():
    services = compose()["services"]
    assert set(services) == {"authority", "api"}
    for service in services.values():
        assert service.keys() <= {"build", "command", "environment", "ports", "depends_on", "healthcheck"}
        assert all(isinstance(argument, str) for argument in service["command"])
        assert (FOLDER / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        for port in service["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), "on this machine only"
            assert f"--port={port.rpartition(':')[2]}" in service["command"]
        assert set(service.get("depends_on", ())) < set(services)


def test_the_files_that_the_image_is_made_of_are_there():
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    (copied,) = re.findall(r"^COPY (examples.*) \./$", text, re.MULTILINE)
    assert all((ROOT / name).is_file() for name in copied.split())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r'"/src\[(\w+)\]"', text)) <= set(extras)


def test_the_services_find_each_other_by_name_and_the_api_is_guarded(network: Network):
    authority, api = (f"http://127.0.0.1:{network.ports[port]}" for port in ("9000", "8000"))
    assert httpx.get(f"{api}/healthz").text == "ok"
    assert httpx.get(f"{api}/tables").status_code == 401
    form = {"grant_type": "client_credentials"}
    token = httpx.post(f"{authority}/token", auth=("robot", "for development"), data=form).json()["access_token"]
    answer = httpx.get(f"{api}/tables", headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()) == (200, ["stations"])
    log = (network.folder / "log").read_text("utf-8")
    assert network.map_ports("insecure_http_dangerously: http://authority:9000 is reached in cleartext") in log


def test_the_command_of_the_readme_fetches_a_token_inside(network: Network):
    (line,) = re.findall(r"docker compose exec api sh -c '(.*)'", README)
    secret, _, command = line.partition(" | ")
    process = network.run(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(shlex.split(secret)[1], PATIENCE)
    assert process.returncode == 0, err
    api = f"http://127.0.0.1:{network.ports['8000']}"
    name, _, value = out.strip().partition(": ")
    assert httpx.get(f"{api}/tables", headers={name: value}).status_code == 200


def test_the_settings_for_keycloak_are_those_of_its_preset():
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (issuer,), _ = settings_from(tomllib.loads(text), FOLDER)
    assert issuer == presets.keycloak(
        "http://localhost:8080",
        "shop",
        "https://api.example.com",
        internal_url="http://keycloak:8080",
        insecure_http_dangerously=["keycloak:8080"],
    )
    assert yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])["keycloak"]["ports"]
