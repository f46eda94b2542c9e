"""A table service with enough of BigQuery's REST API, version 2, for Google's Python client.

It has no code for tokens. scopeguard allows or refuses each request before it arrives here, as Google's discovery
document says (see ``scopeguard.toml`` and the README).
"""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from table_store import MOST_QUERY_LENGTH, Field, Rows, Store, StoreError, Table, TableName, invalid_error

MOST_BYTES: Final = 10_000_000  # of a request
MOST_ROWS: Final = 10_000  # of one insertion, and of a page
MOST_JOBS: Final = 100  # whose results are kept
LOCATION: Final = "US"
_STATUS: Final = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}


def error_response(status: int, reason: str, message: str) -> JSONResponse:
    error = {
        "code": status,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
        "status": _STATUS.get(status, "UNKNOWN"),
    }
    return JSONResponse({"error": error}, status)


# -- JSON resources


def wire_value(value: Any, *, int64_timestamps: bool) -> str | None:
    """Return *value* as BigQuery writes it, as a string.

    A timestamp is in seconds, or in whole microseconds with *int64_timestamps*, which a float could not represent.
    """
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case datetime():
            microseconds = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            return str(microseconds) if int64_timestamps else repr(microseconds / 1_000_000)
        case date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case _:
            return str(value)


def wire_rows(values: Sequence[Sequence[Any]], *, int64_timestamps: bool) -> list[dict[str, Any]]:
    return [{"f": [{"v": wire_value(value, int64_timestamps=int64_timestamps)} for value in row]} for row in values]


def wire_schema(fields: Sequence[Field]) -> dict[str, Any]:
    return {"fields": [field.resource() for field in fields]}


def dataset_resource(project: str, dataset: str, created: float) -> dict[str, Any]:
    return {
        "kind": "bigquery#dataset",
        "id": f"{project}:{dataset}",
        "datasetReference": {"projectId": project, "datasetId": dataset},
        "location": LOCATION,
        "creationTime": str(int(created * 1000)),
    }


def table_resource(table: Table) -> dict[str, Any]:
    return {
        **table_item(table.name),
        "kind": "bigquery#table",
        "schema": wire_schema(table.fields),
        "location": LOCATION,
        "creationTime": str(int(table.created * 1000)),
    }


def table_item(name: TableName) -> dict[str, Any]:
    reference = {"projectId": name.project, "datasetId": name.dataset, "tableId": name.table}
    return {"kind": "bigquery#table", "id": str(name), "type": "TABLE", "tableReference": reference}


# -- parameters of requests


class Page(NamedTuple):
    """The requested rows of a result."""

    start: int
    most: int
    int64_timestamps: bool

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Page:
        """Return the page that the query parameters request."""
        try:
            start = int(query.get("pageToken") or query.get("startIndex") or 0)
            most = int(query.get("maxResults") or MOST_ROWS)
        except ValueError:
            raise invalid_error("pageToken, startIndex and maxResults must be whole numbers") from None
        if not 0 <= start < 2**31 or not 0 <= most < 2**31:
            raise invalid_error("pageToken, startIndex and maxResults must be between 0 and 2147483647")
        int64 = query.get("formatOptions.useInt64Timestamp", "").lower() == "true"
        return cls(start, min(most, MOST_ROWS), int64)

    def of(self, rows: Rows) -> dict[str, Any]:
        """Return the members of a response with *rows*, which are those of this page.

        ``rows`` is left out if there are none, because the client would take an empty list for the whole result.
        """
        answer: dict[str, Any] = {"totalRows": str(rows.total)}
        if rows.values:
            answer["rows"] = wire_rows(rows.values, int64_timestamps=self.int64_timestamps)
            end = self.start + len(rows.values)
            if end < rows.total:
                answer["pageToken"] = str(end)
        return answer


def member(found: Any, *path: str) -> Any:
    """Return the member at *path* of a JSON document, ``None`` if there is none."""
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def parameters_of(query: Mapping[str, Any]) -> dict[str, Any] | list[Any]:
    """Return the query parameters, by name or in order. Their values never become part of the SQL text."""
    parameters = query.get("queryParameters") or []
    if not isinstance(parameters, list):
        raise invalid_error("queryParameters must be a list")
    values: list[tuple[Any, Any]] = []
    for parameter in parameters:
        field = Field.read({"name": "parameter", "type": member(parameter, "parameterType", "type")})
        try:
            stored = field.value(member(parameter, "parameterValue", "value"))
        except ValueError as problem:
            raise invalid_error(str(problem)) from None
        values.append((member(parameter, "name"), stored))
    if query.get("parameterMode") == "NAMED":
        return {str(name): value for name, value in values}
    return [value for _, value in values]


# -- the service


