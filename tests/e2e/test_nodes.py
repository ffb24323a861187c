"""A run on a Ray of several nodes that the driver is no part of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.config import Storage
from tasks.runs import latest_manifest


@pytest.fixture
def two_nodes() -> Iterator[str]:
    """Address of a Ray whose head gives no CPU and whose two other nodes give one each."""
    from ray.cluster_utils import Cluster

    store = 200 << 20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=store)
        yield cluster.address
    finally:
        cluster.shutdown()


def voxmill(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with a Prefect of its own."""
    environment = {**os.environ, "PREFECT_HOME": str(home / "prefect"), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)


def test_a_run_on_a_cluster(
    two_nodes: str, shared_data: Path, bundled_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    command = [
        "run",
        str(shared_data / "cmu-arctic"), str(shared_data / "broken"),
        "--destination", str(tmp_path / "lake"),
        "--ray-address", two_nodes,
        "--transcribers", f"whisper:{bundled_checkpoints['whisper']}", "--set", "asr.whisper_window=fitted",
    ]  # fmt: skip
    done = voxmill(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = latest_manifest(str(tmp_path / "lake"), Storage())
    assert manifest is not None
    assert manifest.members_in == manifest.members_published + manifest.members_rejected
    assert [archive.members_published for archive in manifest.archives] == [4, 0]
