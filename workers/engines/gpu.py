"""How much of its GPU's memory an actor may take, where it shares the GPU with others."""

from __future__ import annotations

import torch


def hold(share: float) -> None:
    """Let this process have no more than ``share`` of the GPU's memory; without CUDA, or for a whole GPU, nothing."""
    if share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def memory_of(device: torch.device) -> float:
    """Bytes of the GPU ``device`` that this process may take."""
    share: float = torch.cuda.get_per_process_memory_fraction(device)
    return share * torch.cuda.get_device_properties(device).total_memory
