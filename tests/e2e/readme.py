"""The README's recipes, to be run as they stand there, on another lake."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
LAKE = "s3://speech-lake"  # what the README reads from


def recipes(language: str, lake: str) -> list[str]:
    """The README's code blocks that are marked as ``language`` and nothing else, reading from ``lake``."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block.replace(LAKE, lake) for block in blocks]
