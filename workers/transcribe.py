"""Transcription stage: one engine hears a shard's utterances, raw and (where asked for) denoised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import soxr

from schemas.config import Recipe
from schemas.records import Member
from workers.engines.base import Failure, LanguageDetector, Padding, Transcriber
from workers.silence import SilenceGuard
from workers.work import Regeneration, Utterance, Work

STAGE = "transcribe"


@dataclass(frozen=True)
class _Job:
    """One clip to hear: an utterance's audio of one kind, at the working rate."""

    utterance: Utterance
    input: str
    clip: np.ndarray

    @property
    def key(self) -> tuple[int, str]:
        return id(self.utterance), self.input


def resample(clip: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """``clip`` (float32 mono) from ``rate`` to ``wanted`` Hz by soxr's high quality; at least one sample is left."""
    if rate == wanted:
        return clip
    resampled: np.ndarray = soxr.resample(clip, rate, wanted).astype(np.float32, copy=False)
    return resampled if len(resampled) else np.zeros(1, np.float32)


class Transcribe:
    """Stage of one engine of ``recipe.asr``.

    A clip that the engine refuses becomes a row of ``rejects``. It costs the utterance only where the chosen transcript
    was to come from it: the first engine and the chosen input. A member that so loses its last utterance is rejected as
    a whole. Speech regenerated for this engine's round trip is heard as well.
    """

    def __init__(self, engine: Transcriber, recipe: Recipe) -> None:
        self.engine, self.recipe, self.guard = engine, recipe, SilenceGuard(recipe)
        self.spec = engine.spec

    def __call__(self, work: Work) -> Work:
        if work.failed:
            return work
        work.digests[self.spec] = self.engine.digest
        self.engine.padding = work.padding[self.spec] = Padding()
        jobs = [job for utterance in work.utterances for job in self._jobs(utterance)]
        refused: dict[tuple[int, str], Failure] = {}
        clips = [resample(job.clip, work.sample_rate, self.engine.sample_rate) for job in jobs]
        answers = self.engine.transcribe(clips, self._languages(jobs, clips)) if jobs else []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Failure):
                refused[job.key] = answer
            else:
                job.utterance.transcriptions[self.spec, job.input] = self.guard.check(job.utterance, answer)
        self._refuse(work, [(job, refused[job.key]) for job in jobs if job.key in refused])
        return hear_regenerations(work, self.engine)

    def _jobs(self, utterance: Utterance) -> Iterable[_Job]:
        yield _Job(utterance, "raw", utterance.raw)
        asr = self.recipe.asr
        wanted = asr.denoised == "all" or (asr.denoised == "referenced" and utterance.member.text is not None)
        if asr.chosen_input != "raw":
            wanted = True
        if wanted and utterance.denoised is not None and self.recipe.denoise.method != "none":
            yield _Job(utterance, "denoised", utterance.denoised)

    def _language(self, utterance: Utterance) -> str | None:
        return utterance.member.language or self.recipe.asr.language

    def _languages(self, jobs: list[_Job], clips: list[np.ndarray]) -> list[str | None]:
        """What each of ``jobs`` is heard in; None for what the engine is to find out from the clip itself.

        A recording has one language. Where an engine detects it, the longest utterance tells the language of all the
        others, and of the denoised audio too.
        """
        given = [self._language(job.utterance) for job in jobs]
        if not isinstance(self.engine, LanguageDetector):
            return given
        clips_of = Counter(job.utterance.member for job in jobs)
        longest: dict[Member, int] = {}
        for index, job in enumerate(jobs):
            member = job.utterance.member
            if given[index] is None and job.input == "raw" and clips_of[member] > 1:
                best = longest.setdefault(member, index)
                if len(job.clip) > len(jobs[best].clip):
                    longest[member] = index
        detected = self.engine.detect([clips[index] for index in longest.values()]) if longest else []
        told = dict(zip(longest, detected, strict=True))
        return [language or told.get(job.utterance.member) for job, language in zip(jobs, given, strict=True)]

    def _refuse(self, work: Work, refused: list[tuple[_Job, Failure]]) -> None:
        """Note what the engine refused, drop utterances left without their chosen transcript, and emptied members."""
        asr = self.recipe.asr
        decisive = asr.first_input if self.spec == asr.transcribers[0] else None
        before = Counter(utterance.member for utterance in work.utterances)
        lost = {id(job.utterance): (job, why) for job, why in refused if job.input == decisive}
        work.utterances = [utterance for utterance in work.utterances if id(utterance) not in lost]
        left = {utterance.member for utterance in work.utterances}
        emptied: dict[Member, str] = {}
        for job, why in refused:
            member, message = job.utterance.member, f"{self.spec} ({job.input}): {why.message}"
            if id(job.utterance) in lost and member not in left and member not in emptied:
                # exactly one row without times for a member of which nothing is left; what it lost one by one follows
                emptied[member] = message
                work.reject(STAGE, member, why.reason, message)
            if before[member] > 1 or member in left:
                work.reject(STAGE, member, why.reason, message, job.utterance)


def hear_regenerations(work: Work, engine: Transcriber) -> Work:
    """Round trip: hear the regenerated speech that waits for ``engine``. What it refuses is noted, not dropped."""
    spec = engine.spec
    waiting: list[tuple[Utterance, Regeneration]] = [
        (utterance, one)
        for utterance in work.utterances
        for one in utterance.regenerations
        if one.round_trip_engine == spec and one.round_trip is None
    ]
    if not waiting:
        return work
    work.digests[spec] = engine.digest
    clips = [resample(one.synthesis.samples, one.synthesis.sample_rate, engine.sample_rate) for _, one in waiting]
    languages = [spoken_language(utterance) for utterance, _ in waiting]
    for (utterance, one), answer in zip(waiting, engine.transcribe(clips, languages), strict=True):
        if isinstance(answer, Failure):
            message = f"{spec} (round trip of {one.voice}): {answer.message}"
            work.reject(STAGE, utterance.member, answer.reason, message, utterance)
        else:
            one.round_trip = answer
    return work


def spoken_language(utterance: Utterance) -> str | None:
    """The language that an utterance was given, else the one it was first heard in."""
    heard = (one.language for one in utterance.transcriptions.values() if one.language)
    return utterance.member.language or next(heard, None)
