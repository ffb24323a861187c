"""A run on a Ray of several nodes that the driver is no part of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import Storage
from tasks.runs import latest_manifest
from tests.conftest import ROOT

STORE = 200 << 20  # bytes of each node's object store
STARTS = 5  # Ray gives a node 30 seconds to start, which a busy machine can take


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A Ray whose head gives no CPU and whose two other nodes give one each."""
    cluster = started()
    yield cluster
    cluster.shutdown()


def started() -> Any:
    """A cluster of three nodes, begun anew where one of them does not come up in time."""
    from ray.cluster_utils import Cluster

    for start in range(1, STARTS + 1):
        cluster = Cluster()
        try:
            for cpus in (0, 1, 1):
                cluster.add_node(num_cpus=cpus, object_store_memory=STORE)
            return cluster
        except Exception:  # a bare Exception is what Ray raises
            cluster.shutdown()
            if start == STARTS:
                raise
    raise AssertionError("unreachable")


def voxmill(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with a Prefect of its own."""
    environment = {**os.environ, "PREFECT_HOME": str(home / "prefect"), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)


def test_a_run_on_a_cluster(
    two_nodes: Any, shared_data: Path, bundled_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    command = [
        "run",
        str(shared_data / "cmu-arctic"), str(shared_data / "broken"),
        "--destination", str(tmp_path / "lake"),
        "--ray-address", two_nodes.address,
        "--transcribers", f"whisper:{bundled_checkpoints['whisper']}", "--set", "asr.whisper_window=fitted",
    ]  # fmt: skip
    done = voxmill(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = latest_manifest(str(tmp_path / "lake"), Storage())
    assert manifest is not None
    assert manifest.members_in == manifest.members_published + manifest.members_rejected
    assert [archive.members_published for archive in manifest.archives] == [4, 0]


GROWS = """
import os, sys
from pathlib import Path

import ray

from schemas.config import Cluster, Storage
from workers.cluster import connect

print("asks", flush=True)
with connect(Cluster(address=sys.argv[1], cpus=3), Storage(credentials_block="speech-lake")):
    secret = ray.remote(lambda: os.environ.get("AWS_SECRET_ACCESS_KEY")).options(num_cpus=1)
    print(int(ray.cluster_resources()["CPU"]), ray.get(secret.remote()))
    logs = [path for path in Path(ray._private.worker._global_node.get_logs_dir_path()).rglob("*") if path.is_file()]
print(len(logs) > 10, [path.name for path in logs if b"do-not-tell" in path.read_bytes()])
"""


def test_a_cluster_is_waited_for_and_no_log_holds_the_credentials_that_its_workers_get(
    two_nodes: Any,
) -> None:
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "do-not-tell", "AWS_ACCESS_KEY_ID": "somebody"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", GROWS, two_nodes.address]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "asks\n"
        third = two_nodes.add_node(num_cpus=1, object_store_memory=STORE)
        said, _ = driver.communicate(timeout=300)
    two_nodes.remove_node(third)
    assert driver.returncode == 0
    assert said.splitlines() == ["3 do-not-tell", "True []"]


def test_a_cluster_that_does_not_grow_is_one_line(two_nodes: Any) -> None:
    code = """
import sys
import workers.cluster
from schemas.config import Cluster, Storage
from schemas.errors import VoxmillError

workers.cluster._GROWTH_S = 0.0
try:
    with workers.cluster.connect(Cluster(address=sys.argv[1], cpus=3, gpu_count=1), Storage()):
        print("connected")
except VoxmillError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code, two_nodes.address], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "has 2 CPUs, 0 GPUs and did not grow to 3, 1" in done.stdout
    assert len(done.stdout.splitlines()) == 1
