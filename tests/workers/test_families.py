"""A new engine family is its own file and one line of the table: nothing else has to know it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.config import AsrSettings, Cluster
from schemas.errors import VoxmillError
from schemas.families import FAMILIES, Family
from schemas.spec import EngineSpec, short_names
from workers.cluster import shares
from workers.engines.base import Transcription
from workers.engines.checkpoints import check_trusted, checkpoint_digest
from workers.engines.registry import check_ready, load_transcriber


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The spec of a family that only this test knows."""
    monkeypatch.setitem(
        FAMILIES,
        "toy",
        Family("transcribes", "toy_engine:ToyTranscriber", "numpy", suffix=".toy", hub="{}.toy", translates=True),
    )
    (tmp_path / "x.toy").write_text("heard")
    return f"toy:{tmp_path / 'x.toy'}"


def test_a_family_is_one_line(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EngineSpec.parse(toy).family == "toy"
    assert short_names([toy]) == {toy: "toy:x.toy"}
    with pytest.raises(ValueError, match=r"there are whisper.*toy"):
        EngineSpec.parse("toys:x")
    settings = AsrSettings(transcribers=(toy,), task="translate")
    assert not settings.cannot_translate

    with pytest.raises(VoxmillError, match="can run code as it is loaded"):  # unless its line says otherwise
        check_trusted(toy, [])
    with pytest.raises(VoxmillError, match="someone/x can run code"):
        check_trusted("toy:someone/x", [])
    check_trusted(toy, [str(tmp_path)])

    check_ready(toy)
    with pytest.raises(VoxmillError, match="no such checkpoint file"):
        check_ready(f"toy:{tmp_path / 'y.toy'}")
    with pytest.raises(VoxmillError, match="neither a path nor a published name"):
        check_ready("toy:name")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(VoxmillError, match=r"not in the cache.*toy:/models/x\.toy$"):
        check_ready("toy:someone/x")
    snapshot = tmp_path / "hub" / "models--someone--x" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "x.toy").write_text("cached")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    check_ready("toy:someone/x")

    engine = load_transcriber(toy, "cpu", settings)
    assert engine.digest == checkpoint_digest(toy)
    assert engine.transcribe([np.zeros(16_000, np.float32)], [None]) == [Transcription("heard")]
    cached = load_transcriber("toy:someone/x", "cpu", settings)
    assert cached.transcribe([np.zeros(1, np.float32)], [None]) == [Transcription("cached")]


def test_what_a_family_says_of_itself_shares_out_the_cluster(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (shares(8, 0, [toy], 10, Cluster())[toy].workers, shares(8, 1, [toy], 10, Cluster())[toy].gpus) == (2, 1.0)
    slow = Family("transcribes", "toy_engine:ToyTranscriber", "numpy", suffix=".toy", word_by_word=True, gpu=False)
    monkeypatch.setitem(FAMILIES, "toy", slow)
    assert (shares(8, 0, [toy], 10, Cluster())[toy].workers, shares(8, 1, [toy], 10, Cluster())[toy].gpus) == (8, 0.0)


def test_every_family_names_a_class_and_says_how_its_checkpoints_look() -> None:
    for name, family in FAMILIES.items():
        assert family.has_checkpoint or not family.runs_code, name
        assert bool(family.target) == (family.role != "is a part"), name
        assert family.part is None or FAMILIES[family.part].role == "is a part"