class Job(NamedTuple):
    """A finished query and its result."""

    project: str
    identifier: str
    configuration: Mapping[str, Any]
    rows: Rows

    @property
    def reference(self) -> dict[str, str]:
        return {"projectId": self.project, "jobId": self.identifier, "location": LOCATION}

    def resource(self) -> dict[str, Any]:
        return {
            "kind": "bigquery#job",
            "id": f"{self.project}:{LOCATION}.{self.identifier}",
            "jobReference": self.reference,
            "configuration": {"query": dict(self.configuration), "jobType": "QUERY"},
            "status": {"state": "DONE"},
            "statistics": {"query": {"statementType": "SELECT"}},
        }

    def results(self, page: Page) -> dict[str, Any]:
        values = self.rows.values[page.start : page.start + page.most]
        return {
            "schema": wire_schema(self.rows.fields),
            "jobReference": self.reference,
            "jobComplete": True,
            **page.of(self.rows._replace(values=values)),
        }


class Service:
    """Has a method for each method of the API. They run in threads, because SQLite blocks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: OrderedDict[tuple[str, str], Job] = OrderedDict()

    def insert_dataset(self, call: Call) -> Any:
        project, dataset = call.path["project"], member(call.body, "datasetReference", "datasetId")
        call.refuse_other_project(member(call.body, "datasetReference", "projectId"))
        created = self._store.add_dataset(project, str(dataset))
        return dataset_resource(project, str(dataset), created)

    def list_datasets(self, call: Call) -> Any:
        project = call.path["project"]
        found = [dataset_resource(project, name, 0) for name in self._store.datasets(project)]
        items = [{name: item[name] for name in ("id", "datasetReference", "location")} for item in found]
        return {"kind": "bigquery#datasetList", "datasets": items}

    def get_dataset(self, call: Call) -> Any:
        created = self._store.dataset(call.path["project"], call.path["dataset"])
        return dataset_resource(call.path["project"], call.path["dataset"], created)

    def delete_dataset(self, call: Call) -> Any:
        contents = call.query.get("deleteContents", "").lower() == "true"
        self._store.remove_dataset(call.path["project"], call.path["dataset"], contents=contents)

    def insert_table(self, call: Call) -> Any:
        call.refuse_other_project(member(call.body, "tableReference", "projectId"))
        name = TableName(
            call.path["project"], call.path["dataset"], str(member(call.body, "tableReference", "tableId"))
        )
        fields = member(call.body, "schema", "fields")
        return table_resource(self._store.add_table(name, [Field.read(item) for item in fields or []]))

    def list_tables(self, call: Call) -> Any:
        found = self._store.tables(call.path["project"], call.path["dataset"])
        return {
            "kind": "bigquery#tableList",
            "tables": [table_item(name) for name in found],
            "totalItems": len(found),
        }

    def get_table(self, call: Call) -> Any:
        return table_resource(self._store.table(call.table))

    def delete_table(self, call: Call) -> Any:
        self._store.remove_table(call.table)

    def insert_all(self, call: Call) -> Any:
        """Insert all rows, or none if one is invalid. With ``skipInvalidRows``, insert the valid ones."""
        table = self._store.table(call.table)
        rows = call.body.get("rows")
        if not isinstance(rows, list) or not 0 < len(rows) <= MOST_ROWS:
            raise invalid_error(f"rows must be a list of 1 to {MOST_ROWS}")
        good: list[tuple[str | None, list[Any]]] = []
        wrong: dict[int, dict[str, str]] = {}
        for index, row in enumerate(rows):
            try:
                values = row_values(table.fields, member(row, "json"), call.body)
            except ValueError as problem:
                wrong[index] = {"reason": "invalid", "message": str(problem)}
            else:
                identifier = member(row, "insertId")
                good.append((identifier if isinstance(identifier, str) else None, values))
        if wrong and call.body.get("skipInvalidRows") is not True:
            stopped = {"reason": "stopped", "message": "Another row is invalid"}
            wrong = {index: wrong.get(index, stopped) for index in range(len(rows))}
            good = []
        self._store.insert(call.table, good)
        errors = [{"index": index, "errors": [error]} for index, error in wrong.items()]
        return {"kind": "bigquery#tableDataInsertAllResponse"} | ({"insertErrors": errors} if errors else {})

    def list_rows(self, call: Call) -> Any:
        page = Page.parse(call.query)
        selected = [name for name in call.query.get("selectedFields", "").split(",") if name]
        rows = self._store.rows(call.table, start=page.start, most=page.most, selected=selected)
        return {"kind": "bigquery#tableDataList", **page.of(rows)}

    def query(self, call: Call) -> Any:
        options = member(call.body, "formatOptions", "useInt64Timestamp")
        most = call.body.get("maxResults")
        page = Page.parse({"maxResults": str(most or ""), "formatOptions.useInt64Timestamp": str(options)})
        job = self._run(call.path["project"], None, call.body)
        return {"kind": "bigquery#queryResponse", **job.results(page)}

    def insert_job(self, call: Call) -> Any:
        configuration = member(call.body, "configuration", "query")
        if not isinstance(configuration, Mapping):
            raise invalid_error("Only query jobs are supported")
        call.refuse_other_project(member(call.body, "jobReference", "projectId"))
        identifier = member(call.body, "jobReference", "jobId")
        return self._run(call.path["project"], identifier, configuration).resource()

    def get_job(self, call: Call) -> Any:
        return self._job(call).resource()

    def query_results(self, call: Call) -> Any:
        return {"kind": "bigquery#getQueryResultsResponse", **self._job(call).results(Page.parse(call.query))}

    def _run(self, project: str, identifier: Any, query: Mapping[str, Any]) -> Job:
        text = query.get("query")
        if not isinstance(text, str) or len(text) > MOST_QUERY_LENGTH or query.get("useLegacySql") is True:
            raise StoreError(
                400, "invalidQuery", f"A query must be standard SQL of at most {MOST_QUERY_LENGTH} characters"
            )
        if query.get("dryRun") is True or query.get("destinationTable") is not None:
            raise invalid_error("Neither dryRun nor destinationTable is supported")
        key = (project, identifier if isinstance(identifier, str) and identifier else f"job_{uuid.uuid4()}")
        if key in self._jobs:
            raise StoreError(409, "duplicate", f"Already Exists: Job {project}:{LOCATION}.{key[1]}")
        rows = self._store.query(project, text, parameters_of(query))
        job = Job(project, key[1], {"query": text, "useLegacySql": False}, rows)
        self._jobs[key] = job
        while len(self._jobs) > MOST_JOBS:
            self._jobs.popitem(last=False)
        return job

    def _job(self, call: Call) -> Job:
        job = self._jobs.get((call.path["project"], call.path["job"]))
        if job is None:
            raise StoreError(404, "notFound", f"Not found: Job {call.path['project']}:{call.path['job']}")
        return job


def row_values(fields: Sequence[Field], row: Any, options: Mapping[str, Any]) -> list[Any]:
    """Return the values of *row* in the order of *fields*. Raises ValueError with a sentence for the caller."""
    if not isinstance(row, dict):
        raise ValueError("A row must be an object with a member json.")  # noqa: TRY004 - one error for all wrong rows
    unknown = set(row) - {field.name for field in fields}
    if unknown and options.get("ignoreUnknownValues") is not True:
        raise ValueError(f"no such field: {min(unknown)}.")
    return [field.value(row.get(field.name)) for field in fields]


class Call(NamedTuple):
    """A request: the parameters of its path and its query string, and its body, which is empty if there is none."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def table(self) -> TableName:
        return TableName(self.path["project"], self.path["dataset"], self.path["table"])

    def refuse_other_project(self, project: Any) -> None:
        """Refuse a body with another project than the path, which the permission was about."""
        if project not in (None, self.path["project"]):
            raise invalid_error("The project of the body is not that of the path")


