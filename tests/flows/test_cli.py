"""The command line in this process: what it shows, what it refuses and how it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from schemas.config import Layout, Storage
from schemas.manifest import ArchiveCounts, PublishedFile, RunManifest
from tests.conftest import ROOT
from workers.arrow import table_of
from workers.compact import write_table

HEAVY = ("prefect", "ray", "torch", "pyarrow", "numpy", "rich.console")


def voxmill(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A spec that points to a file: planning asks for its digest, nothing loads it."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    return f"whisper:{tmp_path / 'model.pt'}"


def test_help_needs_no_heavy_import() -> None:
    code = f"import sys, flows.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for command in ("run", "plan", "report", "regenerate", "export", "verify", "demo"):
        assert f"  {command} " in voxmill("--help").output
        assert voxmill(command, "--help").exit_code == 0


def test_plan_counts_without_touching_anything(shared_data: Path, checkpoint: str, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    sources = (shared_data / "fsdd" / "fsdd_test.tar", tmp_path / "missing.zip")
    shown = voxmill("plan", *sources, "-d", lake, "--transcribers", checkpoint)
    assert shown.exit_code == 0, shown.output
    assert "fsdd_test.tar" in shown.output
    assert " 250 " in shown.output
    assert "[source_missing]" in shown.output
    assert "h of audio" in shown.output
    assert not lake.exists()


def test_every_wrong_field_is_told_in_a_line_of_its_own(tmp_path: Path) -> None:
    wrong = voxmill("plan", "a.tar", "-d", tmp_path, "--transcribers", "parrot:x", "--set", "features.n_mels=3")
    lines = wrong.output.strip().splitlines()
    assert wrong.exit_code == 1
    assert [line.split(": ")[1] for line in lines] == ["transcribers.0", "recipe.features.n_mels"]
    assert "no family 'parrot'; there are" in lines[0]
    assert "greater than or equal to 8" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.tar"], "destination: must be given"),
        (["-d", "lake"], "sources: must be given"),
        (["a.tar", "-d", "lake", "--set", "asr.denoised"], "is not of the form group.name=value"),
        (["a.tar", "-d", "lake", "--set", "cluster.speed=3"], "cluster.speed: no setting has this name"),
        (["a.tar", "-d", "lake", "--set", "recipe=5"], "recipe: "),
        (["a.tar", "-d", "lake", "--set", "tts.voices=ann"], 'recipe.tts.voices: must be a list, such as ["a", "b"]'),
        (["a.tar", "-d", "lake", "--set", "gate.max_wer=Infinity"], "gate.max_wer: Input should be a finite number"),
        (["a.tar", "-d", "lake", "--set", "features.hop_length=2048"], "recipe.features: hop_length is 2048, over"),
        (["a.tar", "-d", "lake", "--set", "features.f_min=9000"], "half of audio.sample_rate: 8000 Hz"),
        (["a.tar", "-d", "lake", "--set", 'cluster.actors={"front": 0}'], "cluster.actors.front: "),
        (["a.tar", "-d", "lake", "--config", "nowhere.yaml"], "nowhere.yaml: the configuration cannot be read"),
        (["a.tar", "-d", "lake", "--transcribers", "whisper:/nowhere/x.pt"], "whisper:/nowhere/x.pt: there is no such"),
        (["a.tar", "-d", "lake", "--transcribers", "conformer:x.nemo"], "allow it: --trust x.nemo"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], words: str) -> None:
    refused = voxmill("plan", *arguments)
    assert refused.exit_code == 1
    assert words in refused.output
    assert len(refused.output.strip().splitlines()) == 1


def test_a_file_of_parameters_takes_the_flags_names(checkpoint: str, tmp_path: Path) -> None:
    config = tmp_path / "nightly.yaml"
    config.write_text(f"sources: [nowhere.tar]\ndestination: {tmp_path}\ntranscribers: ['{checkpoint}']\n")
    assert "nowhere.tar: " in voxmill("plan", "-c", config).output
    assert "elsewhere.tar: " in voxmill("plan", "elsewhere.tar", "-c", config).output
    config.write_text("source: [nowhere.tar]\n")
    assert "source: no parameter of this name; there are sources, " in voxmill("plan", "-c", config).output


def test_set_comes_after_flags_and_the_task_is_that_of_the_transcribers_in_the_end(
    checkpoint: str, tmp_path: Path
) -> None:
    config = tmp_path / "nightly.yaml"
    config.write_text("transcribers: ['whisper:/file.pt']\nrecipe: {asr: {task: translate}}\n")
    common = ("plan", tmp_path / "a.tar", "-d", tmp_path / "lake", "-c", config)
    assert "whisper:/file.pt: " in voxmill(*common).output
    assert "whisper:/flag.pt: " in voxmill(*common, "--transcribers", "whisper:/flag.pt").output
    both = ("--transcribers", "whisper:/flag.pt", "--set", f'asr.transcribers=["{checkpoint}"]')
    assert "a.tar: " in voxmill(*common, *both).output
    refused = voxmill(*common, "--transcribers", "conformer:/x.nemo")
    assert refused.output.startswith("error: asr.task: conformer:/x.nemo cannot translate; whisper and faster-whisper")


def test_transcripts_chosen_from_what_is_not_made_are_refused(checkpoint: str, tmp_path: Path) -> None:
    common = ("plan", tmp_path / "a.tar", "-d", tmp_path / "lake", "--transcribers", checkpoint)
    refused = voxmill(*common, "--set", "asr.chosen_input=denoised", "--set", "denoise.method=none")
    assert refused.exit_code == 1
    assert refused.output == (
        "error: recipe: asr.chosen_input is denoised and denoise.method is none: no transcript would be chosen\n"
    )


def test_a_destination_inside_a_source_is_refused(checkpoint: str, tmp_path: Path) -> None:
    lake = tmp_path / "calls" / "lake"
    for source in (tmp_path, tmp_path / "calls", lake, tmp_path / "*", tmp_path / "**", tmp_path / "calls" / "l?ke"):
        refused = voxmill("plan", tmp_path / "a.tar", source, "-d", lake, "--transcribers", checkpoint)
        assert refused.exit_code == 1
        assert f"{source}: the destination lies in this source" in refused.output
    for source in (
        tmp_path / "call",
        tmp_path / "*.tar",
        tmp_path / "**" / "*.wav",
        lake / "in",
        tmp_path / "calls/a*",
    ):
        assert "lies in this source" not in voxmill("plan", source, "-d", lake, "--transcribers", checkpoint).output


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A destination with one published run of one utterance table."""
    rejects = [{"archive": "a.tar", "member": name, "stage": "decode", "reason": "silent"} for name in ("1", "2")]
    path = "rejects/run_date=2026-01-02/run_id=r1/part-00000.parquet"
    file = write_table("rejects", iter([table_of("rejects", rejects)]), path, str(tmp_path), Storage())
    publish(tmp_path, file)
    return tmp_path


