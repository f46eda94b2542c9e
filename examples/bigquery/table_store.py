"""Datasets, tables and rows in SQLite.

A table is an SQLite table called ``project.dataset.table``, as queries write it between backticks. Names are checked
before they are used in SQL, and values are always parameters. A query of a caller runs on a connection of its own,
which can only read the tables of one project.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

MOST_RESULT_ROWS: Final = 10_000
MOST_QUERY_STEPS: Final = 20_000_000  # of SQLite's virtual machine: a second or two
MOST_QUERY_LENGTH: Final = 100_000  # characters
DUPLICATES_SECONDS: Final = 60.0

_PROJECT: Final = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StoreError(Exception):
    """The request is invalid or conflicts with the stored data. ``reason`` is BigQuery's code for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def invalid_error(message: str) -> StoreError:
    return StoreError(400, "invalid", message)


# -- types: what is accepted as JSON, how SQLite declares it, and what a result shows


def _integer(value: Any) -> int:
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _float(value: Any) -> float:
    number = float(value) if not isinstance(value, bool) else math.nan
    if not math.isfinite(number):
        raise ValueError
    return number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - all readers raise the same exception
    value.encode()  # raises for lone surrogates
    return value


def _boolean(value: Any) -> int:
    if isinstance(value, str):
        value = {"true": True, "false": False}[value.lower()]
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - as above
    return int(value)


def _timestamp(value: Any) -> int:
    """Return microseconds since the epoch, from seconds or ISO 8601. The default time zone is UTC, as in BigQuery."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value.removesuffix(" UTC"))
    else:
        moment = _EPOCH + timedelta(seconds=_float(value))
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def _date(value: Any) -> str:
    return date.fromisoformat(_string(value)).isoformat()


class Type(NamedTuple):
    """A column type. ``read`` parses a JSON value. ``declared`` is the type in SQL.

    SQLite only looks for INT, TEXT or REAL in the declared type. The converters below use the whole name.
    """

    read: Any
    declared: str


TYPES: Final = {
    "STRING": Type(_string, "TEXT"),
    "INTEGER": Type(_integer, "INTEGER"),
    "FLOAT": Type(_float, "REAL"),
    "BOOLEAN": Type(_boolean, "BOOLEAN_INT"),
    "TIMESTAMP": Type(_timestamp, "TIMESTAMP_INT"),
    "DATE": Type(_date, "DATE_TEXT"),
}
_SYNONYMS: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}

sqlite3.register_converter("BOOLEAN_INT", lambda stored: stored != b"0")
sqlite3.register_converter("TIMESTAMP_INT", lambda stored: _EPOCH + timedelta(microseconds=int(stored)))
sqlite3.register_converter("DATE_TEXT", lambda stored: date.fromisoformat(stored.decode()))
# The order matters: a bool is an int, and a datetime a date.
_RESULT_TYPES: Final = (
    (bool, "BOOLEAN"),
    (int, "INTEGER"),
    (float, "FLOAT"),
    (datetime, "TIMESTAMP"),
    (date, "DATE"),
    (bytes, "BYTES"),
    (str, "STRING"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A column. ``type`` is one of TYPES."""

    name: str
    type: str
    required: bool = False

    @classmethod
    def read(cls, resource: Any) -> Field:
        """Parse a field of a BigQuery schema. Raises :class:`StoreError` for a type or mode that is not supported."""
        if not isinstance(resource, dict):
            raise invalid_error("A field of a schema must be an object")
        name, kind, mode = resource.get("name"), resource.get("type"), resource.get("mode") or "NULLABLE"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise invalid_error("Invalid field name: letters, digits and underscores, beginning with no digit")
        kind = _SYNONYMS.get(str(kind).upper(), str(kind).upper())
        if kind not in TYPES or str(mode).upper() not in ("NULLABLE", "REQUIRED"):
            raise invalid_error(f"Field {name}: types are {', '.join(TYPES)}; modes are NULLABLE and REQUIRED")
        return cls(name, kind, str(mode).upper() == "REQUIRED")

    def resource(self) -> dict[str, str]:
        return {"name": self.name, "type": self.type, "mode": "REQUIRED" if self.required else "NULLABLE"}

    def value(self, given: Any) -> Any:
        """Return *given* as it is stored in SQLite. Raises ValueError with a sentence for the caller."""
        if given is None:
            if self.required:
                raise ValueError(f"Missing required field: {self.name}.")
            return None
        try:
            return TYPES[self.type].read(given)
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ValueError(f"Field {self.name}: the value is not of type {self.type}.") from None


