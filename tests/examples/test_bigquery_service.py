"""The table service of examples/bigquery by itself: what it answers, and that no name and no query reaches further."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

P = "/bigquery/v2/projects/first-project"
TABLE = f"{P}/datasets/shop/tables/orders"
FIELDS = [
    {"name": "item", "type": "STRING", "mode": "REQUIRED"},
    {"name": "number", "type": "INT64"},
    {"name": "price", "type": "FLOAT64"},
    {"name": "paid", "type": "BOOL"},
    {"name": "at", "type": "TIMESTAMP"},
    {"name": "day", "type": "DATE"},
]


class Api:
    """Requests to a new service, and its responses."""

    def __init__(self, client: TestClient, database: Path) -> None:
        self.client = client
        self.database = database

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The document of an answer that says 200, ``None`` for a 204."""
        response = self.client.request(method, path, json=body, params=query)
        assert response.status_code in (200, 204), response.text
        return response.json() if response.content else None

    def error(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, str]:
        """Status and reason of a refusal, which has Google's shape."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        response = self.client.request(method, path, content=content, params=query)
        error = response.json()["error"]
        (item,) = error["errors"]
        assert (error["code"], item["message"]) == (response.status_code, error["message"])
        return response.status_code, item["reason"]

    def table(self, project: str = "first-project", name: str = "orders", fields: Any = FIELDS) -> None:
        """A table in the dataset ``shop`` of *project*."""
        base = f"/bigquery/v2/projects/{project}/datasets"
        self.client.post(base, json={"datasetReference": {"datasetId": "shop"}})
        self.call("POST", f"{base}/shop/tables", {"tableReference": {"tableId": name}, "schema": {"fields": fields}})

    def insert(self, *rows: Any, **options: Any) -> Any:
        return self.call("POST", f"{TABLE}/insertAll", {"rows": list(rows), **options})

    def select(self, text: str, *parameters: dict[str, Any], **options: Any) -> list[list[Any]]:
        body = {"query": text, "useLegacySql": False, **options}
        if parameters:
            body |= {"queryParameters": parameters, "parameterMode": "NAMED"}
        return values(self.call("POST", f"{P}/queries", body))


def values(answer: Any) -> list[list[Any]]:
    return [[cell["v"] for cell in row["f"]] for row in answer.get("rows", [])]


def row(**given: Any) -> dict[str, Any]:
    return {"json": given}


@pytest.fixture
def api(load: Any, tmp_path: Path) -> Iterator[Api]:
    database = tmp_path / "tables.sqlite"
    with TestClient(load("table_service").create_app(database), raise_server_exceptions=True) as client:
        yield Api(client, database)


@pytest.fixture
def orders(api: Api) -> Api:
    api.table()
    return api


# -- datasets and tables


def test_a_dataset_is_made_found_listed_and_removed(api):
    made = api.call("POST", f"{P}/datasets", {"datasetReference": {"datasetId": "shop", "projectId": "first-project"}})
    assert made["id"] == "first-project:shop"
    assert api.call("GET", f"{P}/datasets/shop")["datasetReference"]["datasetId"] == "shop"
    assert [item["id"] for item in api.call("GET", f"{P}/datasets")["datasets"]] == ["first-project:shop"]
    assert api.call("GET", "/bigquery/v2/projects/other-project/datasets")["datasets"] == []
    assert api.error("POST", f"{P}/datasets", {"datasetReference": {"datasetId": "shop"}}) == (409, "duplicate")
    assert api.call("DELETE", f"{P}/datasets/shop") is None
    assert api.error("GET", f"{P}/datasets/shop") == (404, "notFound")
    assert api.error("DELETE", f"{P}/datasets/shop") == (404, "notFound")


def test_a_table_is_made_found_listed_and_removed(orders):
    found = orders.call("GET", TABLE)
    assert [field["type"] for field in found["schema"]["fields"]] == [
        "STRING", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE",
    ]  # fmt: skip
    assert [
        item["tableReference"]["tableId"] for item in orders.call("GET", f"{P}/datasets/shop/tables")["tables"]
    ] == ["orders"]
    again = {"tableReference": {"tableId": "ORDERS"}, "schema": {"fields": FIELDS}}
    assert orders.error("POST", f"{P}/datasets/shop/tables", again) == (409, "duplicate")
    assert orders.error("DELETE", f"{P}/datasets/shop") == (400, "resourceInUse")
    assert orders.call("DELETE", TABLE) is None
    assert orders.error("GET", TABLE) == (404, "notFound")
    assert orders.error("DELETE", TABLE) == (404, "notFound")


def test_a_dataset_is_deleted_with_its_contents_on_request(orders):
    orders.call("DELETE", f"{P}/datasets/shop", deleteContents="true")
    assert orders.error("GET", TABLE) == (404, "notFound")
    orders.table()
    assert orders.call("GET", f"{TABLE}/data")["totalRows"] == "0"


def test_a_body_cannot_name_another_project_than_the_path(orders):
    named = {"projectId": "other-project", "datasetId": "x", "tableId": "x", "jobId": "x"}
    for path, body in (
        ("/datasets", {"datasetReference": named}),
        ("/datasets/shop/tables", {"tableReference": named, "schema": {"fields": FIELDS}}),
        ("/jobs", {"jobReference": named, "configuration": {"query": {"query": "SELECT 1"}}}),
    ):
        assert orders.error("POST", P + path, body) == (400, "invalid"), path


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {"name": "a"},
        ["a"],
        [{"name": "a", "type": "GEOGRAPHY"}],
        [{"name": "a", "type": "STRING", "mode": "REPEATED"}],
        [{"name": 'a" TEXT); DROP TABLE tables; --', "type": "STRING"}],
        [{"name": "1a", "type": "STRING"}],
        [{"name": "a\n", "type": "STRING"}],
        [{"name": 7, "type": "STRING"}],
        [{"name": "a", "type": "STRING"}, {"name": "A", "type": "STRING"}],
        [{"name": f"a{n}", "type": "STRING"} for n in range(3000)],
    ],
    ids=range(12),
)
def test_an_impossible_schema_is_invalid(api, fields):
    api.call("POST", f"{P}/datasets", {"datasetReference": {"datasetId": "shop"}})
    body = {"tableReference": {"tableId": "t"}, "schema": {"fields": fields}}
    assert api.error("POST", f"{P}/datasets/shop/tables", body) == (400, "invalid")
    assert api.call("GET", f"{P}/datasets/shop/tables")["tables"] == []


NAMES = ['x"; DROP TABLE datasets; --', "a.b", "a`b", "a b", "1a", "a\x00b", "ä", "", "a" * 301, "sqlite_master'--"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_an_invalid_name_is_refused_and_does_nothing(orders, name):
    assert orders.error("POST", f"{P}/datasets", {"datasetReference": {"datasetId": name}}) == (400, "invalid")
    body = {"tableReference": {"tableId": name}, "schema": {"fields": FIELDS}}
    assert orders.error("POST", f"{P}/datasets/shop/tables", body) == (400, "invalid")
    assert orders.call("GET", TABLE)["id"] == "first-project:shop.orders"


@given(name=st.text(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_consist_of_letters_digits_and_underscores(load, name):
    store = load("table_store")
    try:
        made = store.TableName("first-project", "shop", name)
    except store.StoreError:
        return
    assert made.sql == f'"first-project.shop.{name}"'
    assert name.isascii()
    assert name.replace("_", "a").isalnum()


# -- rows


def test_rows_come_back_as_they_went_in(orders):
    assert "insertErrors" not in orders.insert(
        row(item="tea", number="3", price=1.5, paid=True, at="2026-01-02T03:04:05.000006Z", day="2026-01-02"),
        row(item="007", number=None, paid="false", at=1.25),
        row(item="quote \" ' ` ; -- \u00fc", number=-(2**63)),
    )
    found = orders.call("GET", f"{TABLE}/data", **{"formatOptions.useInt64Timestamp": "True"})
    assert values(found) == [
        ["tea", "3", "1.5", "true", "1767323045000006", "2026-01-02"],
        ["007", None, None, "false", "1250000", None],
        ["quote \" ' ` ; -- \u00fc", str(-(2**63)), None, None, None, None],
    ]
    assert found["totalRows"] == "3"
    assert values(orders.call("GET", f"{TABLE}/data", selectedFields="at"))[1] == ["1.25"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"item": None},
        {"item": 7},
        {"item": "\ud800"},
        {"item": "a", "number": "x"},
        {"item": "a", "number": True},
        {"item": "a", "number": 2**63},
        {"item": "a", "number": 1.5},
        {"item": "a", "price": "much"},
        {"item": "a", "price": "inf"},
        {"item": "a", "paid": "maybe"},
        {"item": "a", "paid": 1},
        {"item": "a", "at": "yesterday"},
        {"item": "a", "at": 1e300},
        {"item": "a", "day": "2026-13-01"},
        {"item": "a", "day": {}},
        {"item": "a", "other": 1},
        [],
        None,
    ],
    ids=str,
)
def test_a_wrong_row_stops_the_others_unless_it_is_to_be_left_out(orders, wrong):
    body = {"rows": [row(item="good"), {"json": wrong}]}
    content = json.dumps(body).encode()
    stopped = orders.client.post(f"{TABLE}/insertAll", content=content).json()["insertErrors"]
    assert [(item["index"], item["errors"][0]["reason"]) for item in stopped] == [(0, "stopped"), (1, "invalid")]
    assert orders.call("GET", f"{TABLE}/data")["totalRows"] == "0"
    skipping = json.dumps({**body, "skipInvalidRows": True}).encode()
    (left,) = orders.client.post(f"{TABLE}/insertAll", content=skipping).json()["insertErrors"]
    assert left["index"] == 1
    assert values(orders.call("GET", f"{TABLE}/data", selectedFields="item")) == [["good"]]


def test_unknown_fields_are_left_out_on_request(orders):
    assert "insertErrors" not in orders.insert(row(item="a", other=1), ignoreUnknownValues=True)
    assert orders.select("SELECT item FROM `first-project.shop.orders`") == [["a"]]


def test_a_row_that_is_sent_again_is_known_by_its_id(orders):
    for _ in range(2):
        orders.insert({"insertId": "1", "json": {"item": "a"}}, {"insertId": "2", "json": {"item": "b"}})
    orders.insert(row(item="without"), row(item="without"))
    assert orders.call("GET", f"{TABLE}/data")["totalRows"] == "4"


@pytest.mark.parametrize("rows", [None, [], "rows", [{}] * 10_001], ids=["none", "empty", "text", "too many"])
def test_an_insertion_has_some_rows_and_not_too_many(orders, rows):
    assert orders.error("POST", f"{TABLE}/insertAll", {"rows": rows}) == (400, "invalid")


def test_rows_are_listed_in_pages(orders):
    orders.insert(*(row(item=str(n)) for n in range(5)))
    seen, token = [], ""
    while True:
        query = {"maxResults": 2, "pageToken": token, "selectedFields": "item"}
        page = orders.call("GET", f"{TABLE}/data", **query)
        seen += [item for (item,) in values(page)]
        if "pageToken" not in page:
            break
        token = page["pageToken"]
    assert seen == ["0", "1", "2", "3", "4"]
    assert values(orders.call("GET", f"{TABLE}/data", startIndex=4, selectedFields="item")) == [["4"]]
    for wrong in ({"maxResults": "x"}, {"startIndex": -1}, {"pageToken": "1; DROP"}, {"selectedFields": "item,none"}):
        assert orders.error("GET", f"{TABLE}/data", **wrong) == (400, "invalid"), wrong


# -- queries


def parameter(name: str, kind: str, value: str | None) -> dict[str, Any]:
    return {"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}}


def test_a_query_has_typed_results_and_parameters(orders):
    orders.insert(row(item="a", number=1, paid=True, at=0), row(item="b", number=2, price=0.5, day="2026-01-02"))
    table = "FROM `first-project.shop.orders`"
    answer = orders.call("POST", f"{P}/queries", {"query": f"SELECT *, number + 1, x'00' {table} ORDER BY item"})
    assert [(field["name"], field["type"]) for field in answer["schema"]["fields"]] == [
        ("item", "STRING"), ("number", "INTEGER"), ("price", "FLOAT"), ("paid", "BOOLEAN"), ("at", "TIMESTAMP"),
        ("day", "DATE"), ("f6_", "INTEGER"), ("f7_", "BYTES"),
    ]  # fmt: skip
    assert values(answer)[1] == ["b", "2", "0.5", None, None, "2026-01-02", "3", "AA=="]
    least = parameter("least", "INT64", "2")
    assert orders.select(f"SELECT item {table} WHERE number >= @least", least) == [["b"]]
    hostile = parameter("item", "STRING", "' OR 1=1; DROP TABLE tables; --")
    assert orders.select(f"SELECT item {table} WHERE item = @item", hostile) == []
    positional = {"query": f"SELECT item {table} WHERE number = ?", "queryParameters": [parameter("", "INT64", "1")]}
    assert values(orders.call("POST", f"{P}/queries", positional)) == [["a"]]
    assert orders.select("SELECT 1 UNION ALL SELECT 1.5 UNION ALL SELECT 'x'") == [["1"], ["1.5"], ["x"]]


def test_a_job_is_run_once_and_its_result_is_read_in_pages(orders):
    orders.insert(*(row(item=str(n)) for n in range(3)))
    query = {"query": "SELECT item FROM `first-project.shop.orders` ORDER BY item"}
    body = {"jobReference": {"jobId": "one"}, "configuration": {"query": query}}
    assert orders.call("POST", f"{P}/jobs", body)["status"] == {"state": "DONE"}
    assert orders.error("POST", f"{P}/jobs", body) == (409, "duplicate")
    assert orders.call("GET", f"{P}/jobs/one")["configuration"]["query"]["query"] == query["query"]
    first = orders.call("GET", f"{P}/queries/one", maxResults=2)
    assert (values(first), first["totalRows"], first["pageToken"]) == ([["0"], ["1"]], "3", "2")
    assert values(orders.call("GET", f"{P}/queries/one", pageToken="2")) == [["2"]]
    assert "rows" not in orders.call("GET", f"{P}/queries/one", maxResults=0), (
        "the client takes [] for the whole result"
    )
    assert orders.error("GET", "/bigquery/v2/projects/other-project/queries/one") == (404, "notFound")
    assert orders.error("GET", f"{P}/jobs/two") == (404, "notFound")


def test_the_results_of_old_jobs_are_forgotten(orders, load):
    for n in range(load("table_service").MOST_JOBS + 1):
        body = {"jobReference": {"jobId": f"job{n}"}, "configuration": {"query": {"query": "SELECT 1"}}}
        orders.call("POST", f"{P}/jobs", body)
    assert orders.error("GET", f"{P}/jobs/job0") == (404, "notFound")
    assert orders.call("GET", f"{P}/jobs/job1")["status"] == {"state": "DONE"}


FORBIDDEN = [
    "DELETE FROM `first-project.shop.orders`",
    "DROP TABLE `first-project.shop.orders`",
    "WITH x AS (SELECT 1) DELETE FROM `first-project.shop.orders`",
    "WITH x AS (SELECT 1) INSERT INTO `first-project.shop.orders` SELECT 'x', 1, 1, 1, 1, 1",
    "SELECT 1; DROP TABLE `first-project.shop.orders`",
    "PRAGMA writable_schema = 1",
    "ATTACH DATABASE 'other.sqlite' AS other",
    "EXPLAIN SELECT 1",
    "SELECT * FROM datasets",
    "SELECT * FROM tables",
    "SELECT * FROM inserted",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM `other-project.shop.orders`",
    "SELECT count(*) FROM `other-project.shop.orders`",
    "SELECT 1 FROM `other-project.shop.orders`",
    "SELECT (SELECT item FROM `other-project.shop.orders`) FROM `first-project.shop.orders`",
    "WITH x AS (SELECT item FROM `other-project.shop.orders`) SELECT * FROM x",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM `other-project.shop.orders`)",
    "SELECT count(*) OVER () FROM datasets",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT randomblob(1000000)",
    "SELECT zeroblob(1000000)",
    "SELECT printf('%1000000d', 1)",
    "SELECT group_concat(item) FROM `first-project.shop.orders`",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x",
    "SELECT no_such_column FROM `first-project.shop.orders`",
    "SELECT",
    "SELECT '\x00'",
    "SELECT '\ud800'",
    "SELECT cast(x'ff' AS TEXT)",
    "SELECT sum(9223372036854775807) FROM `first-project.shop.orders`, `first-project.shop.orders` AS b",
    "SELECT @missing",
    "SELECT " + "(" * 200 + "1" + ")" * 200,
    "SELECT " + "1," * 3000 + "1",
    "SELECT 1 " + "UNION ALL SELECT 1 " * 20,
    "SELECT '" + "x" * 100_001 + "'",
    "SELECT 'a' LIKE '" + "%" * 300 + "'",
    "",
]


@pytest.mark.parametrize("text", FORBIDDEN, ids=range(len(FORBIDDEN)))
def test_a_query_reads_tables_of_its_project_and_does_nothing_else(orders, text):
    orders.insert(row(item="a"), row(item="b"))
    orders.table("other-project")
    before = _content(orders.database)
    body = json.dumps({"query": text}).encode()
    response = orders.client.post(f"{P}/queries", content=body)
    assert (response.status_code, response.json()["error"]["errors"][0]["reason"]) == (400, "invalidQuery")
    assert _content(orders.database) == before


def _content(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_query_that_would_take_for_ever_is_stopped(orders, load, monkeypatch):
    monkeypatch.setattr(load("table_store"), "MOST_QUERY_STEPS", 200_000)
    orders.insert(*(row(item=str(n)) for n in range(100)))
    tables = ", ".join(f"`first-project.shop.orders` AS t{n}" for n in range(5))
    body = {"query": f"SELECT count(*) FROM {tables} WHERE t0.item || t4.item = 'x'"}
    assert orders.error("POST", f"{P}/queries", body) == (400, "invalidQuery")


def test_a_result_has_its_bound(orders):
    orders.insert(*(row(item=str(n)) for n in range(101)))
    twice = "`first-project.shop.orders` AS a, `first-project.shop.orders` AS b"
    assert orders.error("POST", f"{P}/queries", {"query": f"SELECT a.item FROM {twice}"}) == (400, "responseTooLarge")


@pytest.mark.parametrize(
    "body",
    [
        {"query": "SELECT 1", "useLegacySql": True},
        {"query": "SELECT 1", "dryRun": True},
        {"query": "SELECT 1", "destinationTable": {}},
        {"query": ["SELECT 1"]},
        {"query": "SELECT @a", "queryParameters": "a"},
        {"query": "SELECT @a", "queryParameters": [7]},
        {"query": "SELECT @a", "parameterMode": "NAMED", "queryParameters": [parameter("a", "INT64", "x")]},
        {"query": "SELECT @a", "parameterMode": "NAMED", "queryParameters": [parameter("a", "ARRAY", "1")]},
        {"query": "SELECT 1", "maxResults": "x"},
    ],
    ids=range(9),
)
def test_invalid_query_is_refused(orders, body):
    status, reason = orders.error("POST", f"{P}/queries", body)
    assert (status, reason.startswith("invalid")) == (400, True)
    assert orders.error("POST", f"{P}/jobs", {"configuration": {"load": {}}}) == (400, "invalid")


def test_a_project_is_named_as_projects_are(orders):
    for project in ("x", "First-Project", "sqlite_master", "a" * 31, "first-project'"):
        path = f"/bigquery/v2/projects/{project}/queries"
        assert orders.error("POST", path, {"query": "SELECT 1"}) == (400, "invalid"), project


# -- HTTP


def test_missing_object_is_a_google_error_body(api):
    assert api.error("GET", "/bigquery/v2/projects") == (404, "notFound")
    assert api.error("GET", "/") == (404, "notFound")
    assert api.error("PUT", f"{P}/datasets")[0] == 405
    assert api.error("GET", f"{P}/datasets/none/tables") == (404, "notFound")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000], ids=["cut", "list", "bytes", "deep"])
def test_body_that_is_not_an_object_is_a_parse_error(api, body):
    assert api.error("POST", f"{P}/datasets", body) == (400, "parseError")


def test_body_has_a_size_limit(api):
    assert api.error("POST", f"{P}/datasets", b" " * 10_000_001) == (413, "uploadTooLarge")


def test_service_has_no_code_for_tokens(load):
    """The guard is in another file: the files of the service neither import scopeguard nor read a header."""
    for name in ("table_service", "table_store"):
        source = Path(load(name).__file__ or "").read_text("utf-8")
        assert not [word for word in ("import scopeguard", "from scopeguard", ".headers", "Bearer") if word in source]