def publish(lake: Path, file: PublishedFile, rejected: int = 2) -> None:
    archive = ArchiveCounts(
        uri="a.tar", id="i", layout="tar", whole=True, members_in=2, members_published=0, members_rejected=2,
        utterances=0, hours=0,
    )  # fmt: skip
    manifest = RunManifest(
        run_id="r1", run_date="2026-01-02", status="published", fingerprint="f", parameters={}, started_at="",
        finished_at="", members_in=2, members_published=0, members_rejected=rejected, utterances=0, hours=0, wall_s=1,
        real_time_factor=0, archives=[archive], reject_reasons={"silent": 2}, word_errors=[], stages={}, files=[file],
        digests={}, versions={},
    )  # fmt: skip
    target = Path(Layout(destination=str(lake)).manifest("r1"))
    target.parent.mkdir(exist_ok=True)
    target.write_text(manifest.model_dump_json())


def test_what_nobody_foresaw_is_one_line_too(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lake / "_runs" / "r1.json").write_text("{}")
    refused = voxmill("verify", lake)
    assert refused.exit_code == 1
    assert len(refused.output.strip().splitlines()) == 1
    assert "r1" in refused.output
    assert "Traceback" not in refused.output


def test_verify_believes_a_sound_destination(lake: Path) -> None:
    sound = voxmill("verify", lake)
    assert sound.exit_code == 0, sound.output
    assert sound.output == "1 run, 1 file: all as the manifests say.\n"


def test_verify_tells_what_is_lost_altered_left_over_or_miscounted(lake: Path) -> None:
    (part,) = lake.glob("rejects/*/*/*.parquet")
    manifest = RunManifest.model_validate_json((lake / "_runs/r1.json").read_text())

    stray = part.with_name("part-00001.parquet")
    stray.write_bytes(part.read_bytes())
    assert f"{stray}: no manifest names this file" in voxmill("verify", lake).output
    assert voxmill("verify", lake, "r1").exit_code == 0
    stray.unlink()

    publish(lake, manifest.files[0].model_copy(update={"rows": 3, "bytes": 5}))
    told = voxmill("verify", lake)
    assert told.exit_code == 1
    assert f"has {part.stat().st_size} bytes, the manifest says 5" in told.output
    assert "has 2 rows, the manifest says 3" in told.output

    publish(lake, manifest.files[0], rejected=1)
    assert "2 members in, but 0 published and 1 rejected" in voxmill("verify", lake).output

    publish(lake, manifest.files[0])
    part.write_bytes(part.read_bytes()[:-20])
    assert "cannot be read" in voxmill("verify", lake).output
    part.unlink()
    assert "is missing" in voxmill("verify", lake).output


def test_two_runs_are_compared_or_the_missing_one_is_named(lake: Path, prefect_harness: None) -> None:
    page = lake / "reports/r1/since-r1.html"
    compared = voxmill("report", lake, "--compare", "r1", "r1")
    assert (compared.exit_code, compared.output.strip()) == (0, str(page))
    assert "Since run r1" in page.read_text()
    assert "a run id beside the two" in voxmill("report", lake, "r1", "--compare", "r1", "r1").output
    refused = voxmill("report", lake, "--compare", "r0", "r1")
    assert refused.exit_code == 1
    assert "no run r0 is published here" in refused.output


def test_commands_on_a_destination_without_runs_say_so(tmp_path: Path, prefect_harness: None) -> None:
    for command in ("verify", "report"):
        refused = voxmill(command, tmp_path)
        assert refused.exit_code == 1
        assert "published here" in refused.output
        assert len(refused.output.strip().splitlines()) == 1
