"""A stage as Ray Data calls it: what its start took, and what a lost device does to the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from schemas.errors import VoxmillError
from schemas.records import Archive, Layout, Shard
from workers.block import pack, unpack
from workers.engines.gpu import memory_of
from workers.stage import OnBlock
from workers.work import Work


def block(name: str):  # type: ignore[no-untyped-def]
    return pack(Work(Shard(name, Archive("file:///a.tar", Layout.TAR), "f"), 16_000))


def stage_that(step: Callable[[Work], Work]) -> OnBlock:
    return OnBlock("transcribe x", lambda device: step, 0.0)


def test_the_start_is_told_once() -> None:
    stage = stage_that(lambda work: work)
    first, second = unpack(stage(block("a"))), unpack(stage(block("b")))
    assert set(first.stages) == {"load transcribe x", "transcribe x"}
    assert set(second.stages) == {"transcribe x"}


def test_an_engine_that_cannot_be_had_is_told_at_the_first_shard() -> None:
    """Ray makes an actor that fails in its making again and again."""

    def refuse(device: str) -> Callable[[Work], Work]:
        raise VoxmillError("there is no such voice", "espeak:xx", "Choose another one")

    stage = OnBlock("synthesize espeak:xx", refuse, 0.0)
    with pytest.raises(VoxmillError, match="espeak:xx: there is no such voice"):
        stage(block("a"))


def test_a_part_of_a_gpu_is_a_part_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", held.append)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: held[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))
    started: list[tuple[str, list[float]]] = []
    for gpus in (0.0, 1.0, 2.0, 0.25):
        OnBlock("transcribe x", lambda device: started.append((device, [*held])) or (lambda work: work), gpus)  # type: ignore[func-returns-value]
    assert started == [("cpu", []), ("cuda", []), ("cuda", []), ("cuda", [0.25])]
    assert memory_of(torch.device("cuda")) == 20e9


def test_a_lost_device_costs_one_shard_and_then_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    def step(work: Work) -> Work:
        if work.shard.id == "bad":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if work.shard.id == "odd":
            raise RuntimeError("a shape does not fit")
        return work

    monkeypatch.setattr(os, "_exit", leave)
    stage = stage_that(step)
    assert "a shape does not fit" in unpack(stage(block("odd"))).failed
    assert not unpack(stage(block("good"))).failed
    assert "illegal memory access" in unpack(stage(block("bad"))).failed
    with pytest.raises(SystemExit):
        stage(block("next"))
