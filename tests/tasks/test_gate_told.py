"""A breached gate reaches people as one paragraph and automations as an event. CPU: about 5 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.objects import State

import tasks.artifacts
import tasks.gate
import tasks.report
from flows.corpus import FAILED_QUALITY, PUBLISHED, finished
from schemas.config import Storage
from schemas.manifest import GateCheck, RunManifest
from tasks.artifacts import publish_artifacts
from tasks.gate import emit_breach
from tasks.report import report
from tests.events import breach_of


def run(*checks: GateCheck, run_id: str = "20260301T020000Z-aaaa") -> RunManifest:
    return RunManifest(
        run_id=run_id, run_date="2026-03-01", status="published", fingerprint="f", parameters={}, started_at="",
        finished_at="", members_in=10, members_published=7, members_rejected=3, utterances=7, hours=0.5, wall_s=1,
        real_time_factor=1, archives=[], reject_reasons={"silent": 3}, word_errors=[], stages={}, files=[], digests={},
        versions={}, gate=list(checks),
    )  # fmt: skip


KEPT = GateCheck(name="max_wer", limit=0.2, measured=0.1, breached=False, reason="WER 10.0% is within 20.0%")
BREACHED = GateCheck(
    name="max_reject_rate", limit=0.1, measured=0.3, breached=True, reason="3 of 10 members (30.0%) were rejected"
)


@flow
def told(manifest: RunManifest) -> State[Any]:
    emit_breach(manifest, "/lake", "/lake/reports/index.html")
    return finished(manifest)


@flow
def told_to_nobody(manifest: RunManifest, destination: str) -> State[Any]:
    page = report(manifest, destination, Storage())
    publish_artifacts(manifest, destination, page)
    emit_breach(manifest, destination, page)
    return finished(manifest)


def test_a_run_that_is_published_is_not_failed_by_the_api(
    prefect_harness: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        asked.append(1)
        raise httpx.ConnectError("no server")

    asked: list[int] = []
    for module, name in (
        (tasks.report, "create_link_artifact"),
        (tasks.artifacts, "create_table_artifact"),
        (tasks.gate, "emit_event"),
    ):
        monkeypatch.setattr(module, name, unreachable)
    state = told_to_nobody(run(BREACHED), str(tmp_path), return_state=True)
    assert (state.name, len(asked)) == (FAILED_QUALITY, 3)
    assert list(tmp_path.rglob("index.html"))


def test_a_breach_fails_the_flow_run_and_emits_an_event(prefect_harness: None) -> None:
    assert told(run(KEPT), return_state=True).name == PUBLISHED
    manifest = run(KEPT, BREACHED, run_id="20260302T020000Z-bbbb")
    state = told(manifest, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", FAILED_QUALITY)
    assert state.message is not None
    assert BREACHED.reason in state.message
    assert KEPT.reason not in state.message
    assert "\n" not in state.message
    assert state.result(raise_on_failure=False) == manifest
    event = breach_of(manifest.run_id)
    assert event["resource"]["prefect.resource.id"] == f"voxmill.run.{manifest.run_id}"
    assert [one["name"] for one in event["payload"]["breached"]] == ["max_reject_rate"]
    assert event["payload"]["report"] == "/lake/reports/index.html"
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{state.state_details.flow_run_id}"
