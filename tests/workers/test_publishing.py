"""Counts, compaction, ledgers: what a run may publish and what a later one may skip."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import CorpusParameters, Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.reasons import Reason
from schemas.records import (
    Archive,
    ErrorCounts,
    Plan,
    Receipt,
    Run,
    Shard,
    StagedFile,
    StageTime,
)
from schemas.records import Layout as ArchiveLayout
from schemas.tables import LEDGER, TABLES, schema_of
from tasks.summary import figures
from tasks.verify import verify_run
from workers import publishing
from workers.arrow import table_of
from workers.compact import Part, parts_of, write_table
from workers.publishing import check_counts, stage_source_rejects, write_parts
from workers.receipts import Staging, from_json, to_json
from workers.sources.entries import archive_reject
from workers.storage import put_bytes
from workers.summing import manifest_of

STORAGE = Storage()


def receipt(shard_id: str, **fields: object) -> Receipt:
    counts = {"members_in": 3, "members_published": 2, "members_rejected": 1, "utterances": 2, "audio_s": 4.5}
    return Receipt(**{"shard_id": shard_id, "archive_uri": "/a.tar", "index": 0} | counts | fields)  # type: ignore[arg-type]


def plan_of(*receipts: Receipt) -> Plan:
    archive = Archive("/a.tar", ArchiveLayout.TAR)
    member = dataclasses.make_dataclass("M", [])()
    shards = [Shard(one.shard_id, archive, "f", members=(member,) * one.members_in) for one in receipts]  # type: ignore[arg-type]
    return Plan("f", tuple(shards), (archive,))


def test_counts_that_do_not_add_up_stop_the_run() -> None:
    good = receipt("a")
    check_counts(plan_of(good), [good])
    for bad, words in (
        ([receipt("a", members_published=3)], "3 members in, 3 published, 1 rejected"),
        ([receipt("a", members_in=4, members_rejected=2)], "3 members in"),
        ([], "gave no receipt"),
        ([good, good], "two receipts"),
    ):
        with pytest.raises(VoxmillError, match=words):
            check_counts(plan_of(good), bad)


def test_a_receipt_survives_its_file() -> None:
    full = receipt(
        "a",
        files=(StagedFile("audio", "/s/a.audio.parquet", 2, 10),),
        words={"whisper:x|raw": ErrorCounts(5, 1, 2, 3)},
        stages={"decode": StageTime(1.0, 0.5)},
        reject_reasons={"silent": 1},
        stream_shards=("b", "c"),
    )
    assert from_json(to_json(full)) == full


sizes = st.lists(st.tuples(st.sampled_from(TABLES), st.integers(1, 300)), max_size=40)


@given(sizes, st.integers(1, 500))
def test_every_staged_file_is_published_once_in_order(files: list[tuple[str, int]], limit: int) -> None:
    receipts = [
        receipt(str(at), files=(StagedFile(table, f"/s/{at}", 1, size),)) for at, (table, size) in enumerate(files)
    ]
    parts = parts_of(receipts, "p", limit)
    for table in TABLES:
        published_order = [file for part in parts if part.table == table for file in part.files]
        assert published_order == [file for one in receipts for file in one.files if file.table == table]
    assert all(sum(file.bytes for file in part.files) <= limit or len(part.files) == 1 for part in parts)
    assert len({part.path for part in parts}) == len(parts)


def test_staging_forgets_what_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "s"), STORAGE)
    assert staging.done() == frozenset()
    rows = pa.Table.from_pylist([dict.fromkeys(LEDGER.names, "x")], LEDGER)
    receipts = [receipt(name, files=(staging.put_table(name, "members", rows),)) for name in "ab"]
    staging.put_table("c", "members", rows)  # a crash before its receipt
    for one in receipts:
        staging.put_receipt(one)
    assert staging.done() == {"a", "b"}
    assert staging.receipts(["b", "a"]) == [dataclasses.replace(one, resumed=True) for one in receipts[::-1]]
    assert staging.read(receipts[0].files[0]).equals(rows)
    staging.clear(receipts[:1])
    assert staging.done() == {"b"}


def test_a_staged_file_that_has_gone_is_told_in_one_line(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging(str(tmp_path / "s"), STORAGE)
    rows = pa.Table.from_pylist([dict.fromkeys(LEDGER.names, "x")], LEDGER)
    receipts = [receipt(name, files=(staging.put_table(name, "members", rows),)) for name in "ab"]
    for one in receipts:
        staging.put_receipt(one)
    parts = [Part("utterances", f"utterances/{one.shard_id}.parquet", one.files) for one in receipts]
    staging.clear(receipts)  # as another run does that has published them
    for least in (publishing.SMALL_BYTES, 0):  # in this process, and as Ray tasks
        monkeypatch.setattr(publishing, "SMALL_BYTES", least)
        with pytest.raises(VoxmillError, match=r"another run has published it meanwhile.*run again") as told:
            write_parts(parts, str(tmp_path / "lake"), staging, STORAGE)
        assert "\n" not in str(told.value)


def test_published_files_are_the_same_whoever_writes_them(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging(str(tmp_path / "s"), STORAGE)
    rows = [{"archive": "a", "member": str(at), "reason": "silent", "stage": "decode"} for at in range(100)]
    files = [staging.put_table(name, "rejects", table_of("rejects", rows)) for name in "abc"]
    parts = [Part("rejects", f"{at}.parquet", (file,)) for at, file in enumerate(files)]
    here = write_parts(parts, str(tmp_path / "here"), staging, STORAGE)
    monkeypatch.setattr(publishing, "SMALL_BYTES", 0)
    assert write_parts(parts, str(tmp_path / "there"), staging, STORAGE) == here
    for part in parts:
        assert (tmp_path / "here" / part.path).read_bytes() == (tmp_path / "there" / part.path).read_bytes()


def summed(
    plan: Plan, receipts: list[Receipt], tmp_path: Path, started_at: str = "2026-01-01T00:00:00Z"
) -> RunManifest:
    parameters = CorpusParameters(sources=["/a.tar"], destination=str(tmp_path / "lake"))
    run, quality = Run("1", "2026-01-01", started_at), schema_of("quality").empty_table()
    return manifest_of(run, plan, parameters, receipts, [], [], quality, [])


def test_sources_that_cannot_be_read_count_each_for_itself(tmp_path: Path) -> None:
    """A missing source is no archive of the plan; a damaged archive is; neither bears the other's blame."""
    rejects = (
        archive_reject("/gone.tar", Reason.SOURCE_MISSING, "nothing there", stage="discover"),
        archive_reject("/a.tar", Reason.ARCHIVE_TRUNCATED, "ends in the middle"),
        archive_reject("/no*", Reason.SOURCE_MISSING, "no match", stage="discover"),
    )
    good = receipt("a", utterances=0, audio_s=0.0)
    plan = dataclasses.replace(plan_of(good), rejects=rejects)
    staging = Staging(str(tmp_path / "s"), STORAGE)
    manifest = summed(plan, [good, *stage_source_rejects(plan, staging)], tmp_path)
    assert [(a.uri, a.members_in, a.members_published, a.members_rejected) for a in manifest.archives] == [
        ("/a.tar", 4, 2, 2), ("/gone.tar", 1, 0, 1), ("/no*", 1, 0, 1),
    ]  # fmt: skip
    assert [(a.layout, a.whole) for a in manifest.archives] == [("tar", True), ("", False), ("", False)]
    assert (manifest.members_in, manifest.members_rejected) == (6, 4)
    assert verify_run(manifest, str(tmp_path / "lake"), STORAGE) == []
    assert stage_source_rejects(plan, staging) == stage_source_rejects(plan, staging)
    assert stage_source_rejects(plan_of(good), staging) == []
    done = dataclasses.replace(plan_of(good), unopened=frozenset({"/a.tar"}))
    assert summed(done, [], tmp_path).archives == []  # an earlier run's manifest has it


