"""Publishing, step by step, over shards of which nothing but rejects came."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

import tasks.publish
from schemas.config import CorpusParameters, Layout
from schemas.manifest import RunManifest
from schemas.reasons import Reason
from schemas.records import Archive, Member, Plan, Receipt, Reject, Run, Shard
from schemas.records import Layout as ArchiveLayout
from schemas.tables import LEDGER
from workers.arrow import table_of
from workers.receipts import Staging
from workers.rows import reject_row

TAR = Archive("/a.tar", ArchiveLayout.TAR, 1, "1")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tasks.publish, "get_run_logger", lambda: logging.getLogger(__name__))
    return tmp_path / "lake"


def parameters_at(lake: Path) -> CorpusParameters:
    return CorpusParameters(sources=["/a.tar"], destination=str(lake))


def staged(lake: Path, name: str, reason: str = Reason.SILENT, status: str = "rejected") -> tuple[Shard, Receipt]:
    """A finished shard of one member, which was rejected."""
    staging = Staging(Layout(destination=str(lake)).staging("f"), parameters_at(lake).storage)
    member = Member(f"{name}.wav", 1, TAR.uri)
    key = member.key(TAR.uri)
    reject = Reject(TAR.uri, member.name, "decode", reason, "why", key)
    row = {"archive": TAR.uri, "member": member.name, "member_key": key, "side": member.side, "status": status}
    files = (
        staging.put_table(name, "rejects", table_of("rejects", [reject_row(reject, name)])),
        staging.put_table(name, "members", pa.Table.from_pylist([row | {"shard_id": name}], LEDGER)),
    )
    receipt = Receipt(name, TAR.uri, 0, 1, 0, 1, 0, 0.0, files=files, reject_reasons={str(reason): 1})
    staging.put_receipt(receipt)
    return Shard(name, TAR, "f", (member,)), receipt


def published(lake: Path, run: str, *shards: tuple[Shard, Receipt]) -> RunManifest:
    planned = Plan("f", tuple(shard for shard, _ in shards), (TAR,))
    at = Run(run, "2026-01-01", "2026-01-01T00:00:00+00:00")
    return tasks.publish.publish.fn(planned, [receipt for _, receipt in shards], parameters_at(lake), at)


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
