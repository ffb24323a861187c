"""Choose utterances of a published run by a SQL condition, with DuckDB over its Parquet."""

from __future__ import annotations

from typing import Any, Literal, cast

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.tables import schema_of
from workers.storage import open_filesystem

QUERYABLE = ("utterances", "transcripts")
_ORDER = "archive, member, channel NULLS FIRST, start_s, utterance_id"
Selectable = Literal["utterances", "regenerated"]


def select(
    manifest: RunManifest,
    destination: str,
    where: str | None,
    storage: Storage,
    table: Selectable = "utterances",
    source: RunManifest | None = None,
) -> pa.Table:
    """Rows of ``table`` for which ``where`` holds, in a fixed order; all of them where it is None. Audio is left out.

    Columns stand in ``where`` by their names; other tables may be asked in a subquery, such as
    ``utterance_id IN (SELECT utterance_id FROM transcripts WHERE avg_logprob > -0.5)``. Nothing but ``utterances`` and
    ``transcripts`` of the run ``source`` (by default ``manifest``'s) and ``table`` can be reached from it. Raises
    VoxmillError where it does not parse or names a column that is not there.
    """
    names = [name for name in schema_of(table).names if name != "audio"]
    tables = {
        name: _dataset(manifest if name == table else source or manifest, name, destination, storage)
        for name in dict.fromkeys((*QUERYABLE, table))
    }
    order = _ORDER + (", voice" if table == "regenerated" else "")
    # On a line of its own, so that a comment at its end cannot swallow the bracket.
    found = _asked(f"SELECT {', '.join(names)} FROM {table} WHERE (\n{where or 'true'}\n) ORDER BY {order}", tables)
    if isinstance(found, str):
        do = f"{table} has the columns {', '.join(names)}" if found else "Leave the semicolon out"
        raise VoxmillError(f"{found or 'must be one condition'} [{where!r}]", "where", do)
    return found.cast(pa.schema([schema_of(table).field(name) for name in names]))


def _asked(query: str, tables: dict[str, Any]) -> pa.Table | str:
    """The result of ``query``, or what is wrong with it ("": it is not one statement).

    Not raised here: an error keeps its frames, with DuckDB's connection in them, until the process ends, which DuckDB's
    bindings then complain of at length.
    """
    with duckdb.connect() as connection:
        for name, data in tables.items():
            connection.register(name, data)
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            if len(duckdb.extract_statements(query)) != 1:
                return ""
            return cast(pa.Table, connection.sql(query).to_arrow_table())
        except duckdb.Error as error:
            return str(error).splitlines()[0]


def _dataset(manifest: RunManifest, table: str, destination: str, storage: Storage) -> Any:
    paths = [file.path for file in manifest.files if file.table == table]
    if not paths:
        return schema_of(table).empty_table()
    fs, root = open_filesystem(destination, storage)
    return ds.dataset([f"{root}/{path}" for path in paths], schema=schema_of(table), filesystem=fs, format="parquet")