def test_only_what_a_run_has_done_itself_counts_in_its_pace(tmp_path: Path) -> None:
    started = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=100)).isoformat()
    old, new = receipt("a", audio_s=7200.0, resumed=True), receipt("b", audio_s=3600.0)
    manifest = summed(plan_of(old, new), [old, new], tmp_path, started)
    assert (manifest.hours, manifest.resumed_hours) == (3.0, 2.0)
    assert manifest.real_time_factor == pytest.approx(36, rel=0.1)
    assert "3.00 h (2.00 h of it from a stopped run) in 0:01:4" in figures(manifest)
    idle = summed(plan_of(old), [old], tmp_path, started)
    assert idle.real_time_factor == 0
    assert "2.00 h (2.00 h of it from a stopped run)" in figures(idle)
    assert "nothing was left to process" in figures(idle)


def test_what_is_written_in_one_put_is_whole_or_absent(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("file")
    put_bytes(fs, str(tmp_path / "new/a"), b"one")
    put_bytes(fs, str(tmp_path / "new/a"), b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    assert (tmp_path / "new/a").read_bytes() == b"two"


def test_row_groups_do_not_depend_on_the_pieces_they_come_in(tmp_path: Path) -> None:
    rows = [{"archive": "a", "member": str(at), "reason": "silent", "stage": "decode"} for at in range(1000)]
    whole = table_of("rejects", rows)
    pieces = [whole.slice(0, 10), whole.slice(10, 700), whole.slice(710)]
    for name, given_pieces in (("one", [whole]), ("many", pieces)):
        write_table("rejects", iter(given_pieces), f"{name}.parquet", str(tmp_path), STORAGE)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()
