"""Text as it is spoken, long texts in pieces, sound as it is published, voices by a secret key."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.config import Recipe, TtsSettings
from schemas.errors import VoxmillError
from workers.engines.base import Synthesis
from workers.sentences import pieces
from workers.sound import encoded, finished, loudness
from workers.spoken_text import spoken_text
from workers.voices import deal, key_digest, voice_key
from workers.wiring import EngineStage


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("Dr. Who paid $3.50 in 1984.", "en", "Doctor Who paid three dollars, fifty cents in nineteen eighty-four."),
        ("It costs $5, i.e. 50% off.", "en-US", "It costs five dollars, that is fifty percent off."),
        ("At 10:30, room A4, the 3rd.", "en", "At ten thirty, room A four, the third."),
        ("-5 degrees; 1,234 or 3.14", "en", "minus five degrees; one thousand, two hundred and thirty-four or "
         "three point one four"),
        ("Das kostet z.B. 3,50 € bzw. 1.234 Mark.", "de", "Das kostet zum Beispiel drei Euro und fünfzig Cent "
         "beziehungsweise eintausendzweihundertvierunddreißig Mark."),
        ("Il y a 21 chats.", "fr", "Il y a vingt et un chats."),
        ("5551234567 and 007", "en", "five five five one two three four five six seven and zero zero seven"),
        ("$3.50 in 1984, 20%", "eng", "three dollars, fifty cents in nineteen eighty-four, twenty percent"),
        ("$5, 1st", "English", "five dollars, first"),
        ("temperatura -5 stopni, 7", "pl", "temperatura -5 stopni, siedem"),
        ("1st a 2", "cs", "1st a dva"),
        ("$3.50", "vi", "$3.50"),
        ("1111111111111111111111111st", "am", "1111111111111111111111111st"),
        ("1,111,111 1111111st $1111111 1111111.5", "am", "1,111,111 1111111st $1111111 1111111.5"),
        ("nothing to change", "en", "nothing to change"),
        ("wa' 7", "tlh", "wa' 7"),
    ],
)  # fmt: skip
def test_numbers_and_abbreviations_are_written_out(text: str, language: str, spoken: str) -> None:
    assert spoken_text(text, language) == spoken


@given(
    st.text(max_size=300) | st.from_regex(r"[-$€]?[0-9]{1,400}([.,][0-9]{1,3}){0,9}(st|th| €)?", fullmatch=True),
    st.sampled_from(["en", "de", "ja", "pl", "cs", "vi", "ro", "ko", "am", None]),
)
def test_any_text_can_be_normalised(text: str, language: str | None) -> None:
    spoken_text(text, language)


@given(st.text(alphabet="ab ,.;!?\n", max_size=400), st.integers(20, 80))
def test_pieces_lose_nothing_and_fit(text: str, most: int) -> None:
    found = pieces(text, "en", most, 0.4)
    assert "".join(piece.text for piece in found).replace(" ", "") == "".join(text.split())
    assert all(len(piece.text) <= most for piece in found)
    assert found[-1].pause_s == 0


def test_pauses_are_longer_between_sentences_than_within_one() -> None:
    text = "The first sentence, which is long, stands here. The second is no shorter than it."
    assert [piece.pause_s for piece in pieces(text, "en", 40, 0.4)] == [0.2, 0.4, 0.0]


@pytest.mark.parametrize(("codec", "rate", "heard"), [("flac", 44_100, 44_100), ("flac", None, 22_050),
                                                      ("opus", 48_000, 48_000), ("opus", None, 24_000)])  # fmt: skip
def test_rate_loudness_silence_and_codec(codec: str, rate: int | None, heard: int) -> None:
    time = np.arange(22_050) / 22_050
    tone = (0.02 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)
    settings = TtsSettings.model_validate(
        {"codec": codec, "sample_rate": rate, "loudness_lufs": -23, "trailing_silence_s": 0.5}
    )
    for seconds in (1.0, 0.2):  # the second is shorter than a gating block
        sound = finished(Synthesis(tone[: int(seconds * 22_050)], 22_050), settings)
        data, read = soundfile.read(io.BytesIO(encoded(sound.samples, sound.sample_rate, settings.codec)))
        assert read == sound.sample_rate == heard
        assert len(data) == pytest.approx((seconds + 0.5) * heard, abs=2)
        assert loudness(sound.samples[: int(seconds * heard)], heard) == pytest.approx(-23, abs=0.1)
        assert not sound.samples[-int(0.49 * heard) :].any()


def test_a_key_deals_voices_that_nobody_else_can_work_out(monkeypatch: pytest.MonkeyPatch) -> None:
    people, voices = [f"speaker {n}" for n in range(40)], ["a", "b", "c", "d"]
    secrets = ("one secret of 32 characters here!", "another secret, as long as that..")
    keys = []
    for secret in secrets:
        monkeypatch.setenv("SOME_KEY", secret)
        key = voice_key(TtsSettings(voice_key="env:SOME_KEY"))
        assert key is not None
        keys.append(key)
    dealt = [[deal(who, voices, 1, key)[0] for who in people] for key in (*keys, keys[0], None)]
    assert dealt[0] == dealt[2]
    assert all(set(one) == set(voices) for one in dealt)
    for other in (dealt[1], dealt[3]):
        assert sum(a == b for a, b in zip(dealt[0], other, strict=True)) < 25  # ten are to be expected
    assert len({*deal("x", voices, 3, keys[0])}) == 3

    stage = EngineStage("synthesize", "espeak:en", Recipe(), None, keys[0])  # type: ignore[arg-type]
    shown = repr(stage) + TtsSettings(voice_key="env:SOME_KEY").model_dump_json() + key_digest(keys[0])
    assert secrets[0] not in shown
    assert keys[0].hex() not in shown
    assert repr(keys[0]) not in shown


def test_a_key_that_is_not_there_or_short_or_given_in_clear_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(VoxmillError, match=r"tts\.voice_key: the environment variable SOME_KEY holds no key"):
        voice_key(TtsSettings(voice_key="env:SOME_KEY"))
    monkeypatch.setenv("SOME_KEY", "short")
    with pytest.raises(VoxmillError, match="shorter than 16") as told:
        voice_key(TtsSettings(voice_key="env:SOME_KEY"))
    assert "short " not in str(told.value)
    with pytest.raises(ValidationError) as refused:
        TtsSettings(voice_key="hunter2 in clear")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"codec": "opus", "sample_rate": 44_100}, {"voices_per_clip": 2}])
def test_settings_that_do_not_fit_together(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"tts": wrong})
