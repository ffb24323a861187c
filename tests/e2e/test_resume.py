"""Nightly runs over archives that grow and change: only what is new is done, and it supersedes what it replaces."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from infra.demo.corpus import Studio
from infra.demo.packs import tar_bytes
from schemas.config import FeatureSettings, Recipe
from schemas.manifest import RunManifest
from tests.e2e.readme import recipes
from tests.e2e.runs import Lake, Mill

Clips = dict[str, tuple[bytes, str]]  # stem -> WAV, what is said


@pytest.fixture(scope="module")
def clips() -> Clips:
    studio = Studio(seed=7)
    recordings = [studio.record(8_000) for _ in range(8)]
    return {f"{number:02d}": (one.encode("WAV"), one.text) for number, one in enumerate(recordings)}


def pack(folder: Path, clips: Clips, in_tar: list[str], in_folder: list[str]) -> list[Path]:
    """A tar and a folder with a ``.txt`` beside each clip; files that are there already are left untouched."""
    members: dict[str, bytes] = {}
    for stem in in_tar:
        members |= {f"{stem}.wav": clips[stem][0], f"{stem}.txt": clips[stem][1].encode()}
    (folder / "calls").mkdir(parents=True, exist_ok=True)
    for stem in in_folder:
        path = folder / "calls" / f"{stem}.wav"
        if not path.exists():
            path.write_bytes(clips[stem][0])
            path.with_suffix(".txt").write_text(clips[stem][1])
    (folder / "calls.tar").write_bytes(tar_bytes(members))
    return [folder / "calls.tar", folder / "calls"]


def done(lake: Lake, run: int = -1) -> set[tuple[str, str]]:
    """(archive, stem) of the members that a run published."""
    rows = lake.rows("utterances", run)
    return {(Path(row["archive"]).name, Path(row["member"]).stem) for row in rows}


def test_nightly_runs(mill: Mill, clips: Clips, tmp_path: Path) -> None:
    """One lake through six nights, in order: each night's outcome depends on the nights before."""
    lake = Lake(str(tmp_path / "lake"))
    sources = pack(tmp_path, clips, ["00", "01", "02"], ["03", "04"])

    def night(**form: object) -> RunManifest | None:
        return mill.run(sources, lake.url, **form)

    first = night()
    assert first is not None
    assert (first.members_in, first.members_published, first.supersedes) == (5, 5, [])

    assert night() is None
    assert len(lake.manifests()) == 1

    pack(tmp_path, clips, ["00", "01", "02", "05"], ["03", "04", "06"])
    grown = night()
    assert grown is not None
    assert done(lake) == {("calls.tar", "05"), ("calls", "06")}
    assert (grown.members_in, grown.supersedes) == (2, [])

    # A reference that is corrected: its clip is scored again and replaces the older row, and nothing else is touched.
    (tmp_path / "calls" / "03.txt").write_text("zero")
    corrected = night()
    assert corrected is not None
    assert done(lake) == {("calls", "03")}
    assert lake.rows("utterances")[0]["reference"] == "zero"
    assert [(one.run_id, one.members, one.whole) for one in corrected.supersedes] == [(first.run_id, 1, False)]

    # A recording that is replaced under its old name.
    (tmp_path / "calls" / "04.wav").write_bytes(clips["07"][0])
    replaced = night()
    assert replaced is not None
    assert done(lake) == {("calls", "04")}
    assert [(one.run_id, one.members) for one in replaced.supersedes] == [(first.run_id, 1)]

    # Readers see every clip once, the latest way.
    in_force = recipes("sql", lake.url)[0]
    assert [row[:2] for row in duckdb.connect().execute(in_force).fetchall()] == [
        (str(tmp_path / "calls"), 3),
        (str(tmp_path / "calls.tar"), 4),
    ]

    # Other settings: everything is done again, and every run so far is replaced as a whole.
    coarse = Recipe(features=FeatureSettings(n_mels=40))
    everything = {("calls.tar", stem) for stem in ("00", "01", "02", "05")} | {("calls", s) for s in ("03", "04", "06")}
    changed = night(recipe=coarse)
    assert changed is not None
    assert done(lake) == everything
    assert {row["n_mels"] for row in lake.rows("features")} == {40}
    earlier = [first.run_id, grown.run_id, corrected.run_id, replaced.run_id]
    assert sorted((one.run_id, one.whole) for one in changed.supersedes) == [(run, True) for run in sorted(earlier)]

    assert night(recipe=coarse) is None
    again = night(recipe=coarse, reprocess=True)
    assert again is not None
    assert done(lake) == everything
    assert [(one.run_id, one.whole) for one in again.supersedes] == [(changed.run_id, True)]
    assert lake.digests(-1) == lake.digests(-2)

    # A source that is not there is published once, and makes no run of a night that has nothing else.
    sources.append(tmp_path / "missing.tar")
    told = night(recipe=coarse)
    assert told is not None
    assert (told.members_in, told.utterances, told.reject_reasons) == (1, 0, {"source_missing": 1})
    assert night(recipe=coarse) is None
    assert len(lake.manifests()) == 7
