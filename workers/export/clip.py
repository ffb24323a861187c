"""One clip on its way to a trainer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clip:
    """``data`` is the file's bytes, ``name`` its path under the folder exported to; ``duration_s`` is in seconds.

    ``spoken_text`` is set for regenerated speech: the text with its numbers and abbreviations written out.
    """

    id: str
    name: str
    data: bytes
    text: str
    duration_s: float
    sample_rate: int
    language: str | None = None
    speaker: str | None = None
    spoken_text: str | None = None
    archive: str = ""
    member: str = ""
    utterance_id: str = ""

    @property
    def samples(self) -> int:
        return round(self.duration_s * self.sample_rate)


def name_of(clip_id: str, suffix: str) -> str:
    """Where a clip lies: spread over folders by its id, so that none grows too large to list.

    >>> name_of("a1b2", "flac")
    'audio/a1/a1b2.flac'
    """
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in clip_id)
    return f"audio/{safe[:2]}/{safe}.{suffix}"
