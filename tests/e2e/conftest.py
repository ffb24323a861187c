"""What the end-to-end tests share: the flow with small engines, and digits spoken by real people."""

from __future__ import annotations

import csv
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.runs import Mill


@pytest.fixture(scope="session")
def mill(ray_session: None, prefect_harness: None, bundled_checkpoints: dict[str, Path]) -> Mill:
    """The corpus flow with the bundled Whisper alone: enough for what does not concern engines."""
    return Mill((f"whisper:{bundled_checkpoints['whisper']}",))


@pytest.fixture(scope="session")
def full_mill(ray_session: None, prefect_harness: None, bundled_checkpoints: dict[str, Path]) -> Mill:
    """The corpus flow with both bundled engines."""
    return Mill(tuple(f"{family}:{bundled_checkpoints[family]}" for family in ("conformer", "whisper")))


@dataclass(frozen=True)
class Spoken:
    """A clip of one spoken digit: a WAV file's bytes, the word, and who said it."""

    name: str
    data: bytes
    text: str
    speaker: str


@pytest.fixture(scope="session")
def digits(shared_data: Path) -> list[Spoken]:
    """The clips of FSDD's test tar, in its order."""
    tar = shared_data / "fsdd" / "fsdd_test.tar"
    with open(tar.with_suffix(".transcripts.tsv"), newline="", encoding="utf-8") as table:
        rows = {row["file"]: row for row in csv.DictReader(table, delimiter="\t")}
    clips = []
    with tarfile.open(tar) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                row = rows[member.name]
                clips.append(Spoken(member.name, stream.read(), row["text"], row["speaker"]))
    return clips
