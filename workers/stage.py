"""What wraps every stage: one shard per block, its time measured, its failure kept to itself."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable

import psutil
import pyarrow as pa

from schemas.errors import VoxmillError
from schemas.records import StageTime
from workers.block import pack, unpack
from workers.engines.batching import is_device_lost
from workers.heap import give_back
from workers.work import Work

logger = logging.getLogger(__name__)


class Clock:
    """Wall, CPU and GPU seconds since its making: the CPU of child processes (the decoder) counted in, the GPU as the
    share of one that is held, ``gpus``."""

    def __init__(self, gpus: float = 0.0) -> None:
        self._wall, self._cpu, self._gpus, self._started_at = time.perf_counter(), _cpu_seconds(), gpus, time.time()

    def read(self) -> StageTime:
        wall_s = time.perf_counter() - self._wall
        return StageTime(wall_s, max(0.0, _cpu_seconds() - self._cpu), self._gpus * wall_s, self._started_at)


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
    clock = Clock(gpus)
    try:
        work = step(work)
    except Exception as error:  # the boundary between a shard and the run
        logger.exception("shard %s failed in %s", work.shard.id, name)
        return failed(work, name, error)
    work.stages[name] = clock.read()
    return work


def failed(work: Work, name: str, error: Exception) -> Work:
    """``work`` as one that could not be finished, which its receipt will tell."""
    kind = "" if isinstance(error, VoxmillError) else f"{type(error).__name__}: "
    message = f"{name}: {kind}{' '.join(str(error).split())[:500]}"
    return dataclasses.replace(work, utterances=[], rejects=[], failed=message)


class OnBlock:
    """A stage as Ray Data calls it: a pyarrow block in, a pyarrow block out. Built once per actor.

    An actor with a part of a GPU gets that part of its memory; Ray itself bounds nothing.
    The seconds that building took stand in the first shard's times. A shard that lost the device (after such a CUDA
    error every later call fails as well) is failed; the process ends at the next one, which Ray then gives to a new
    process. A shard that is to blame for the loss so costs itself alone.
    An engine that cannot be had is told at the first shard, as one error: where building an actor fails, Ray tries for
    ever, and tells of each attempt.
    """

    def __init__(self, name: str, build: Callable[[str], Callable[[Work], Work]], gpus: float) -> None:
        self._name, self._gpus = name, gpus
        clock = Clock(gpus)
        if gpus:
            from workers.engines.gpu import hold

            hold(gpus)
        self._refused: VoxmillError | None = None
        try:
            self._stage = build("cuda" if gpus else "cpu")
        except VoxmillError as error:
            self._refused = error.with_traceback(None)
        self._started: StageTime | None = clock.read()
        self._device_lost = False

    def __call__(self, block: pa.Table) -> pa.Table:
        if self._device_lost:
            os._exit(1)
        if self._refused is not None:
            raise self._refused
        work = timed(self._name, unpack(block), self._step, self._gpus)
        if self._started is not None and not work.failed:
            work.stages[f"load {self._name}"], self._started = self._started, None
        packed = pack(work)
        del work
        give_back()
        return packed

    def _step(self, work: Work) -> Work:
        try:
            return self._stage(work)
        except Exception as error:
            self._device_lost = is_device_lost(error)
            raise
