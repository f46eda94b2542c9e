"""The whole story on loopback: BigQuery's contract in front of a table service, and Google's own client calling.

``python examples/bigquery/run.py`` starts a development authorization server and the service, lets three service
accounts and a stranger do things, and exits with 0 only if each was allowed or refused as BigQuery's description says.
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


# -- the world: an authorization server, the guarded service, and who calls


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """*app* on a free loopback port, for as long as the block lasts; its URL."""
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
    """Google's own credentials, of the account in *key_file*.

    The subject is the account itself. That is what its assertions would mean without a subject as well, but with one
    the library does not ask Google, in the background and with our token, in which regions the account may work.
    """
    found = service_account.Credentials.from_service_account_file(key_file, scopes=[SCOPE + scope for scope in scopes])
    return found.with_subject(found.service_account_email)


class World(NamedTuple):
    """Where the service is, and a client for each account of ACCOUNTS."""

    url: str
    keys: Path
    clients: dict[str, bigquery.Client]

    def client(self, account: str, *scopes: str) -> bigquery.Client:
        """Google's client, as *account* with *scopes*."""
        return bigquery.Client(
            project=PROJECT,
            credentials=credentials(self.keys / f"{account}.json", *scopes),
            client_options=ClientOptions(api_endpoint=self.url),
        )


@contextmanager
def world() -> Iterator[World]:
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
        os.environ["ISSUER"] = devserver.url  # what scopeguard.toml refers to
        guard = Guard.from_file(str(folder / "scopeguard.toml"))
        app = GuardMiddleware(table_service.create_app(folder / "tables.sqlite"), guard=guard)
        with serving(app) as url:
            found = World(url, folder, {})
            found.clients.update({account: found.client(account, scope) for account, scope in ACCOUNTS.items()})
            yield found
            for client in found.clients.values():
                client.close()
        guard.close()


# -- the story


class Step(NamedTuple):
    """Something somebody does. ``ends`` is what has to come of it: a value, or the type of an exception."""

    who: str
    what: str
    call: Callable[[], Any]
    ends: Any


def rows(found: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in found]


def story(world: World) -> list[tuple[str, list[Step]]]:
    loader, reader, admin = (world.clients[name] for name in ("loader", "reader", "admin"))
    everything = [("tea", 3, True), ("cups", 12, False)]
    selected = [("cups", 12), ("tea", 3)]

    def insert(client: bigquery.Client) -> list[Any]:
        return list(client.insert_rows_json(ORDERS, ROWS, row_ids=["1", "2"]))

    return [
        (
            "With cloud-platform, everything: the contract lists it with every method.",
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
            "With bigquery.insertdata: tabledata.insertAll lists it, and nothing else does.",
            [
                Step("loader", "insert_rows_json", lambda: insert(loader), []),
                Step("loader", "get_table", lambda: loader.get_table(ORDERS), Forbidden),
                Step("loader", "list_rows", lambda: rows(loader.list_rows(ORDERS, selected_fields=SCHEMA)), Forbidden),
                Step("loader", "query_and_wait", lambda: rows(loader.query_and_wait("SELECT 1")), Forbidden),
                Step("loader", "delete_table", lambda: loader.delete_table(ORDERS), Forbidden),
            ],
        ),
        (
            "With cloud-platform.read-only: what reads. query_and_wait is jobs.query, query is jobs.insert.",
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
            "Beyond the scopes: what an account may not have, what the contract does not know, who has no token.",
            [
                Step("loader", "asks for cloud-platform", lambda: greedy(world), RefreshError),
                Step("admin", "GET /bigquery/v2/backup", lambda: unknown(world), 403),
                Step("nobody", "GET .../tables/orders", lambda: stranger(world), 401),
            ],
        ),
        (
            "And cloud-platform again, through jobs.insert and getQueryResults.",
            [
                Step("admin", "query", lambda: rows(admin.query(QUERY, job_config=LEAST).result()), selected),
                Step("admin", "delete_table", lambda: admin.delete_table(ORDERS), None),
                Step("admin", "list_tables", lambda: [item.table_id for item in admin.list_tables("shop")], []),
                Step("admin", "delete_dataset", lambda: admin.delete_dataset("shop"), None),
            ],
        ),
    ]


def greedy(world: World) -> None:
    world.client("loader", "cloud-platform").get_table(ORDERS)


def unknown(world: World) -> Any:
    session = AuthorizedSession(credentials(world.keys / "admin.json", "cloud-platform"))
    return session.get(f"{world.url}/bigquery/v2/backup")


def stranger(world: World) -> Any:
    return httpx.get(f"{world.url}/bigquery/v2/projects/{PROJECT}/datasets/shop/tables/orders")


# -- telling it


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


def told(step: Step, seen: set[str]) -> bool:
    """Do *step*, print what came of it, and say whether that is what had to come. A challenge is printed when it is
    the first of its kind, which *seen* remembers."""
    left = f"{step.who:<8}{step.what}"
    ended: Any
    try:
        found = step.call()
    except RefreshError as error:
        ended = type(error)
        show(left, f"RefreshError: {error.args[0]}")
    except GoogleAPICallError as error:
        ended = type(error)
        show(left, f"{ended.__name__}: {error.code} {error.errors[0]['reason']}")
        show_challenge(error.response.headers, seen)
    else:
        ended = getattr(found, "status_code", found)
        show(left, "done" if ended in (None, []) else str(ended))
        if ended is not found:
            show_challenge(found.headers, seen)
            show("", found.text)
    if ended != step.ends:
        show("", f"NOT AS IT HAD TO BE, which is: {step.ends}")
    return bool(ended == step.ends)


def main() -> int:
    with world() as found:
        print(f"\nThe table service, with BigQuery's contract in front of it: {found.url}")
        wrong, seen = 0, set[str]()
        for title, steps in story(found):
            print(f"\n{title}\n")
            wrong += sum(not told(step, seen) for step in steps)
    print("\nEach step ended as it had to.\n" if wrong == 0 else f"\n{wrong} steps ended otherwise.\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
