"""What is in force at a destination, as the ledgers of its runs tell it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Layout, Recipe, Storage
from schemas.errors import VoxmillError
from schemas.manifest import ArchiveCounts, RunManifest
from schemas.reasons import MAY_PASS, Reason
from schemas.records import (
    Archive,
    Member,
    Published,
    Reject,
    Shard,
)
from schemas.records import Layout as ArchiveLayout
from schemas.tables import DUPLICATE, LEDGER, RETRY
from workers.engines.base import Transcription
from workers.late import apply_late
from workers.ledger import PastRun, latest, published, rejected_again, runs_in_force, superseded
from workers.parquet import to_bytes
from workers.receipts import Staging
from workers.sources.entries import archive_reject
from workers.unchanged import done_archives
from workers.work import Recording, Utterance, Work
from workers.write import Write

STORAGE = Storage()


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
    duplicate = first | {"side": "", "status": DUPLICATE}
    publish_rows(tmp_path, "1", "f", [first | {"status": RETRY}, duplicate])
    assert published(runs_in_force(str(tmp_path), STORAGE), "f") == Published()
    publish_rows(tmp_path, "2", "f", [first | {"status": "published"}, duplicate])
    assert published(runs_in_force(str(tmp_path), STORAGE), "f").members == {("/a.tar", "x"): ("1", "s")}


def test_a_duplicate_whose_first_failed_in_another_shard_says_nothing_of_it(tmp_path: Path) -> None:
    duplicate = {"archive": "/a.tar", "member": "x", "member_key": "2", "side": "", "shard_id": "x"}
    duplicate |= {"status": DUPLICATE}
    publish_rows(tmp_path, "1", "f", [duplicate])
    known = published(runs_in_force(str(tmp_path), STORAGE), "f")
    assert known == Published(), "neither the first nor its archive is done"
    publish_ledger(tmp_path, "2", "f", {"x": "1"})
    publish_rows(tmp_path, "3", "f", [duplicate])
    runs = runs_in_force(str(tmp_path), STORAGE)
    assert published(runs, "f").members == {("/a.tar", "x"): ("1", "s")}
    assert [run.members.num_rows for run in runs] == [0, 1, 1], "what run 2 published of it stays in force"


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


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("1.json", b'{"run_id": 1}', r"_runs/1.json: not a manifest of this version"),
        ("1.members.parquet", b"PAR1", r"_runs/1.members.parquet: this ledger .* is damaged. Restore it"),
        ("1.members.parquet", None, r"_runs/1.members.parquet: this ledger .* is missing. Restore it"),
    ],
)
def test_a_run_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    publish_ledger(tmp_path, "1", "f", {"x": "1"})
    path = tmp_path / "_runs" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(VoxmillError, match=told) as error:
        runs_in_force(str(tmp_path), STORAGE)
    assert "\n" not in str(error.value)
