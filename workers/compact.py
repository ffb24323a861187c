"""Compaction: the small staged files of many shards become few well-sized published ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from schemas.config import Storage
from schemas.manifest import PublishedFile
from schemas.records import Receipt, StagedFile
from schemas.tables import TABLES, schema_of
from workers.parquet import TableWriter
from workers.receipts import Staging
from workers.storage import open_filesystem


@dataclass(frozen=True)
class Part:
    """One file to publish and the staged files it is made of, in order."""

    table: str
    path: str  # relative to the destination
    files: tuple[StagedFile, ...]


def parts_of(receipts: Sequence[Receipt], partition: str, max_bytes: int) -> list[Part]:
    """Cut the staged files of ``receipts``, in their order, into parts of at most ``max_bytes`` (a lone file may be
    larger). ``partition`` is what stands between the table's name and the file's: ``run_date=…/run_id=…``."""
    parts: list[Part] = []
    for table in TABLES:
        groups: list[list[StagedFile]] = []
        size = 0
        for file in (file for receipt in receipts for file in receipt.files if file.table == table):
            if not groups or size + file.bytes > max_bytes:
                groups.append([])
                size = 0
            groups[-1].append(file)
            size += file.bytes
        parts += [
            Part(table, f"{table}/{partition}/part-{index:05d}.parquet", tuple(group))
            for index, group in enumerate(groups)
        ]
    return parts


def write_part(part: Part, destination: str, staging_url: str, storage: Storage) -> PublishedFile:
    """Write one part, a staged file at a time; on S3 the object appears when it is complete."""
    staging = Staging(staging_url, storage)
    return write_table(part.table, (staging.read(file) for file in part.files), part.path, destination, storage)


def write_table(name: str, pieces: Iterator[pa.Table], path: str, destination: str, storage: Storage) -> PublishedFile:
    """Write ``pieces`` of table ``name`` as one published file at ``path`` under ``destination``."""
    fs, target = open_filesystem(f"{destination}/{path}", storage)
    fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(target, "wb") as sink:
        with TableWriter(sink, name, schema_of(name)) as writer:
            for piece in pieces:
                writer.write(piece)
        size = sink.tell()
    return PublishedFile(table=name, path=path, rows=writer.rows, bytes=size)
