"""Regeneration stage: every utterance's text spoken afresh, and the round trip that tells how well."""

from __future__ import annotations

from collections import Counter

from schemas.config import Recipe
from schemas.errors import VoxmillError
from schemas.ids import seed_of
from schemas.reasons import Reason
from workers.engines.base import Failure, Synthesizer, Transcriber
from workers.transcribe import hear_regenerations
from workers.work import Regeneration, Utterance, Work

STAGE = "synthesize"


class Synthesize:
    """Speaks the reference text of each utterance, or where it has none of its own the first engine's transcript.

    Voices are dealt to speakers by a hash of the speaker's label, so one speaker keeps one voice in every shard and
    run; a recording without a speaker counts as one. Draws are seeded from the utterance's id. The last transcriber of
    the recipe is to hear the result. A text that cannot be spoken becomes a row of ``rejects``; its utterance stays.
    Raises VoxmillError where the engine does not have a voice of the recipe.
    """

    def __init__(self, engine: Synthesizer, recipe: Recipe) -> None:
        self.engine, self.recipe = engine, recipe
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
        pieces = _pieces(work)
        spoken: list[tuple[Utterance, str, str, str | None]] = []
        for utterance in work.utterances:
            text, source = self._text(utterance, whole=pieces[utterance.member.key(uri), utterance.channel] == 1)
            if not text.strip():
                work.reject(
                    STAGE, utterance.member, Reason.EMPTY_TEXT, f"nothing to speak: {source} is empty", utterance
                )
            elif len(text) > self.recipe.tts.max_chars:
                message = f"{len(text)} characters of {source}, over tts.max_chars = {self.recipe.tts.max_chars}"
                work.reject(STAGE, utterance.member, Reason.TEXT_TOO_LONG, message, utterance)
            else:
                spoken.append((utterance, text, source, self._voice(utterance, uri)))
        answers = self.engine.synthesize(
            [text for _, text, _, _ in spoken],
            [voice for _, _, _, voice in spoken],
            [seed_of(STAGE, self.engine.spec, utterance.id(uri), voice) for utterance, _, _, voice in spoken],
        )
        for (utterance, text, source, voice), answer in zip(spoken, answers, strict=True):
            if isinstance(answer, Failure):
                message = f"{self.engine.spec}: {answer.message}"
                work.reject(STAGE, utterance.member, answer.reason, message, utterance)
                continue
            utterance.regenerations.append(
                Regeneration(
                    engine=self.engine.spec,
                    digest=self.engine.digest,
                    voice=voice or self.engine.spec.partition(":")[2],
                    text=text,
                    text_source=source,
                    synthesis=answer,
                    round_trip_engine=self.recipe.asr.transcribers[-1],
                )
            )
        return work

    def _text(self, utterance: Utterance, whole: bool) -> tuple[str, str]:
        """Text and its source. A reference belongs to the recording: no single piece of a cut one can speak it."""
        if utterance.member.text is not None and whole:
            return utterance.member.text, "reference"
        asr = self.recipe.asr
        return utterance.transcriptions[asr.transcribers[0], asr.first_input].text, asr.transcribers[0]

    def _voice(self, utterance: Utterance, uri: str) -> str | None:
        speaker = utterance.member.speaker or utterance.member.key(uri)
        return self.voices[seed_of("voice", speaker) % len(self.voices)]


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
    """Hears regenerated speech where one engine alone is configured, and so came before the synthesis."""

    def __init__(self, engine: Transcriber) -> None:
        self.engine = engine

    def __call__(self, work: Work) -> Work:
        return work if work.failed else hear_regenerations(work, self.engine)
