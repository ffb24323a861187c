"""Random numbers of a model, drawn for each item of a batch from a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class NoisePerItem(TorchFunctionMode):
    """Inside, ``torch.randn`` and ``randn_like`` of shape (items, channels, time) draw each row from its item's seed.

    Rows are drawn time step by time step, so that padding to a longer neighbour appends numbers and changes none: an
    item's noise does not depend on the batch it is in.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.randn_like:
            return self._rows(tuple(args[0].shape), args[0])
        if function is torch.randn:
            shape = tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args
            return self._rows(shape, None, **{k: v for k, v in kwargs.items() if k in ("dtype", "device")})
        return function(*args, **kwargs)

    def _rows(self, shape: tuple[int, ...], like: torch.Tensor | None, **kinds: Any) -> torch.Tensor:
        items, channels, time = shape
        if items != len(self.generators):
            raise ValueError(f"noise for {items} items was asked for, there are seeds for {len(self.generators)}")
        with torch._C.DisableTorchFunction():
            rows = [torch.randn(time, channels, generator=generator).T for generator in self.generators]
            noise = torch.stack(rows)
            return noise.to(device=like.device, dtype=like.dtype) if like is not None else noise.to(**kinds)
