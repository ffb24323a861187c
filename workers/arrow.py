"""From rows to Arrow tables of the published schemas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from schemas.tables import schema_of
from workers.sources.entries import clean


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table of ``schema_of(name)``; a column that a row lacks is null."""
    schema = schema_of(name)
    columns = [
        _mels([row["mel"] for row in rows])
        if field.name == "mel"
        else _array([row.get(field.name) for row in rows], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The values of one column. Text that Parquet refuses is cleaned here at the latest: it must not cost a shard."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_clean(value) for value in values], kind)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def _mels(mels: list[np.ndarray]) -> pa.Array:
    """Arrays (frames, n_mels) as one ``list<list<float>>`` array, without a Python object per frame."""
    frames = np.cumsum([0, *(mel.shape[0] for mel in mels)], dtype=np.int32)
    bands = np.concatenate([np.full(mel.shape[0], mel.shape[1], np.int32) for mel in mels] or [np.zeros(0, np.int32)])
    values = np.concatenate([mel.ravel() for mel in mels] or [np.zeros(0, np.float32)]).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(bands, dtype=np.int64)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError("a shard's features exceed 2^31 values; use smaller shards")
    inner = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values))
    return pa.ListArray.from_arrays(pa.array(frames), inner)
