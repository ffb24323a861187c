"""Flags mean what they say. CPU: under 1 s."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.quality.flags import FLAGS, Evidence, flags

TEXT = "the quick brown fox jumps over the lazy dog"
FINE = Evidence(
    duration_s=3.0, transcript=TEXT, reference=TEXT, second_transcript=TEXT, given_language="en", heard_language="en",
    snr_db=25.0, clipped_ratio=0.0, speech_ratio=0.9, avg_logprob=-0.2, no_speech_prob=0.01, compression_ratio=1.1,
    wer=0.0, second_wer=0.0, agreement_wer=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"clipped_ratio": 0.02}, ["clipped"]),
        ({"snr_db": 3.0}, ["low_snr"]),
        ({"avg_logprob": -1.4}, ["low_confidence"]),
        ({"avg_logprob": -1.4, "no_speech_prob": 0.8}, ["music_or_noise", "low_confidence", "probable_hallucination"]),
        ({"speech_ratio": 0.02, "transcript": ""}, ["music_or_noise", "empty_transcript"]),
        ({"second_transcript": "", "agreement_wer": 1.0}, ["probable_hallucination", "engines_disagree"]),
        (
            {"transcript": "thank you " * 60, "compression_ratio": 12.0, "wer": 13.0, "agreement_wer": 0.9},
            ["repetition", "probable_hallucination", "engines_disagree"],
        ),
        ({"wer": 0.9, "second_wer": 0.9, "agreement_wer": 0.05}, ["likely_wrong_reference"]),
        ({"wer": 0.9, "second_wer": 0.1, "agreement_wer": 0.8}, ["engines_disagree"]),
        ({"heard_language": "de", "given_language": "en-GB"}, ["wrong_language"]),
        ({"heard_language": "no", "given_language": "nb-NO"}, []),
        ({"detected_language": "de", "detected_probability": 0.95}, ["wrong_language"]),
        ({"detected_language": "de", "detected_probability": 0.6}, []),
        ({"detected_language": "en", "detected_probability": 0.95, "given_language": "en-GB"}, []),
        ({"given_language": "en-GB"}, []),
        ({"given_language": "eng"}, []),
        ({"duration_s": 0.8}, ["too_fast"]),
        ({"duration_s": 60.0}, ["too_slow"]),
        ({"duration_s": 60.0, "speech_ratio": 0.2}, []),
    ],
)
def test_one_sign_at_a_time(change: dict[str, object], expected: list[str]) -> None:
    assert flags(replace(FINE, **change)) == expected  # type: ignore[arg-type]


def test_what_is_not_measured_raises_no_flag() -> None:
    assert flags(Evidence(duration_s=2.0, transcript="good morning everyone")) == []


def test_two_engines_agreeing_on_one_word_prove_nothing() -> None:
    word = replace(
        FINE, transcript="five", second_transcript="five", reference="nine", duration_s=0.5, wer=1.0, second_wer=1.0
    )
    assert flags(word) == []


def test_characters_are_paced_as_characters() -> None:
    spoken = " ".join("今日はとても良い天気ですね")
    one = Evidence(duration_s=2.5, transcript=spoken, reference=spoken, given_language="ja", speech_ratio=1.0)
    assert flags(one) == []
    assert flags(replace(one, duration_s=0.6)) == ["too_fast"]


def test_every_flag_is_documented_and_ordered() -> None:
    everything = replace(
        FINE, clipped_ratio=1.0, snr_db=-5.0, avg_logprob=-3.0, wer=1.0, second_wer=1.0, heard_language="fr"
    )
    found = flags(everything)
    assert found == [name for name in FLAGS if name in found]
    assert len(found) == 5
