"""The published tables: pyarrow schemas with a description on every field.

Rows of one utterance meet on ``utterance_id``. ``run_date`` and ``run_id`` are Hive partitions, not columns of a file.
"""

from __future__ import annotations

import json

import pyarrow as pa

from schemas.version import SCHEMA_VERSION


def _list(of: pa.DataType) -> pa.DataType:
    """A list whose items are called as Parquet's specification calls them, so that a file reads back as its schema."""
    return pa.list_(pa.field("element", of))


AUDIO_STRUCT = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
WORDS = _list(
    pa.struct(
        [
            pa.field("text", pa.string()),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("probability", pa.float32()),
        ]
    )
)

_KEYS = [
    ("utterance_id", pa.string(), "stable id of the utterance: archive, member, channel and times"),
    ("archive", pa.string(), "URI of the source archive, prefix, manifest or recording"),
    ("member", pa.string(), "name of the recording inside the archive"),
]

_COUNTS = [
    ("hits", pa.int64(), "reference words heard right"),
    ("substitutions", pa.int64(), "reference words heard as another word"),
    ("deletions", pa.int64(), "reference words not heard"),
    ("insertions", pa.int64(), "words heard that the reference does not have"),
]

_FIELDS: dict[str, list[tuple[str, pa.DataType, str]]] = {
    "utterances": [
        *_KEYS,
        ("member_key", pa.string(), "identity of the member's content and side data"),
        ("shard_id", pa.string(), "shard that produced the row"),
        ("channel", pa.int16(), "channel of the recording, from 0; null for the mono mix"),
        ("start_s", pa.float64(), "start in the recording, seconds"),
        ("end_s", pa.float64(), "end in the recording, seconds"),
        ("duration_s", pa.float64(), "end_s - start_s"),
        ("recording_s", pa.float64(), "duration of the whole recording, seconds; null for a piece that does not reach "
         "the end of one whose header does not tell it"),
        ("format", pa.string(), "container and codec, such as WAV/PCM_16"),
        ("source_sample_rate", pa.int32(), "sample rate of the recording, Hz"),
        ("source_channels", pa.int16(), "channels of the recording"),
        ("language", pa.string(), "language as given, else as detected (BCP-47)"),
        ("speaker", pa.string(), "speaker as given"),
        ("reference", pa.string(), "reference transcript as given; null where there is none"),
        ("reference_scope", pa.string(), "what the reference covers: utterance; recording, of which this is a piece; "
            "partial, a recording of which a piece was lost, so that nothing is scored"),
        ("transcript", pa.string(), "the chosen transcript"),
        ("transcript_engine", pa.string(), "engine of the chosen transcript"),
        ("transcript_input", pa.string(), "raw or denoised: what the chosen transcript was heard from"),
        ("wer", pa.float64(), "word error rate of the chosen transcript against the reference; null without one"),
        ("cer", pa.float64(), "character error rate, likewise"),
        ("agreement_wer", pa.float64(), "WER of the second engine's text against the first's, both raw; null with one"),
        ("snr_db", pa.float32(), "estimated signal-to-noise ratio before denoising, dB"),
        ("snr_denoised_db", pa.float32(), "the same after denoising, dB"),
        ("peak", pa.float32(), "largest absolute sample, 0 to 1 is full scale"),
        ("rms_dbfs", pa.float32(), "root mean square level, dB relative to full scale"),
        ("clipped_ratio", pa.float32(), "share of samples at full scale"),
        ("speech_ratio", pa.float32(), "share of the utterance that holds speech; null where not measured"),
        ("flags", _list(pa.string()), "quality flags"),
    ],
    "transcripts": [
        *_KEYS,
        ("engine", pa.string(), "engine spec, such as whisper:large-v3"),
        ("input", pa.string(), "raw or denoised"),
        ("text", pa.string(), "hypothesis as the engine wrote it"),
        ("normalized_text", pa.string(), "hypothesis as scored"),
        ("normalized_reference", pa.string(), "reference as scored, of a piece its part; null without one"),
        ("language", pa.string(), "language used for decoding, given or detected"),
        ("words", WORDS, "words with times on the recording's clock, seconds, and probabilities"),
        ("avg_logprob", pa.float32(), "mean log-probability per token, natural log"),
        ("no_speech_prob", pa.float32(), "probability of no speech"),
        ("compression_ratio", pa.float32(), "UTF-8 bytes over zlib bytes: high where text loops"),
        ("temperature", pa.float32(), "sampling temperature that gave this text"),
        ("detected_language", pa.string(), "language that the engine takes the audio for; null where it cannot tell"),
        ("detected_probability", pa.float32(), "how probable it finds that, 0 to 1"),
        *_COUNTS,
        ("wer", pa.float64(), "word error rate; null without a reference or with an empty one"),
        ("cer", pa.float64(), "character error rate, likewise"),
        ("reference_chars", pa.int64(), "characters in the normalised reference"),
        ("char_errors", pa.int64(), "character substitutions, deletions and insertions"),
        ("duration_s", pa.float64(), "audio heard, seconds"),
        ("model_digest", pa.string(), "digest of the checkpoint"),
    ],
    "audio": [
        *_KEYS,
        ("audio", AUDIO_STRUCT, "denoised audio as FLAC"),
        ("raw", AUDIO_STRUCT, "the same before denoising, of the twelve worst utterances of a shard; null elsewhere"),
        ("sample_rate", pa.int32(), "Hz"),
        ("duration_s", pa.float64(), "seconds"),
    ],
    "features": [
        *_KEYS,
        ("mel", _list(_list(pa.float32())), "log-mel, frames x n_mels, natural log of the mel power"),
        ("frames", pa.int32(), "frames"),
        ("n_mels", pa.int16(), "mel bands"),
        ("sample_rate", pa.int32(), "Hz"),
        ("n_fft", pa.int32(), "FFT window, samples"),
        ("hop_length", pa.int32(), "samples between frames"),
    ],
    "regenerated": [
        *_KEYS,
        ("member_key", pa.string(), "identity of the member's content and side data, as in utterances"),
        ("channel", pa.int16(), "channel of the recording, from 0; null for the mono mix"),
        ("start_s", pa.float64(), "start of the utterance in the recording, seconds"),
        ("end_s", pa.float64(), "end of the utterance in the recording, seconds"),
        ("source_run_id", pa.string(), "run whose utterance was spoken; null for one of the same run"),
        ("language", pa.string(), "language as given, else as detected (BCP-47)"),
        ("speaker", pa.string(), "speaker as given; null too where tts.speaker_labels is off"),
        ("voice", pa.string(), "voice that spoke"),
        ("text", pa.string(), "text to speak, as it was found"),
        ("spoken_text", pa.string(), "the same as spoken: numbers and abbreviations written out"),
        ("unsayable", pa.string(), "characters of it that the voice has no sound for, each once; empty: none"),
        ("text_source", pa.string(), "reference, or the engine whose transcript was spoken"),
        ("engine", pa.string(), "synthesizer spec"),
        ("model_digest", pa.string(), "digest of the synthesizer's checkpoint"),
        ("audio", AUDIO_STRUCT, "regenerated speech as FLAC, or as Opus in Ogg"),
        ("sample_rate", pa.int32(), "Hz"),
        ("duration_s", pa.float64(), "seconds"),
        ("round_trip_engine", pa.string(), "engine that heard the regenerated speech"),
        ("round_trip_text", pa.string(), "what it heard"),
        ("round_trip_wer", pa.float64(), "WER of what was heard against spoken_text"),
        ("round_trip_cer", pa.float64(), "CER, likewise"),
        ("kept", pa.bool_(), "round_trip_wer within the threshold"),
    ],
    "rejects": [
        ("archive", pa.string(), "URI of the source"),
        ("member", pa.string(), "member name; empty where the archive itself was refused"),
        ("member_key", pa.string(), "identity of the member's content and side data"),
        ("stage", pa.string(), "stage that refused it"),
        ("reason", pa.string(), "stable reason code"),
        ("message", pa.string(), "what was wrong, for a person"),
        ("start_s", pa.float64(), "start of the refused segment; null for a whole member"),
        ("end_s", pa.float64(), "end of the refused segment; null for a whole member"),
        ("utterance_id", pa.string(), "utterance concerned; null for a whole member"),
        ("shard_id", pa.string(), "shard that refused it"),
    ],
    "quality": [
        ("slice", pa.string(), "sliced by: all, archive, language, speaker, duration, snr, format, speaking_rate"),
        ("value", pa.string(), "the slice's value"),
        ("engine", pa.string(), "engine spec, or chosen"),
        ("input", pa.string(), "raw or denoised; mixed where the chosen transcripts are of both"),
        ("utterances", pa.int64(), "utterances with a reference"),
        ("hours", pa.float64(), "their audio, hours"),
        ("blocks", pa.int64(), "independent blocks the interval is drawn over"),
        ("block_kind", pa.string(), "speaker, or recording where speakers are unknown or under five, or mixed"),
        ("words", pa.int64(), "reference words"),
        *_COUNTS,
        ("wer", pa.float64(), "pooled corpus WER: errors over reference words"),
        ("wer_low", pa.float64(), "lower end of its 95% interval"),
        ("wer_high", pa.float64(), "upper end of its 95% interval"),
        ("mean_utterance_wer", pa.float64(), "mean of the utterances' own WERs: another number"),
        ("cer", pa.float64(), "pooled character error rate"),
        ("empty_hypotheses", pa.int64(), "utterances with a reference in which nothing was heard"),
        ("empty_references", pa.int64(), "utterances whose reference is empty after normalisation"),
        ("small", pa.bool_(), "too few words or blocks to lean on"),
        ("scorer", pa.string(), "scorer and normaliser with versions"),
    ],
}  # fmt: skip

