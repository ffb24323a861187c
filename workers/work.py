"""A shard in flight: what the stages hand to one another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from schemas.ids import stable_id
from schemas.records import Member, Reject, Seconds, Shard, StageTime
from workers.engines.base import Padding, Synthesis, Transcription


@dataclass(frozen=True)
class Recording:
    """What a member was before it was cut: its format, rate (Hz), channels and duration (None: not known)."""

    format: str
    sample_rate: int
    channels: int
    duration_s: Seconds | None


@dataclass
class Regeneration:
    """One text spoken by one voice, and what a transcriber heard in it."""

    engine: str
    digest: str
    voice: str
    text: str
    text_source: str
    synthesis: Synthesis
    spoken_text: str = ""
    unsayable: str = ""
    round_trip_engine: str | None = None
    round_trip: Transcription | None = None


@dataclass
class Utterance:
    """A clip, or a speech segment of a long recording, as it passes through the stages.

    ``raw`` and ``denoised`` are float32 mono, shape (n,), at the recipe's working rate; ``mel`` is float32
    (frames, n_mels). ``transcriptions`` maps (engine spec, input) to what was heard; ``levels`` holds measured
    columns of ``utterances`` by name (snr_db, peak, ...).
    """

    member: Member
    recording: Recording
    channel: int | None
    start_s: Seconds
    end_s: Seconds
    raw: np.ndarray
    denoised: np.ndarray | None = None
    mel: np.ndarray | None = None
    levels: dict[str, float] = field(default_factory=dict)
    transcriptions: dict[tuple[str, str], Transcription] = field(default_factory=dict)
    regenerations: list[Regeneration] = field(default_factory=list)

    def id(self, archive_uri: str) -> str:
        """Stable id: the member's identity, the channel and the times to the millisecond."""
        return stable_id(
            "utterance",
            self.member.key(archive_uri),
            self.channel,
            round(self.start_s * 1000),
            round(self.end_s * 1000),
        )


@dataclass
class Work:
    """One shard between decode and write. ``failed`` set: later stages pass it on untouched.

    A one-way stream ends with a work that has no members of its own, only ``stream_shards`` and ``late``.
    """

    shard: Shard
    sample_rate: int
    utterances: list[Utterance] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    stages: dict[str, StageTime] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    padding: dict[str, Padding] = field(default_factory=dict)  # by transcriber spec
    failed: str = ""
    source_run_id: str | None = None  # the published run whose utterances these are; None for those of this run
    stream_shards: tuple[str, ...] = ()  # the last work of a one-way stream: every shard it gave
    late: dict[str, dict[str, str | None]] = field(default_factory=dict)  # and side data that came after their members

    def reject(self, stage: str, member: Member, reason: str, message: str, utterance: Utterance | None = None) -> None:
        """Note a member, or one utterance of it, as a row of ``rejects``; the caller drops the utterance itself."""
        uri = self.shard.archive.uri
        self.rejects.append(
            Reject(
                archive=uri,
                member=member.name,
                stage=stage,
                reason=str(reason),
                message=message,
                member_key=member.key(uri),
                start_s=utterance.start_s if utterance else None,
                end_s=utterance.end_s if utterance else None,
                utterance_id=utterance.id(uri) if utterance else None,
            )
        )
