"""The transcription stage: what is heard, in which language and rate, and what a refusal costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Recipe
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Member, Shard
from workers.engines.base import Failure, Synthesis, Transcription
from workers.silence import SilenceGuard
from workers.transcribe import Transcribe, resample
from workers.work import Recording, Regeneration, Utterance, Work

FIRST, SECOND = "whisper:first.pt", "conformer:second.nemo"


@dataclass
class Listener:
    """An engine that writes each clip's length and level, and refuses level 0.5."""

    spec: str = FIRST
    digest: str = "blake3:00"
    sample_rate: int = 16_000
    heard: list[tuple[int, str | None]] = field(default_factory=list)

    def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcription | Failure]:
        self.heard += [(len(clip), language) for clip, language in zip(clips, languages, strict=True)]
        return [
            Failure(Reason.ENGINE_FAILED, "refused")
            if clip.max() == 0.5
            else Transcription(f"{len(clip)} {clip.max():.2f}", language or f"l{len(clip)}")
            for clip, language in zip(clips, languages, strict=True)
        ]


class Detector(Listener):
    """One that detects one language per clip."""

    def detect(self, clips: Sequence[np.ndarray]) -> list[str | None]:
        self.heard += [(len(clip), "?") for clip in clips]
        return [None if clip.max() == 0.5 else f"l{len(clip)}" for clip in clips]


def recipe(*transcribers: str, **asr: str | bool) -> Recipe:
    return Recipe.model_validate({"asr": {"transcribers": transcribers or (FIRST, SECOND), **asr}})


def work_of(members: dict[Member, list[tuple[int, float, float]]], rate: int = 16_000) -> Work:
    """Members to utterances, each (samples, raw level, denoised level)."""
    shard = Shard("s", Archive("file:///a.tar", Layout.TAR), "f", tuple(members))
    work = Work(shard, rate)
    for member, pieces in members.items():
        start = 0.0
        for samples, raw, denoised in pieces:
            end = start + samples / rate
            audio = np.full(samples, raw, np.float32)
            recording = Recording("WAV/PCM_16", rate, 1, 60.0)
            work.utterances.append(
                Utterance(member, recording, None, start, end, audio, denoised=np.full(samples, denoised, np.float32))
            )
            start = end
    return work


def named(name: str, text: str | None = None, language: str | None = None) -> Member:
    return Member(name, 1, "file:///a.tar", text=text, language=language)


LEVELS = st.sampled_from([0.1, 0.5])
PIECES = st.lists(st.tuples(st.integers(100, 110), LEVELS, LEVELS), min_size=1, max_size=3)


@given(st.lists(st.tuples(PIECES, st.sampled_from([None, "text"])), min_size=1, max_size=4), st.booleans())
def test_members_are_published_or_rejected_once(
    layout: list[tuple[list[tuple[int, float, float]], str | None]], is_first: bool
) -> None:
    work = work_of({named(f"{index}.wav", text): pieces for index, (pieces, text) in enumerate(layout)})
    before = list(work.utterances)
    spec = FIRST if is_first else SECOND
    work = Transcribe(Detector(spec), recipe())(work)
    left = {utterance.member for utterance in work.utterances}
    whole = [reject.member for reject in work.rejects if reject.utterance_id is None]
    for member in work.shard.members:
        assert (member in left) != (member.name in whole)
        assert whole.count(member.name) <= 1
    for utterance in before:
        refused_raw = bool(utterance.raw[0] == 0.5)
        kept = any(utterance is one for one in work.utterances)
        assert kept == (not (is_first and refused_raw))
        if kept:
            assert ((spec, "raw") in utterance.transcriptions) == (not refused_raw)
            asked = utterance.member.text is not None
            assert utterance.denoised is not None
            heard = asked and utterance.denoised[0] != 0.5
            assert ((spec, "denoised") in utterance.transcriptions) == heard
    rows = {reject.utterance_id for reject in work.rejects if reject.utterance_id}
    for utterance in work.utterances:
        refused = utterance.raw[0] == 0.5 or (utterance.member.text and utterance.denoised[0] == 0.5)  # type: ignore[index]
        assert (utterance.id(work.shard.archive.uri) in rows) == bool(refused)
    assert all(spec in reject.message and reject.stage == "transcribe" for reject in work.rejects)
    assert work.digests == {spec: "blake3:00"}


def test_a_recording_has_one_language_told_by_its_longest_utterance() -> None:
    given_, cut, single = named("given.wav", language="fr"), named("cut.wav", text="x"), named("single.wav")
    work = work_of({given_: [(100, 0.1, 0.1)], cut: [(300, 0.1, 0.1), (900, 0.1, 0.1)], single: [(50, 0.1, 0.1)]})
    engine = Detector()
    work = Transcribe(engine, recipe())(work)
    languages = [utterance.transcriptions[FIRST, "raw"].language for utterance in work.utterances]
    assert languages == ["fr", "l900", "l900", "l50"]
    heard = [(100, "fr"), (300, "l900"), (300, "l900"), (900, "l900"), (900, "l900"), (50, None)]
    assert engine.heard == [(900, "?"), *heard]  # detected once, then all at once
    assert [u.transcriptions[FIRST, "denoised"].language for u in work.utterances[1:3]] == ["l900", "l900"]