async def read_body(request: Request) -> Mapping[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise StoreError(413, "uploadTooLarge", f"A request has at most {MOST_BYTES} bytes")
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise StoreError(400, "parseError", "Parse Error")
    return body


def endpoint(method: Callable[[Call], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        call = Call(request.path_params, request.query_params, await read_body(request))
        result = await run_in_threadpool(method, call)
        return Response(status_code=204) if result is None else JSONResponse(result)

    return respond


async def store_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)  # noqa: S101 - the only kind it is registered for
    return error_response(error.status, error.reason, str(error))


async def http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the only kind it is registered for
    return error_response(error.status_code, "notFound" if error.status_code == 404 else "badRequest", error.detail)


def create_app(database: Path) -> Starlette:
    """Return the service with the SQLite file at *database*, which is created if it is missing."""
    service = Service(Store(database))
    project = "/bigquery/v2/projects/{project}"
    dataset = f"{project}/datasets/{{dataset}}"
    table = f"{dataset}/tables/{{table}}"
    methods: list[tuple[str, str, Callable[[Call], Any]]] = [
        ("POST", f"{project}/datasets", service.insert_dataset),
        ("GET", f"{project}/datasets", service.list_datasets),
        ("GET", dataset, service.get_dataset),
        ("DELETE", dataset, service.delete_dataset),
        ("POST", f"{dataset}/tables", service.insert_table),
        ("GET", f"{dataset}/tables", service.list_tables),
        ("GET", table, service.get_table),
        ("DELETE", table, service.delete_table),
        ("POST", f"{table}/insertAll", service.insert_all),
        ("GET", f"{table}/data", service.list_rows),
        ("POST", f"{project}/queries", service.query),
        ("GET", f"{project}/queries/{{job}}", service.query_results),
        ("POST", f"{project}/jobs", service.insert_job),
        ("GET", f"{project}/jobs/{{job}}", service.get_job),
    ]
    return Starlette(
        routes=[Route(path, endpoint(handler), methods=[method]) for method, path, handler in methods],
        exception_handlers={StoreError: store_error, HTTPException: http_error},
    )


def app() -> Starlette:
    """Return the service, for ``scopeguard serve table_service:app --factory``."""
    return create_app(Path(os.environ.get("TABLES", "tables.sqlite")))
