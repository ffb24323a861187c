"""What wraps every stage: one shard per block, its time measured, its failure kept to itself."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable

import psutil
import pyarrow as pa

from schemas.records import StageTime
from workers.block import pack, unpack
from workers.work import Work

logger = logging.getLogger(__name__)


class Clock:
    """Wall and CPU seconds since its making; CPU of child processes (the decoder) counted in."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> StageTime:
        return StageTime(time.perf_counter() - self._wall, max(0.0, _cpu_seconds() - self._cpu))


def _cpu_seconds() -> float:
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:
            continue
        total += spent.user + spent.system
    return total


def timed(name: str, work: Work, step: Callable[[Work], Work], gpus: float = 0.0) -> Work:
    """Run one step over a shard, with ``gpus`` (or a fraction of one) in hand. An error that no member explains fails
    the shard, not the run: it is told in the receipt, the shard's members stay unpublished and the next run tries them
    again."""
    if work.failed:
        return work
    clock = Clock()
    try:
        work = step(work)
    except Exception as error:  # the boundary between a shard and the run
        logger.exception("shard %s failed in %s", work.shard.id, name)
        return failed(work, name, error)
    spent = clock.read()
    work.stages[name] = dataclasses.replace(spent, gpu_s=gpus * spent.wall_s)
    return work


def failed(work: Work, name: str, error: Exception) -> Work:
    message = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return dataclasses.replace(work, utterances=[], rejects=[], failed=message)


class OnBlock:
    """A stage as Ray Data calls it: a pyarrow block in, a pyarrow block out. Built once per actor."""

    def __init__(self, name: str, build: Callable[[str], Callable[[Work], Work]], gpus: float) -> None:
        self._name, self._gpus = name, gpus
        self._stage = build("cuda" if gpus else "cpu")

    def __call__(self, block: pa.Table) -> pa.Table:
        return pack(timed(self._name, unpack(block), self._stage, self._gpus))
