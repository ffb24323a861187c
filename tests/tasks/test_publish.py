"""Publishing, step by step, over shards of which nothing but rejects came."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.process
import tasks.publish
from flows.corpus import FAILED_QUALITY, NOTHING_NEW, nothing_new
from schemas.config import CorpusParameters, Gate, Layout, Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.reasons import MAY_PASS, Reason
from schemas.records import ID_TIME, Archive, Member, Plan, Receipt, Reject, Run, Shard
from schemas.records import Layout as ArchiveLayout
from schemas.tables import LEDGER, RETRY
from tasks.runs import after_published, find_manifest
from workers.again import Again, sources_again
from workers.arrow import table_of
from workers.ledger import runs_in_force
from workers.receipts import Staging
from workers.rows import reject_row
from workers.sources.entries import archive_reject

TAR = Archive("/a.tar", ArchiveLayout.TAR, 1, "1")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tasks.publish, "get_run_logger", lambda: logging.getLogger(__name__))
    return tmp_path / "lake"


def parameters_at(lake: Path, **form: bool) -> CorpusParameters:
    return CorpusParameters(sources=["/a.tar"], destination=str(lake), **form)


def staging_of(lake: Path) -> Staging:
    return Staging(Layout(destination=str(lake)).staging("f"), Storage())


Staged = tuple[Shard, Receipt]


def staged(
    lake: Path, name: str, reason: str = Reason.SILENT, text: str | None = None, is_heard: bool = False
) -> Staged:
    """A finished shard of one member, which was rejected; ``is_heard``: some of it was published."""
    staging = staging_of(lake)
    member = Member(f"{name}.wav", 1, TAR.uri, text=text)
    key, status = member.key(TAR.uri), RETRY if reason in MAY_PASS else "rejected"
    reject = Reject(TAR.uri, member.name, "decode", reason, "why", key)
    row = {"archive": TAR.uri, "member": member.name, "member_key": key, "side": member.side, "status": status}
    files = (
        staging.put_table(name, "rejects", table_of("rejects", [reject_row(reject, name)])),
        staging.put_table(name, "members", pa.Table.from_pylist([row | {"shard_id": name}], LEDGER)),
    )
    if is_heard:
        row = {"utterance_id": name, "archive": TAR.uri, "member": member.name, "duration_s": 1.0, "flags": []}
        files += (staging.put_table(name, "utterances", table_of("utterances", [row])),)
    counts = (1, int(is_heard), int(not is_heard), int(is_heard), float(is_heard))
    receipt = Receipt(name, TAR.uri, 0, *counts, files=files, reject_reasons={str(reason): 1})
    staging.put_receipt(receipt)
    return Shard(name, TAR, "f", (member,)), receipt


def published(lake: Path, run: str, *shards: Staged, rejects: tuple[Reject, ...] = (), **form: bool) -> RunManifest:
    """The manifest of a run that publishes, or what came of it instead."""
    planned = Plan("f", tuple(shard for shard, _ in shards), (TAR,), rejects=rejects)
    at = Run(run, "2026-01-01", "2026-01-01T00:00:00+00:00")
    return tasks.publish.publish.fn(planned, [receipt for _, receipt in shards], parameters_at(lake, **form), at)


def run_ids(lake: Path) -> list[str]:
    return sorted(path.stem for path in (lake / "_runs").glob("*.json"))


def test_what_fails_behind_the_manifest_is_a_warning(
    lake: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def clear(self: Staging, receipts: object) -> None:
        raise PermissionError("may not delete")

    monkeypatch.setattr(Staging, "clear", clear)
    manifest = published(lake, "20260101T000000Z-aaaaaaaa", staged(lake, "x"))
    assert (manifest.status, manifest.members_rejected) == ("published", 1)
    assert [one.name for one in (lake / "_runs").glob("*.json")] == ["20260101T000000Z-aaaaaaaa.json"]
    assert "may not delete" in caplog.text


GONE = archive_reject("/gone.tar", Reason.SOURCE_MISSING, "nothing is there", stage="discover")
OUT = Reason.OUT_OF_MEMORY


@pytest.mark.parametrize("is_heard", [False, True])
def test_what_is_rejected_as_before_is_not_published_again(lake: Path, is_heard: bool) -> None:
    first = published(lake, "1", staged(lake, "x", OUT, is_heard=is_heard), staged(lake, "y"), rejects=(GONE,))
    assert (first.members_in, first.members_published, first.rejected_again) == (3, int(is_heard), 0)
    again = published(lake, "2", staged(lake, "x", OUT, is_heard=is_heard), rejects=(GONE,))
    assert isinstance(again, Again)
    assert set(again.lines) == {"/a.tar, x.wav: out_of_memory", "/gone.tar: source_missing"}
    assert run_ids(lake) == ["1"]
    assert staging_of(lake).done() == frozenset()  # or else it would be taken for done, and not tried again
    # Beside something new it is said again, and still known as the same.
    with_news = published(lake, "3", staged(lake, "x", OUT, is_heard=is_heard), staged(lake, "z"), rejects=(GONE,))
    assert (with_news.members_in, with_news.rejected_again) == (3, 2 - is_heard)
    assert isinstance(published(lake, "4", staged(lake, "x", OUT, is_heard=is_heard), rejects=(GONE,)), Again)


def test_what_is_rejected_otherwise_is_published(lake: Path) -> None:
    published(lake, "1", staged(lake, "x", OUT))
    published(lake, "2", staged(lake, "x", Reason.MEMBER_MISSING))
    published(lake, "3", staged(lake, "x", Reason.MEMBER_MISSING, text="said"))
    published(lake, "4", staged(lake, "x", Reason.MEMBER_MISSING, text="said"), reprocess=True)
    published(lake, "5", staged(lake, "x"))
    published(lake, "6", staged(lake, "x", OUT), rejects=(GONE,))
    denied = archive_reject("/gone.tar", Reason.ACCESS_DENIED, "refused", stage="discover")
    published(lake, "7", staged(lake, "x", OUT), rejects=(denied,))
    assert run_ids(lake) == list("1234567")


def test_a_shard_that_failed_beside_nothing_new_fails_the_run(lake: Path) -> None:
    published(lake, "1", staged(lake, "x", OUT), rejects=(GONE,))
    shard, receipt = staged(lake, "y")
    failed = (shard, Receipt(receipt.shard_id, TAR.uri, 0, 1, 0, 0, 0, 0.0, failed="decode: no"))
    with pytest.raises(VoxmillError, match="1 shards failed, the first with decode: no"):
        published(lake, "2", staged(lake, "x", OUT), failed, rejects=(GONE,))
    assert run_ids(lake) == ["1"]
    assert "x" not in staging_of(lake).done()


def test_a_source_is_told_of_until_it_is_found_and_lost_again(lake: Path) -> None:
    def again(*rejects: Reject) -> bool:
        return sources_again(rejects, runs_in_force(str(lake), Storage())) is not None

    tar = archive_reject(TAR.uri, Reason.SOURCE_MISSING, "nothing is there", stage="discover")
    planned = Plan("f", (), (), rejects=(GONE, tar))
    assert not again(GONE, tar)
    at = Run("1", "2026-01-01", "2026-01-01T00:00:00+00:00")
    tasks.publish.publish.fn(planned, [], parameters_at(lake), at)
    assert again(GONE, tar)
    assert again(GONE)
    assert not again()
    assert not again(GONE, archive_reject("/other.tar", Reason.SOURCE_MISSING, "", stage="discover"))
    published(lake, "2", staged(lake, "x"))  # the tar is found
    assert again(GONE)
    assert not again(GONE, tar)


def test_the_latest_run_is_the_latest_with_utterances(lake: Path) -> None:
    published(lake, "1", staged(lake, "x"))
    assert find_manifest(str(lake), None, Storage()).run_id == "1"
    published(lake, "2", staged(lake, "y", OUT, is_heard=True))
    published(lake, "3", staged(lake, "z"))
    assert find_manifest(str(lake), None, Storage()).run_id == "2"
    assert find_manifest(str(lake), "3", Storage()).run_id == "3"


def test_what_is_published_last_is_in_force(lake: Path) -> None:
    """A run that started first, by its clock, and is published after another."""
    later, earlier = "20260101T235959Z-bbbbbbbb", "20260101T120000Z-aaaaaaaa"
    published(lake, later, staged(lake, "x"), staged(lake, "y"))
    manifest = published(lake, earlier, staged(lake, "x", text="changed"))
    assert (manifest.run_id, manifest.run_date) == ("20260102T000000Z-aaaaaaaa", "2026-01-02")
    assert all(f"/run_date=2026-01-02/run_id={manifest.run_id}/" in file.path for file in manifest.files)
    assert run_ids(lake) == [later, manifest.run_id]
    assert (lake / f"_runs/{manifest.run_id}.members.parquet").is_file()
    assert [(one.run_id, one.members) for one in manifest.supersedes] == [(later, 1)]
    in_force = {one.manifest.run_id: one.members.num_rows for one in runs_in_force(str(lake), Storage())}
    assert in_force == {later: 1, manifest.run_id: 1}


@given(st.text("0123456789TZ-ab", min_size=1, max_size=26) | st.datetimes().map(lambda at: f"{at:{ID_TIME}}-ffffffff"))
def test_an_id_follows_every_other(last: str) -> None:
    own = "20260101T120000Z-aaaaaaaa"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "_runs").mkdir()
        (Path(folder) / f"_runs/{last}.json").touch()
        run = after_published(Run(own, "2026-01-01", ""), folder, Storage())
    assert run.id > last
    assert (run.id == own) == (last < own)
    assert run.id.endswith("-aaaaaaaa")


@pytest.mark.parametrize("died_after", ["the manifest", "the receipts"])
def test_what_a_run_has_published_is_not_taken_up_by_a_later_one(
    lake: Path, died_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.process, "get_run_logger", lambda: logging.getLogger(__name__))

    def died(self: Staging, receipts: list[Receipt]) -> None:
        if died_after == "the receipts":
            for one in receipts:
                (lake / f"_staging/f/{one.shard_id}.receipt.json").unlink()

    def clear() -> set[str]:
        """Shards that have files left."""
        tasks.process.clear_finished(runs_in_force(str(lake), Storage()), "f", parameters_at(lake))
        return {path.name.partition(".")[0] for path in (lake / "_staging/f").iterdir()}

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "clear", died)
        published(lake, "1", staged(lake, "x"), staged(lake, "y"))
    staged(lake, "stopped")  # of a run that was stopped meanwhile
    tasks.process.clear_finished(runs_in_force(str(lake), Storage()), "g", parameters_at(lake))
    assert staging_of(lake).done() >= {"stopped"}
    assert clear() == {"stopped"}
    staged(lake, "x")  # of a run that does it all again, and was stopped
    assert clear() == {"stopped", "x"}
    assert staging_of(lake).done() == {"stopped", "x"}


def test_a_retry_that_finds_nothing_new_ends_as_its_first_attempt(lake: Path) -> None:
    """Under Prefect's retries a flow run goes on under the same id, at a later time."""
    parameters = parameters_at(lake).model_copy(update={"gate": Gate(max_reject_rate=0.1)})
    shard, receipt = staged(lake, "x")
    at = Run("20260101T000000Z-aaaaaaaa", "2026-01-01", "2026-01-01T00:00:00+00:00")
    breached = tasks.publish.publish.fn(Plan("f", (shard,), (TAR,)), [receipt], parameters, at)
    retried = nothing_new(None, dataclasses.replace(at, id="20260101T001000Z-aaaaaaaa"), parameters)
    assert (retried.type.value, retried.name) == ("FAILED", FAILED_QUALITY)
    assert breached.run_id in str(retried.message)
    another = nothing_new(None, dataclasses.replace(at, id="20260102T000000Z-bbbbbbbb"), parameters)
    assert (another.type.value, another.name) == ("COMPLETED", NOTHING_NEW)