@dataclass(frozen=True, slots=True)
class TableName:
    """Three checked names. ``sql`` can therefore be part of a statement."""

    project: str
    dataset: str
    table: str

    def __post_init__(self) -> None:
        check_dataset(self.project, self.dataset)
        if not _NAME.fullmatch(self.table):
            raise invalid_error("Invalid table ID: letters, digits and underscores, beginning with no digit")

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def key(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def sql(self) -> str:
        return f'"{self.key}"'


def check_project(project: str) -> None:
    if not _PROJECT.fullmatch(project):
        raise invalid_error("Invalid project ID: 6 to 30 lower case letters, digits and hyphens")


def check_dataset(project: str, dataset: str) -> None:
    check_project(project)
    if not _NAME.fullmatch(dataset):
        raise invalid_error("Invalid dataset ID: letters, digits and underscores, beginning with no digit")


@dataclass(frozen=True, slots=True)
class Table:
    name: TableName
    fields: tuple[Field, ...]
    created: float  # seconds since the epoch


class Rows(NamedTuple):
    """Some rows of a result, and the total number of its rows."""

    fields: tuple[Field, ...]
    values: Sequence[Sequence[Any]]
    total: int


# -- limits for queries of callers

_FUNCTIONS: Final = frozenset(
    (
        *("avg", "count", "max", "min", "sum", "total"),
        *("abs", "coalesce", "ifnull", "length", "like", "lower", "nullif", "round", "substr", "trim", "upper"),
    )
)
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MOST_QUERY_LENGTH,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_SELECT: Final = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)


