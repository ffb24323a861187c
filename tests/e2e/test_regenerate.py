"""Texts of a published run spoken afresh: chosen by a condition, heard again, published as a run of their own."""

from __future__ import annotations

from typing import Any

import pytest

import tasks.regenerate
from flows.regenerate import regenerate
from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from tasks.verify import verify
from tests.e2e.conftest import Spoken
from tests.e2e.runs import Lake, Mill

VOICE = "espeak:en-us"


@pytest.fixture(scope="module")
def lake(mill: Mill, digits: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A run of eight digits, six of them with a text beside them."""
    folder = tmp_path_factory.mktemp("speech")
    for number, clip in enumerate(digits[::30][:8]):
        (folder / clip.name).write_bytes(clip.data)
        if number < 6:
            (folder / clip.name).with_suffix(".txt").write_text(clip.text)
    destination = tmp_path_factory.mktemp("lake")
    assert mill.run([folder], destination) is not None
    return Lake(str(destination))


def spoken(lake: Lake, **form: Any) -> RunManifest | None:
    source = next(one["run_id"] for one in lake.manifests() if one["kind"] == "corpus")
    state = regenerate(destination=lake.url, run_id=source, tts=VOICE, return_state=True, **form)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def test_chosen_texts_are_spoken_heard_and_published(lake: Lake, mill: Mill) -> None:
    utterances = {row["utterance_id"]: row for row in lake.rows("utterances", run=0)}
    manifest = spoken(lake, where="reference IS NOT NULL AND duration_s > 0", voices=["en-us", "en-gb"], max_wer=0.5)
    assert manifest is not None
    assert (manifest.kind, manifest.members_in, manifest.members_published) == ("regenerate", 6, 6)
    rows = lake.rows("regenerated")
    assert len(rows) == 6
    for row in rows:
        source = utterances[row["utterance_id"]]
        assert (row["archive"], row["member"]) == (source["archive"], source["member"])
        assert (row["text"], row["text_source"]) == (source["reference"], "reference")
        assert row["engine"] == VOICE
        assert row["round_trip_engine"] == mill.transcribers[-1]
        assert row["kept"] == (row["round_trip_wer"] is not None and row["round_trip_wer"] <= 0.5)
        assert row["audio"]["bytes"][:4] == b"fLaC"
    voice_of = {utterances[row["utterance_id"]]["speaker"] or row["member"]: set() for row in rows}
    for row in rows:
        voice_of[utterances[row["utterance_id"]]["speaker"] or row["member"]].add(row["voice"])
    assert all(len(voices) == 1 for voices in voice_of.values())

    before = lake.digests()
    assert spoken(lake, where="reference IS NOT NULL AND duration_s > 0", voices=["en-us", "en-gb"], max_wer=0.5)
    assert lake.digests() == before
    assert verify(lake.url, None, Storage())[1] == []


def test_transcripts_are_spoken_where_asked_and_what_has_no_text_is_rejected(lake: Lake, mill: Mill) -> None:
    assert spoken(lake, text="transcript", round_trip=mill.transcribers[0])
    heard = {row["utterance_id"]: row["transcript"] for row in lake.rows("utterances", run=0)}
    rows = lake.rows("regenerated")
    assert {row["utterance_id"]: row["text"] for row in rows} == {one: text for one, text in heard.items() if text}
    assert {row["text_source"] for row in rows} == {mill.transcribers[0]}
    assert {row["round_trip_engine"] for row in rows} == {mill.transcribers[0]}

    manifest = spoken(lake, text="reference")
    assert manifest is not None
    assert (manifest.members_in, manifest.members_published, manifest.members_rejected) == (8, 6, 2)
    assert {row["reason"] for row in lake.rows("rejects")} == {"empty_text"}


def test_nothing_chosen_publishes_nothing(lake: Lake) -> None:
    before = len(lake.manifests())
    assert spoken(lake, where="duration_s > 1000") is None
    assert len(lake.manifests()) == before


def test_a_stopped_run_goes_on_with_what_it_has_spoken(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> None:
        raise VoxmillError("stopped")

    asked: list[int] = []
    speak = tasks.regenerate.regenerate_shards

    def watched(works: list[Any], *others: Any) -> Any:
        asked.append(len(works))
        return speak(works, *others)

    monkeypatch.setattr(tasks.regenerate, "regenerate_shards", watched)
    with monkeypatch.context() as broken:
        broken.setattr("flows.regenerate.publish_regenerated", stopped)
        with pytest.raises(VoxmillError, match="stopped"):
            spoken(lake, where="reference IS NOT NULL", voices=["en-gb"])
    before = len(lake.manifests())
    manifest = spoken(lake, where="reference IS NOT NULL", voices=["en-gb"])
    assert manifest is not None
    assert (manifest.members_in, manifest.members_published, len(lake.manifests())) == (6, 6, before + 1)
    assert asked == [1, 0]
