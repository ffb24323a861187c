"""What is printed of a run can be pasted."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import PublishedFile, RunManifest
from tasks.summary import query


@pytest.mark.parametrize("name", ["lake", "it's [2026] calls", "a]b", "what?", "a*"])
def test_the_query_finds_the_files_of_a_destination_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "utterances/run_date=2026-01-01/run_id=1"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"archive": ["a"], "duration_s": [3600.0], "wer": [0.5]}), folder / "part-00000.parquet")
    file = PublishedFile(
        table="utterances", path=f"{folder.relative_to(tmp_path / name)}/part-00000.parquet", rows=1, bytes=1
    )
    manifest = RunManifest.model_construct(files=[file], parameters={})
    assert duckdb.connect().execute(query(manifest, f"{tmp_path}/{name}")).fetchall() == [("a", 1, 1.0, 0.5)]
