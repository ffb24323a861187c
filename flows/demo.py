"""The demo: a corpus made on the spot and what the corpus flow needs to run on it, all inside one folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from schemas.errors import VoxmillError

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "infra" / "demo" / "checkpoints"
VOICE = "espeak:en-us"


def demo_form(folder: Path, reprocess: bool = False, minutes: float | None = None) -> dict[str, Any]:
    """The corpus flow's parameters for the demo in ``folder``; makes its corpus where it is not there yet.

    Raises VoxmillError outside a checkout of the repository, which the demo's scripts and checkpoints come with.
    """
    engines = [f"{family}:{_checkpoint(name)}" for family, name in _ENGINES]
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from infra.demo.corpus import SOURCES, build

    corpus = build(folder / "corpus") if minutes is None else build(folder / "corpus", minutes=minutes)
    return {
        "sources": [str(corpus / name) for name in SOURCES],
        "destination": str(folder / "lake"),
        "transcribers": engines,
        "tts": VOICE,
        "trusted": [str(CHECKPOINTS)],
        # Strings of digits: Whisper's English rules would make one number, and so one word, of each. Its encoder hears
        # the seconds that are there and not 30: so small a model loses nothing by it, and the demo takes half the time.
        # Half a minute of ten different words compresses by up to 3, without any loop.
        # Both kinds of audio are heard anyway, as nearly all of it has references: the better one is chosen.
        "recipe": {
            "asr": {
                "normalizer": "basic",
                "whisper_window": "fitted",
                "compression_ratio_threshold": 4.0,
                "chosen_input": "auto",
            }
        },
        "language": "en",
        "reprocess": reprocess,
    }


_ENGINES = (("conformer", "conformer-digits.nemo"), ("whisper", "whisper-digits.pt"))


def _checkpoint(name: str) -> Path:
    path = CHECKPOINTS / name
    if not path.is_file():
        raise VoxmillError(
            "this bundled checkpoint is not here", str(path), "The demo runs in a checkout of the repository"
        )
    return path
