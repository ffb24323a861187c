"""A breached gate, told: one paragraph for people, one Prefect event for automations."""

from __future__ import annotations

from prefect.events import emit_event

from schemas.manifest import RunManifest
from tasks.artifacts import tolerated

EVENT = "voxmill.run.failed-quality"
RUN = "voxmill.run"  # with the run's id behind it, the id of the event's resource


def failure(manifest: RunManifest) -> str:
    """Why the run failed its gate, in one paragraph; empty where it kept to it."""
    breached = [check.reason for check in manifest.gate if check.breached]
    if not breached:
        return ""
    reasons = "; ".join(breached)
    return (
        f"The quality gate is breached: {reasons}. The tables of run {manifest.run_id} are published as failed_quality."
    )


def emit_breach(manifest: RunManifest, destination: str, report: str) -> None:
    """Tell Prefect's automations of a breached gate; nothing where the run kept to it.

    Prefect itself relates the event to the flow run that this is called from.
    """
    breached = [check for check in manifest.gate if check.breached]
    if not breached:
        return
    with tolerated("telling automations of its breach"):
        emit_event(
            EVENT,
            resource={
                "prefect.resource.id": f"{RUN}.{manifest.run_id}",
                "prefect.resource.name": manifest.run_id,
                "voxmill.destination": destination,
            },
            payload={
                "reason": failure(manifest),
                "report": report,
                "breached": [check.model_dump() for check in breached],
            },
        )
