"""A table or query of a database, written as Parquet; nothing is ever written to the database.

A URL is SQLAlchemy's, `dialect://user@host/database`, with `#TABLE` or `#SELECT ...` behind it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from tunewell.data.secrets import filled, scrubbed, shown
from tunewell.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 10_000
# what to install where it has another name than what is imported
PACKAGES = {
    "MySQLdb": "mysqlclient", "mysql": "mysql-connector-python", "psycopg2": "psycopg2-binary",
    "cx_Oracle": "cx-Oracle",
}  # fmt: skip
DIALECTS = {
    "duckdb": "duckdb-engine", "snowflake": "snowflake-sqlalchemy", "bigquery": "sqlalchemy-bigquery",
    "redshift": "sqlalchemy-redshift", "cockroachdb": "sqlalchemy-cockroachdb",
}  # fmt: skip


def table_of(source: str) -> tuple[str, str]:
    """URL and table, or query, of a source.

    Raises:
        DataError: no table is named.
    """
    url, _, query = _divided(source)
    if not query.strip():
        raise DataError(
            "names a database, but no table",
            where=shown(source),
            expected="URL#TABLE, or URL#SELECT ... for a query",
            remedy=f"{shown(url)}#reviews",
        )
    return url, query


def write_rows(source: str, target: Path) -> None:
    """Write the rows of a table or query as Parquet.

    Raises:
        DataError: no such database, table or column, a missing driver, two columns of one name, no rows, or a column
            with values of several kinds.
    """
    import pyarrow as pa
    import sqlalchemy as sql

    url, query = table_of(source)
    where = shown(source)
    engine = _engine(url, source)
    statement = sql.text(query) if re.match(r"\s*(select|with)\b", query, re.IGNORECASE) else None
    try:
        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": CHUNK}
        if engine.url.get_backend_name() == "postgresql":
            options["postgresql_readonly"] = True
        with _silent(), engine.connect().execution_options(**options) as connection:
            if statement is None:
                names = sql.inspect(connection).get_table_names() + sql.inspect(connection).get_view_names()
                if query.rpartition(".")[2] not in names and "." not in query:
                    raise DataError(
                        f"no table `{query}`",
                        where=where,
                        expected="one of: " + ", ".join(names[:20]) if names else "a database with tables",
                        remedy=nearest(query, names),
                    )
                schema, _, name = query.rpartition(".")
                statement = sql.select(sql.text("*")).select_from(sql.table(name, schema=schema or None))  # type: ignore[assignment]
            result = connection.execute(statement)
            if result.returns_rows:
                _refuse_twins(result.keys(), where)
            with Growing(target) as out:
                for rows in _chunks(result):
                    out.write(rows)
            if not out.rows:
                raise DataError("has no rows", where=where, expected="at least one row")
    except sql.exc.SQLAlchemyError as error:
        raise DataError(
            f"the database answers: {scrubbed(_said(error), source)}",
            where=where,
            expected="a database that can be reached, and a query that it understands",
        ) from None
    except pa.ArrowException as error:
        raise DataError(
            f"a column holds values of several kinds: {str(error).splitlines()[0]}",
            where=where,
            expected="one kind of value a column",
            remedy="cast it in the query: SELECT CAST(stars AS TEXT) AS stars, ...",
        ) from None
    finally:
        engine.dispose()


class Growing:
    """A Parquet file whose columns' kinds come to light on the way: a column may begin empty, or with whole numbers.

    What is written is written again when a later value asks for a wider kind, which is seldom. A column without any
    value is one of strings. Use it as a context manager.

    Attributes:
        rows: written so far.

    Raises:
        pyarrow.ArrowException: values of one column have no kind in common.
    """

    def __init__(self, target: Path) -> None:
        self.target, self.rows = target, 0
        self._place, self._turn = target, 0
        self._empty: set[str] = set()  # columns without a value so far
        self._writer: Any = None

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add rows, all with the same columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        batch = pa.Table.from_pylist(rows)
        found = pa.schema([self._widest(field) for field in batch.schema])
        if self._writer is None:
            self._writer = pq.ParquetWriter(str(self._place), found)
        elif found != self._writer.schema:
            self._again(found)
        self._writer.write_table(batch.cast(found))
        self.rows += len(batch)

    def _widest(self, field: pa.Field) -> pa.Field:
        """A column's field, wide enough for what is written and for a batch."""
        import pyarrow as pa

        known = None if self._writer is None else self._writer.schema.field(field.name)
        if pa.types.is_null(field.type):
            if known is None:
                self._empty.add(field.name)
            return pa.field(field.name, pa.string()) if known is None else known
        if known is None or field.name in self._empty:
            self._empty.discard(field.name)
            return pa.field(field.name, field.type)
        return pa.unify_schemas([pa.schema([known]), pa.schema([field])], promote_options="permissive").field(0)

    def _again(self, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer.close()
        before, self._turn = self._place, self._turn + 1
        self._place = self.target.with_name(f"{self.target.name}.{self._turn}.part")
        self._writer = pq.ParquetWriter(str(self._place), schema)
        with pq.ParquetFile(str(before)) as old:
            for i in range(old.num_row_groups):
                self._writer.write_table(old.read_row_group(i).cast(schema))
        before.unlink()

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._place != self.target:
            if kind is None:
                os.replace(self._place, self.target)
            else:
                self._place.unlink(missing_ok=True)


# ---------------------------------------------------------------- the database


def _divided(source: str) -> tuple[str, str, str]:
    """URL, `#`, and table or query; the folders of an SQLite file may have a # in their names."""
    if _is_sqlite(source):
        for found in re.finditer("#", source):
            if _sqlite_file(source[: found.start()]).is_file():
                return source[: found.start()], "#", source[found.end() :]
    return source.partition("#")


def _is_sqlite(url: str) -> bool:
    return re.match(r"sqlite(\+\w+)?:///", url, re.IGNORECASE) is not None


def _sqlite_file(url: str) -> Path:
    """The file of an SQLite URL: as it stands there, else without options, else percent-decoded."""
    path = filled(url.partition(":///")[2])
    plain = path.partition("?")[0]
    for name in (path, plain, unquote(plain)):
        if name and Path(name).is_file():
            return Path(name)
    return Path(plain)


def _engine(url: str, source: str) -> Any:
    import sqlalchemy as sql

    where = shown(source)
    try:
        if _is_sqlite(url):
            file = _sqlite_file(url)
            if not file.is_file():
                raise DataError("no such database file", where=str(file), expected="an SQLite database")
            name = "file:" + quote(str(file.absolute()))
            return sql.create_engine(sql.URL.create("sqlite", database=name, query={"mode": "ro", "uri": "true"}))
        parsed = sql.make_url(filled(url))
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+pg8000")
        return sql.create_engine(parsed)
    except sql.exc.NoSuchModuleError as error:
        dialect = url.partition("://")[0].partition("+")[0].lower()
        if dialect in DIALECTS:
            raise _missing(dialect, DIALECTS[dialect], where) from None
        raise DataError(
            f"is no database URL: {scrubbed(str(error), source)}", where=where, expected="dialect://user@host/database"
        ) from None
    except (sql.exc.ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise DataError(
            f"is no database URL: {scrubbed(str(error), source)}", where=where, expected="dialect://user@host/database"
        ) from None
    except ImportError as error:
        name = (error.name or str(error)).partition(".")[0]
        raise _missing(name, PACKAGES.get(name, name), where) from None


def _missing(name: str, package: str, where: str) -> DataError:
    return DataError(
        f"the driver of this database is not installed: {name}",
        where=where,
        expected=f"the package {package}",
        remedy=f"pip install {package}",
    )


def _refuse_twins(names: Iterable[str], where: str) -> None:
    """Two columns of one name would become one, with the values of the last."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(
            "two columns are called " + " and two ".join(f"`{name}`" for name in twice),
            where=where,
            expected="columns with names of their own",
            remedy=f"name them in the query: SELECT a.{twice[0]} AS {twice[0]}, b.{twice[0]} AS other_{twice[0]}, ...",
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No traces of a failed query's cursor in the log: the error itself is told."""
    log = logging.getLogger("sqlalchemy.pool")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _said(error: Any) -> str:
    """The sentence in a driver's error."""
    first = getattr(error, "orig", None) or error
    if first.args and isinstance(first.args[0], dict):  # pg8000 hands over the server's fields
        return str(first.args[0].get("M", first))
    return str(first).splitlines()[0]


def _chunks(result: Any) -> Iterator[list[dict[str, Any]]]:
    while rows := result.fetchmany(CHUNK):
        yield [{key: _plain(value) for key, value in row._mapping.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (bytes, memoryview)) else value
