"""A shard crosses Ray as one row, arrays and all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.block import pack, unpack, unpack_all

arrays = st.lists(st.lists(st.floats(-1, 1, width=32), max_size=50).map(lambda v: np.array(v, np.float32)), max_size=5)


@given(st.lists(arrays, min_size=1, max_size=4))
def test_values_survive_alone_and_in_tables_of_several(values: list[list[np.ndarray]]) -> None:
    table = pa.concat_tables([pack(value) for value in values])
    for back in (unpack_all(table), unpack_all(table.combine_chunks()), [unpack(pack(value)) for value in values]):
        assert len(back) == len(values)
        for value, got in zip(values, back, strict=True):
            assert len(value) == len(got)
            assert all(np.array_equal(a, b) for a, b in zip(value, got, strict=True))


def test_a_block_of_two_shards_is_refused() -> None:
    with pytest.raises(RuntimeError, match="2 shards"):
        unpack(pa.concat_tables([pack(1), pack(2)]))