def test_clips_come_at_the_engine_s_rate_and_settings_choose_the_inputs() -> None:
    work = work_of({named("a.wav", text="x"): [(8_000, 0.1, 0.2)], named("b.wav"): [(4_000, 0.1, 0.2)]}, rate=8_000)
    engine = Listener(FIRST)
    Transcribe(engine, recipe(denoised="none"))(work)
    assert [samples for samples, _ in engine.heard] == [16_000, 8_000]
    engine.heard.clear()
    chosen = Transcribe(engine, recipe(denoised="none", chosen_input="denoised"))(work)
    assert all((FIRST, "denoised") in utterance.transcriptions for utterance in chosen.utterances)
    failed = replace(work, failed="decode: it broke", utterances=[])
    assert Transcribe(engine, recipe())(failed) is failed


def test_the_round_trip_is_heard_and_a_refusal_keeps_the_utterance() -> None:
    work = work_of({named("a.wav", language="de"): [(100, 0.1, 0.1), (200, 0.1, 0.1)]})
    for utterance, level in zip(work.utterances, (0.3, 0.5), strict=True):
        synthesis = Synthesis(np.full(22_050, level, np.float32), 22_050)
        utterance.regenerations.append(
            Regeneration("espeak:de", "d", "de", "eins", FIRST, synthesis, round_trip_engine=SECOND)
        )
    level_up = np.full(16_000, 0.5, np.float32)
    work.utterances[1].regenerations[0].synthesis = Synthesis(level_up, 16_000)
    engine = Listener(SECOND)
    work = Transcribe(engine, recipe())(work)
    first, second = (utterance.regenerations[0] for utterance in work.utterances)
    assert first.round_trip is not None
    assert first.round_trip.text.startswith("16000 ")
    assert second.round_trip is None
    assert [(reject.utterance_id, reject.start_s) for reject in work.rejects] == [
        (work.utterances[1].id("file:///a.tar"), work.utterances[1].start_s)
    ]
    assert engine.heard[-2:] == [(16_000, "de"), (16_000, "de")]


@pytest.mark.parametrize(
    ("logprob", "seconds", "guard", "cut", "text"),
    [
        (-0.9, 1, True, False, ""),
        (-0.9, 1, False, False, "one"),
        (-0.05, 1, True, False, "one"),  # sure of it
        (-0.05, 2, True, False, ""),  # long enough for speech to be heard, were there any
        (None, 1, True, False, "one"),
        (None, 2, True, False, ""),  # a transducer's
        (-0.9, 1, True, True, "one"),  # voice activity detection has cut the utterance out: it has heard speech
    ],
)
def test_words_need_speech(logprob: float | None, seconds: int, guard: bool, cut: bool, text: str) -> None:
    class Inventive(Listener):
        def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> Any:
            return [Transcription("one", "en", avg_logprob=logprob) for _ in clips]

    work = work_of({named("rain.wav"): [(seconds * 16_000, 0.0, 0.0)]})
    utterance = work.utterances[0]
    utterance.raw[:] = 0.05 * np.random.default_rng(0).standard_normal(seconds * 16_000)
    if cut:
        utterance.levels["speech_ratio"] = 0.5
    Transcribe(Inventive(), recipe(silence_guard=guard))(work)
    assert utterance.transcriptions[FIRST, "raw"].text == text
    assert utterance.levels.get("speech_ratio") == (0.5 if cut else None if text else 0.0)


@pytest.mark.parametrize(("seconds", "guard", "share"), [(2, True, 0.0), (1, True, None), (2, False, None)])
def test_longer_clips_are_listened_to_before_an_engine_is(
    monkeypatch: pytest.MonkeyPatch, seconds: int, guard: bool, share: float | None
) -> None:
    work = work_of({named("rain.wav"): [(seconds * 16_000, 0.0, 0.0), (seconds * 16_000, 0.0, 0.0)]})
    cut, utterance = work.utterances
    cut.levels["speech_ratio"] = 0.5
    chosen = recipe(silence_guard=guard)
    assert SilenceGuard(chosen).measure(work) is work
    assert (cut.levels["speech_ratio"], utterance.levels.get("speech_ratio")) == (0.5, share)
    if share is not None:  # and not once more
        monkeypatch.setattr("workers.silence.speech_share", None)
        assert not SilenceGuard(chosen).check(utterance, Transcription("one", avg_logprob=-0.9)).text


def test_unsure_words_of_a_real_sentence_stay(shared_data: Path) -> None:
    samples, rate = sf.read(shared_data / "jfk" / "jfk.flac", dtype="float32", frames=5 * 16_000, always_2d=True)
    raw = resample(samples[:, 0], rate, 16_000)

    class Unsure(Listener):
        def transcribe(self, clips: Sequence[np.ndarray], languages: Sequence[str | None]) -> Any:
            return [Transcription("and so", "en", avg_logprob=-0.9) for _ in clips]

    work = work_of({named("word.wav"): [(len(raw), 0.0, 0.0)]})
    work.utterances[0].raw = raw
    Transcribe(Unsure(), recipe())(work)
    assert work.utterances[0].transcriptions[FIRST, "raw"].text == "and so"
    assert work.utterances[0].levels["speech_ratio"] > 0
