"""Windows that fail the guards of ``whisper.transcribe``, and what is drawn for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from random_whisper import random_whisper
from speech_clips import clips_of

from schemas.config import AsrSettings
from workers.engines import whisper_loop as loop
from workers.engines.base import Transcription
from workers.engines.registry import load_transcriber
from workers.engines.whisper import WhisperTranscriber
from workers.engines.whisper_recording import holds_speech, needs_fallback


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_whisper(tmp_path_factory.mktemp("whisper") / "random.pt")


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> WhisperTranscriber:
    loaded = load_transcriber(f"whisper:{checkpoint}", "cpu", AsrSettings())
    assert isinstance(loaded, WhisperTranscriber)
    return loaded


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    return clips_of(shared_data, "rhasspy", 6)


def test_the_same_clips_give_the_same_answers_whatever_was_heard_before(
    checkpoint: Path, engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = AsrSettings(fallback_temperatures=(0.8,))
    monkeypatch.setattr(engine, "settings", few)
    first = engine.transcribe(clips[:3], ["en", None, "de"])
    engine.transcribe(clips[3:], [None] * 3)
    assert engine.transcribe(clips[:3], ["en", None, "de"]) == first
    fresh = load_transcriber(f"whisper:{checkpoint}", "cpu", few)
    assert fresh.transcribe(clips[:3], ["en", None, "de"]) == first


def test_draws_of_a_fallback_belong_to_the_clip(engine: WhisperTranscriber, clips: list[np.ndarray]) -> None:
    together = engine.transcribe(clips, ["en"] * len(clips))  # random weights: every guard fails, up to 1.0
    backwards = engine.transcribe(clips[::-1], ["en"] * len(clips))[::-1]
    assert all(isinstance(one, Transcription) and one.temperature == 1.0 for one in together)
    assert [one.text for one in together] == [one.text for one in backwards]  # type: ignore[union-attr]
    assert engine.transcribe(clips[:1], ["en"])[0].text == together[0].text  # type: ignore[union-attr]


def test_only_failing_items_are_decoded_again(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[float], bool]] = []
    decode = engine._decode_once

    def spy(features: torch.Tensor, temperatures: list[float], *rest: Any) -> Any:
        seen.append((temperatures, len(features) == len(temperatures)))
        results = [
            replace(one, avg_logprob=-0.5, compression_ratio=1.0) for one in decode(features, temperatures, *rest)
        ]
        if len(seen) > 2:
            return results
        fails = {0.0: {"avg_logprob": -1.1}, 0.2: {"compression_ratio": 2.5}, 0.8: {"avg_logprob": float("nan")}}
        many = [replace(one, **fails.get(one.temperature, {})) for one in results]
        return many if any(temperatures) else [many[0], *results[1:]]

    monkeypatch.setattr(engine, "_decode_once", spy)
    got = engine.transcribe([clip[:32_000] for clip in clips], ["en"] * len(clips))
    assert seen[:2] == [([0.0] * len(clips), True), ([0.2, 0.4, 0.6, 0.8, 1.0], True)]
    assert sorted(one.temperature for one in got)[-2:] == [0.0, 0.4]  # type: ignore[union-attr]  # not what fails at 0.8


def test_many_failing_items_go_through_the_temperatures_in_turn(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    decode = engine._decode_once

    def spy(features: torch.Tensor, temperatures: list[float], *rest: Any) -> Any:
        seen.append(temperatures)
        return [replace(one, avg_logprob=-1.5, no_speech_prob=0.0) for one in decode(features, temperatures, *rest)]

    monkeypatch.setattr(engine, "_decode_once", spy)
    several = engine.windows // 2  # two temperatures make a batch then
    short = [np.roll(clips[0][:16_000], shift) for shift in range(several)]
    got = engine.transcribe(short, ["en"] * several)
    rounds = [{0.0}, {0.2, 0.4}, {0.6, 0.8}, {1.0}]
    assert [set(one) for one in seen][:4] == rounds
    assert {one.temperature for one in got} == {1.0}  # type: ignore[union-attr]


def test_failures_of_several_batches_are_decoded_again_together(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    decode = engine._decode_once

    def spy(features: torch.Tensor, temperatures: list[float], *rest: Any) -> Any:
        seen.append((temperatures[0], len(features)))
        results = [
            replace(one, avg_logprob=-0.5, compression_ratio=1.0) for one in decode(features, temperatures, *rest)
        ]
        return [replace(results[0], compression_ratio=2.5), *results[1:]]

    monkeypatch.setattr(engine, "_decode_once", spy)
    monkeypatch.setattr(engine, "capacity", loop.Capacity(2.0, max_waste=0.0))
    monkeypatch.setattr(engine, "settings", AsrSettings(fallback_temperatures=(0.2,)))
    short = [clip[:24_000] for clip in [*clips, *clips]]
    got = engine.transcribe(short, ["en"] * len(short))
    together = [(0.0, 2)] * loop._TOGETHER + [(0.2, 2)] * (loop._TOGETHER // 2)  # one of every batch
    assert seen == [*together, (0.0, 2), (0.0, 2), (0.2, 2)]
    assert [one.temperature for one in got] == [0.2, 0.0] * 6  # type: ignore[union-attr]


def test_the_published_guards() -> None:
    def result(logprob: float, ratio: float = 1.0, silence: float = 0.0) -> Any:
        return whisper.DecodingResult(None, "en", avg_logprob=logprob, compression_ratio=ratio, no_speech_prob=silence)

    usual, none = AsrSettings(), dict.fromkeys(("compression_ratio_threshold", "logprob_threshold"))
    tried = [needs_fallback(result(*values), usual) for values in ((-0.9,), (-1.1,), (-0.5, 2.5))]
    assert tried == [False, True, True]
    assert not needs_fallback(result(-1.1, 2.5, 0.7), usual)  # improbable and silent: dropped, not tried again
    assert not needs_fallback(result(-1.1, 2.5), AsrSettings(**none))  # type: ignore[arg-type]
    assert not needs_fallback(result(-0.5, 2.5), AsrSettings(compression_ratio_threshold=2.6))
    assert needs_fallback(result(-1.1, 1.0, 0.7), AsrSettings(no_speech_threshold=None))
    stands = [
        holds_speech(result(-1.1, 1.0, 0.7), AsrSettings(no_speech_threshold=limit)) for limit in (0.6, 0.8, None)
    ]
    assert stands == [False, True, True]
    assert holds_speech(result(-0.9, 1.0, 0.7), usual)
    assert not holds_speech(result(-0.9, 1.0, 0.7), AsrSettings(logprob_threshold=None))
