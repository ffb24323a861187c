"""What may be loaded: a checkpoint that can run code only from where it is trusted."""

from __future__ import annotations

import pytest

from schemas.errors import VoxmillError
from workers.engines.checkpoints import check_trusted

MODELS = "/models/"


@pytest.mark.parametrize(
    ("spec", "trusted"),
    [
        ("whisper:/anywhere/x.pt", []),  # tensors only
        ("vits:someone/voice", []),
        ("conformer:stt_en_conformer_ctc_large", []),  # NVIDIA's catalogue
        ("conformer:nvidia/parakeet-tdt-1.1b", []),
        ("conformer:someone/fine-tuned", ["someone/fine-tuned"]),
        ("conformer:someone/fine-tuned", ["someone/"]),
        ("conformer:/models/x.nemo", [MODELS]),
        ("conformer:/models/x.nemo", ["/models/x.nemo"]),
        ("conformer:s3://models/en/x.nemo", ["/else", "s3://models/en"]),
        ("fastpitch:/models/a.nemo+hifigan:tts_en_hifigan", [MODELS]),
    ],
)
def test_what_is_trusted_passes(spec: str, trusted: list[str]) -> None:
    check_trusted(spec, trusted)


@pytest.mark.parametrize(
    ("spec", "trusted", "refused"),
    [
        ("conformer:/models/x.nemo", [], "/models/x.nemo"),
        ("conformer:/models-of-others/x.nemo", ["/models"], "/models-of-others/x.nemo"),
        ("conformer:/models/../tmp/x.nemo", [MODELS], "/models/../tmp/x.nemo"),
        ("conformer:s3://models/../theirs/x.nemo", ["s3://models"], "s3://models/../theirs/x.nemo"),
        ("conformer:s3://theirs/x.nemo", ["s3://models", MODELS], "s3://theirs/x.nemo"),
        ("conformer:someone/fine-tuned", ["some"], "someone/fine-tuned"),
        ("fastpitch:/models/a.nemo+hifigan:/else/b.nemo", [MODELS], "/else/b.nemo"),
    ],
)
def test_what_is_not_is_refused_and_told_how_to_be_allowed(spec: str, trusted: list[str], refused: str) -> None:
    with pytest.raises(VoxmillError) as told:
        check_trusted(spec, trusted)
    message = str(told.value)
    assert f"{refused} can run code as it is loaded" in message
    assert f"--trust {refused}" in message
    assert "\n" not in message
