"""examples/bigquery as a whole: Google's own client, real sockets, the contract that Google published."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jwt
import pytest

from environment import ROOT, plain_environment, skip_or_fail
from scopeguard.devserver import Outage

SCOPE = "https://www.googleapis.com/auth/"
SCRIPT = ROOT / "examples" / "bigquery" / "run.py"


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    for name, package in (
        ("google.cloud.bigquery", "google-cloud-bigquery"),
        ("googleapiclient", "google-api-python-client"),
    ):
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # of google.cloud, which is a package of many
            found = None
        if found is None:
            skip_or_fail(f"{package} is not installed: pip install '.[examples-bigquery]'")


# -- the script


def test_all_steps_go_as_expected(no_leaks: Callable[[str], None]):
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    no_leaks(done.stdout + done.stderr)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("  ")]
    steps = {(words[0], words[1]): words[2] for words in lines if words[0] in ("loader", "reader", "admin", "none")}
    refused = "Forbidden: 403 insufficientPermissions"
    assert {step: steps[step] for step in steps if steps[step].startswith("Forbidden")} == {
        ("loader", "get_table"): refused,
        ("loader", "list_rows"): refused,
        ("loader", "query_and_wait"): refused,
        ("loader", "delete_table"): refused,
        ("reader", "query"): refused,
        ("reader", "insert_rows_json"): refused,
    }
    assert steps["loader", "insert_rows_json"] == "done"
    assert steps["reader", "list_rows"] == "[('tea', 3, True), ('cups', 12, False)]"
    assert steps["admin", "query"] == steps["reader", "query_and_wait"] == "[('cups', 12), ('tea', 3)]"


def test_the_document_is_the_policy_and_an_unexpected_result_is_reported(load, monkeypatch, capsys, no_leaks):
    """A further scope in the document allows a further call: only the document says what a scope may do."""
    monkeypatch.setenv("ISSUER", "")  # the example sets it, for this process
    example, discovery = load("run"), load("discovery")
    copy_to = discovery.copy_to

    def changed(folder: Path) -> Path:
        path: Path = copy_to(folder)
        document = json.loads(path.read_text("utf-8"))
        document["resources"]["tables"]["methods"]["get"]["scopes"].append(f"{SCOPE}bigquery.insertdata")
        path.write_text(json.dumps(document), "utf-8")
        return path

    monkeypatch.setattr(discovery, "copy_to", changed)
    assert example.main() == 1
    out = capsys.readouterr().out
    no_leaks(out)
    lines = out.splitlines()
    (wrong,) = (number for number, line in enumerate(lines) if "UNEXPECTED" in line)
    assert lines[wrong - 1].split()[:2] == ["loader", "get_table"]
    assert "\nSteps with an unexpected result: 1.\n" in out


# -- the client, call by call


@pytest.fixture(scope="module")
def world(load: Any) -> Iterator[Any]:
    run = load("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISSUER", "")  # the example sets it, for this process
        with run.world() as found:
            admin = found.clients["admin"]
            admin.create_dataset("shop")
            admin.create_table(run.bigquery.Table(run.ORDERS, schema=run.SCHEMA))
            assert admin.insert_rows_json(run.ORDERS, run.ROWS) == []
            yield found


@pytest.fixture(scope="module")
def google() -> Any:
    from google.api_core import exceptions

    return exceptions


ORDERS = "local-tables.shop.orders"
CALLS: dict[str, Callable[[Any], Any]] = {
    "get_table": lambda client: client.get_table(ORDERS).num_rows,
    "list_tables": lambda client: [item.table_id for item in client.list_tables("shop")],
    "get_dataset": lambda client: client.get_dataset("shop").dataset_id,
    "list_datasets": lambda client: [item.dataset_id for item in client.list_datasets()],
    "list_rows": lambda client: len(list(client.list_rows(ORDERS, selected_fields=_fields()))),
    "query_and_wait": lambda client: [tuple(row) for row in client.query_and_wait("SELECT 1 AS one")],
    "query": lambda client: [tuple(row) for row in client.query("SELECT 1 AS one").result()],
    "insert_rows_json": lambda client: client.insert_rows_json(ORDERS, [{"item": "more"}]),
    "create_dataset": lambda client: client.create_dataset("shop", exists_ok=True).dataset_id,
    "delete_table": lambda client: client.delete_table("local-tables.shop.none", not_found_ok=True),
    "delete_dataset": lambda client: client.delete_dataset("none", not_found_ok=True),
}
READS = {"get_table", "list_tables", "get_dataset", "list_datasets", "list_rows", "query_and_wait"}
MAY = {"loader": {"insert_rows_json"}, "reader": READS, "admin": set(CALLS)}


def _fields() -> Any:
    from google.cloud import bigquery

    return [bigquery.SchemaField("item", "STRING")]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("account", MAY)
def test_each_call_is_allowed_or_forbidden_as_the_contract_lists_its_scope(world, google, account, call):
    client = world.clients[account]
    if call in MAY[account]:
        CALLS[call](client)
        return
    with pytest.raises(google.Forbidden) as caught:
        CALLS[call](client)
    error = caught.value
    assert type(error) is google.Forbidden
    assert (error.code, error.errors[0]["reason"]) == (403, "insufficientPermissions")
    assert error.response.headers["www-authenticate"].startswith('Bearer realm="tables", error="insufficient_scope"')
    assert error.response.json()["error"]["status"] == "PERMISSION_DENIED"


def test_errors_of_the_service_are_understood_by_the_client(world, google):
    admin = world.clients["admin"]
    with pytest.raises(google.NotFound, match=r"Not found: Table local-tables:shop\.none"):
        admin.get_table("local-tables.shop.none")
    with pytest.raises(google.Conflict, match="Already Exists: Dataset"):
        admin.create_dataset("shop")
    with pytest.raises(google.BadRequest, match="Only SELECT"):
        admin.query("DELETE FROM `local-tables.shop.orders`").result()
    with pytest.raises(google.BadRequest, match="still in use"):
        admin.delete_dataset("shop")


def _with_token(world: Any, token: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    class Fixed(AnonymousCredentials):
        def before_request(self, request: Any, method: str, url: str, headers: dict[str, str]) -> None:
            del request, method, url
            headers["authorization"] = f"Bearer {token}"

        def refresh(self, request: Any) -> None:
            """After a 401 the client asks for another token, and gets the same."""

    return bigquery.Client(project="local-tables", credentials=Fixed(), client_options={"api_endpoint": world.url})


def test_a_bad_token_is_unauthorized(world, google):
    with pytest.raises(google.Unauthorized) as caught:
        _with_token(world, "no-token").get_table(ORDERS)
    assert (caught.value.code, caught.value.errors[0]["reason"]) == (401, "authError")
    assert 'error="invalid_token"' in caught.value.response.headers["www-authenticate"]


def test_request_without_a_token_gets_401_and_the_required_scopes(world, google):
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import bigquery

    endpoint = {"api_endpoint": world.url}
    client = bigquery.Client(project="local-tables", credentials=AnonymousCredentials(), client_options=endpoint)
    with pytest.raises(GoogleAuthError, match="Anonymous credentials cannot be refreshed"):
        client.get_table(ORDERS)  # a 401, and then the library finds that there is nothing to refresh


# -- the assertion that Google's library writes


def test_assertion_of_googles_client_passes_the_checks_of_the_development_server(world, load):
    run = load("run")
    credentials = run.credentials(world.keys / "admin.json", "cloud-platform")
    text = credentials._make_authorization_grant_assertion()
    header = jwt.get_unverified_header(text)
    claims = jwt.decode(text, options={"verify_signature": False})
    info = json.loads((world.keys / "admin.json").read_text("utf-8"))
    assert (header["alg"], header["kid"]) == ("RS256", info["private_key_id"])
    assert claims["aud"] == "https://oauth2.googleapis.com/token", "for any token_uri"
    assert claims["iss"] == claims["sub"] == info["client_email"]
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["iat"] - time.time() < 60
    assert claims["scope"] == SCOPE + "cloud-platform"
    assert "jti" not in claims


def test_an_account_gets_no_scope_beyond_its_own(world):
    from google.auth.exceptions import RefreshError

    with pytest.raises(RefreshError, match="invalid_scope"):
        world.client("loader", "bigquery.insertdata", "cloud-platform").get_table(ORDERS)
    with pytest.raises(RefreshError, match="invalid_scope"):
        world.client("loader").get_table(ORDERS)  # Google's library sends an empty scope then


def test_library_sends_requests_to_the_two_servers_only(world, monkeypatch):
    """Without a subject it would ask Google, in the background, where the account may work."""
    import requests

    asked: list[str] = []
    send = requests.Session.send

    def watch(session: Any, request: Any, **options: Any) -> Any:
        asked.append(request.url)
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", watch)
    world.client("admin", "cloud-platform").get_table(ORDERS)
    assert len(asked) == 2
    assert all(url.startswith("http://127.0.0.1:") for url in asked)


def test_outage_of_the_authority_is_not_a_denial(load, google, monkeypatch):
    """Keys were never fetched: a 503 of the kind that the client tries again, unless it is set to give up at once."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    monkeypatch.setenv("ISSUER", "")
    run = load("run")
    servers: list[Any] = []

    def remember_server(authority: Any) -> Any:
        servers.append(run_devserver(authority))
        return servers[-1]

    run_devserver = run.DevServer
    monkeypatch.setattr(run, "DevServer", remember_server)
    with run.world() as world:
        client = world.clients["admin"]
        client._credentials.refresh(run.AuthorizedSession(client._credentials)._auth_request)
        (server,) = servers
        with server.authority.faults.outage(Outage.UNAVAILABLE), pytest.raises(google.ServiceUnavailable) as caught:
            client.get_table(ORDERS, retry=None)
        assert (caught.value.code, caught.value.errors[0]["reason"]) == (503, "backendError")
        assert "www-authenticate" not in caught.value.response.headers
        assert DEFAULT_RETRY._predicate(caught.value)
