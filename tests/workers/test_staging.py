"""The staging area: names as they stand, and other runs that come and go at the same destination."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.records import Receipt
from schemas.tables import LEDGER
from tests.conftest import S3
from workers.receipts import Staging

STORAGE = Storage()


def stage(staging: Staging, *shard_ids: str) -> list[Receipt]:
    """Receipts of finished shards, each with a file."""
    rows = pa.Table.from_pylist([dict.fromkeys(LEDGER.names, "x")], LEDGER)
    receipts = [
        Receipt(one, "/a.tar", 0, 1, 1, 0, 1, 1.0, files=(staging.put_table(one, "members", rows),))
        for one in shard_ids
    ]
    for receipt in receipts:
        staging.put_receipt(receipt)
    return receipts


def kept_and_cleared(url: str, storage: Storage) -> list[str]:
    """What is left of two finished shards once the first is cleared; both must be found before."""
    staging = Staging(url, storage)
    receipts = stage(staging, "a", "b")
    expected = [dataclasses.replace(one, resumed=True) for one in receipts]
    assert Staging(url, storage).receipts(sorted(staging.done())) == expected
    staging.clear(receipts[:1])
    return sorted(staging.done())


@pytest.mark.parametrize("name", ["plain", "[2026] calls", "a]b", "what?", "a*b", "[", "[!a]"])
def test_names_of_destinations_are_no_patterns(name: str, tmp_path: Path) -> None:
    assert kept_and_cleared(f"{tmp_path}/{name}/_staging/f", STORAGE) == ["b"]
    assert [path.name for path in (tmp_path / name / "_staging/f").iterdir() if path.name.startswith("a.")] == []


@pytest.mark.parametrize("name", ["plain", "[2026] calls?*"])
def test_names_of_destinations_are_no_patterns_in_s3(name: str, s3: S3) -> None:
    bucket = s3.bucket("staging")
    assert kept_and_cleared(f"{bucket}/{name}/_staging/f", Storage(**s3.storage)) == ["b"]
    left = s3.filesystem().find(bucket)
    assert sorted(path.rpartition("/")[2] for path in left) == ["b.members.parquet", "b.receipt.json"]


def test_what_another_run_has_cleared_is_cleared(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path), STORAGE)
    receipts = stage(staging, "a", "b", "c")
    (tmp_path / "a.members.parquet").unlink()
    (tmp_path / "b.receipt.json").unlink()
    staging.clear(receipts)
    staging.clear(receipts)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VoxmillError, match=r"another run has published it meanwhile.*run again"):
        staging.receipts(["a"])  # as found a moment before


def test_in_s3_a_shard_is_finished_by_what_is_older_than_its_publication(s3: S3) -> None:
    storage = Storage(**s3.storage)
    staging = Staging(f"{s3.bucket('staging')}/_staging/f", storage)
    stage(staging, "a", "b", "c")
    now = time.time()
    assert staging.clear_finished({}) == 0
    assert staging.clear_finished({"a": now + 60, "b": now - 60, "d": now}) == 2
    assert staging.done() == {"b", "c"}
    assert staging.clear_finished({"b": None}) == 2
    assert staging.done() == {"c"}
