"""Batches by total audio, sorted by length; out-of-memory halves them, and one poisonous item costs itself alone.

What a batch holds decides on the last bits of its answers, so batches are planned from lengths and settings alone. What
an engine learns about its device's memory only spares it attempts: as long as that memory stays the same, a batch that
is halved at once would have been halved after it had failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from schemas.reasons import Reason
from workers.engines.base import Failure

Answer = TypeVar("Answer")

# how torch, cuBLAS, cuDNN, cuFFT and CTranslate2 say that memory is short, and that the device computes no more;
# cuDNN finds no engine where none of its workspaces fits
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "alloc_failed",
    "allocation_failed",
    "unable to find an engine to execute this computation",
)
_LOST = (
    "cuda error",
    "cuda failed with error",
    "device-side assert",
    "status_execution_failed",
    "cublas_status_internal_error",
    "cufft_exec_failed",
)

_ROUNDING = 1e-9  # the sum of equal lengths may be less than their number times one of them


@dataclass
class Capacity:
    """What one batch may hold: ``limit`` bounds its padded total (items x longest), in the unit of the lengths.

    ``max_waste`` bounds the padding of each batch, as padded over real length. ``too_much`` is the least padded total
    that did not fit the device's memory for as long as the engine lives: such batches are halved before they are tried.
    """

    limit: float
    max_waste: float = 0.1
    too_much: float = math.inf


def plan_batches(lengths: Sequence[float], capacity: Capacity) -> list[list[int]]:
    """Indices of ``lengths`` in batches, longest first; equal lengths keep their order, so the plan is determined.

    >>> plan_batches([1.0, 4.0, 1.0, 3.9], Capacity(limit=8.0))
    [[1, 3], [0, 2]]
    """
    batches: list[list[int]] = []
    real = 0.0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            padded = lengths[batches[-1][0]] * (len(batches[-1]) + 1)
            if padded <= capacity.limit and padded <= (real + lengths[index]) * (1 + capacity.max_waste + _ROUNDING):
                batches[-1].append(index)
                real += lengths[index]
                continue
        batches.append([index])
        real = lengths[index]
    return batches


def padding_waste(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """Padding over real length, 0 for none: ``sum(items x longest - real) / sum(real)`` over all batches."""
    real = sum(lengths[index] for batch in batches for index in batch)
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches if batch)
    return (padded - real) / real if real else 0.0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device (or the host) has no memory left; told by name, so without torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return any(part in message for part in _OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the process can compute no more: after such a CUDA error every later call fails as well."""
    message = str(error).lower()
    return not is_out_of_memory(error) and any(part in message for part in _LOST)


def failure_of(error: Exception) -> Failure:
    """One line for a person on what went wrong with one item."""
    if is_out_of_memory(error):
        return Failure(Reason.OUT_OF_MEMORY, "does not fit the device's memory even alone in its batch")
    text = " ".join(str(error).split()) or "no message"
    return Failure(Reason.ENGINE_FAILED, f"{type(error).__name__}: {text[:300]}")


def run_batches(
    lengths: Sequence[float],
    capacity: Capacity,
    process: Callable[[list[int]], Sequence[Answer]],
    release: Callable[[], None] = lambda: None,
) -> list[Answer | Failure]:
    """Answers for every item, in order, from ``process`` called on batches of their indices.

    A batch that runs out of memory is halved, and ``capacity`` remembers its size; a batch that fails otherwise is
    halved until the item that fails stands alone and becomes a :class:`Failure`. ``release`` is called before a retry,
    to hand cached memory back. Raises what ``process`` raised where the device itself is lost: only a new process
    helps.
    """
    answers: dict[int, Answer | Failure] = {}
    pending = plan_batches(lengths, capacity)[::-1]
    while pending:
        batch = pending.pop()
        padded = len(batch) * lengths[batch[0]]
        if len(batch) == 1 or padded < capacity.too_much:
            problem: Exception | None = None
            try:
                answers.update(zip(batch, process(batch), strict=True))
            except Exception as error:  # whatever a model library raises: the items are looked at one by one
                if is_device_lost(error):
                    raise
                problem = error.with_traceback(None)  # a traceback would keep the failed batch's tensors alive
            if problem is None:
                continue
            release()
            if len(batch) == 1:
                answers[batch[0]] = failure_of(problem)
                continue
            if is_out_of_memory(problem):
                capacity.too_much = min(capacity.too_much, padded)
        middle = (len(batch) + 1) // 2
        pending += [batch[middle:], batch[:middle]]
    return [answers[index] for index in range(len(lengths))]
