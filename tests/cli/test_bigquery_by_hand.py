"""The commands in the README of examples/bigquery: ``scopeguard devserver``, ``scopeguard serve``, Google's client."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from environment import ROOT, plain_environment, skip_or_fail
from serving import refuses_connections, wait_until

EXAMPLE = ROOT / "examples" / "bigquery"
README = (EXAMPLE / "README.md").read_text("utf-8")


def command(name: str) -> list[str]:
    """The arguments of the README's line that runs ``scopeguard`` *name*."""
    found = re.search(rf"^    (?:\w+=\S+ )?(scopeguard {name} (?:.*\\\n)*.*)$", README, re.MULTILINE)
    assert found is not None, name
    return shlex.split(found[1].replace("\\\n", " "))[1:]


def program() -> str:
    """The README's lines of Python."""
    found = re.search(r"Then, in Python:\n\n((?:    .*\n|\n)+)", README)
    assert found is not None
    return "\n".join(line.removeprefix("    ") for line in found[1].splitlines())


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def run(folder: Path, *arguments: str) -> str:
    """Return the output of a Python program in *folder*."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=plain_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_of_the_readme_work(start: Callable[..., Any], tmp_path: Path, no_leaks: Callable[[str], None]):
    if not (find_spec("googleapiclient") and find_spec("google.cloud") and find_spec("google.cloud.bigquery")):
        skip_or_fail("google-cloud-bigquery or google-api-python-client is not installed")
    for path in EXAMPLE.iterdir():
        if path.suffix in (".py", ".toml"):
            shutil.copy(path, tmp_path)
    assert run(tmp_path, "discovery.py") == "bigquery.v2.json\n"
    port = free_port()
    authority = start(*command("devserver"), "--port", port, cwd=tmp_path)
    authority.wait_for("service account admin@local-tables.iam.gserviceaccount.com")
    wait_until(lambda: not refuses_connections(int(port)), "the authorization server listens")
    served = start(*command("serve"), "--port", "0", cwd=tmp_path, env={"ISSUER": f"http://127.0.0.1:{port}"})
    found = re.search(r"http://127\.0\.0\.1:\d+", served.wait_for(" on http://"))
    assert found is not None
    wait_until(lambda: not refuses_connections(int(found[0].rpartition(":")[2])), "the service listens")
    text = program().replace("http://127.0.0.1:8080", found[0])
    listed = "print([item.dataset_id for item in client.list_datasets()])"
    assert run(tmp_path, "-c", f"{text}\n{listed}") == "['shop']\n"
    loader = text.replace("admin.json", "loader.json").replace("cloud-platform", "bigquery.insertdata")
    (tmp_path / "loader.py").write_text(loader, "utf-8")
    refused = "from google.api_core import exceptions as e\ntry: import loader\nexcept e.Forbidden: print('no')"
    assert run(tmp_path, "-c", refused) == "no\n"
    for each in (served, authority):
        assert each.end(signal.SIGTERM) in (0, -signal.SIGTERM)
        no_leaks(each.output)
