"""Calls a table service, protected by BigQuery's discovery document, with Google's own client, all on loopback.

``python examples/bigquery/run.py`` starts a development authorization server and the service. It sends requests of
three service accounts and one without a token. It exits with 0 only if each is allowed or refused as the document says.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import discovery
import httpx
import table_service
import uvicorn
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import Forbidden, GoogleAPICallError
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery
from google.oauth2 import service_account
from starlette.types import ASGIApp

from scopeguard import Guard
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver import Authority, DevServer, GoogleServiceAccount

HERE = Path(__file__).parent
PROJECT = "local-tables"
RESOURCE = "https://bigquery.googleapis.com/"
SCOPE = "https://www.googleapis.com/auth/"
ACCOUNTS = {"loader": "bigquery.insertdata", "reader": "cloud-platform.read-only", "admin": "cloud-platform"}

ORDERS = f"{PROJECT}.shop.orders"
SCHEMA = [
    bigquery.SchemaField("item", "STRING", mode="REQUIRED"),
    bigquery.SchemaField("number", "INT64"),
    bigquery.SchemaField("paid", "BOOL"),
]
ROWS = [{"item": "tea", "number": 3, "paid": True}, {"item": "cups", "number": 12, "paid": False}]
QUERY = f"SELECT item, number FROM `{ORDERS}` WHERE number > @least ORDER BY item"  # noqa: S608 - a constant
LEAST = bigquery.QueryJobConfig(query_parameters=[bigquery.ScalarQueryParameter("least", "INT64", 2)])


# -- the authorization server, the protected service and the clients


@contextmanager
def serve(app: ASGIApp) -> Iterator[str]:
    """Serve *app* on a free loopback port for the length of the block, and yield its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def credentials(key_file: Path, *scopes: str) -> service_account.Credentials:
    """Return Google's credentials object for the account in *key_file*.

    The subject is the account itself, which does not change the meaning of its assertions. Without a subject, the
    library would send the token to Google in the background, to ask for the regions of the account.
    """
    account = service_account.Credentials.from_service_account_file(
        key_file, scopes=[SCOPE + scope for scope in scopes]
    )
    return account.with_subject(account.service_account_email)


class World(NamedTuple):
    """The URL of the service, the folder of key files, and a client for each account of ACCOUNTS."""

    url: str
    keys: Path
    clients: dict[str, bigquery.Client]

    def client(self, account: str, *scopes: str) -> bigquery.Client:
        """Return Google's client for *account* with *scopes*."""
        return bigquery.Client(
            project=PROJECT,
            credentials=credentials(self.keys / f"{account}.json", *scopes),
            client_options=ClientOptions(api_endpoint=self.url),
        )


@contextmanager
def world() -> Iterator[World]:
    """Run the servers for the length of the block."""
    robots = {
        name: GoogleServiceAccount.generate(f"{name}@{PROJECT}.iam.gserviceaccount.com", scopes=[SCOPE + scope])
        for name, scope in ACCOUNTS.items()
    }
    authority = Authority(audience=RESOURCE, service_accounts=[robot.account for robot in robots.values()])
    with TemporaryDirectory() as name, DevServer(authority) as devserver:
        folder = Path(name)
        for account, robot in robots.items():
            robot.write(folder / f"{account}.json", token_uri=f"{devserver.url}/token", project=PROJECT)
        discovery.copy_to(folder)
        shutil.copy(HERE / "scopeguard.toml", folder)
        os.environ["ISSUER"] = devserver.url  # scopeguard.toml reads it
        guard = Guard.from_file(str(folder / "scopeguard.toml"))
        app = GuardMiddleware(table_service.create_app(folder / "tables.sqlite"), guard=guard)
        with serve(app) as url:
            result = World(url, folder, {})
            result.clients.update({account: result.client(account, scope) for account, scope in ACCOUNTS.items()})
            yield result
            for client in result.clients.values():
                client.close()
        guard.close()


# -- the steps


class Step(NamedTuple):
    """A call of the API. ``expected`` is its result, a status, or the type of an exception."""

    account: str
    operation: str
    call: Callable[[], Any]
    expected: Any


def rows(result: Any) -> list[tuple[Any, ...]]:
    """Return the rows of *result* as tuples."""
    return [tuple(row.values()) for row in result]


