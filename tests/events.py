"""What the gate tells Prefect's server."""

from __future__ import annotations

import time
from typing import Any

from prefect.client.orchestration import get_client

from tasks.gate import EVENT

PATIENCE_S = 300  # a busy machine is slow, not wrong


def breach_of(run_id: str) -> dict[str, Any]:
    """The run's event as the server has stored it, which it does a moment after it is sent."""
    end = time.monotonic() + PATIENCE_S
    resource = {"id": [f"voxmill.run.{run_id}"]}
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            answer = client._client.post(
                "/events/filter", json={"filter": {"event": {"name": [EVENT]}, "resource": resource}}
            )
            if found := answer.json()["events"]:
                return dict(found[0])
            time.sleep(0.5)
    raise AssertionError("no event reached the server")
