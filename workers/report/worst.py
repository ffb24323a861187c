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
from workers.report.data import Reader
from workers.report.figures import spectrogram
from workers.report.words import Piece, difference

SHOWN = 12
MIN_WORDS = 3  # one wrong word of one or two is 50 or 100% and teaches nothing
AUDIO_BYTES = 6 << 20  # of FLAC in one page, over all players; it grows by a third as text


@dataclass(frozen=True)
class Heard:
    """One transcript of a worst utterance, as differences from the reference (or from the first engine's)."""

    engine: str
    input: str
    wer: float | None
    pieces: list[Piece]


@dataclass(frozen=True)
class Worst:
    """One utterance; ``audio`` and ``spectrogram`` are data URIs, None where the page has no room for more."""

    row: dict[str, Any]
    against: str  # what the transcripts are compared with
    heard: list[Heard]
    audio: str | None
    spectrogram: str | None


def worst(reader: Reader, utterances: pa.Table, chosen: Scored) -> list[Worst]:
    """The utterances with the highest WER, or, where nothing has a reference, with the least agreement."""
    rows = _by_wer(chosen) if len(chosen.wer) else _by_agreement(utterances)
    if not len(rows):
        return []
    picked = utterances.take(pa.array(rows)).to_pylist()
    ids = [row["utterance_id"] for row in picked]
    texts: dict[str, list[dict[str, Any]]] = {}
    for text in reader.texts(pa.array(ids)).to_pylist():
        texts.setdefault(text["utterance_id"], []).append(text)
    flacs, room, found = reader.audio(ids), AUDIO_BYTES, []
    for row in picked:
        flac = flacs.get(row["utterance_id"])
        fits = flac is not None and len(flac) <= room
        room -= len(flac) if fits and flac is not None else 0
        against, heard = _heard(texts.get(row["utterance_id"], []), row)
        found.append(Worst(row, against, heard, *(_media(flac) if fits and flac is not None else (None, None))))
    return found


def _by_wer(chosen: Scored) -> np.ndarray:
    wrong = chosen.errors > 0
    long = wrong & (chosen.words >= MIN_WORDS)
    candidates = np.flatnonzero(long if long.any() else wrong)
    rate = chosen.errors[candidates] / np.maximum(chosen.words[candidates], 1)
    order = np.lexsort((chosen.utterance[candidates], -chosen.errors[candidates], -rate))
    return chosen.utterance[candidates][order][:SHOWN]


def _by_agreement(utterances: pa.Table) -> np.ndarray:
    agreement = utterances["agreement_wer"].cast(pa.float64()).to_numpy()
    candidates = np.flatnonzero(agreement > 0)
    return candidates[np.argsort(-agreement[candidates], kind="stable")][:SHOWN]


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


def _media(flac: bytes) -> tuple[str, str]:
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32", always_2d=True)
    return "data:audio/flac;base64," + base64.b64encode(flac).decode(), spectrogram(samples[:, 0], rate)
