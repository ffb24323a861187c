"""A small Whisper with random weights, scaled so that texts depend on the audio, hold several segments and end at
different lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import whisper.timing
from whisper.model import ModelDimensions, Whisper


def random_whisper(path: Path) -> Path:
    """A multilingual checkpoint in openai-whisper's format, of width 32, that decodes at most 32 tokens a window."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dims = ModelDimensions(80, 1500, 32, 2, 1, 51865, 64, 32, 2, 1)
        model = Whisper(dims)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
            for block in model.decoder.blocks:
                block.cross_attn.out.weight.mul_(3)
                block.cross_attn.value.weight.mul_(3)
            model.encoder.conv1.weight.mul_(3)
            model.decoder.token_embedding.weight[50257].mul_(2)  # the end comes sooner
            model.decoder.token_embedding.weight[50364:].mul_(1.3)  # and timestamps oftener
    torch.save({"dims": dims.__dict__, "model_state_dict": model.state_dict()}, path)
    return path


def interpret_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run whisper's word alignment in Python: to compile it takes longer than the few words of a test."""
    for compiled in ("dtw_cpu", "backtrace"):
        function = getattr(whisper.timing, compiled)
        monkeypatch.setattr(whisper.timing, compiled, getattr(function, "py_func", function))
