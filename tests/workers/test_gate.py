"""The gate: what it lets through, what it stops. CPU: about 12 s."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.config import Gate, Storage
from schemas.manifest import RunManifest
from tests.workers import report_corpus
from workers.gate import checks, judged
from workers.report import build_report
from workers.report.data import last_comparable

STORAGE = Storage()


@pytest.fixture(scope="module")
def nights(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, RunManifest]]:
    """Three nights over the same speech: good, as good, and much worse."""
    destination = str(tmp_path_factory.mktemp("published"))
    speech = report_corpus.clips(shared_data, digits=20)
    made = {}
    for at, (name, rate, seed) in enumerate((("good", 1.0, 0), ("same", 1.0, 1), ("worse", 4.0, 0))):
        rows = report_corpus.rows_of(speech, seed=seed, rate=rate)
        made[name] = report_corpus.publish(rows, destination, f"2026030{at + 1}T020000-{name}")
    return destination, made


def test_every_condition_is_judged_by_its_own_figure(nights: tuple[str, dict[str, RunManifest]]) -> None:
    destination, runs = nights
    run = runs["good"]
    overall = next(one for one in run.word_errors if one.engine == "chosen")
    strict = Gate(max_wer=overall.wer - 0.001, max_reject_rate=0.0, min_kept_hours=run.hours + 1)
    loose = Gate(max_wer=overall.wer, max_reject_rate=1.0, min_kept_hours=run.hours)
    failed, passed = judged(run, strict, destination, STORAGE), judged(run, loose, destination, STORAGE)
    assert [one.breached for one in failed.gate] == [True] * 3
    assert failed.status == "failed_quality"
    assert [one.breached for one in passed.gate] == [False] * 3
    assert passed.status == "published"
    assert [one.measured for one in passed.gate] == [
        overall.wer, run.members_rejected / run.members_in, run.hours
    ]  # fmt: skip
    assert judged(run, Gate(), destination, STORAGE) == run
    page = build_report(failed, destination, STORAGE)
    for one in failed.gate:
        assert one.reason in page


def test_what_fails_night_after_night_is_counted_once(nights: tuple[str, dict[str, RunManifest]]) -> None:
    destination, runs = nights
    gate = Gate(max_reject_rate=0.4)
    counts = {"members_in": 3, "members_published": 1, "members_rejected": 2}
    for again, rate, breached in ((0, 2 / 3, True), (1, 1 / 2, True), (2, 0.0, False)):
        night = runs["good"].model_copy(update=counts | {"rejected_again": again})
        (check,) = judged(night, gate, destination, STORAGE).gate
        assert (check.measured, check.breached) == (rate, breached)
        assert ("not counted" in check.reason) == bool(again)


def test_a_regression_is_paired_with_the_last_comparable_run(nights: tuple[str, dict[str, RunManifest]]) -> None:
    destination, runs = nights
    gate = Gate(max_regression=0.01)
    (first,) = judged(runs["good"], gate, destination, STORAGE).gate
    assert (first.measured, first.breached) == (None, False)
    (same,) = judged(runs["same"], gate, destination, STORAGE).gate
    assert same.measured is not None
    assert not same.breached
    (worse,) = judged(runs["worse"], gate, destination, STORAGE).gate
    assert worse.breached
    assert "against the last comparable run, above +1.0 points" in worse.reason
    (allowed,) = judged(runs["worse"], Gate(max_regression=0.9), destination, STORAGE).gate
    assert (allowed.breached, allowed.measured) == (False, worse.measured)


def test_what_is_no_yardstick_is_passed_over(nights: tuple[str, dict[str, RunManifest]], tmp_path: Path) -> None:
    _, runs = nights
    (tmp_path / "_runs").mkdir()

    def put(run: RunManifest, **changes: object) -> None:
        (tmp_path / "_runs" / f"{run.run_id}.json").write_text(run.model_copy(update=changes).model_dump_json())

    put(runs["good"])
    for changes in (
        {"status": "failed_quality"}, {"kind": "regenerate"}, {"utterances": 0}, {"word_errors": []},
        {"parameters": runs["same"].parameters | {"sources": ["/another.tar"]}},
        {"parameters": runs["same"].parameters | {"recipe": {"asr": {"normalizer": "basic"}}}},
    ):  # fmt: skip
        put(runs["same"], **changes)
        found = last_comparable(runs["worse"], str(tmp_path), STORAGE)
        assert found is not None
        assert found.run_id == runs["good"].run_id, changes
    put(runs["same"])
    found = last_comparable(runs["worse"], str(tmp_path), STORAGE)
    assert found is not None
    assert found.run_id == runs["same"].run_id


def test_without_references_nothing_is_claimed_and_nothing_is_stopped(
    nights: tuple[str, dict[str, RunManifest]],
) -> None:
    silent = nights[1]["good"].model_copy(update={"word_errors": []})
    found = list(checks(silent, Gate(max_wer=0.1, max_regression=0.0), None))
    assert [(one.measured, one.breached) for one in found] == [(None, False)] * 2
    assert "nothing has a reference" in found[0].reason
