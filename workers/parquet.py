"""How tables are encoded: one set of rules for staged and published files: the same rows give the same bytes.

zstd throughout; dictionaries only on columns of few values; ``BYTE_STREAM_SPLIT`` on mels, whose exponents compress and
whose mantissas do not; row groups of blob tables sized by bytes, since a reader holds a row group in memory.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import BLOB_TABLES

ROW_GROUP_BYTES = 32 << 20  # of Arrow memory, for blob tables
ROW_GROUP_ROWS = 128 << 10  # for the narrow ones

_DICTIONARY = (
    "archive", "shard_id", "format", "language", "speaker", "transcript_engine", "transcript_input", "engine", "input",
    "model_digest", "voice", "text_source", "round_trip_engine", "stage", "reason", "slice", "block_kind", "scorer",
)  # fmt: skip


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Keyword arguments of :class:`pyarrow.parquet.ParquetWriter` for a table of ``schema``."""
    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name in _DICTIONARY],
        "write_page_index": True,
    }
    if "mel" in schema.names:
        options["column_encoding"] = {"mel.list.element.list.element": "BYTE_STREAM_SPLIT"}
    return options


class TableWriter:
    """Writes the rows of one file in row groups of the table's size, whatever the pieces they come in.

    A context manager: the file is whole once the block is left, and no error has left it.
    """

    def __init__(self, sink: BinaryIO, table: str, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(sink, schema, **writer_options(schema))
        self._by_bytes = table in BLOB_TABLES
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """Append ``rows``, which must have the schema's columns."""
        step = max(1, rows.num_rows * ROW_GROUP_BYTES // max(1, 4 * rows.nbytes)) if self._by_bytes else ROW_GROUP_ROWS
        for start in range(0, rows.num_rows, step):
            piece = rows.slice(start, step)
            self._pending.append(piece)
            self._rows += piece.num_rows
            self._bytes += piece.nbytes
            if self._bytes >= ROW_GROUP_BYTES if self._by_bytes else self._rows >= ROW_GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        group = pa.concat_tables(self._pending).cast(self._schema)
        self._writer.write_table(group, row_group_size=max(1, group.num_rows))
        self.rows += group.num_rows
        self._pending, self._rows, self._bytes = [], 0, 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()  # else it is closed by the garbage collector, after the file beneath


def to_bytes(table: str, rows: pa.Table) -> pa.Buffer:
    """``rows`` as one Parquet file."""
    sink = pa.BufferOutputStream()
    with TableWriter(sink, table, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue()
