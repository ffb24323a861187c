"""What a run hands to those that read one-way streams as known already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks.process
from schemas.config import CorpusParameters
from schemas.records import Plan, Published, Receipt, Run

KNOWN = Published({("/a.tar.gz", "0.wav"): ("key", "side")}, frozenset("A"))


@pytest.mark.parametrize(("reprocess", "expected"), [(False, KNOWN), (True, Published())])
def test_nothing_is_known_to_a_run_that_does_all_again(
    reprocess: bool, expected: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []

    def process_shards(shards: Any, job: Any, cluster: Any, published: Published, done: Any) -> Iterator[Receipt]:
        handed.append(published)
        return iter(())

    monkeypatch.setattr(tasks.process, "process_shards", process_shards)
    monkeypatch.setattr(tasks.process, "get_run_logger", lambda: logging.getLogger(__name__))
    parameters = CorpusParameters(sources=["/a.tar.gz"], destination=str(tmp_path), reprocess=reprocess)
    run = Run("1", "2026-01-01", "2026-01-01T00:00:00+00:00")
    assert tasks.process.process.fn(Plan("f", (), ()), parameters, KNOWN, run) == []
    assert handed == [expected]
