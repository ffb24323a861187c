"""The utterances that most need an ear: texts, differences, audio and spectrogram of a few."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from workers.quality.scored import Scored
from workers.quality.worst import by_agreement, by_errors
from workers.report.data import Reader
from workers.report.figures import power_db, spectrogram
from workers.report.words import Piece, difference

AUDIO_BYTES = 8 << 20  # of FLAC in one page, over all players; it grows by a third as text


@dataclass(frozen=True)
class Heard:
    """One transcript of a worst utterance, as differences from the reference (or from the first engine's)."""

    engine: str
    input: str
    wer: float | None
    pieces: list[Piece]


@dataclass(frozen=True)
class Media:
    """The audio of one ``input`` (raw or denoised) and its spectrogram, both data URIs."""

    input: str
    audio: str
    spectrogram: str


@dataclass(frozen=True)
class Worst:
    """One utterance; ``media`` is empty where nothing is published or the page has no room for more."""

    row: dict[str, Any]
    against: str  # what the transcripts are compared with
    heard: list[Heard]
    media: list[Media]


def worst(reader: Reader, utterances: pa.Table, chosen: Scored) -> list[Worst]:
    """The utterances with the highest WER, or, where nothing has a reference, with the least agreement."""
    if len(chosen.wer):
        inorder = chosen.take(np.argsort(chosen.utterance, kind="stable"))
        rows = inorder.utterance[by_errors(inorder.errors, inorder.words)]
    else:
        rows = by_agreement(utterances["agreement_wer"].cast(pa.float64()).to_numpy())
    if not len(rows):
        return []
    picked = utterances.take(pa.array(rows)).to_pylist()
    ids = [row["utterance_id"] for row in picked]
    texts: dict[str, list[dict[str, Any]]] = {}
    for text in reader.texts(pa.array(ids)).to_pylist():
        texts.setdefault(text["utterance_id"], []).append(text)
    flacs, room, found = reader.audio(ids), AUDIO_BYTES, []
    for row in picked:
        mine = flacs.get(row["utterance_id"], {})
        size = sum(map(len, mine.values()))
        against, heard = _heard(texts.get(row["utterance_id"], []), row)
        found.append(Worst(row, against, heard, _media(mine) if size <= room else []))
        room -= size if size <= room else 0
    return found


def _heard(texts: list[dict[str, Any]], row: dict[str, Any]) -> tuple[str, list[Heard]]:
    def rank(text: dict[str, Any]) -> tuple[bool, bool, str]:
        mine = text["engine"] == row["transcript_engine"] and text["input"] == row["transcript_input"]
        return (not mine, text["input"] != "raw", text["engine"])

    ordered = sorted(texts, key=rank)
    if not ordered:
        return "", []
    reference = ordered[0]["normalized_reference"]
    against = "reference" if reference is not None else ordered[0]["engine"]
    base = ordered[0]["normalized_text"] if reference is None else reference
    heard = []
    for text in ordered:
        wanted = base if text["normalized_reference"] is None else text["normalized_reference"]
        pieces = difference(wanted, text["normalized_text"] or "")
        heard.append(Heard(text["engine"], text["input"], text["wer"], pieces))
    return against, heard


def _media(flacs: dict[str, bytes]) -> list[Media]:
    """One per input; their spectrograms share a scale, so that they can be compared."""
    levels = {}
    for heard, flac in flacs.items():
        samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32", always_2d=True)
        levels[heard] = power_db(samples[:, 0], rate)
    top = max((float(level.max()) for level in levels.values()), default=0.0)
    return [
        Media(heard, "data:audio/flac;base64," + base64.b64encode(flac).decode(), spectrogram(levels[heard], top))
        for heard, flac in flacs.items()
    ]
