"""Regeneration stage: every utterance's text spoken afresh, and the round trip that tells how well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from schemas.config import Recipe
from schemas.errors import VoxmillError
from schemas.ids import seed_of
from schemas.reasons import Reason
from workers.engines.base import Failure, Synthesis, Synthesizer, Transcriber
from workers.sentences import Piece, pieces
from workers.sound import finished, joined
from workers.spoken_text import spoken_text
from workers.transcribe import hear_regenerations, spoken_language
from workers.voices import deal
from workers.work import Regeneration, Utterance, Work

STAGE = "synthesize"


@dataclass(frozen=True)
class _Task:
    """One utterance's text for one voice; ``parts`` is what the engine is given, a piece after the other."""

    utterance: Utterance
    text: str
    source: str
    voice: str | None
    parts: tuple[Piece, ...]

    @property
    def spoken(self) -> str:
        return " ".join(part.text for part in self.parts)


class Synthesize:
    """Speaks the reference text of each utterance, or where it has none of its own the first engine's transcript.

    Voices are dealt to speakers by a hash of the speaker's label, with ``key`` a keyed one, so one speaker keeps one
    voice in every shard and run; a recording without a speaker counts as one. Draws are seeded from the utterance's id.
    The recipe's ``round_trip`` is to hear the result. A text that cannot be spoken becomes a row of ``rejects``;
    its utterance stays. Raises VoxmillError where the engine does not have a voice of the recipe.
    """

    def __init__(self, engine: Synthesizer, recipe: Recipe, key: bytes | None = None) -> None:
        self.engine, self.recipe, self.key = engine, recipe, key
        self.voices: tuple[str | None, ...] = recipe.tts.voices or (None,)
        for voice in recipe.tts.voices:
            (answer,) = self.engine.synthesize(["a"], [voice], [0])
            if isinstance(answer, Failure) and answer.reason == Reason.UNKNOWN_VOICE:
                raise VoxmillError(answer.message, "tts.voices", "Choose voices that the engine has.")

    def __call__(self, work: Work) -> Work:
        if work.failed:
            return work
        work.digests[self.engine.spec] = self.engine.digest
        uri = work.shard.archive.uri
        pieces_ = _pieces(work)
        tasks = [
            task
            for utterance in work.utterances
            for task in self._tasks(work, utterance, whole=pieces_[utterance.member.key(uri), utterance.channel] == 1)
        ]
        flat = [(task, index, part) for task in tasks for index, part in enumerate(task.parts)]
        answers = self.engine.synthesize(
            [part.text for _, _, part in flat],
            [task.voice for task, _, _ in flat],
            [
                seed_of(STAGE, self.engine.spec, task.utterance.id(uri), task.voice, *([index] if index else []))
                for task, index, _ in flat
            ],
        )
        spoken: dict[int, list[Synthesis | Failure]] = {id(task): [] for task in tasks}
        for (task, _, _), answer in zip(flat, answers, strict=True):
            spoken[id(task)].append(answer)
        for task in tasks:
            self._keep(work, task, spoken[id(task)])
        return work

    def _tasks(self, work: Work, utterance: Utterance, whole: bool) -> list[_Task]:
        """What is to be spoken of an utterance, once for each of its voices; nothing, and a reject, where that cannot
        be."""
        tts = self.recipe.tts
        text, source = self._text(utterance, whole)
        if not text.strip():
            work.reject(STAGE, utterance.member, Reason.EMPTY_TEXT, f"nothing to speak: {source} is empty", utterance)
            return []
        if len(text) > tts.max_chars:
            message = f"{len(text)} characters of {source}, over tts.max_chars = {tts.max_chars}"
            work.reject(STAGE, utterance.member, Reason.TEXT_TOO_LONG, message, utterance)
            return []
        language = spoken_language(utterance) or self.recipe.asr.language
        words = spoken_text(text, language) if tts.normalize else text
        parts = tuple(pieces(words, language, tts.piece_chars, tts.pause_s))
        speaker = utterance.member.speaker or utterance.member.key(work.shard.archive.uri)
        voices = deal(speaker, self.voices, tts.voices_per_clip, self.key)
        return [_Task(utterance, text, source, voice, parts) for voice in voices]

    def _keep(self, work: Work, task: _Task, answers: list[Synthesis | Failure]) -> None:
        """Put the pieces together. One that holds nothing to pronounce is left out and its characters are reported;
        where another piece fails, or nothing is left, the whole is a reject."""
        silent = [
            isinstance(answer, Failure) and answer.reason == Reason.NOTHING_PRONOUNCEABLE and len(answers) > 1
            for answer in answers
        ]
        wrong = [one for one, quiet in zip(answers, silent, strict=True) if isinstance(one, Failure) and not quiet]
        sounds = [
            (answer, part) for answer, part in zip(answers, task.parts, strict=True) if isinstance(answer, Synthesis)
        ]
        if wrong or not sounds:
            why = wrong[0] if wrong else next(one for one in answers if isinstance(one, Failure))
            message = f"{self.engine.spec}: {why.message}"
            work.reject(STAGE, task.utterance.member, why.reason, message, task.utterance)
            return
        speech = joined([answer for answer, _ in sounds], [part.pause_s for _, part in sounds[:-1]] + [0.0])
        dropped = "".join(part.text for part, quiet in zip(task.parts, silent, strict=True) if quiet)
        unsayable = "".join(dict.fromkeys(c for c in speech.unsayable + dropped if not c.isspace()))
        task.utterance.regenerations.append(
            Regeneration(
                engine=self.engine.spec,
                digest=self.engine.digest,
                voice=task.voice or self.engine.spec.partition(":")[2],
                text=task.text,
                text_source=task.source,
                spoken_text=task.spoken,
                unsayable=unsayable,
                synthesis=finished(speech, self.recipe.tts),
                round_trip_engine=self.recipe.round_trip,
            )
        )

    def _text(self, utterance: Utterance, whole: bool) -> tuple[str, str]:
        """Text and its source. A reference belongs to the recording: no single piece of a cut one can speak it."""
        if utterance.member.text is not None and whole:
            return utterance.member.text, "reference"
        asr = self.recipe.asr
        return utterance.transcriptions[asr.transcribers[0], asr.first_input].text, asr.transcribers[0]


def _pieces(work: Work) -> Counter[tuple[str, int | None]]:
    """Utterances that each channel of each member was cut into, those refused on the way included."""
    uri = work.shard.archive.uri
    pieces = Counter((utterance.member.key(uri), utterance.channel) for utterance in work.utterances)
    ids = {utterance.id(uri) for utterance in work.utterances}
    gone = {
        (reject.member_key, reject.utterance_id) for reject in work.rejects if reject.utterance_id not in (None, *ids)
    }
    for key, _ in gone:
        for channel in [channel for member, channel in pieces if member == key]:
            pieces[key, channel] += 1
    return pieces


class RoundTrip:
    """Hears regenerated speech with an engine that has no stage of its own after the synthesis."""

    def __init__(self, engine: Transcriber) -> None:
        self.engine = engine

    def __call__(self, work: Work) -> Work:
        return work if work.failed else hear_regenerations(work, self.engine)
