"""Freed memory given back to the system between shards.

Arrow's allocator and glibc's keep what is freed for later. Where every shard has other lengths, ever more of it lies
in pieces that fit nothing: a Conformer's worker grew by a quarter over 60 shards, and does not when this is called
after each.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import pyarrow as pa


@cache
def _malloc_trim() -> Any:
    """glibc's malloc_trim(3); None where the C library has none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give free memory of this process back to the system, as far as the allocators can."""
    pa.default_memory_pool().release_unused()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
