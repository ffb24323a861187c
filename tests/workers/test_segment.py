"""Cutting: what holds for any probabilities, and pauses put between real sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from speech_clips import clips_of

from infra.demo.clips import audible, read_fsdd
from schemas.config import SegmentationSettings
from workers.segment import FRAME_S, Segmenter, segments, speech_probabilities, speech_runs

LEVELS = st.sampled_from([0.0, 0.02, 0.3, 0.4, 0.6, 0.98])
RUNS = st.lists(st.tuples(LEVELS, st.integers(1, 300)), max_size=30)
SETTINGS = st.builds(
    SegmentationSettings,
    window_s=st.floats(5, 30),
    threshold=st.floats(0.1, 0.9),
    min_speech_s=st.floats(0, 1),
    min_silence_s=st.floats(0, 1),
    pad_s=st.floats(0, 1),
)


@given(RUNS, SETTINGS, st.floats(0.01, 1))
@example(
    [(0.0, 1), (0.6, 90), (0.0, 14), (0.6, 1)],
    SegmentationSettings(window_s=5.0, threshold=0.5, min_speech_s=0.0, min_silence_s=0.0, pad_s=1.0),
    1.0,
)
def test_any_probabilities_give_orderly_segments(
    runs: list[tuple[float, int]], settings: SegmentationSettings, rest: float
) -> None:
    probabilities = np.array([level for level, count in runs for _ in range(count)], np.float32)
    duration = max(0.0, (len(probabilities) - 1 + rest) * FRAME_S)  # the last frame need not be full
    found = segments(probabilities, duration, settings)
    edges = [edge for segment in found for edge in segment[:2]]
    assert edges == sorted(edges)
    assert all(0 <= edge <= duration for edge in edges)
    assert all(segment.end_s - segment.start_s <= settings.window_s + 1e-9 for segment in found)
    assert all(segment.speech_ratio is not None and 0 < segment.speech_ratio <= 1 for segment in found)
    # every frame of speech is in a segment, and there are segments only where there is speech
    speech = speech_runs(probabilities, settings)
    assert bool(speech) == bool(found)
    for begin, end in speech:
        for frame in range(begin, end):
            middle = min((frame + 0.5) * FRAME_S, duration)
            assert any(segment.start_s <= middle <= segment.end_s for segment in found)


@given(st.lists(st.integers(20, 400), min_size=1, max_size=30))
def test_cuts_lie_in_pauses_where_there_are_any(lengths: list[int]) -> None:
    pause = 12  # frames, 0.38 s
    speech = [np.r_[np.full(length, 0.9), np.zeros(pause)] for length in lengths]
    probabilities = np.concatenate(speech).astype(np.float32)
    for segment in segments(probabilities, len(probabilities) * FRAME_S, SegmentationSettings()):
        for edge in segment[:2]:
            frame = min(int(edge / FRAME_S + 1e-6), len(probabilities) - 1)
            assert probabilities[frame] == 0 or probabilities[max(0, frame - 1)] == 0 or frame == 0


def test_speech_without_a_pause_is_cut_where_it_is_least_probable() -> None:
    probabilities = np.full(1500, 0.99, np.float32)
    probabilities[[200, 700, 1300]] = 0.1, 0.2, 0.05  # dips of one frame, no pauses; 200 is in the first half
    found = segments(probabilities, 1500 * FRAME_S, SegmentationSettings())
    assert [round(segment.end_s / FRAME_S) for segment in found][:1] == [700]
    assert found[0].end_s == found[1].start_s


@given(st.integers(931, 4_000), st.lists(st.tuples(st.integers(0, 3_999), st.floats(0.4, 0.9)), max_size=20))
@example(1_854, [])  # 59.3 s
def test_speech_without_a_pause_leaves_no_slivers(count: int, dips: list[tuple[int, float]]) -> None:
    probabilities = np.full(count, 0.99, np.float32)
    for at, level in dips:
        probabilities[at % count] = level
    settings = SegmentationSettings()
    found = segments(probabilities, count * FRAME_S, settings)
    lengths = [segment.end_s - segment.start_s for segment in found]
    assert sum(lengths) == pytest.approx(count * FRAME_S)
    assert min(lengths) > settings.window_s / 5
    assert max(lengths) <= settings.window_s


def test_sentences_between_silences_are_found(shared_data: Path) -> None:
    clips = clips_of(shared_data, "librispeech-test-other", 9)
    pieces, at, truth = [], 0.0, []
    for index, clip in enumerate(clips):
        silence = np.zeros(16_000 * (1 + index % 4), np.float32)
        pieces += [silence, clip]
        truth.append((at + len(silence) / 16_000, at + (len(silence) + len(clip)) / 16_000))
        at = truth[-1][1]
    recording = np.concatenate(pieces)
    (found,) = Segmenter(SegmentationSettings()).cut([recording], 16_000)
    (fine,) = Segmenter(SegmentationSettings(window_s=10)).cut([recording], 16_000)
    for start, end in truth:  # speech begins and ends within half a second of each clip's edges, and is covered
        for cut in (found, fine):
            covered = sum(max(0, min(end, b) - max(start, a)) for a, b, _ in cut)
            assert covered > 0.85 * (end - start)
    spoken = sum(end - start for start, end in truth)
    assert sum(b - a for a, b, _ in fine) < spoken + len(truth)


def test_only_recordings_longer_than_a_window_are_examined(shared_data: Path) -> None:
    (clip,) = clips_of(shared_data, "long", 1)
    short = clip[: 30 * 16_000]
    hum = np.sin(np.arange(40 * 16_000) / 20).astype(np.float32) / 10
    first, second, third = Segmenter(SegmentationSettings()).cut([short, hum, np.zeros(0, np.float32)], 16_000)
    assert first == [(0.0, len(short) / 16_000, None)]
    assert second == []
    assert third == [(0.0, 0.0, None)]


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_probabilities_at_other_rates_and_those_of_silero_itself(rate: int, shared_data: Path) -> None:
    import soxr
    import torch
    from silero_vad import load_silero_vad

    clip = clips_of(shared_data, "cmu-arctic", 1)[0]
    ours = speech_probabilities(clip, 16_000)
    theirs = load_silero_vad(onnx=False).audio_forward(torch.from_numpy(clip)[None], 16_000).numpy()[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    other = speech_probabilities(soxr.resample(clip, 16_000, rate), rate)
    assert abs(len(other) - len(ours)) <= 1
    assert np.mean((other[: len(ours)] > 0.5) == (ours[: len(other)] > 0.5)) > 0.9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_spliced_word_lies_whole_in_one_segment(shared_data: Path, seed: int) -> None:
    """Real words in a known order, with pauses as speakers make them, over several windows."""
    rng = np.random.default_rng(seed)
    words = [clip.samples for clip in read_fsdd(shared_data / "fsdd" / "fsdd_test.tar")]
    pieces, truth, at = [], [], 0
    for index in rng.permutation(len(words)):
        loud = audible(words[index], floor=0.1, margin_s=0)  # of its first and last sounds, what can be heard
        truth.append(((at + loud.start) / 16_000, (at + loud.stop) / 16_000))
        pause_s = rng.uniform(0.15, 0.6) if rng.random() < 0.8 else rng.uniform(0.6, 3)
        pieces += [words[index], np.zeros(int(16_000 * pause_s), np.float32)]
        at += len(pieces[-2]) + len(pieces[-1])
    (found,) = Segmenter(SegmentationSettings()).cut([np.concatenate(pieces)], 16_000)
    assert len(found) > 3
    homes = [[one for one in found if one.start_s < end and start < one.end_s] for start, end in truth]
    assert all(len(home) == 1 for home in homes)  # none lost, none heard twice
    assert all(
        home[0].start_s <= start and end <= home[0].end_s for (start, end), home in zip(truth, homes, strict=True)
    )