def steps_by_title(world: World) -> list[tuple[str, list[Step]]]:
    """Return groups of steps, each with its title."""
    loader, reader, admin = (world.clients[name] for name in ("loader", "reader", "admin"))
    everything = [("tea", 3, True), ("cups", 12, False)]
    selected = [("cups", 12), ("tea", 3)]

    def insert(client: bigquery.Client) -> list[Any]:
        return list(client.insert_rows_json(ORDERS, ROWS, row_ids=["1", "2"]))

    return [
        (
            "The scope cloud-platform allows everything: the document lists it with every method.",
            [
                Step("admin", "create_dataset", lambda: admin.create_dataset("shop").dataset_id, "shop"),
                Step(
                    "admin",
                    "create_table",
                    lambda: admin.create_table(bigquery.Table(ORDERS, schema=SCHEMA)).table_id,
                    "orders",
                ),
            ],
        ),
        (
            "The scope bigquery.insertdata allows inserting rows: only tabledata.insertAll lists it.",
            [
                Step("loader", "insert_rows_json", lambda: insert(loader), []),
                Step("loader", "get_table", lambda: loader.get_table(ORDERS), Forbidden),
                Step("loader", "list_rows", lambda: rows(loader.list_rows(ORDERS, selected_fields=SCHEMA)), Forbidden),
                Step("loader", "query_and_wait", lambda: rows(loader.query_and_wait("SELECT 1")), Forbidden),
                Step("loader", "delete_table", lambda: loader.delete_table(ORDERS), Forbidden),
            ],
        ),
        (
            "The scope cloud-platform.read-only allows reading. query_and_wait is jobs.query, query is jobs.insert.",
            [
                Step("reader", "get_table", lambda: reader.get_table(ORDERS).schema[0].name, "item"),
                Step("reader", "list_rows", lambda: rows(reader.list_rows(ORDERS)), everything),
                Step(
                    "reader", "query_and_wait", lambda: rows(reader.query_and_wait(QUERY, job_config=LEAST)), selected
                ),
                Step("reader", "query", lambda: rows(reader.query(QUERY, job_config=LEAST).result()), Forbidden),
                Step("reader", "insert_rows_json", lambda: insert(reader), Forbidden),
            ],
        ),
        (
            "Refused: a scope that the account may not have, a path that the document lacks, a missing token.",
            [
                Step("loader", "request cloud-platform", lambda: request_other_scope(world), RefreshError),
                Step("admin", "GET /bigquery/v2/backup", lambda: get_unknown_path(world), 403),
                Step("none", "GET .../tables/orders", lambda: get_without_token(world), 401),
            ],
        ),
        (
            "The scope cloud-platform again, with jobs.insert and getQueryResults.",
            [
                Step("admin", "query", lambda: rows(admin.query(QUERY, job_config=LEAST).result()), selected),
                Step("admin", "delete_table", lambda: admin.delete_table(ORDERS), None),
                Step("admin", "list_tables", lambda: [item.table_id for item in admin.list_tables("shop")], []),
                Step("admin", "delete_dataset", lambda: admin.delete_dataset("shop"), None),
            ],
        ),
    ]


def request_other_scope(world: World) -> None:
    world.client("loader", "cloud-platform").get_table(ORDERS)


def get_unknown_path(world: World) -> Any:
    session = AuthorizedSession(credentials(world.keys / "admin.json", "cloud-platform"))
    return session.get(f"{world.url}/bigquery/v2/backup")


def get_without_token(world: World) -> Any:
    return httpx.get(f"{world.url}/bigquery/v2/projects/{PROJECT}/datasets/shop/tables/orders")


# -- the output


def show(left: str, right: str) -> None:
    first, *further = textwrap.wrap(right, 88, break_long_words=False, break_on_hyphens=False) or [""]
    print(f"  {left:<32}{first}")
    for line in further:
        print(f"  {'':<34}{line}")


def show_challenge(headers: Mapping[str, str], seen: set[str]) -> None:
    challenge = headers.get("www-authenticate")
    if challenge is not None and challenge not in seen:
        seen.add(challenge)
        show("", f"WWW-Authenticate: {challenge}")


def run(step: Step, seen: set[str]) -> bool:
    """Run *step* and print its result. Return whether the result is the expected one.

    A challenge is printed only once; *seen* collects the printed ones.
    """
    left = f"{step.account:<8}{step.operation}"
    outcome: Any
    try:
        result = step.call()
    except RefreshError as error:
        outcome = type(error)
        show(left, f"RefreshError: {error.args[0]}")
    except GoogleAPICallError as error:
        outcome = type(error)
        show(left, f"{outcome.__name__}: {error.code} {error.errors[0]['reason']}")
        show_challenge(error.response.headers, seen)
    else:
        outcome = getattr(result, "status_code", result)
        show(left, "done" if outcome in (None, []) else str(outcome))
        if outcome is not result:
            show_challenge(result.headers, seen)
            show("", result.text)
    if outcome != step.expected:
        show("", f"UNEXPECTED: it should be {step.expected}")
    return bool(outcome == step.expected)


def main() -> int:
    with world() as servers:
        print(f"\nA table service, protected by BigQuery's discovery document: {servers.url}")
        failures, seen = 0, set[str]()
        for title, steps in steps_by_title(servers):
            print(f"\n{title}\n")
            failures += sum(not run(step, seen) for step in steps)
    print("\nAll steps went as expected.\n" if failures == 0 else f"\nSteps with an unexpected result: {failures}.\n")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
