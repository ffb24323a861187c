"""VITS and FastPitch + HiFi-GAN through small checkpoints of the libraries' own classes: batches, voices, reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.demo import small_voices
from infra.demo.evaluate_voice import round_trip
from schemas.config import TtsSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines.base import Failure, Synthesis, Synthesizer
from workers.engines.batching import plan_batches
from workers.engines.checkpoints import checkpoint_digest, resolve_parts
from workers.engines.registry import load_synthesizer

TEXTS = ["one two three", "six two three", "a longer text than the others are", "seven", "eight"]
VOICES = ["0", "1", None, "1", "0"]
SEEDS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("voices")
    pair = small_voices.fastpitch(folder / "fp.nemo"), small_voices.hifigan(folder / "hg.nemo")
    return {
        "vits": f"vits:{small_voices.vits(folder / 'vits')}",
        "fastpitch": "fastpitch:{}+hifigan:{}".format(*pair),
    }


@pytest.fixture(scope="module", params=["vits", "fastpitch"])
def voice(request: pytest.FixtureRequest, specs: dict[str, str]) -> Synthesizer:
    return load_synthesizer(specs[request.param], "cpu")


def sounds(engine: Synthesizer, texts: list[str] = TEXTS, voices: list[str | None] = VOICES) -> list[np.ndarray]:
    answers = engine.synthesize(texts, voices, SEEDS[: len(texts)])
    assert all(isinstance(one, Synthesis) for one in answers), answers
    return [one.samples for one in answers if isinstance(one, Synthesis)]


def test_a_text_sounds_the_same_alone_and_in_a_batch(voice: Synthesizer) -> None:
    together = sounds(voice)
    for text, speaker, seed, whole in zip(TEXTS, VOICES, SEEDS, together, strict=True):
        (alone,) = voice.synthesize([text], [speaker], [seed])
        assert isinstance(alone, Synthesis)
        assert alone.sample_rate == 16_000
        assert alone.samples.shape == whole.shape
        assert np.abs(alone.samples).max() > 0
        # FastPitch's own convolutions see a little past the end: its last frames differ by some thousandths.
        allowed = 1e-2 if "fastpitch" in voice.spec else 2e-4
        np.testing.assert_allclose(alone.samples, whole, atol=allowed * float(np.abs(whole).max()) + 1e-6)
    lengths = [float(len(one)) for one in TEXTS]
    assert len(plan_batches(lengths, voice.capacity)) < len(TEXTS)  # type: ignore[attr-defined]


def test_voices_differ_and_unknown_ones_are_told(voice: Synthesizer) -> None:
    first, second = sounds(voice, ["seven", "seven"], ["0", "1"])
    assert first.shape != second.shape or not np.allclose(first, second)
    answers = voice.synthesize(["a", "a"], ["9", "anna"], [0, 0])
    assert [one.reason for one in answers if isinstance(one, Failure)] == [Reason.UNKNOWN_VOICE] * 2


def test_what_a_voice_cannot_say_is_reported(voice: Synthesizer) -> None:
    half, whole, none = voice.synthesize(["sev€n 数!", "sevn", "数 数"], [None] * 3, [7, 7, 7])
    assert isinstance(half, Synthesis)
    assert isinstance(whole, Synthesis)
    assert {"€", "数"} <= set(half.unsayable) <= set("€数!")
    assert whole.unsayable == ""
    assert isinstance(none, Failure)
    assert none.reason == Reason.NOTHING_PRONOUNCEABLE


@pytest.mark.parametrize("family", ["vits", "fastpitch"])
def test_settings_are_heard(specs: dict[str, str], family: str) -> None:
    plain = sounds(load_synthesizer(specs[family], "cpu"))
    fast = sounds(load_synthesizer(specs[family], "cpu", TtsSettings(rate=2)))
    assert sum(map(len, fast)) < 0.8 * sum(map(len, plain))
    change = {"vits": TtsSettings(noise_scale=0), "fastpitch": TtsSettings(pitch=1.5)}[family]
    changed = sounds(load_synthesizer(specs[family], "cpu", change))
    assert any(a.shape != b.shape or not np.allclose(a, b, atol=1e-6) for a, b in zip(plain, changed, strict=True))
    refused = {"vits": TtsSettings(pitch=1), "fastpitch": TtsSettings(noise_scale=0.5)}[family]
    with pytest.raises(VoxmillError, match=f"{family} has no"):
        load_synthesizer(specs[family], "cpu", refused)


def test_chance_hangs_on_the_seed_alone(specs: dict[str, str]) -> None:
    engine = load_synthesizer(specs["vits"], "cpu")
    one, same, other = engine.synthesize(["seven"] * 3, ["1"] * 3, [1, 1, 2])
    assert isinstance(one, Synthesis)
    assert isinstance(same, Synthesis)
    assert isinstance(other, Synthesis)
    np.testing.assert_allclose(one.samples, same.samples, atol=1e-6)
    assert one.samples.shape != other.samples.shape or not np.allclose(one.samples, other.samples)


def test_both_parts_count(specs: dict[str, str], tmp_path: Path) -> None:
    spec = specs["fastpitch"]
    assert [part.family for part in resolve_parts(spec)] == ["fastpitch", "hifigan"]
    assert checkpoint_digest(spec) == load_synthesizer(spec, "cpu").digest
    with pytest.raises(VoxmillError, match="no such checkpoint"):
        load_synthesizer(f"{spec}x.nemo", "cpu")
    fastpitch, _, hifigan = spec.partition("+hifigan:")
    swapped = f"fastpitch:{hifigan}+hifigan:{fastpitch.removeprefix('fastpitch:')}"
    with pytest.raises(VoxmillError, match="the checkpoint is a HifiGanModel"):
        load_synthesizer(swapped, "cpu")


def test_the_bundled_voice_is_understood_by_the_bundled_conformer(bundled_checkpoints: dict[str, Path]) -> None:
    listener = bundled_checkpoints["conformer"]
    speaker, sounder = (listener.with_name(f"{name}-digits.nemo") for name in ("fastpitch", "hifigan"))
    voice = f"fastpitch:{speaker}+hifigan:{sounder}"
    wer = round_trip(voice, f"conformer:{listener}", ["0", "1", "2", "3"], strings=12)
    assert max(wer.values()) <= 0.2
