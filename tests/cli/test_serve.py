"""``scopeguard serve`` and ``scopeguard devserver`` as processes: an app behind a guard, and a token issuer."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from scopeguard import Reason
from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.devserver import Authority
from serving import ASGI, KINDS, PATIENCE, dev_server, prepare, serve, token


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


METADATA = "https://api.test/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("what", KINDS)
def test_an_app_is_guarded_without_a_change_and_tokens_stay_out_of_the_log(
    what: tuple[str, ...],
    start: Callable[..., Any],
    folder: Path,
    authority: Authority,
    no_leaks: Callable[[str], None],
):
    command, url = serve(start, folder, authority.issuer, *what, "--readyz", "/readyz")
    good = token(authority)
    forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.7;proto=https"}
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
        probe = client.get("/readyz")
        assert (probe.status_code, probe.text) == (200, "ready\n")
        refused = client.get("/a")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (
            401,
            f'Bearer realm="served", scope="read", resource_metadata="{METADATA}"',
        )
        assert "server" not in refused.headers
        granted = client.get("/b", headers={"Authorization": f"Bearer {good}", **forged})
        assert granted.text.startswith("http 127.0.0.1 robot prefix= told=0 ")
        assert client.get("/query", params={"access_token": good}).status_code == 200
        assert client.get("/stray", params={"access_token": good}).status_code == 401
        assert client.get("/new%0Aline", headers={"Authorization": f"Bearer {good}"}).status_code in (200, 403)
        assert client.get("/healthz").status_code in (200, 500)  # The app of this test requires a token itself.
    assert command.end(signal.SIGTERM) == 0
    no_leaks(command.output)
    logged = [line.partition("127.0.0.1 ")[2].split()[:3] for line in command.lines if "127.0.0.1 GET" in line]
    assert logged[:4] == [
        ["GET", *line] for line in (["/a", "401"], ["/b", "200"], ["/query", "200"], ["/stray", "401"])
    ]
    assert logged[4][:2] == ["GET", "/new%0Aline"]


def test_configuration_is_summarised_at_the_start(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, "apps:asgi")
    assert httpx.get(url, trust_env=False, timeout=PATIENCE).status_code == 401
    assert command.end(signal.SIGINT) == 0
    assert [line.strip() for line in command.lines[1:7]] == [
        f"issuer {authority.issuer}, audience https://api.test, keys: discovered",
        "rules: 3 from api.toml",
        "any method /healthz: public, no token",
        "any method /query: any valid token (tokens from: header, query)",
        "any method /{rest:path}: all_of('read')",
        "everything else: denied",
    ]
    assert "lifespan.startup" in command.lines
    assert "lifespan.shutdown" in command.lines
    warned = [line for line in command.lines if " WARNING " in line]
    assert [line.partition(" WARNING ")[2].partition(" request_id")[0] for line in warned] == [
        f"denied with 401: GET /: no_credentials: {entry_of(Reason.NO_CREDENTIALS).advice}"  # of the request above
    ]


def test_mcp_rules_of_the_file_are_applied(start: Callable[..., Any], folder: Path, authority: Authority):
    (folder / "api.toml").write_text(
        'realm = "served"\n[[issuers]]\nurl = "env:AUTHORITY"\naudience = "https://api.test"\n'
        '[[mcp.tools]]\nname = "delete_*"\nall_of = ["write"]\n[[mcp.tools]]\nname = "*"\nauthenticated = true\n'
        '[[mcp.prompts]]\nname = "*"\ndenied = true\n'
    )
    command, url = serve(start, folder, authority.issuer, "apps:asgi")
    headers = {"Authorization": f"Bearer {token(authority)}"}

    def call(name: str) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}
        return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=PATIENCE)

    assert call("read").status_code == 200
    refused = call("delete_all")
    assert (refused.status_code, 'scope="write"' in refused.headers["www-authenticate"]) == (403, True)
    assert httpx.put(url, headers=headers, trust_env=False, timeout=PATIENCE).status_code == 403
    assert command.end(signal.SIGINT) == 0
    shown = [line.strip() for line in command.lines]
    assert "MCP tool delete_*: all_of('write')" in shown
    assert "MCP tool *: any valid token" in shown
    assert "MCP prompt *: denied" in shown
    assert "everything else: denied" in shown
    assert not [line for line in shown if "any valid token opens every route" in line]


def test_mcp_server_is_refused_as_a_wsgi_app(start: Callable[..., Any], folder: Path):
    (folder / "api.toml").write_text(
        '[[issuers]]\nurl = "https://as.test"\naudience = "https://api.test"\n[mcp]\nmax_body_bytes = 1000\n'
    )
    command = start("serve", "apps:wsgi", "--wsgi", "--config", "api.toml", cwd=folder)
    command.wait_for("an MCP server is an ASGI app; leave --wsgi out")
    assert command.process.wait(PATIENCE) == 2


def test_app_that_cannot_start_is_a_failure(start: Callable[..., Any], folder: Path, authority: Authority):
    (folder / "apps.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database here'})\n"
    )
    command, _ = serve(start, folder, authority.issuer, "apps:app")
    command.wait_for("no database here")
    assert command.process.wait(PATIENCE) == 3


def test_surprising_settings_are_reported_at_the_start(start: Callable[..., Any], folder: Path):
    (folder / "api.toml").write_text(
        'resource = "https://api.test"\nrealm = "served"\n[[issuers]]\nurl = "env:AUTHORITY"'
    )
    command, url = serve(start, folder, "http://127.0.0.1:1", "apps:asgi")
    command.wait_for("ready")
    assert command.end(signal.SIGINT) == 0
    warned = [line for line in command.lines if " WARNING " in line and " WARNING keys of " not in line]
    assert len(warned) == 3
    assert "no path is public" in warned[0]
    assert "no [[rules]]: any valid token opens every route" in warned[1]
    assert "no keys yet; requests with a token are answered 503" in warned[2]
    assert url in command.lines[0]


def test_a_websocket_is_logged_without_its_query(
    start: Callable[..., Any], folder: Path, authority: Authority, no_leaks: Callable[[str], None]
):
    command, url = serve(start, folder, authority.issuer, "apps:asgi")
    good = token(authority)
    socket_url = url.replace("http:", "ws:")
    with suppress(Exception), connect(f"{socket_url}/query?access_token={good}") as websocket:
        websocket.recv()
    with pytest.raises(InvalidStatus), connect(f"{socket_url}/stray?access_token={good}"):
        pass
    command.end(signal.SIGTERM)
    no_leaks(command.output)
    assert "WEBSOCKET /query 101" in command.output
    assert "WEBSOCKET /stray 401" in command.output


FORWARDED = {
    "X-Forwarded-For": "198.51.100.9, 192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/admin",
    "X-Script-Name": "/admin",
    "Forwarded": "for=192.0.2.8;proto=https",
}


@pytest.mark.rule("H-06", "H-18")
@pytest.mark.parametrize("what", KINDS)
def test_forwarded_headers_count_only_from_trusted_proxies_and_never_for_a_prefix(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    headers = {"Authorization": f"Bearer {token(authority)}", **FORWARDED}
    # All five headers of a trusted proxy reach the app.
    for options, expected in [
        ((), "http 127.0.0.1 robot prefix= told=0"),
        (("--trusted-proxy", "192.0.2.0/24"), "http 127.0.0.1 robot prefix= told=0"),
        (("--trusted-proxy", "127.0.0.0/8"), "https 192.0.2.7 robot prefix= told=5"),
        (("--trusted-proxy", "127.0.0.1", "--trusted-proxy", "192.0.2.7"), "https 198.51.100.9 robot prefix= told=5"),
    ]:
        command, url = serve(start, folder, authority.issuer, *what, *options)
        answer = httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE)
        assert answer.text.rpartition(" ")[0] == expected
        assert command.end(signal.SIGTERM) == 0
        assert f" {expected.split()[1]} GET /a 200 " in command.output


@pytest.mark.parametrize("what", KINDS)
def test_root_path_option_sets_the_stripped_prefix(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--root-path", "/v1")
    # The path without the prefix is public, and the app of this test fails without a token.
    found = [
        httpx.get(f"{url}{path}", trust_env=False, timeout=PATIENCE).status_code
        for path in ("/v1/healthz", "/v2/healthz")
    ]
    assert found[0] in (200, 500)
    assert found[1] == 401
    assert command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("what", KINDS)
def test_paths_below_well_known_go_to_the_app_under_the_same_rules(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what)
    good = {"Authorization": f"Bearer {token(authority)}"}
    document = httpx.get(f"{url}/.well-known/oauth-protected-resource", trust_env=False, timeout=PATIENCE).json()
    assert (document["resource"], document["scopes_supported"]) == ("https://api.test", ["read"])
    for name in ("openid-configuration", "scopeguard", "jwks.json"):
        path = f"{url}/.well-known/{name}"
        assert httpx.get(path, trust_env=False, timeout=PATIENCE).status_code == 401
        answer = httpx.get(path, headers=good, trust_env=False, timeout=PATIENCE)
        assert (answer.status_code, answer.text.split()[2]) == (200, "robot")
    assert command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trusted-proxy", "proxy.internal"), "Error: --trusted-proxy: 'proxy.internal' does not appear to be"),
        (("--root-path", "api"), "Error: root_path: must be the prefix that the app removes from paths"),
        (("--workers", "0"), "0 is not in the range"),
        (("--grace", "0"), "0 is not in the range"),
        (("--access-log", "xml"), "'xml' is not one of"),
    ],
)
def test_invalid_option_is_refused_before_the_start(
    options: tuple[str, ...], said: str, start: Callable[..., Any], folder: Path
):
    command = start("serve", *ASGI, "--config", "api.toml", *options, cwd=folder, env={"AUTHORITY": "https://as.test"})
    command.wait_for(said)
    assert command.process.wait(PATIENCE) == 2


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_development_server_prints_commands_that_fetch_tokens(
    start: Callable[..., Any], shell: Callable[[str], str], no_leaks: Callable[[str], None]
):
    port = str(_free_port())
    command = start("devserver", "--port", port, "--client", "robot:it's secret:read urn:x:write", "--lifetime", "60")
    command.wait_for("Started server process")
    assert "FOR DEVELOPMENT ONLY" in command.output
    assert f'url = "http://127.0.0.1:{port}"' in command.output
    (line,) = [line.strip() for line in command.lines if "TOKEN=" in line]
    assert re.fullmatch(r"ey[\w.-]+\n", shell(f'{line}\necho "$TOKEN"'))
    assert command.end(signal.SIGINT) == 0
    no_leaks(command.output)
