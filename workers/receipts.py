"""The staging area: rows under deterministic names, and receipts, whose presence means that a shard is done.

All lies flat under ``_staging/<fingerprint>/``: ``<shard>.<table>.parquet``, then ``<shard>.receipt.json``. A rerun
overwrites; a crash before the receipt leaves files that nobody reads.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.records import ErrorCounts, Receipt, StagedFile, StageTime
from workers.parquet import to_bytes
from workers.storage import changed_at, open_filesystem, put_bytes, read_all, remove

_RECEIPT = ".receipt.json"


class Staging:
    """Files of one fingerprint's unfinished shards at ``url`` (:meth:`schemas.config.Layout.staging`)."""

    def __init__(self, url: str, storage: Storage) -> None:
        self.url, self._storage = url, storage

    @cached_property
    def _opened(self):  # type: ignore[no-untyped-def]
        return open_filesystem(self.url, self._storage)

    def put_table(self, shard_id: str, table: str, rows: pa.Table) -> StagedFile:
        """Stage the rows of one table of a shard; raises OSError where the store refuses."""
        fs, root = self._opened
        data = to_bytes(table, rows)
        name = f"{shard_id}.{table}.parquet"
        put_bytes(fs, f"{root}/{name}", data.to_pybytes())
        return StagedFile(table, f"{self.url}/{name}", rows.num_rows, data.size)

    def read(self, file: StagedFile) -> pa.Table:
        """The rows of one staged file; raises VoxmillError where it has gone."""
        fs, root = self._opened
        try:
            data = fs.cat_file(f"{root}/{file.path.rsplit('/', 1)[-1]}")
        except FileNotFoundError:
            raise _gone(file.path) from None
        return pq.read_table(pa.BufferReader(data))

    def rows(self, receipt: Receipt, table: str) -> list[dict[str, Any]]:
        """Rows of one table of a staged shard; none where it has no such table."""
        return [row for file in receipt.files if file.table == table for row in self.read(file).to_pylist()]

    def replace(self, receipt: Receipt, tables: dict[str, pa.Table], **fields: Any) -> Receipt:
        """Stage ``tables`` of a shard anew, and its receipt with these ``fields``; returns the receipt that now holds.

        Files are overwritten, so doing it twice is doing it once.
        """
        written = [self.put_table(receipt.shard_id, name, rows) for name, rows in tables.items()]
        kept = [file for file in receipt.files if file.table not in tables]
        receipt = dataclasses.replace(receipt, files=(*kept, *written), **fields)
        self.put_receipt(receipt)
        return receipt

    def put_receipt(self, receipt: Receipt) -> None:
        """Mark a shard as done; the last thing that happens to it."""
        fs, root = self._opened
        put_bytes(fs, f"{root}/{receipt.shard_id}{_RECEIPT}", to_json(receipt))

    def done(self) -> frozenset[str]:
        """Ids of the shards that have a receipt."""
        fs, root = self._opened
        fs.invalidate_cache(root)
        try:
            names = fs.ls(root, detail=False)
        except FileNotFoundError:
            return frozenset()
        return frozenset(name.rsplit("/", 1)[-1].removesuffix(_RECEIPT) for name in names if name.endswith(_RECEIPT))

    def clear_finished(self, finished: Mapping[str, float | None]) -> int:
        """Remove what a run that published has left of shards, by a death before or in :meth:`clear`; how many files.

        ``finished``: shard -> when it was published. A file that is newer is of a run that does the shard once more.
        """
        fs, root = self._opened
        fs.invalidate_cache(root)
        try:
            infos = fs.ls(root, detail=True) if finished else []
        except FileNotFoundError:
            return 0
        left = []
        for info in infos:
            shard_id = info["name"].rsplit("/", 1)[-1].partition(".")[0]
            published, staged = finished.get(shard_id), changed_at(info)
            if shard_id in finished and (published is None or staged is None or staged <= published):
                left.append(f"{root}/{info['name'].rsplit('/', 1)[-1]}")
        remove(fs, [path for path in left if path.endswith(_RECEIPT)])
        remove(fs, [path for path in left if not path.endswith(_RECEIPT)])
        return len(left)

    def receipts(self, shard_ids: Iterable[str]) -> list[Receipt]:
        """The receipts of ``shard_ids``, which must be done, marked as ``resumed``; fetched side by side.

        Raises VoxmillError where one has gone.
        """
        fs, root = self._opened
        paths = [f"{root}/{shard_id}{_RECEIPT}" for shard_id in shard_ids]
        found = []
        for path, data in zip(paths, read_all(fs, paths), strict=True):
            if data is None:
                raise _gone(path)
            found.append(dataclasses.replace(from_json(data), resumed=True))
        return found

    def clear(self, receipts: Iterable[Receipt]) -> None:
        """Remove what is published, as far as it is there: another run of the same shards may have done so already.

        Receipts go first: a crash in between leaves unread files, not half a shard.
        """
        fs, root = self._opened
        receipts = list(receipts)
        marks = [f"{root}/{receipt.shard_id}{_RECEIPT}" for receipt in receipts]
        files = [f"{root}/{file.path.rsplit('/', 1)[-1]}" for receipt in receipts for file in receipt.files]
        for paths in (marks, files):
            remove(fs, paths)


def _gone(path: str) -> VoxmillError:
    return VoxmillError(
        "a finished shard has gone: another run has published it meanwhile, or somebody removed it",
        path,
        "Nothing is lost and this run publishes nothing: run again for what is left to do",
    )


def to_json(receipt: Receipt) -> bytes:
    return json.dumps(dataclasses.asdict(receipt), sort_keys=True).encode()


def from_json(data: bytes) -> Receipt:
    """The receipt written by :func:`to_json`."""
    fields = json.loads(data)
    fields["files"] = tuple(StagedFile(**file) for file in fields["files"])
    fields["words"] = {key: ErrorCounts(**counts) for key, counts in fields["words"].items()}
    fields["stages"] = {key: StageTime(**time) for key, time in fields["stages"].items()}
    fields["padding"] = {spec: tuple(seconds) for spec, seconds in fields.get("padding", {}).items()}
    fields["stream_shards"] = tuple(fields["stream_shards"])
    return Receipt(**fields)
