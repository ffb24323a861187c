"""Ray for one run: a local one in this process, or the team's cluster; and how its resources are shared out."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from schemas.config import Cluster, Storage
from schemas.errors import VoxmillError
from schemas.families import FAMILIES

_LOCAL_OBJECT_STORE_MB = 1024
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# Batches have any shape, and oneDNN would keep what it prepared for the last 1024 of them: memory that grows for hours.
_MEMORY = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}

_KNOCK_S = 10.0
_GROWTH_S = 900.0  # clouds start GPU nodes in minutes
_STARTS = 3  # a busy machine can take longer than Ray waits
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}  # Ray's core warns on stderr of Ray Data's own ways
# A machine that is busy for half a minute is not dead: 60 checks missed, 3 s apart, instead of 5.
_PATIENT = {"RAY_health_check_failure_threshold": "60", "RAY_health_check_timeout_ms": "60000"}
# A process of a task stage that waits for a minute is kept, instead of a second: a new one imports for seconds.
_KEPT = {"RAY_idle_worker_killing_time_threshold_ms": "60000"}


@contextmanager
def connect(cluster: Cluster, storage: Storage) -> Iterator[None]:
    """Hold a connection to Ray. One that is already there is used and left alone.

    Workers compute on one thread each: batching and pools fill the cores, and results do not depend on their number.
    Those of a remote cluster get the credentials that ``storage.credentials_block`` has put into this process'
    environment; those of a local one inherit it. A cluster that is to have more CPUs or GPUs than it has is asked to
    grow, for as long as the connection is held.
    Raises VoxmillError where no cluster answers at ``cluster.address``, or it does not grow.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    if cluster.address:
        runtime_env: dict[str, Any] = {"env_vars": _THREADS | _MEMORY}
        if storage.credentials_block:
            runtime_env["worker_process_setup_hook"] = _giving(_credentials())
        try:
            _knock(cluster.address)
            ray.init(
                address=cluster.address,
                runtime_env=runtime_env,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise VoxmillError(
                f"no Ray cluster answers ({_first_line(error)})",
                f"ray address {cluster.address}",
                "Check the address; a cluster started with token authentication needs RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH here too",
            ) from error
    else:
        _start_local(cluster)
    try:
        with _grown(cluster) if cluster.address else nullcontext():
            yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nothing listens at ``address``: Ray itself tries for more than five minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextmanager
def _grown(cluster: Cluster) -> Iterator[None]:
    """Hold the cluster at the CPUs and GPUs that the run is to have; its autoscaler starts nodes for what is missing.

    Raises VoxmillError where they are not there in a quarter of an hour, or there is no CPU and none is asked for.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    wanted = {"CPU": math.ceil(cluster.cpus or 0), "GPU": cluster.gpu_count or 0}
    lacks = _lacking(wanted)
    if not lacks:
        if not ray.cluster_resources().get("CPU"):
            raise VoxmillError(
                "the Ray cluster has no CPU at present",
                f"ray address {cluster.address}",
                "Where it grows on demand, say what it is to grow to: cluster.cpus and cluster.gpu_count",
            )
        yield
        return
    request_resources(bundles=[{name: 1} for name, count in wanted.items() for _ in range(count)])
    try:
        deadline = time.monotonic() + _GROWTH_S
        while lacks := _lacking(wanted):
            if time.monotonic() > deadline:
                have = ray.cluster_resources()
                raise VoxmillError(
                    f"the Ray cluster has {', '.join(f'{have.get(name, 0):g} {name}s' for name in lacks)} and did not "
                    f"grow to {', '.join(f'{wanted[name]}' for name in lacks)} in {_GROWTH_S / 60:.0f} minutes",
                    f"ray address {cluster.address}",
                    "Ask for less (cluster.cpus, cluster.gpu_count), or see what its autoscaler says: ray status",
                )
            time.sleep(1)
        yield
    finally:
        request_resources(bundles=[])


def _lacking(wanted: dict[str, int]) -> list[str]:
    """Kinds of resource of which the cluster has less than ``wanted``."""
    import ray

    have = ray.cluster_resources()
    return [name for name, count in wanted.items() if have.get(name, 0) < count]


def _start_local(cluster: Cluster) -> None:
    import ray

    # Workers inherit the environment of a Ray that this process starts.
    for name, value in {**_THREADS, **_MEMORY, **_QUIET, **_PATIENT, **_KEPT}.items():
        os.environ.setdefault(name, value)
    for attempt in range(1, _STARTS + 1):
        try:
            with _hushed():
                ray.init(
                    address="local",  # not one that happens to run on this machine
                    num_cpus=max(1, int(cluster.cpus)) if cluster.cpus else os.cpu_count(),
                    object_store_memory=(cluster.object_store_mb or _LOCAL_OBJECT_STORE_MB) << 20,
                    include_dashboard=False,
                    logging_level=logging.CRITICAL,
                    log_to_driver=False,
                )
            return
        except Exception as error:  # a bare Exception is what Ray raises where it is not up within 30 seconds
            ray.shutdown()
            if attempt == _STARTS:
                raise VoxmillError(
                    f"a local Ray could not be started ({_first_line(error)})",
                    do="Close what else keeps this machine busy, or name a cluster with --ray-address",
                ) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing on stderr meanwhile, not even what Ray's core says there of how quiet it has been told to be. What goes
    wrong is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _giving(secrets: dict[str, str]) -> Callable[[], None]:
    """What each worker runs as it starts: Ray keeps it as an object, and would log variables of its environment."""

    def give_credentials() -> None:
        os.environ.update(secrets)

    return give_credentials


def _credentials() -> dict[str, str]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return {name: os.environ[name] for name in names if name in os.environ}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Share:
    """What each worker of a stage asks for, and how many of them there are at most."""

    workers: int
    cpus: float
    gpus: float = 0.0


def shares(cpus: float, gpus: float, engines: Sequence[str], shards: int | None, cluster: Cluster) -> dict[str, Share]:
    """Share a cluster of ``cpus`` and ``gpus`` among the stages: ``front``, ``write`` and every engine pool.

    With GPUs, each engine has one actor per GPU and the engines share each GPU evenly; without, an engine that writes
    its text word by word (Whisper) has a single-threaded actor per core and the others one per four cores, never more
    than there are shards (``shards`` None: unknown). Whatever all pools and task stages may hold at once fits the
    cluster: actors that hold every logical CPU starve a task stage for ever, without an error.
    Raises VoxmillError where overrides ask for more GPUs than there are, or name what the run has not.
    """
    known = ("front", "write", *engines)
    for name in (*cluster.actors, *cluster.gpus):
        if name not in known:
            raise VoxmillError(f"no stage or engine {name!r}", "cluster", f"This run has {', '.join(known)}")
    cores = max(1, int(cpus))
    most = max(1, shards if shards is not None else cores)
    workers: dict[str, int] = {}
    gpu_each: dict[str, float] = {}
    for engine in engines:
        family = FAMILIES.get(engine.partition(":")[0])  # none: a round trip's pool, whatever hears it
        takes_gpu = gpus > 0 and (family is None or family.gpu)
        fraction = cluster.gpus.get(engine, min(1.0, 1 / len(engines)) if takes_gpu else 0.0)
        on_cpus = cores if family is not None and family.word_by_word else max(1, cores // 4)
        count = max(1, int(gpus)) if fraction else min(on_cpus, most)
        workers[engine] = cluster.actors.get(engine, count)
        gpu_each[engine] = fraction
    asked = sum(workers[engine] * gpu_each[engine] for engine in engines)
    if asked > gpus + 1e-6:
        raise VoxmillError(
            f"the engines ask for {asked:g} GPUs and the cluster has {gpus:g}",
            "cluster.gpus",
            "Lower the fractions or the number of actors",
        )
    workers["front"] = cluster.actors.get("front", min(cores, most))
    workers["write"] = cluster.actors.get("write", max(1, min(cores // 2, most)))
    # One unit per worker and one to spare, at most a CPU: workers have one thread. Stages of unequal requests are never
    # fused by Ray Data.
    unit = min(1.0, cpus / (sum(workers.values()) + 1))
    return {
        name: Share(count, _floor(unit * (0.98 if name in engines else 1.0)), gpu_each.get(name, 0.0))
        for name, count in workers.items()
    }


def _floor(cpus: float) -> float:
    """Ray counts in units of 1/10000."""
    return int(cpus * 10_000) / 10_000
