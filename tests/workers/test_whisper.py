"""Whisper in batches against ``whisper.transcribe`` one by one, on real speech with small random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from random_whisper import interpret_alignment, random_whisper
from speech_clips import clips_of
from whisper.decoding import ApplyTimestampRules, DecodingOptions, DecodingTask, SuppressTokens
from whisper.model import MultiHeadAttention, TextDecoder, Whisper
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from schemas.config import AsrSettings
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from workers.engines import whisper as module
from workers.engines import whisper_loop as loop
from workers.engines.base import Failure, Transcription
from workers.engines.checkpoints import check_available, checkpoint_digest, resolve
from workers.engines.published import listed
from workers.engines.registry import load_transcriber
from workers.engines.whisper import WhisperTranscriber
from workers.engines.whisper_decoding import Suppressed, TimestampRules, decode_batch
from workers.languages import CODES, NAMES, known_code

GREEDY: Any = {"fallback_temperatures": ()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_whisper(tmp_path_factory.mktemp("whisper") / "random.pt")


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> WhisperTranscriber:
    loaded = load_transcriber(f"whisper:{checkpoint}", "cpu", AsrSettings(**GREEDY))
    assert isinstance(loaded, WhisperTranscriber)
    return loaded


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[np.ndarray]:
    return clips_of(shared_data, "rhasspy", 6)


def alone(model: Whisper, clip: np.ndarray, **options: Any) -> dict[str, Any]:
    options = {"temperature": 0.0, "condition_on_previous_text": False, "fp16": False, **options}
    result: dict[str, Any] = whisper.transcribe(model, clip, **options)
    return result


def assert_same(got: Transcription | Failure, expected: dict[str, Any]) -> None:
    assert isinstance(got, Transcription)
    assert got.text == expected["text"].strip()
    assert got.language == expected["language"]


def test_a_batch_is_what_the_library_hears_one_by_one(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[int]] = []
    answer = engine._answer
    monkeypatch.setattr(engine, "_answer", lambda item: (kept.append(item.tokens), answer(item))[1])
    expected = [alone(engine.model, clip, language="en") for clip in clips]
    got = engine.transcribe(clips, ["en-GB"] * len(clips))
    assert kept == [[token for part in one["segments"] for token in part["tokens"]] for one in expected]
    assert len({tuple(tokens) for tokens in kept}) > 1
    assert any(len(one["segments"]) > 1 for one in expected)
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other)
    singly = [engine.transcribe([clip], ["en"])[0] for clip in clips]
    assert [one.text for one in got] == [one.text for one in singly]  # type: ignore[union-attr]
    first, segments = got[0], expected[0]["segments"]
    assert isinstance(first, Transcription)
    told = [s["avg_logprob"] for s in segments]
    assert min(told) - 1e-4 <= first.avg_logprob <= max(told) + 1e-4  # batches round in another way
    assert first.no_speech_prob == pytest.approx(min(s["no_speech_prob"] for s in segments), abs=1e-6)


def test_recordings_longer_than_a_window_and_languages_of_their_own(
    engine: WhisperTranscriber, clips: list[np.ndarray]
) -> None:
    long = np.concatenate(clips * 3)[: 16_000 * 37]
    mixed = [clips[0], long, clips[1][:100], np.zeros(16_000, np.float32)]
    languages = [None, "de", "en", None]
    got = engine.transcribe(mixed, languages)
    for one, clip, language in zip(got, mixed, languages, strict=True):
        assert_same(one, alone(engine.model, clip, language=language))


def test_a_language_that_is_given_is_checked(engine: WhisperTranscriber, clips: list[np.ndarray]) -> None:
    mel = torch.randn(2, engine.n_mels, 3000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = engine._encode(list(mel))
        found = engine._most_probable(features)
        _, expected = engine.model.detect_language(features, engine.tokenizer)
    for (language, probability), row in zip(found, expected, strict=True):
        assert language == max(row, key=row.get)
        assert probability == pytest.approx(row[language], rel=1e-4)
        decoded = decode_batch(engine.model, features, DecodingOptions(fp16=False), ["de", "en"], [0.0] * 2, [])
    for result, row in zip(decoded, expected, strict=True):
        ((language, probability),) = (result.language_probs or {}).items()
        assert language == max(row, key=row.get)
        assert probability == pytest.approx(row[language], abs=1e-4)
    told, detected = engine.transcribe([clips[0], clips[0]], ["de", None])
    assert isinstance(told, Transcription)
    assert isinstance(detected, Transcription)
    assert (told.language, detected.language) == ("de", detected.detected_language)
    assert told.detected_language in engine.languages
    assert told.detected_probability is not None


@pytest.mark.parametrize(
    ("chosen", "languages", "passes", "encoded"),
    [
        ({}, ["de", "de"], 0, 2),  # decoding tells it
        ({"initial_prompt": "Glienicke"}, ["de", "de"], 1, 2),
        ({}, [None, None], 2, 3),  # the library pads the short clip otherwise where it detects its language
        ({"whisper_window": "fitted"}, [None, None], 2, 2),
    ],
)
def test_what_tells_a_language_is_computed_once(
    checkpoint: Path,
    clips: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
    languages: list[str | None],
    passes: int,
    encoded: int,
) -> None:
    engine = WhisperTranscriber(resolve(f"whisper:{checkpoint}"), "cpu", AsrSettings(**GREEDY, **chosen))
    whole = np.concatenate(clips * 3)[: 16_000 * 30]
    monkeypatch.setattr(engine, "_advance", lambda item, cut: setattr(item, "seek", item.frames))
    encode, most, windows, asked = engine._encode, engine._most_probable, [], []
    monkeypatch.setattr(engine, "_encode", lambda mels: (windows.extend(mels), encode(mels))[1])
    monkeypatch.setattr(engine, "_most_probable", lambda rows: (asked.append(1), most(rows))[1])
    got = engine.transcribe([clips[0][:32_000], whole], languages)
    assert all(isinstance(one, Transcription) and one.detected_language for one in got)
    assert (len(asked), len(windows)) == (passes, encoded)


@pytest.mark.parametrize("window", ["full", "fitted"])
def test_a_language_is_detected_as_it_is_for_a_transcript(
    checkpoint: Path, clips: list[np.ndarray], window: Any
) -> None:
    engine = WhisperTranscriber(resolve(f"whisper:{checkpoint}"), "cpu", AsrSettings(**GREEDY, whisper_window=window))
    asked = [*clips[:2], np.concatenate(clips * 3)[: 16_000 * 31], np.full(9, np.nan, np.float32)]
    heard = engine.transcribe(asked, [None] * len(asked))
    assert engine.detect(asked) == [getattr(one, "language", None) for one in heard]
    assert engine.detect(asked)[-1] is None


@pytest.mark.parametrize("beam_size", [1, 2])
def test_beams_of_many_windows_are_those_of_each(engine: WhisperTranscriber, beam_size: int) -> None:
    options = DecodingOptions(beam_size=beam_size, fp16=False, language="en")
    mel = torch.randn(5, engine.n_mels, 3000, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        features = engine._encode(list(mel))
        expected = [whisper.decode(engine.model, row, options) for row in features]
        got = decode_batch(engine.model, features, options, ["en"] * 5, [0.0] * 5, [])
    assert len({tuple(one.tokens) for one in expected}) > 1
    for one, other in zip(got, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-4)
    assert not any(block.cross_attn.key._forward_hooks for block in engine.model.decoder.blocks)


def test_weights_cast_once_give_the_library_s_half_precision(checkpoint: Path) -> None:
    model = whisper.load_model(str(checkpoint), device="cpu").eval()
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(3)).half()
    tokens = torch.tensor([[50258, 50259, 50359, 400, 1000]])
    with torch.inference_mode():
        expected = model(mel, tokens)
        module.halve(model)
        assert torch.equal(model(mel, tokens), expected)
    assert model.decoder.token_embedding.weight.dtype == torch.float16


def test_a_prompt_and_translation_are_the_library_s(checkpoint: Path, clips: list[np.ndarray]) -> None:
    spec, prompt = f"whisper:{checkpoint}", "Glienicke, drawers"
    told = load_transcriber(spec, "cpu", AsrSettings(**GREEDY, initial_prompt=prompt))
    asked = load_transcriber(spec, "cpu", AsrSettings(**GREEDY, task="translate", transcribers=(spec,)))
    assert isinstance(told, WhisperTranscriber)
    for engine, options in (
        (told, {"initial_prompt": prompt, "carry_initial_prompt": True}),
        (asked, {"task": "translate"}),
    ):
        got = engine.transcribe(clips[:3], ["de"] * 3)
        for one, clip in zip(got, clips, strict=False):
            assert_same(one, alone(told.model, clip, language="de", **options))


def test_words_of_a_translation_are_english_ones(checkpoint: Path) -> None:
    spec = f"whisper:{checkpoint}"
    asked = load_transcriber(spec, "cpu", AsrSettings(**GREEDY, task="translate", transcribers=(spec,)))
    plain = load_transcriber(spec, "cpu", AsrSettings(**GREEDY))
    assert isinstance(asked, WhisperTranscriber)
    assert isinstance(plain, WhisperTranscriber)
    tokens = asked.tokenizer.encode(" misunderstandings happen")
    assert asked._aligner("ja").split_to_word_tokens(tokens)[0] == [" misunderstandings", " happen"]
    assert asked._aligner("ja").sot_sequence == asked._tokenizer("ja").sot_sequence
    assert len(plain._aligner("ja").split_to_word_tokens(tokens)[0]) > 2
    assert asked._tokenizer("ja").language == "ja"


def test_what_cannot_translate_says_so(engine: WhisperTranscriber) -> None:
    settings = AsrSettings(task="translate", transcribers=("whisper:tiny.en",))
    with pytest.raises(VoxmillError, match="English-only"):
        loop.WhisperLoop.__init__(engine, "whisper:tiny.en", settings, torch.device("cpu"), 80, 0, 1)


def test_a_prompt_with_special_tokens_is_refused_at_the_start(checkpoint: Path) -> None:
    for prompt in ("<|endoftext|>", "digits: <|en|>"):
        with pytest.raises(VoxmillError, match="special tokens"):
            load_transcriber(f"whisper:{checkpoint}", "cpu", AsrSettings(initial_prompt=prompt))
    load_transcriber(f"whisper:{checkpoint}", "cpu", AsrSettings(initial_prompt="a < b |> c"))


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ("nb nb-NO nob no", "no"),
        ("nn nn-NO nno", "nn"),
        ("jv jv_id jav", "jw"),
        ("fil fil_ph tgl tl", "tl"),
        ("iw heb", "he"),
        ("in ind id", "id"),
        ("cmn cmn_hans_cn zh-cmn zho chi zh-Hant-HK Chinese", "zh"),
        ("yue zh-yue yue-HK Cantonese", "yue"),
        ("eng en_US", "en"),
        ("deu ger", "de"),
        ("sr-Latn srp", "sr"),
        ("haw haw-US", "haw"),
        ("tlh xx zz-ZZ Deutsch", None),
    ],
)
def test_tags_are_whisper_s_languages(tags: str, code: str | None) -> None:
    assert {known_code(tag, list(LANGUAGES)) for tag in tags.split()} == {code}
    assert all(language in LANGUAGES for language in CODES.values())
    assert not set(CODES) & set(LANGUAGES)
    assert NAMES == TO_LANGUAGE_CODE


def test_a_model_s_own_languages_are_the_ones_it_hears() -> None:
    assert [known_code(tag, ["en", "zh"]) for tag in ("yue-HK", "zh-yue", "de", "", None)] == [
        "zh", "zh", None, None, None,
    ]  # fmt: skip
    for languages, asked, is_refused in ((99, "tlh", True), (0, "de", True), (0, "en-GB", False), (99, "nb-NO", False)):
        blank = object.__new__(WhisperTranscriber)
        arguments = blank, "whisper:x", AsrSettings(language=asked), torch.device("cpu"), 80, languages, 1
        if is_refused:
            with pytest.raises(VoxmillError, match=f"does not know the language '{asked}'"):
                loop.WhisperLoop.__init__(*arguments)
        else:
            loop.WhisperLoop.__init__(*arguments)


def test_a_fitted_window_is_the_start_of_the_full_one(checkpoint: Path, clips: list[np.ndarray]) -> None:
    engine = load_transcriber(f"whisper:{checkpoint}", "cpu", AsrSettings(**GREEDY, whisper_window="fitted"))
    assert isinstance(engine, WhisperTranscriber)
    window = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(engine._encode(list(window)), engine.model.encoder(window))
    got = engine.transcribe([*clips, np.concatenate(clips * 3)[: 16_000 * 32]], ["en"] * (len(clips) + 1))
    assert all(isinstance(one, Transcription) and one.text for one in got)
    assert engine.padding.padded_s < 30 * len(clips)
    assert engine._width(1) == 200
    assert engine._width(2_950) == 3_000
    assert engine.transcribe(clips[:1], ["en"])[0] == engine.transcribe(clips[:1], ["en"])[0]


def test_one_bad_clip_costs_itself_alone(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = engine.transcribe(clips[:3], ["en"] * 3)
    poisoned = clips[3].copy()
    poisoned[7] = np.nan
    encode = engine._encode

    def explode(windows: list[torch.Tensor]) -> torch.Tensor:
        if any(torch.equal(window, marked) for window in windows):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return encode(windows)

    loud = np.full(16_000, 0.9, np.float32)
    item = loop.Recording(loud, "en")
    engine._spectrograms([item])
    marked = engine._window(item, loop.N_FRAMES)
    monkeypatch.setattr(engine, "_encode", explode)
    got = engine.transcribe([clips[0], poisoned, clips[1], loud, clips[2]], ["en"] * 5)
    assert isinstance(got[1], Failure)
    assert got[1].reason == Reason.NON_FINITE
    assert isinstance(got[3], Failure)
    assert got[3].reason == Reason.ENGINE_FAILED
    assert [got[i].text for i in (0, 2, 4)] == [one.text for one in good]  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["avg_logprob", "no_speech_prob"])
def test_numbers_that_are_none_are_no_transcript(
    engine: WhisperTranscriber, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    short = [clip[:24_000] for clip in clips[:2]]
    good = engine.transcribe(short, ["en"] * 2)
    overflows = np.where(np.arange(16_000) % 2, np.float32(1e30), np.float32(-1e30))
    first, loud, second = engine.transcribe([short[0], overflows, short[1]], ["en"] * 3)
    assert isinstance(loud, Failure)
    assert loud.reason == Reason.ENGINE_FAILED
    assert [one.text for one in (first, second)] == [one.text for one in good]  # type: ignore[union-attr]
    decode = engine._decode_once

    def spoilt(*arguments: Any) -> Any:
        results = decode(*arguments)
        return [replace(results[0], **{field: float("nan")}), *results[1:]]

    monkeypatch.setattr(engine, "_decode_once", spoilt)
    answers = engine.transcribe(short, ["en"] * 2)
    assert sum(isinstance(one, Failure) for one in answers) == 1


def test_word_times_are_the_library_s(
    checkpoint: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_alignment(monkeypatch)
    engine = WhisperTranscriber(resolve(f"whisper:{checkpoint}"), "cpu", AsrSettings(**GREEDY, word_timestamps=True))
    got = engine.transcribe(clips[:2], ["en"] * 2)
    for one, clip in zip(got, clips[:2], strict=True):
        expected = alone(engine.model, clip, language="en", word_timestamps=True)
        words = [word for segment in expected["segments"] for word in segment["words"]]
        assert_same(one, expected)
        assert isinstance(one, Transcription)
        assert [(w.text, w.start_s, w.end_s) for w in one.words] == [
            (w["word"].strip(), w["start"], w["end"]) for w in words
        ]


def test_words_are_in_order_and_inside_the_clip() -> None:
    """As ``whisper.timing`` times them at a seam of two segments, and where it rounds beyond the end."""
    item = loop.Recording(np.zeros(40_000, np.float32), "en")
    for text, start, end in (("a", 0.0, 0.8), ("b", 0.8, 2.04), ("c", 1.9, 2.0), ("d", 2.0, 2.56), ("e", 2.56, 2.6)):
        item.add_word(text, np.float64(start), end, 0.9)
    assert [(word.text, word.start_s, word.end_s) for word in item.words] == [
        ("a", 0.0, 0.8), ("b", 0.8, 2.04), ("c", 2.04, 2.04), ("d", 2.04, 2.5), ("e", 2.5, 2.5),
    ]  # fmt: skip


def test_an_alignment_that_fails_costs_its_clip_alone(
    checkpoint: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpret_alignment(monkeypatch)
    engine = WhisperTranscriber(resolve(f"whisper:{checkpoint}"), "cpu", AsrSettings(**GREEDY, word_timestamps=True))
    forward, calls, released = TextDecoder.forward, [], []

    def fails_twice(decoder: TextDecoder, *tensors: torch.Tensor, **cache: Any) -> Any:
        if not MultiHeadAttention.use_sdpa:  # words are being timed
            calls.append(1)
            if len(calls) <= 2:  # both clips, then the first alone
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(decoder, *tensors, **cache)

    short = [clip[:24_000] for clip in clips[:2]]
    monkeypatch.setattr(TextDecoder, "forward", fails_twice)
    monkeypatch.setattr(engine, "_release", lambda: released.append(1))
    answers = engine.transcribe(short, ["en"] * 2)
    (failed,) = [one for one in answers if isinstance(one, Failure)]
    assert (failed.reason, released) == (Reason.OUT_OF_MEMORY, [1, 1])
    assert all(isinstance(one, Transcription) and one.words for one in engine.transcribe(short, ["en"] * 2))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_timestamp_rules_mask_what_the_library_masks(engine: WhisperTranscriber, data: st.DataObject) -> None:
    """Over histories that the rules themselves allow: pairs of rising timestamps with text between, then an end."""
    task = DecodingTask(engine.model, DecodingOptions(language="en", fp16=False))
    rules = next(rule for rule in task.logit_filters if isinstance(rule, ApplyTimestampRules))
    begin, eot = rules.tokenizer.timestamp_begin, rules.tokenizer.eot
    length = data.draw(st.integers(0, 8))
    histories = []
    for _ in range(data.draw(st.integers(1, 4))):
        clock, history = data.draw(st.integers(0, 50)), []
        kinds = data.draw(st.lists(st.sampled_from(["text", "stamp", "pair", "end"]), min_size=8, max_size=8))
        for kind in kinds:
            clock += data.draw(st.integers(1, 20))
            history += {"text": [400 + clock], "stamp": [begin + clock], "pair": [begin + clock] * 2}.get(
                kind, [eot] * 8
            )
        histories.append([*task.initial_tokens, *history[:length]])
    tokens = torch.tensor(histories)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    logits = 4 * torch.randn(len(histories), engine.model.dims.n_vocab, generator=generator)
    if data.draw(st.booleans()):
        logits[:, begin:] += 6
    expected, got = logits.clone(), logits.clone()
    rules.apply(expected, tokens)
    TimestampRules(rules).apply(got, tokens)
    assert torch.equal(expected, got)


def test_suppressed_tokens_are_the_library_s(engine: WhisperTranscriber) -> None:
    task = DecodingTask(engine.model, DecodingOptions(language="en", fp16=False))
    (rule,) = (rule for rule in task.logit_filters if isinstance(rule, SuppressTokens))
    expected, got = torch.zeros(3, engine.model.dims.n_vocab), torch.zeros(3, engine.model.dims.n_vocab)
    rule.apply(expected, torch.zeros(3, 4))
    Suppressed(rule, engine.model.device).apply(got, torch.zeros(3, 4))
    assert torch.equal(expected, got)
    assert got.isinf().any()


def test_names_paths_and_digests(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed("whisper:_MODELS") == whisper._MODELS
    assert known_code("Deutsch", ["de"]) is None
    digest = checkpoint_digest(f"whisper:{checkpoint}")
    assert digest is not None
    assert digest.startswith("blake3:")
    assert checkpoint_digest("whisper:large-v3") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nowhere = {"large-v3": "http://127.0.0.1:9/large-v3.pt", "stt_en_conformer_ctc_large": "http://127.0.0.1:9/x.nemo"}
    nowhere["large"] = nowhere["large-v3"]
    monkeypatch.setattr("workers.engines.published.listed", lambda catalogue: nowhere)
    for spec, remedy in (
        ("whisper:large-v3", "XDG_CACHE_HOME"),
        ("conformer:stt_en_conformer_ctc_large", "NEMO_CACHE"),
    ):
        with pytest.raises(VoxmillError, match=f"must be downloaded.*cannot be reached.*{remedy}") as raised:
            check_available(spec)
        assert "\n" not in str(raised.value)
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "large-v3.pt").write_bytes(b"x")
    check_available("whisper:large")
    with pytest.raises(VoxmillError, match="no model of this name"):
        check_available("whisper:enormous")
    with pytest.raises(VoxmillError, match="no such checkpoint"):
        check_available(f"whisper:{tmp_path / 'none.pt'}")
    (tmp_path / "code.pt").write_bytes(b"\x80\x02cos\nsystem\nq\x00.")
    with pytest.raises(VoxmillError, match="cannot be loaded"):
        load_transcriber(f"whisper:{tmp_path / 'code.pt'}", "cpu", AsrSettings(**GREEDY))
    with pytest.raises(VoxmillError, match="is not one that transcribes"):
        load_transcriber("vits:x", "cpu", AsrSettings(**GREEDY))
