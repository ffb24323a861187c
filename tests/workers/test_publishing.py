"""Counts, compaction, ledgers: what a run may publish and what a later one may skip."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import CorpusParameters, Layout, Recipe, Storage
from schemas.errors import VoxmillError
from schemas.manifest import ArchiveCounts, RunManifest
from schemas.reasons import MAY_PASS, Reason
from schemas.records import (
    Archive,
    ErrorCounts,
    Member,
    Plan,
    Published,
    Receipt,
    Reject,
    Run,
    Shard,
    StagedFile,
    StageTime,
)
from schemas.records import Layout as ArchiveLayout
from schemas.tables import LEDGER, RETRY, TABLES, schema_of
from tasks.summary import figures
from tasks.verify import verify_run
from workers import publishing
from workers.arrow import table_of
from workers.compact import Part, parts_of, write_table
from workers.engines.base import Transcription
from workers.late import apply_late
from workers.ledger import PastRun, latest, published, rejected_again, runs_in_force, superseded
from workers.parquet import to_bytes
from workers.publishing import check_counts, stage_source_rejects, write_parts
from workers.receipts import Staging, from_json, to_json
from workers.sources.entries import archive_reject
from workers.storage import put_bytes
from workers.summing import manifest_of
from workers.unchanged import done_archives
from workers.work import Recording, Utterance, Work
from workers.write import Write

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


def publish_ledger(
    destination: Path,
    run_id: str,
    fingerprint: str,
    members: dict[str, str],
    archive: str = "A",
    whole: bool = True,
    rows: list[tuple[str, str]] | None = None,
    retried: Sequence[str] = (),
) -> pa.Table:
    """A published run of ``/a.tar`` in its version ``archive``; ``rows`` in place of ``members`` may repeat a name."""
    ledger = [
        {"archive": "/a.tar", "member": name, "member_key": key, "side": "s", "shard_id": "x"}
        | {"status": RETRY if name in retried else "published"}
        for name, key in rows or members.items()
    ]
    return publish_rows(destination, run_id, fingerprint, ledger, archive, whole)


def publish_rows(
    destination: Path,
    run_id: str,
    fingerprint: str,
    rows: list[dict[str, str]],
    archive: str = "A",
    whole: bool = True,
) -> pa.Table:
    layout = Layout(destination=str(destination))
    table = pa.Table.from_pylist(rows, LEDGER)
    (destination / "_runs").mkdir(exist_ok=True)
    (destination / f"_runs/{run_id}.members.parquet").write_bytes(to_bytes("members", table))
    counts = {"members_in": len(rows), "members_published": 0, "members_rejected": 0, "utterances": 0, "hours": 0}
    of_it = ArchiveCounts(uri="/a.tar", id=archive, layout="tar", whole=whole, **counts)  # type: ignore[arg-type]
    manifest = RunManifest(
        run_id=run_id, run_date="2026-01-01", status="published", fingerprint=fingerprint, parameters={}, started_at="",
        finished_at="", members_in=0, members_published=0, members_rejected=0, utterances=0, hours=0, wall_s=0,
        real_time_factor=0, archives=[of_it], reject_reasons={}, word_errors=[], stages={}, files=[], digests={},
        versions={},
    )  # fmt: skip
    Path(layout.manifest(run_id)).write_text(manifest.model_dump_json())
    return table


@pytest.mark.parametrize("retried", [(), ("",)])  # as ledgers were, and as they are
def test_an_archive_is_known_as_a_whole_while_its_last_run_left_nothing_to_do(
    tmp_path: Path, retried: tuple[str, ...]
) -> None:
    def known(fingerprint: str = "f") -> set[str]:
        return set(published(runs_in_force(str(tmp_path), STORAGE), fingerprint).archives)

    publish_ledger(tmp_path, "1", "f", {"x": "1"}, whole=False)  # a shard of it failed
    assert known() == set()
    publish_ledger(tmp_path, "2", "f", {}, rows=[("y", "1"), ("y", "1")])  # a duplicate is named twice
    assert known() == {"A"}
    assert known("g") == set()
    publish_ledger(tmp_path, "3", "f", {})  # it was skipped: there were other archives to do
    assert known() == {"A"}
    publish_ledger(tmp_path, "4", "f", {"y": "2"}, archive="B")
    assert known() == {"B"}  # A is no longer what is published, should it come back
    unreachable = archive_reject("/a.tar", Reason.SOURCE_UNREACHABLE, "the store did not answer").member_key
    publish_ledger(tmp_path, "5", "f", {"": unreachable}, archive="C", retried=retried)  # found, but not listed
    assert known() == set()
    publish_ledger(tmp_path, "6", "f", {"z": "1"}, archive="C")
    assert known() == {"C"}
    publish_ledger(tmp_path, "7", "g", {"x": "1"}, archive="C", whole=False)  # other settings took some of it over
    assert (known(), known("g")) == (set(), set())


def test_a_member_that_is_to_be_tried_again_keeps_its_archive_open(tmp_path: Path) -> None:
    publish_ledger(tmp_path, "1", "f", {"x": "1", "y": "1"})
    runs = runs_in_force(str(tmp_path), STORAGE)
    members = published(runs, "f").members
    assert done_archives(runs, "f", members) == {"A"}
    del members["/a.tar", "y"]
    assert done_archives(runs, "f", members) == set()


def test_a_later_run_supersedes_members_it_has_done_again(tmp_path: Path) -> None:
    destination = str(tmp_path)
    assert runs_in_force(destination, STORAGE) == []
    publish_ledger(tmp_path, "1", "old", {"x": "1", "y": "1"})
    publish_ledger(tmp_path, "2", "new", {"y": "2", "z": "2"})
    runs = runs_in_force(destination, STORAGE)
    assert published(runs, "old").members == {("/a.tar", "x"): ("1", "s")}
    assert published(runs, "new").members == {("/a.tar", "y"): ("2", "s"), ("/a.tar", "z"): ("2", "s")}
    third = publish_ledger(tmp_path, "3", "new", {"x": "3", "z": "3"})
    replaced = {one.run_id: (one.members, one.whole) for one in superseded(runs, third)}
    assert replaced == {"1": (1, True), "2": (1, False)}
    assert published(runs_in_force(destination, STORAGE), "old").archives == frozenset()


def test_members_rejected_for_what_may_pass_are_not_done(tmp_path: Path) -> None:
    publish_ledger(tmp_path, "1", "f", {"x": "1", "y": "1", "z": "1"}, retried="y")
    runs = runs_in_force(str(tmp_path), STORAGE)
    assert published(runs, "f") == Published({("/a.tar", "x"): ("1", "s"), ("/a.tar", "z"): ("1", "s")})
    again = publish_ledger(tmp_path, "2", "f", {"y": "1"}, retried="y")  # once more in vain: nothing else is done again
    assert [(one.run_id, one.members, one.whole) for one in superseded(runs, again)] == [("1", 1, False)]
    runs = runs_in_force(str(tmp_path), STORAGE)
    assert published(runs, "f") == Published({("/a.tar", "x"): ("1", "s"), ("/a.tar", "z"): ("1", "s")})
    done = publish_ledger(tmp_path, "3", "f", {"y": "1"})
    assert [(one.run_id, one.members, one.whole) for one in superseded(runs, done)] == [("2", 1, True)]
    known = published(runs_in_force(str(tmp_path), STORAGE), "f")
    assert known == Published({("/a.tar", name): ("1", "s") for name in "xyz"}, frozenset("A"))


def test_duplicates_are_done_and_undone_with_their_first(tmp_path: Path) -> None:
    first = {"archive": "/a.tar", "member": "x", "member_key": "1", "side": "s", "shard_id": "x"}
    duplicate = first | {"side": "", "status": "rejected"}
    publish_rows(tmp_path, "1", "f", [first | {"status": RETRY}, duplicate])
    assert published(runs_in_force(str(tmp_path), STORAGE), "f") == Published()
    publish_rows(tmp_path, "2", "f", [first | {"status": "published"}, duplicate])
    assert published(runs_in_force(str(tmp_path), STORAGE), "f").members == {("/a.tar", "x"): ("1", "s")}


def test_the_ledger_tells_rejects_that_may_pass(tmp_path: Path) -> None:
    reasons = [None, *Reason]
    members = tuple(Member(f"{at}.wav", 1, "/a") for at in range(len(reasons)))
    at_sight = Reject("/a", "folder", "list", Reason.ACCESS_DENIED, "", "key")
    shard = Shard("s", Archive("/a", ArchiveLayout.FOLDER), "f", members, (at_sight,))
    work = Work(shard, 16_000)
    heard = Recording("WAV/PCM_16", 16_000, 1, 1.0)
    work.utterances = [Utterance(members[0], heard, None, 0.0, 1.0, np.zeros(16_000, np.float32))]
    work.reject("transcribe", members[0], Reason.OUT_OF_MEMORY, "one of two engines", work.utterances[0])
    for member, reason in zip(members[1:], Reason, strict=True):
        work.reject("decode", member, reason, "why")
    receipt = Write(Recipe(), str(tmp_path), STORAGE)(work)
    assert (receipt.members_in, receipt.members_published, receipt.members_rejected) == (
        len(reasons) + 1,
        1,
        len(reasons),
    )
    rows = Staging(str(tmp_path), STORAGE).rows(receipt, "members")
    status = {row["member"]: row["status"] for row in rows}
    assert status.pop("0.wav") == RETRY  # published in part
    assert status.pop("folder") == "rejected"  # every listing looks again
    retried = {reason for member, reason in zip(members, reasons, strict=True) if status.get(member.name) == RETRY}
    assert retried == MAY_PASS
    assert set(status.values()) == {RETRY, "rejected"}


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.sampled_from(list(Reason)), max_size=3)), max_size=6))
def test_a_member_that_lost_a_segment_for_what_may_pass_is_published_and_to_be_tried_again(
    drawn: list[tuple[int, list[Reason]]],
) -> None:
    """Members of some segments that were heard, and some that were not."""
    drawn = [(heard, lost) for heard, lost in drawn if heard or lost]
    members = tuple(Member(f"{at}.wav", 1, "/a") for at in range(len(drawn)))
    duplicate = Reject("/a", "0.wav", "list", Reason.DUPLICATE_MEMBER, "", "key")
    work = Work(Shard("s", Archive("/a", ArchiveLayout.FOLDER), "f", members, (duplicate,) if drawn else ()), 16_000)
    for member, (heard, lost) in zip(members, drawn, strict=True):
        samples, recording = np.zeros(16_000, np.float32), Recording("WAV/PCM_16", 16_000, 1, 1.0)
        segments = [Utterance(member, recording, None, at, at + 1.0, samples) for at in range(heard + len(lost))]
        work.utterances += segments[:heard]
        for segment, reason in zip(segments[heard:], lost, strict=True):
            work.reject("transcribe", member, reason, "why", segment)
    with tempfile.TemporaryDirectory() as folder:
        receipt = Write(Recipe(), folder, STORAGE)(work)
        rows = Staging(folder, STORAGE).rows(receipt, "members")
    assert receipt.members_in == len(drawn) + bool(drawn) == receipt.members_published + receipt.members_rejected
    assert receipt.members_published == sum(heard > 0 for heard, _ in drawn)
    status = [row["status"] for row in rows[: len(drawn)]]
    assert [one == RETRY for one in status] == [bool(MAY_PASS.intersection(lost)) for _, lost in drawn]
    assert all(
        one in (RETRY, "published" if heard else "rejected") for one, (heard, _) in zip(status, drawn, strict=True)
    )


def test_a_text_that_turns_out_to_be_anothers_is_taken_back(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"asr": {"transcribers": ["whisper:tiny"]}})
    member = Member("a.wav", 1, "/a.tar.gz", text="one", language="en", speaker="ann")
    heard = Recording("WAV/PCM_16", 16_000, 1, 1.0)
    utterance = Utterance(member, heard, None, 0.0, 1.0, np.zeros(16_000, np.float32))
    utterance.transcriptions = {("whisper:tiny", recipe.asr.first_input): Transcription("two", "en")}
    shard = Shard("s", Archive("/a.tar.gz", ArchiveLayout.STREAM), "f", (member,))
    written = Write(recipe, str(tmp_path), STORAGE)(Work(shard, 16_000, [utterance]))
    assert [counts.errors for counts in written.words.values()] == [1]
    late = {"a.wav": dict.fromkeys(("text", "language", "speaker"))}
    joined = apply_late(written, late, recipe, str(tmp_path), STORAGE)
    staging = Staging(str(tmp_path), STORAGE)
    (row,), (text,) = staging.rows(joined, "utterances"), staging.rows(joined, "transcripts")
    assert (row["reference"], row["speaker"], row["language"], row["wer"]) == (None, None, "en", None)
    assert (text["text"], text["normalized_reference"], text["hits"], joined.words) == ("two", None, None, {})


def test_what_is_to_be_tried_again_once_more_is_known() -> None:
    def ledger(**status: str) -> pa.Table:
        rows = [dict.fromkeys(LEDGER.names, "a") | {"member": name, "status": one} for name, one in status.items()]
        return pa.Table.from_pylist(rows, LEDGER)

    ledgers = (ledger(x=RETRY, y="published"), ledger(z=RETRY, w=RETRY))
    before = [PastRun(RunManifest.model_construct(), one) for one in ledgers]
    none = LEDGER.empty_table()
    assert rejected_again(before, ledger(x=RETRY, y=RETRY, z="published", w=RETRY), none) == 2
    assert rejected_again(before, ledger(x=RETRY, w=RETRY), ledger(w="")) == 1  # something of w is published
    assert rejected_again([], ledger(x=RETRY), none) == 0
    assert rejected_again(before, none, none) == 0


names = st.lists(st.tuples(st.sampled_from(["/a.tar", "/b.tar"]), st.sampled_from("xyz")), max_size=5)


@given(st.lists(names, max_size=6))
def test_what_is_in_force_is_what_no_later_run_names(runs: list[list[tuple[str, str]]]) -> None:
    ledgers = [
        pa.Table.from_pylist([dict.fromkeys(LEDGER.names, "") | {"archive": a, "member": m} for a, m in run], LEDGER)
        for run in runs
    ]
    found = [list(zip(*(t.column(c).to_pylist() for c in ("archive", "member")), strict=True)) for t in latest(ledgers)]
    later = [set().union(*runs[at + 1 :]) for at in range(len(runs))]
    assert found == [[one for one in run if one not in after] for run, after in zip(runs, later, strict=True)]


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