TABLES = tuple(_FIELDS)

RETRY = "retry"  # in the ledger: rejected (all or in part) for a reason that may pass (schemas.reasons.MAY_PASS)
DUPLICATE = "duplicate"  # in the ledger: refused for a name that came before in its archive; says nothing of the first
LEDGER = pa.schema(
    [
        pa.field("archive", pa.string(), metadata={"description": "URI of the source"}),
        pa.field("member", pa.string(), metadata={"description": "member name"}),
        pa.field("member_key", pa.string(), metadata={"description": "identity of the member's content"}),
        pa.field("side", pa.string(), metadata={"description": "identity of its text, language and speaker"}),
        pa.field(
            "status",
            pa.string(),
            metadata={
                "description": "published, rejected, duplicate (a name that came before), "
                "or retry: rejected (all or in part), to be tried again"
            },
        ),
        pa.field("shard_id", pa.string(), metadata={"description": "shard that dealt with it"}),
    ],
    metadata={b"voxmill.table": b"members", b"voxmill.schema_version": SCHEMA_VERSION.encode()},
)
"""One row per member of a run, rejected ones too: what the next run skips by. Private: ``_runs/<run_id>.members``."""
BLOB_TABLES = ("audio", "features", "regenerated")

_HF_AUDIO = {"audio": {"_type": "Audio"}}
_HF_VALUE = {pa.string(): "string", pa.int32(): "int32", pa.int64(): "int64", pa.float64(): "float64",
             pa.float32(): "float32", pa.int16(): "int16", pa.bool_(): "bool"}  # fmt: skip


def _huggingface(table: str) -> dict[bytes, bytes]:
    """The schema metadata by which Hugging Face ``datasets`` decodes a column as Audio (its ``info.features``)."""
    if not any(kind == AUDIO_STRUCT for _, kind, _ in _FIELDS[table]):
        return {}
    features = {
        name: _HF_AUDIO["audio"] if kind == AUDIO_STRUCT else {"dtype": _HF_VALUE[kind], "_type": "Value"}
        for name, kind, _ in _FIELDS[table]
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def schema_of(table: str) -> pa.Schema:
    """The schema of one published table; raises KeyError for a name not in :data:`TABLES`."""
    fields = [pa.field(name, kind, metadata={"description": text}) for name, kind, text in _FIELDS[table]]
    metadata = {b"voxmill.table": table.encode(), b"voxmill.schema_version": SCHEMA_VERSION.encode()}
    return pa.schema(fields, metadata={**metadata, **_huggingface(table)})
