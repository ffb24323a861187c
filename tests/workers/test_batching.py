"""Batches: every item once, padding bounded, and failures that cost nobody else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from workers.engines.base import Failure
from workers.engines.batching import Capacity, padding_waste, plan_batches, run_batches

LENGTHS = st.lists(st.floats(0.1, 30.0), max_size=60)


@given(LENGTHS, st.floats(1.0, 200.0), st.floats(0.0, 0.5))
def test_every_item_once_within_the_limits(lengths: list[float], limit: float, max_waste: float) -> None:
    batches = plan_batches(lengths, Capacity(limit, max_waste))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= limit
    assert padding_waste(lengths, batches) <= max_waste + 1e-9


@given(st.floats(0.01, 30.0), st.integers(1, 300))
def test_equal_lengths_share_a_batch_where_no_padding_is_allowed(length: float, count: int) -> None:
    assert len(plan_batches([length] * count, Capacity(length * count * 1.001, max_waste=0.0))) == 1


@given(LENGTHS, st.data())
def test_the_plan_depends_on_lengths_alone(lengths: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(lengths))))
    plain = plan_batches(lengths, Capacity(60.0))
    mixed = plan_batches([lengths[index] for index in order], Capacity(60.0))
    assert [[lengths[i] for i in batch] for batch in plain] == [[lengths[order[i]] for i in batch] for batch in mixed]


@given(LENGTHS, st.sets(st.integers(0, 59)), st.floats(1.0, 120.0))
def test_a_poisonous_item_costs_itself_alone(lengths: list[float], poison: set[int], limit: float) -> None:
    def process(batch: list[int]) -> list[int]:
        if poison & set(batch):
            raise RuntimeError("bad\nsample")
        return [10 * index for index in batch]

    answers = run_batches(lengths, Capacity(limit), process)
    for index, answer in enumerate(answers):
        assert answer == (Failure(Reason.ENGINE_FAILED, "RuntimeError: bad sample") if index in poison else 10 * index)


@given(LENGTHS, st.floats(1.0, 60.0))
def test_out_of_memory_halves_and_is_remembered(lengths: list[float], memory: float) -> None:
    tried: list[tuple[float, float]] = []  # size, and what was too much at that time

    def process(batch: list[int]) -> list[int]:
        size = len(batch) * max(lengths[index] for index in batch)
        tried.append((size, capacity.too_much))
        if size > memory:
            raise MemoryError("CUDA out of memory")
        return batch

    capacity = Capacity(200.0)
    answers = run_batches(lengths, capacity, process)
    for index, answer in enumerate(answers):
        refused = isinstance(answer, Failure) and answer.reason == Reason.OUT_OF_MEMORY
        assert refused if lengths[index] > memory else answer == index
    # what did not fit once is never tried again, save for items that are alone already
    tried.clear()
    run_batches(lengths, capacity, process)
    assert all(size < too_much or size in lengths for size, too_much in tried)


@given(LENGTHS, LENGTHS, st.floats(1.0, 60.0))
def test_batches_do_not_depend_on_what_ran_before(before: list[float], lengths: list[float], memory: float) -> None:
    """Where a batch fits a device or does not, whatever ran before on it."""

    def batches(capacity: Capacity, lengths: list[float], memory: float) -> list[list[int]]:
        done: list[list[int]] = []

        def process(batch: list[int]) -> list[int]:
            if len(batch) * max(lengths[index] for index in batch) > memory:
                raise MemoryError
            done.append(batch)
            return batch

        run_batches(lengths, capacity, process)
        return done

    used = Capacity(100.0)
    batches(used, before, memory)
    assert batches(used, lengths, memory) == batches(Capacity(100.0), lengths, memory)


def test_a_passing_lack_of_memory_halves_the_planned_batch_and_touches_no_smaller_one() -> None:
    capacity, tried = Capacity(8.0), []

    def process(batch: list[int]) -> list[int]:
        tried.append(batch)
        if len(tried) == 1:
            raise MemoryError
        return batch

    run_batches([1.0] * 14, capacity, process)
    first, *halves, rest = tried
    assert halves == [first[:4], first[4:]]
    assert rest == [8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory",
        "CUDA failed with error out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_every_library_s_lack_of_memory_is_remembered(message: str) -> None:
    def process(batch: list[int]) -> list[int]:
        if len(batch) > 1 or batch[0] == 2:
            raise RuntimeError(message)
        return batch

    capacity = Capacity(10.0)
    first, second, third = run_batches([1.0, 1.0, 1.0], capacity, process)
    assert (first, second) == (0, 1)
    assert isinstance(third, Failure)
    assert third.reason == Reason.OUT_OF_MEMORY
    assert (capacity.limit, capacity.too_much) == (10.0, 2.0)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA failed with error an illegal memory access was encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        "cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN failed with status CUDNN_STATUS_EXECUTION_FAILED",
        "cuFFT error: CUFFT_EXEC_FAILED",
    ],
)
def test_a_lost_device_ends_the_process(message: str) -> None:
    def process(batch: list[int]) -> list[int]:
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=re.escape(message)):
        run_batches([1.0, 2.0], Capacity(10.0), process)
