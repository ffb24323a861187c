"""From a shard in flight to rows of the published tables, as dictionaries by column name."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from schemas.config import Recipe
from schemas.records import Reject
from workers.quality.normalize import scoring_language
from workers.quality.score import score
from workers.sound import encoded
from workers.transcribe import spoken_language
from workers.work import Regeneration, Utterance, Work

Row = dict[str, Any]

_WHOLE_S = 0.1  # rounding of resampled lengths; a piece is shorter than its recording by far more


def rows_of(work: Work, recipe: Recipe) -> dict[str, list[Row]]:
    """Rows of every table that a shard fills; scores are added by :func:`workers.scoring.score_rows`."""
    rows: dict[str, list[Row]] = {
        "utterances": [], "transcripts": [], "audio": [], "features": [], "regenerated": [],
        "rejects": [reject_row(reject, work.shard.id) for reject in (*work.shard.rejects, *work.rejects)],
    }  # fmt: skip
    kept = {utterance.id(work.shard.archive.uri) for utterance in work.utterances}
    lost = {reject.member for reject in work.rejects if reject.utterance_id and reject.utterance_id not in kept}
    for utterance in work.utterances:
        keys = {
            "utterance_id": utterance.id(work.shard.archive.uri),
            "archive": work.shard.archive.uri,
            "member": utterance.member.name,
        }
        rows["utterances"].append(keys | _utterance(utterance, work, recipe, utterance.member.name in lost))
        rows["transcripts"] += [keys | row for row in _transcripts(utterance, work)]
        rows["regenerated"] += [keys | _regenerated(one, utterance, work, recipe) for one in utterance.regenerations]
        if utterance.denoised is not None:
            rows["audio"].append(keys | _audio(utterance.denoised, work.sample_rate, keys["utterance_id"]))
        if utterance.mel is not None:
            rows["features"].append(keys | _features(utterance.mel, work.sample_rate, recipe))
    return rows


def _utterance(utterance: Utterance, work: Work, recipe: Recipe, is_partial: bool) -> Row:
    """The row of one utterance; of a recording that ``is_partial`` another piece was lost."""
    engine, heard = recipe.asr.transcribers[0], recipe.asr.first_input
    chosen = utterance.transcriptions.get((engine, heard))
    return {
        "member_key": utterance.member.key(work.shard.archive.uri),
        "shard_id": work.shard.id,
        "channel": utterance.channel,
        "start_s": utterance.start_s,
        "end_s": utterance.end_s,
        "duration_s": utterance.end_s - utterance.start_s,
        "recording_s": utterance.recording.duration_s,
        "format": utterance.recording.format,
        "source_sample_rate": utterance.recording.sample_rate,
        "source_channels": utterance.recording.channels,
        "language": utterance.member.language or recipe.asr.language or (chosen.language if chosen else None),
        "speaker": utterance.member.speaker,
        "reference": utterance.member.text,
        "reference_scope": "utterance" if _is_whole(utterance) else "partial" if is_partial else "recording",
        "transcript": chosen.text if chosen else None,
        "transcript_engine": engine if chosen else None,
        "transcript_input": heard if chosen else None,
        **utterance.levels,
    }


def _is_whole(utterance: Utterance) -> bool:
    """Whether the utterance is all of its recording, rather than a piece that was cut at pauses."""
    start = utterance.member.clip_start_s or 0.0
    length = utterance.member.clip_duration_s or (utterance.recording.duration_s or 0.0) - start
    return utterance.end_s - utterance.start_s >= length - _WHOLE_S


def _transcripts(utterance: Utterance, work: Work) -> list[Row]:
    return [
        {
            "engine": engine,
            "input": heard,
            "text": one.text,
            "language": one.language or utterance.member.language,
            "words": [
                {
                    "text": word.text,
                    "start_s": utterance.start_s + word.start_s,
                    "end_s": utterance.start_s + word.end_s,
                    "probability": word.probability,
                }
                for word in one.words
            ],
            "avg_logprob": one.avg_logprob,
            "no_speech_prob": one.no_speech_prob,
            "compression_ratio": one.compression_ratio,
            "temperature": one.temperature,
            "detected_language": one.detected_language,
            "detected_probability": one.detected_probability,
            "duration_s": utterance.end_s - utterance.start_s,
            "model_digest": work.digests.get(engine),
        }
        for (engine, heard), one in sorted(utterance.transcriptions.items())
    ]


def _regenerated(one: Regeneration, utterance: Utterance, work: Work, recipe: Recipe) -> Row:
    heard, uri = one.round_trip, work.shard.archive.uri
    language = spoken_language(utterance) or recipe.asr.language
    trip = (
        score(one.spoken_text, heard.text, scoring_language(heard.language or language, recipe.asr.normalizer))
        if heard
        else None
    )
    samples, rate = one.synthesis.samples, one.synthesis.sample_rate
    return {
        **_audio(samples, rate, f"{utterance.id(uri)}.{one.voice}", recipe.tts.codec),
        "member_key": utterance.member.key(uri),
        "channel": utterance.channel,
        "start_s": utterance.start_s,
        "end_s": utterance.end_s,
        "source_run_id": work.source_run_id,
        "language": language,
        "speaker": utterance.member.speaker if recipe.tts.speaker_labels else None,
        "voice": one.voice,
        "text": one.text,
        "spoken_text": one.spoken_text,
        "unsayable": one.unsayable,
        "text_source": one.text_source,
        "engine": one.engine,
        "model_digest": one.digest,
        "round_trip_engine": one.round_trip_engine,
        "round_trip_text": heard.text if heard else None,
        "round_trip_wer": trip.wer if trip else None,
        "round_trip_cer": trip.cer if trip else None,
        "kept": bool(trip and trip.wer is not None and trip.wer <= recipe.tts.max_wer),
    }


def _audio(samples: np.ndarray, sample_rate: int, name: str, codec: Literal["flac", "opus"] = "flac") -> Row:
    return {
        "audio": audio_struct(samples, sample_rate, name, codec),
        "sample_rate": sample_rate,
        "duration_s": len(samples) / sample_rate,
    }


def audio_struct(samples: np.ndarray, sample_rate: int, name: str, codec: Literal["flac", "opus"] = "flac") -> Row:
    """``samples`` (float32 mono, 1 is full scale) as a value of :data:`schemas.tables.AUDIO_STRUCT`: 16-bit FLAC, or
    Opus."""
    return {"bytes": encoded(samples, sample_rate, codec), "path": f"{name}.{codec}"}


def _features(mel: np.ndarray, sample_rate: int, recipe: Recipe) -> Row:
    return {
        "mel": mel,
        "frames": mel.shape[0],
        "n_mels": mel.shape[1],
        "sample_rate": sample_rate,
        "n_fft": recipe.features.n_fft,
        "hop_length": recipe.features.hop_length,
    }


def reject_row(reject: Reject, shard_id: str) -> Row:
    """One row of ``rejects``."""
    return {
        "archive": reject.archive,
        "member": reject.member,
        "member_key": reject.member_key,
        "stage": reject.stage,
        "reason": reject.reason,
        "message": reject.message,
        "start_s": reject.start_s,
        "end_s": reject.end_s,
        "utterance_id": reject.utterance_id,
        "shard_id": shard_id,
    }
