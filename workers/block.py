"""A shard as a Ray Data block: one row, its arrays beside its pickle so that a stage reads them without a copy."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa

_SCHEMA = pa.schema([("head", pa.large_binary()), ("buffers", pa.large_list(pa.large_binary()))])


def pack(value: Any) -> pa.Table:
    """One row holding ``value``; its NumPy arrays travel out of band (pickle protocol 5, PEP 574)."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pa.table(
        {"head": pa.array([head], pa.large_binary()), "buffers": _list_of([buffer.raw() for buffer in buffers])},
        schema=_SCHEMA,
    )


def unpack(table: pa.Table) -> Any:
    """The value of a one-row block. Its arrays are read-only views of the block.

    Raises RuntimeError where a block holds anything but one shard: results would then depend on how Ray cut the data.
    """
    if table.num_rows != 1:
        raise RuntimeError(f"a block holds {table.num_rows} shards instead of one")
    buffers = table.column("buffers").combine_chunks().flatten()
    return pickle.loads(table.column("head")[0].as_buffer(), buffers=[scalar.as_buffer() for scalar in buffers])


def unpack_all(table: pa.Table) -> list[Any]:
    """The values of a table of several rows; for the driver, which reads receipts as they come."""
    return [unpack(table.slice(row, 1).combine_chunks()) for row in range(table.num_rows)]


def _list_of(buffers: list[memoryview]) -> pa.Array:
    ends = np.cumsum([0, *(buffer.nbytes for buffer in buffers)], dtype=np.int64)
    values = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(buffers), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(buffers))]
    )
    return pa.LargeListArray.from_arrays(pa.array([0, len(buffers)], pa.int64()), values)
