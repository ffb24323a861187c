"""What the stages ask for fits the cluster, whatever its size: else a stage starves for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Cluster
from schemas.errors import VoxmillError
from tests.conftest import ROOT
from workers.cluster import shares

ENGINES = ["whisper:a", "conformer:b", "espeak:en-us"]


@given(st.integers(1, 512), st.integers(0, 16), st.integers(1, 4), st.none() | st.integers(1, 1000))
def test_all_workers_of_all_stages_fit_at_once(cpus: int, gpus: int, engines: int, shards: int | None) -> None:
    pools = [*ENGINES, "round trip"][:engines]
    found = shares(cpus, gpus, pools, shards, Cluster())
    assert sum(share.workers * share.cpus for share in found.values()) <= cpus
    assert sum(share.workers * share.gpus for share in found.values()) <= gpus + 1e-6
    assert all(share.workers >= 1 and share.cpus > 0 for share in found.values())
    tasks, actors = {found["front"].cpus, found["write"].cpus}, {found[name].cpus for name in pools}
    assert gpus or not tasks & actors  # equal requests would be fused


def test_overrides_are_taken_and_checked() -> None:
    found = shares(8, 1, ENGINES, 10, Cluster(actors={"whisper:a": 3}, gpus={"whisper:a": 0.2, "conformer:b": 0.4}))
    assert (found["whisper:a"].workers, found["whisper:a"].gpus) == (3, 0.2)
    assert found["espeak:en-us"].gpus == 0
    with pytest.raises(VoxmillError, match="ask for 2 GPUs and the cluster has 1"):
        shares(8, 1, ENGINES[:1], 10, Cluster(gpus={"whisper:a": 2}))


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    code = """
from schemas.config import Cluster, Storage
from schemas.errors import VoxmillError
from workers.cluster import connect
try:
    with connect(Cluster(address="127.0.0.1:1"), Storage()):
        print("connected")
except VoxmillError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ray address 127.0.0.1:1: no Ray cluster answers")
    assert len(done.stdout.splitlines()) == 1
