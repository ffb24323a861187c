"""Clips as they were published: denoised or regenerated audio, read out of a run's Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from schemas.config import Storage
from schemas.manifest import PublishedFile
from workers.storage import open_filesystem

ROWS = 64  # read at once: clips of up to half a minute each


def blobs(
    files: Sequence[PublishedFile],
    table: str,
    key: tuple[str, ...],
    wanted: Mapping[tuple[Any, ...], dict[str, Any]],
    destination: str,
    storage: Storage,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row of ``wanted`` (by its ``key`` columns) with what ``table`` holds of it: ``audio``, ``sample_rate`` and
    ``duration_s``; in the files' order. Memory is bounded by :data:`ROWS` clips."""
    columns = [*key, "audio", "sample_rate", "duration_s"]
    for file in (file for file in files if file.table == table):
        fs, path = open_filesystem(f"{destination}/{file.path}", storage)
        with fs.open(path, "rb") as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=ROWS, columns=columns):
                for row in batch.to_pylist():
                    found = wanted.get(tuple(row[name] for name in key))
                    if found is not None:
                        yield found, row
