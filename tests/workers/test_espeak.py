"""espeak-ng voices: the same text gives the same samples whatever came before, and bad items cost themselves alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engines.base import Failure, Synthesis
from workers.engines.espeak import EspeakSynthesizer, languages, variants

VOICES = ["en-us", "en-us+whisper", "en-gb-scotland+f3", "de+croak", "en-us+klatt3"]


@pytest.fixture(scope="module")
def engine() -> EspeakSynthesizer:
    return EspeakSynthesizer("en-us")


@settings(max_examples=10, deadline=None)
@given(voice=st.sampled_from(VOICES), before=st.lists(st.tuples(st.text(max_size=12), st.sampled_from(VOICES))))
def test_samples_depend_on_text_and_voice_alone(voice: str, before: list[tuple[str, str]]) -> None:
    engine = EspeakSynthesizer("en-us")
    text = "one two three"
    first = engine.speak(text, voice)
    engine.synthesize([t for t, _ in before], [v for _, v in before], [0] * len(before))
    again = engine.speak(text, voice)
    np.testing.assert_array_equal(first.samples, again.samples)


def test_bad_items_cost_themselves_alone(engine: EspeakSynthesizer) -> None:
    texts = ["seven", "", " \n", "?!", "...", "seven", "seven", "sev\x00en"]
    voices = [None, None, None, None, None, "xx-none", "en-us+nosuch", "en-us"]
    answers = engine.synthesize(texts, voices, list(range(8)))
    reasons = [answer.reason if isinstance(answer, Failure) else None for answer in answers]
    assert reasons == [None, *["nothing_pronounceable"] * 4, *["unknown_voice"] * 2, None]
    first = answers[0]
    assert isinstance(first, Synthesis)
    assert first.samples.dtype == np.float32
    assert first.samples.ndim == 1
    assert 0.1 < np.abs(first.samples).max() <= 1.0
    assert 0.2 < len(first.samples) / first.sample_rate < 2.0


def test_settings_change_the_speech(engine: EspeakSynthesizer) -> None:
    text = "one two three four five six"
    slow, fast = (engine.speak(text, rate_wpm=rate).samples for rate in (120, 240))
    assert len(slow) > 1.5 * len(fast)
    assert not np.array_equal(engine.speak(text, pitch=20).samples, engine.speak(text, pitch=80).samples)
    with pytest.raises(ValueError, match="pitch must lie in 0 to 100"):
        engine.speak(text, pitch=101)


def test_words_begin_where_they_are_heard(engine: EspeakSynthesizer) -> None:
    speech, starts = engine.speak_words("one, two, three", rate_wpm=120)
    assert len(starts) == 3
    assert starts == sorted(starts)
    for start in starts[1:]:  # a comma is a pause, and sound follows it
        at = round(start * speech.sample_rate)
        before, after = speech.samples[at - 1000 : at - 200], speech.samples[at : at + 4000]
        assert np.abs(before).max() < 0.2 * np.abs(after).max()


def test_voices_are_named_and_models_told_apart() -> None:
    assert {"en-us", "en-gb", "en", "de", "fr", "fr-fr"} <= set(languages())
    assert {"f1", "m3", "whisper"} <= set(variants())
    scottish = EspeakSynthesizer("en-gb-scotland+f3")
    assert scottish.spec == "espeak:en-gb-scotland+f3"
    assert scottish.digest.startswith("blake3:")
    with pytest.raises(ValueError, match="no language 'tlh-none'"):
        EspeakSynthesizer("tlh-none")
