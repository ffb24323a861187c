"""The first stage: members' bytes become utterances at the working rate, or rejects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from schemas.config import Recipe
from schemas.errors import MemberError
from schemas.reasons import Reason
from schemas.records import Member
from workers.decoding.decoder import Decoded, Decoder, Item
from workers.levels import levels
from workers.segment import Segment, Segmenter
from workers.work import Utterance, Work

__all__ = ["Decode", "Decoded", "Decoder"]

Payload = tuple[Member, bytes | MemberError]


class Decode:
    """Decodes, cuts and measures the members of a shard; holds a decoder process and, once needed, the VAD model."""

    def __init__(self, recipe: Recipe) -> None:
        self._audio = recipe.audio
        self._decoder = Decoder(recipe.audio)
        self._segmenter = Segmenter(recipe.segmentation)
        self._silence_peak = 10 ** (recipe.audio.silence_dbfs / 20)

    def close(self) -> None:
        self._decoder.close()

    def process(self, work: Work, payloads: Iterable[Payload]) -> Work:
        """Fill ``work`` with the utterances of ``payloads``; every member ends as utterances or as one reject.

        A MemberError in place of a member's bytes becomes its reject. Raises VoxmillError when no decoder can run.
        """
        members: list[Member] = []

        def items() -> Iterator[Item]:
            for member, data in payloads:
                members.append(member)
                yield member.name, data, _clip(member)

        for index, answer in enumerate(self._decoder.decode_many(items())):
            member = members[index]
            if isinstance(answer, MemberError):
                work.reject("decode", member, answer.reason, answer.message)
                continue
            found = list(self._utterances(member, answer))
            loud = [utterance for utterance in found if utterance.levels["peak"] >= self._silence_peak]
            work.utterances.extend(loud)
            if not loud:
                work.reject("segment", member, Reason.NO_SPEECH, "no speech was found in it")
                continue
            for utterance in found:  # one silent channel of several
                if utterance.levels["peak"] < self._silence_peak:
                    work.reject("segment", member, Reason.SILENT, "below the silence floor", utterance)
        return work

    def _utterances(self, member: Member, decoded: Decoded) -> Iterator[Utterance]:
        rate = self._audio.sample_rate
        offset = member.clip_start_s or 0.0
        each = self._audio.channels == "each"
        for channel, segments in enumerate(self._segmenter.cut(list(decoded.samples), rate)):
            for segment in segments:
                raw = _slice(decoded.samples[channel], segment, rate)
                utterance = Utterance(
                    member=member,
                    recording=decoded.recording,
                    channel=channel if each else None,
                    start_s=offset + segment.start_s,
                    # resampling rounds the length up
                    end_s=min(offset + segment.end_s, decoded.recording.duration_s or math.inf),
                    raw=raw,
                    levels=levels(raw, rate),
                )
                if segment.speech_ratio is not None:
                    utterance.levels["speech_ratio"] = segment.speech_ratio
                yield utterance


def _clip(member: Member) -> tuple[float, float | None] | None:
    if member.clip_start_s is None and member.clip_duration_s is None:
        return None
    return member.clip_start_s or 0.0, member.clip_duration_s


def _slice(samples: np.ndarray, segment: Segment, rate: int) -> np.ndarray:
    """The segment's samples, copied: a view would keep hours of recording alive for the sake of one utterance."""
    piece = samples[round(segment.start_s * rate) : round(segment.end_s * rate)]
    return piece if len(piece) == len(samples) else piece.copy()