def _restrict(connection: sqlite3.Connection, project: str) -> None:
    """Restrict *connection* to reading the tables of *project*, to a few functions and to a number of steps."""

    def authorize(action: int, what: str | None, which: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and what is not None and what.startswith(f"{project}."):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and which is not None and which.lower() in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    for limit, most in _LIMITS.items():
        connection.setlimit(limit, most)
    steps = iter(range(MOST_QUERY_STEPS // 1000))
    connection.set_progress_handler(lambda: next(steps, None) is None, 1000)
    connection.set_authorizer(authorize)


class Store:
    """The SQLite file at *path*. Each call opens it again, so any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        with self._connect_to_write() as connection:
            for table in (
                "datasets (project TEXT, dataset TEXT, created REAL, UNIQUE(project, dataset))",
                "tables (project TEXT, dataset TEXT, name TEXT, fields TEXT, created REAL)",
                "inserted (key TEXT, id TEXT, at REAL, UNIQUE(key, id))",
            ):
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    @contextmanager
    def _connect_to_write(self) -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction."""
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection

    @contextmanager
    def _connect_to_read(self) -> Iterator[sqlite3.Connection]:
        address = f"{self._path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, detect_types=sqlite3.PARSE_DECLTYPES)) as connection:
            yield connection

    # datasets

    def add_dataset(self, project: str, dataset: str) -> float:
        check_dataset(project, dataset)
        now = time.time()
        with self._connect_to_write() as connection:
            done = connection.execute("INSERT OR IGNORE INTO datasets VALUES (?, ?, ?)", (project, dataset, now))
            if done.rowcount == 0:
                raise StoreError(409, "duplicate", f"Already Exists: Dataset {project}:{dataset}")
        return now

    def datasets(self, project: str) -> list[str]:
        with self._connect_to_read() as connection:
            found = connection.execute("SELECT dataset FROM datasets WHERE project = ? ORDER BY dataset", (project,))
            return [dataset for (dataset,) in found]

    def dataset(self, project: str, dataset: str) -> float:
        """Return the time of its creation. Raises ``notFound`` if it does not exist."""
        check_dataset(project, dataset)
        with self._connect_to_read() as connection:
            return _dataset(connection, project, dataset)

    def remove_dataset(self, project: str, dataset: str, *, contents: bool) -> None:
        check_dataset(project, dataset)
        with self._connect_to_write() as connection:
            _dataset(connection, project, dataset)
            found = connection.execute("SELECT name FROM tables WHERE project = ? AND dataset = ?", (project, dataset))
            names = [TableName(project, dataset, name) for (name,) in found]
            if names and not contents:
                raise StoreError(400, "resourceInUse", f"Dataset {project}:{dataset} is still in use")
            for name in names:
                _drop(connection, name)
            connection.execute("DELETE FROM datasets WHERE project = ? AND dataset = ?", (project, dataset))

    # tables

    def add_table(self, name: TableName, fields: Sequence[Field]) -> Table:
        if not fields or len({field.name.lower() for field in fields}) != len(fields):
            raise invalid_error("A table needs a schema, and its fields need different names")
        columns = ", ".join(f'"{field.name}" {TYPES[field.type].declared}' for field in fields)
        with self._connect_to_write() as connection:
            _dataset(connection, name.project, name.dataset)
            try:
                connection.execute(f"CREATE TABLE {name.sql} ({columns})")
            except sqlite3.OperationalError as problem:
                if "already exists" not in str(problem):
                    raise invalid_error(f"Table {name} cannot be created: too many fields") from None
                raise StoreError(409, "duplicate", f"Already Exists: Table {name}") from None
            row = (name.project, name.dataset, name.table, json.dumps([field.resource() for field in fields]))
            connection.execute("INSERT INTO tables VALUES (?, ?, ?, ?, ?)", (*row, time.time()))
            return _table(connection, name)

    def table(self, name: TableName) -> Table:
        with self._connect_to_read() as connection:
            return _table(connection, name)

    def tables(self, project: str, dataset: str) -> list[TableName]:
        check_dataset(project, dataset)
        with self._connect_to_read() as connection:
            _dataset(connection, project, dataset)
            found = connection.execute(
                "SELECT name FROM tables WHERE project = ? AND dataset = ? ORDER BY name", (project, dataset)
            )
            return [TableName(project, dataset, name) for (name,) in found]

    def remove_table(self, name: TableName) -> None:
        with self._connect_to_write() as connection:
            _table(connection, name)
            _drop(connection, name)

    # rows

    def insert(self, name: TableName, rows: Sequence[tuple[str | None, Sequence[Any]]]) -> None:
        """Insert *rows*, each an id and its values. A row whose id was inserted within the last minute is skipped."""
        now = time.time()
        with self._connect_to_write() as connection:
            table = _table(connection, name)
            places = ", ".join("?" * len(table.fields))
            statement = f"INSERT INTO {name.sql} VALUES ({places})"  # noqa: S608 - checked names
            connection.execute("DELETE FROM inserted WHERE at < ?", (now - DUPLICATES_SECONDS,))
            for identifier, values in rows:
                if identifier is not None:
                    seen = "INSERT OR IGNORE INTO inserted VALUES (?, ?, ?)"
                    if connection.execute(seen, (name.key, identifier, now)).rowcount == 0:
                        continue
                connection.execute(statement, values)

    def rows(self, name: TableName, *, start: int, most: int, selected: Sequence[str] = ()) -> Rows:
        with self._connect_to_read() as connection:
            table = _table(connection, name)
            fields = tuple(field for field in table.fields if not selected or field.name in selected)
            if len(fields) < len(set(selected)):
                raise invalid_error("Invalid field in selectedFields")
            columns = ", ".join(f'"{field.name}"' for field in fields)
            (total,) = connection.execute(f"SELECT count(*) FROM {name.sql}").fetchone()  # noqa: S608 - checked names
            found = connection.execute(
                f"SELECT {columns} FROM {name.sql} ORDER BY rowid LIMIT ? OFFSET ?",  # noqa: S608 - checked names
                (most, start),
            )
            return Rows(fields, found.fetchall(), total)

    def query(self, project: str, sql: str, parameters: dict[str, Any] | list[Any]) -> Rows:
        """Return the result of *sql*, which must be one SELECT over tables of *project*."""
        check_project(project)
        if not _SELECT.match(sql):
            raise StoreError(400, "invalidQuery", "Only SELECT is supported")
        with self._connect_to_read() as connection:
            _restrict(connection, project)
            try:
                found = connection.execute(sql, parameters)
                values = found.fetchmany(MOST_RESULT_ROWS + 1)
            except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as problem:
                # SQLite's message is about the text that the caller wrote, not about the file.
                raise StoreError(400, "invalidQuery", f"Invalid query: {problem}") from None
            if len(values) > MOST_RESULT_ROWS:
                raise StoreError(400, "responseTooLarge", f"A result has at most {MOST_RESULT_ROWS} rows")
            names = [column[0] for column in found.description]
        # As in BigQuery, a column without a name is named by its position.
        columns = (name if _NAME.fullmatch(name) else f"f{n}_" for n, name in enumerate(names))
        fields = tuple(Field(name, _result_type(row[n] for row in values)) for n, name in enumerate(columns))
        return Rows(fields, values, len(values))


def _dataset(connection: sqlite3.Connection, project: str, dataset: str) -> float:
    found = connection.execute("SELECT created FROM datasets WHERE project = ? AND dataset = ?", (project, dataset))
    row = found.fetchone()
    if row is None:
        raise StoreError(404, "notFound", f"Not found: Dataset {project}:{dataset}")
    created: float = row[0]
    return created


def _table(connection: sqlite3.Connection, name: TableName) -> Table:
    found = connection.execute(
        "SELECT fields, created FROM tables WHERE project = ? AND dataset = ? AND name = ?",
        (name.project, name.dataset, name.table),
    )
    row = found.fetchone()
    if row is None:
        raise StoreError(404, "notFound", f"Not found: Table {name}")
    return Table(name, tuple(map(Field.read, json.loads(row[0]))), row[1])


def _drop(connection: sqlite3.Connection, name: TableName) -> None:
    connection.execute(f"DROP TABLE {name.sql}")
    connection.execute("DELETE FROM inserted WHERE key = ?", (name.key,))
    connection.execute(
        "DELETE FROM tables WHERE project = ? AND dataset = ? AND name = ?", (name.project, name.dataset, name.table)
    )


def _result_type(values: Iterator[Any]) -> str:
    """Return the type of a result column from its values. Without values, or with several types, it is STRING."""
    types = {
        next(name for kind, name in _RESULT_TYPES if isinstance(value, kind)) for value in values if value is not None
    }
    if types == {"INTEGER", "FLOAT"}:
        return "FLOAT"
    return types.pop() if len(types) == 1 else "STRING"
