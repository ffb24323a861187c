"""Hours of a plan from headers alone."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from source_archives import clips, tar_bytes, write, zip_bytes

from schemas.config import CorpusParameters
from schemas.records import Published
from workers.sources.discover import discover
from workers.sources.estimate import estimate_plan
from workers.sources.planning import make_plan


def test_estimates_come_close_and_say_what_they_rest_on(tmp_path: Path, shared_data: Path) -> None:
    files = [(f"{i}.wav", clip) for i, clip in enumerate(clips(shared_data, 40))]
    truth = sum((len(clip) - 44) / 16_000 for _, clip in files)  # 8 kHz, 16 bits: half of what the table takes wav for
    flac = [(p.name, p.read_bytes()) for p in sorted((shared_data / "librispeech-test-other").glob("1688*.flac"))]
    broken = [(f"{i}.wav", b"no header at all") for i in range(3)]
    write(tmp_path, [
        ("a.tar", tar_bytes(files)), ("b.zip", zip_bytes(files)), ("c.tar.gz", gzip.compress(tar_bytes(files))),
        *((f"loose/{name}", data) for name, data in flac), ("broken.tar", tar_bytes(broken)),
    ])  # fmt: skip
    sources = [str(tmp_path / name) for name in ("a.tar", "b.zip", "c.tar.gz", "loose", "broken.tar")]
    parameters = CorpusParameters(sources=sources, destination=str(tmp_path / "out"))
    plan = make_plan(discover(sources, parameters.storage), "f", parameters, Published())
    tar, zipped, stream, loose, noise = estimate_plan(plan, parameters.storage)
    for estimate in (tar, zipped, stream):
        assert estimate.seconds == pytest.approx(truth, rel=0.15)
    assert stream.how.startswith("one-way stream, from 40 headers")
    assert loose.seconds == pytest.approx(2.835 + 5.06 + 4.475 + 9.215 + 5.38, rel=0.2)
    assert (tar.probed, tar.members, noise.probed, noise.how) == (14, 40, 0, "from sizes, by format")
