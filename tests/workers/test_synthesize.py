"""Regeneration: which text, in whose voice, and what cannot be spoken."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.config import Recipe, Storage
from schemas.errors import VoxmillError
from schemas.reasons import Reason
from schemas.records import Archive, Layout, Member, Shard
from workers.engines.base import Transcription
from workers.engines.registry import load_synthesizer
from workers.pipeline import engine_stages
from workers.synthesize import RoundTrip, Synthesize
from workers.work import Recording, Utterance, Work

FIRST, LAST, OTHER = "whisper:first.pt", "conformer:last.nemo", "conformer:other.nemo"
VOICES = ("en-us", "en-gb", "en-gb-scotland")


def recipe(transcribers: tuple[str, ...] = (FIRST, LAST), **tts: object) -> Recipe:
    settings = {"synthesizer": "espeak:en-us", **tts}
    return Recipe.model_validate({"asr": {"transcribers": transcribers}, "tts": settings})


def voiced(settings: Recipe) -> Synthesize:
    return Synthesize(load_synthesizer(str(settings.tts.synthesizer), "cpu"), settings)


def work_of(*members: tuple[Member, list[str]], name: str = "s") -> Work:
    """Members, each with what was heard in its utterances."""
    work = Work(Shard(name, Archive("file:///a.tar", Layout.TAR), "f", tuple(member for member, _ in members)), 16_000)
    for member, texts in members:
        for index, text in enumerate(texts):
            utterance = Utterance(
                member, Recording("WAV", 16_000, 1, 9.0), None, index, index + 1, np.zeros(16_000, np.float32)
            )
            utterance.transcriptions[FIRST, "raw"] = Transcription(text, "en")
            work.utterances.append(utterance)
    return work


def member(name: str, text: str | None = None, speaker: str | None = None) -> Member:
    return Member(name, 1, "file:///a.tar", text=text, speaker=speaker)


def test_the_reference_is_spoken_or_the_first_transcript() -> None:
    work = work_of(
        (member("a", "seven"), ["eleven"]),
        (member("b"), ["two"]),
        (member("cut", "three four"), ["three", "four"]),  # no piece of a cut recording has the whole reference
    )
    work = voiced(recipe())(work)
    spoken = [utterance.regenerations[0] for utterance in work.utterances]
    assert [(one.text, one.text_source) for one in spoken] == [
        ("seven", "reference"),
        ("two", FIRST),
        ("three", FIRST),
        ("four", FIRST),
    ]
    assert all(one.round_trip_engine == LAST and one.voice == "en-us" and one.round_trip is None for one in spoken)
    assert all(len(one.synthesis.samples) > one.synthesis.sample_rate // 10 for one in spoken)
    assert work.digests["espeak:en-us"] == spoken[0].digest


def test_a_lost_piece_does_not_make_the_rest_whole() -> None:
    work = work_of((member("cut", "three four"), ["three", "four"]))
    lost = work.utterances.pop()
    work.reject("transcribe", lost.member, Reason.ENGINE_FAILED, "refused", lost)
    assert voiced(recipe())(work).utterances[0].regenerations[0].text == "three"


def test_voices_stay_with_their_speakers() -> None:
    people = [f"speaker {index}" for index in range(12)]
    stage = voiced(recipe(voices=VOICES))

    def voices(order: list[str], shard: str) -> dict[str, str]:
        work = stage(work_of(*((member(f"{shard}/{who}", "one", who), [""]) for who in order), name=shard))
        return {str(one.member.speaker): one.regenerations[0].voice for one in work.utterances}

    dealt = voices(people, "s")
    assert dealt == voices(people[::-1], "t")
    assert set(dealt.values()) == set(VOICES)
    nobody = stage(work_of((member("x"), ["one", "two", "three"])))
    assert len({one.regenerations[0].voice for one in nobody.utterances}) == 1


def test_what_cannot_be_spoken_is_a_row_and_keeps_its_utterance() -> None:
    work = work_of(
        (member("empty"), [" "]),
        (member("long", "one " * 30), [""]),
        (member("signs", "?!"), [""]),
        (member("a"), ["a"]),
    )
    work = voiced(recipe(max_chars=100))(work)
    assert [(reject.member, reject.reason) for reject in work.rejects] == [
        ("empty", Reason.EMPTY_TEXT),
        ("long", Reason.TEXT_TOO_LONG),
        ("signs", Reason.NOTHING_PRONOUNCEABLE),
    ]
    assert all(reject.utterance_id and reject.stage == "synthesize" for reject in work.rejects)
    assert [len(utterance.regenerations) for utterance in work.utterances] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("transcribers", "round_trip", "after"),
    [
        ((FIRST,), None, [("round trip", FIRST)]),
        ((FIRST, LAST), None, [("transcribe", LAST)]),
        ((FIRST, LAST), LAST, [("transcribe", LAST)]),
        ((FIRST, LAST), FIRST, [("round trip", FIRST), ("transcribe", LAST)]),
        ((FIRST,), OTHER, [("round trip", OTHER)]),
    ],
)
def test_any_engine_can_hear_the_round_trip(
    transcribers: tuple[str, ...], round_trip: str | None, after: list[tuple[str, str]]
) -> None:
    settings = recipe(transcribers, round_trip=round_trip)
    stages = [(stage.role, stage.spec) for stage in engine_stages(settings, Storage())]
    assert stages == [("transcribe", FIRST), ("synthesize", "espeak:en-us"), *after]
    assert set(settings.engines) == {spec for _, spec in stages}
    (utterance,) = voiced(settings)(work_of((member("a", "seven"), [""]))).utterances
    assert utterance.regenerations[0].round_trip_engine == (round_trip or transcribers[-1])


def test_one_engine_hears_its_round_trip_afterwards() -> None:
    alone = recipe((FIRST,))
    work = voiced(alone)(work_of((member("a", "seven"), ["seven"])))

    class Engine:
        spec, digest, sample_rate = FIRST, "blake3:00", 16_000

        def transcribe(self, clips: list[np.ndarray], languages: list[str | None]) -> list[Transcription]:
            return [
                Transcription(f"{len(clip)} samples", language) for clip, language in zip(clips, languages, strict=True)
            ]

    heard = RoundTrip(Engine())(work).utterances[0].regenerations[0]  # type: ignore[arg-type]
    assert heard.round_trip is not None
    assert heard.round_trip.text == f"{round(len(heard.synthesis.samples) * 16_000 / 22_050)} samples"
    assert heard.round_trip.language == "en"


def test_voices_that_cannot_be_had_stop_the_run() -> None:
    with pytest.raises(VoxmillError, match=r"tts\.voices: .*no language 'tlh'"):
        voiced(recipe(voices=("en-us", "tlh")))
    with pytest.raises(VoxmillError, match="espeak:xx-none"):
        voiced(recipe(synthesizer="espeak:xx-none"))
