"""What verification says of the staging area."""

from __future__ import annotations

from pathlib import Path

from schemas.config import Storage
from tasks.verify import unfinished


def test_what_is_staged_is_named_by_its_settings(tmp_path: Path) -> None:
    assert unfinished(str(tmp_path), Storage()) == []
    for name in ("f/.writable", "f/a.audio.parquet", "f/a.receipt.json", "g/.writable"):
        path = tmp_path / "_staging" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if path.name[0] == "." else b"12345")
    (line,) = unfinished(str(tmp_path), Storage())
    assert line.startswith("_staging/f: 2 files (10 B) of unpublished shards, the last on 20")
