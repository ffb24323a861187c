"""What goes wrong costs itself alone: each member is published or rejected for a stable reason; its neighbours hold."""

from __future__ import annotations

import io
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from infra.demo.packs import tar_bytes, tar_gz_bytes, zip_bytes
from schemas.errors import VoxmillError
from schemas.manifest import RunManifest
from schemas.reasons import Reason
from tasks.verify import verify_run
from tests.e2e import hostile
from tests.e2e.runs import Lake, Mill

if TYPE_CHECKING:
    from tests.e2e.conftest import Spoken

Members = dict[str, bytes]
SCRIPTS = ("звук/три.wav", "音声/三.wav", "صوت/ثلاثة.wav", "ध्वनि/तीन.wav", "🎙/x y.wav", "a'b\"c;--%.wav", "é.wav")


def broken_members(shared_data: Path) -> Members:
    folder = shared_data / "broken"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "metadata.jsonl"}


def absurd_members(good: bytes) -> Members:
    """Headers that lie, and recordings in which nothing is."""
    rng = np.random.default_rng(1)
    flac = io.BytesIO()
    soundfile.write(flac, rng.uniform(-0.5, 0.5, 4_000), 16_000, format="FLAC")
    return {
        "billions.flac": hostile.flac_of(30_000_000_000, flac.getvalue()),
        "fast.wav": hostile.wav_header(1, 384_000, 8_000, bytes(rng.bytes(8_000))),
        "wide.wav": hostile.wav_header(64, 16_000, 12_800, bytes(rng.bytes(12_800))),
        "nothing.wav": hostile.wav(np.zeros(0), 16_000),
        "instant.wav": hostile.wav(rng.uniform(-0.5, 0.5, 100), 16_000),
        "silent.wav": hostile.wav(np.zeros(32_000), 16_000),
        "empty.wav": b"",
        "page.wav": b"<!DOCTYPE html><html><body>404</body></html>",
        "lfs.flac": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "headerless.raw": good[44:],
        "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
        "inner.zip": b"PK\x05\x06" + bytes(18),
    }


ABSURD_REASONS = {
    "billions.flac": Reason.ABSURD_HEADER,
    "fast.wav": Reason.ABSURD_HEADER,
    "wide.wav": Reason.ABSURD_HEADER,
    "nothing.wav": Reason.EMPTY_AUDIO,
    "instant.wav": Reason.TOO_SHORT,
    "silent.wav": Reason.SILENT,
    "empty.wav": Reason.EMPTY_FILE,
    "page.wav": Reason.UNDECODABLE,
    "lfs.flac": Reason.UNDECODABLE,
    "headerless.raw": Reason.HEADERLESS_AUDIO,
    "photo.jpg": Reason.NOT_AUDIO,
    "inner.zip": Reason.NOT_AUDIO,
}


class Outcome:
    """One run over all bad sources: what was put in, and what came of it, by the source's name."""

    def __init__(self, manifest: RunManifest, lake: Lake) -> None:
        self.manifest, self.lake = manifest, lake
        self.counts = {Path(one.uri).name: one for one in manifest.archives}
        self.published: dict[str, set[str]] = {}
        self.audio: dict[tuple[str, str], bytes] = {}
        for row in lake.rows("audio"):
            archive = Path(row["archive"]).name
            self.published.setdefault(archive, set()).add(row["member"])
            self.audio[archive, row["member"]] = row["audio"]["bytes"]
        self.rejects: dict[str, list[tuple[str, str]]] = {}
        for row in lake.rows("rejects"):
            if row["start_s"] is None:
                self.rejects.setdefault(Path(row["archive"]).name, []).append((row["member"], row["reason"]))

    def reasons(self, archive: str) -> dict[str, str]:
        return dict(self.rejects.get(archive, []))


@pytest.fixture(scope="module")
def good(digits: list[Spoken]) -> Members:
    """Two clips that are in every archive, before and after what is bad."""
    return {"first good.wav": digits[0].data, "last good.wav": digits[-1].data}


@pytest.fixture(scope="module")
def outcome(mill: Mill, shared_data: Path, good: Members, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    root = tmp_path_factory.mktemp("bad")
    (first, first_data), (last, last_data) = good.items()
    broken, absurd = broken_members(shared_data), absurd_members(first_data)

    def among(members: Members) -> Members:
        return {first: first_data, **members, last: last_data}

    archives = {
        "clean.tar": tar_bytes(good),
        "broken.tar": tar_bytes(among(broken)),
        "broken.zip": zip_bytes(among(broken)),
        "broken.tar.gz": tar_gz_bytes(among(broken)),
        "absurd.tar": tar_bytes(among(absurd)),
        "absurd.zip": zip_bytes(among(absurd)),
        "special.tar": hostile.special_tar(good.items()),
        "scripts.zip": zip_bytes(among(dict.fromkeys(SCRIPTS, first_data))),
        "truncated.tar": hostile.truncated(tar_bytes(among({"cut.wav": last_data})), last_data),
        "truncated.tar.gz": hostile.truncated_tar_gz(among({"cut.wav": last_data})),
        "truncated.zip": zip_bytes(good)[:-100],
        "encrypted.zip": hostile.encrypted_zip(among({"secret.wav": first_data}), "secret.wav"),
        "empty.tar": tar_bytes({}),
        "empty.zip": zip_bytes({}),
        "zero.tar.gz": b"",
        "text.zip": b"this is no archive\n" * 100,
    }
    for name, data in archives.items():
        (root / name).write_bytes(data)
    (root / "broken").mkdir()
    for name, data in among(broken).items():
        (root / "broken" / name).write_bytes(data)
    (root / "nothing here").mkdir()
    sources = [root / name for name in archives] + [root / "broken", root / "nothing here", root / "missing.tar"]
    lake = Lake(str(root / "lake"))
    manifest = mill.run(sources, lake.url)
    assert manifest is not None
    return Outcome(manifest, lake)


def test_nothing_is_lost(outcome: Outcome) -> None:
    manifest = outcome.manifest
    assert manifest.status == "published"
    assert manifest.members_in == manifest.members_published + manifest.members_rejected
    for one in manifest.archives:
        assert one.members_in == one.members_published + one.members_rejected, one.uri
        name = Path(one.uri).name
        assert one.members_published == len(outcome.published.get(name, ())), one.uri
        assert one.members_rejected == len(outcome.rejects.get(name, ())), one.uri
    assert verify_run(manifest, outcome.lake.url, outcome.lake.storage) == []
    assert manifest.members_published == sum(map(len, outcome.published.values()))
    assert manifest.members_rejected == sum(map(len, outcome.rejects.values()))
    assert set(manifest.reject_reasons) <= {str(reason) for reason in Reason}
    assert all(row["message"] and "\n" not in row["message"] for row in outcome.lake.rows("rejects"))
    expected = {
        "clean.tar": 2,
        "encrypted.zip": 3,
        "scripts.zip": 9,
        "special.tar": 11,
        **dict.fromkeys(("broken", "broken.tar", "broken.zip", "broken.tar.gz"), 15),
        **dict.fromkeys(("absurd.tar", "absurd.zip"), 14),
    }
    assert {name: outcome.counts[name].members_in for name in expected} == expected


def test_neighbours_are_unharmed(outcome: Outcome, good: Members) -> None:
    """The same clip gives the same published audio wherever it lies."""
    first, last = good
    for archive in ("broken.tar", "broken.zip", "broken.tar.gz", "broken", "absurd.tar", "absurd.zip", "special.tar",
                    "scripts.zip", "encrypted.zip"):  # fmt: skip
        for member in (first, last):
            assert outcome.audio[archive, member] == outcome.audio["clean.tar", member], (archive, member)
    for archive in ("truncated.tar", "truncated.tar.gz"):
        assert outcome.audio[archive, first] == outcome.audio["clean.tar", first]


def test_broken_files_have_the_same_reason_everywhere(outcome: Outcome, shared_data: Path) -> None:
    reasons = outcome.reasons("broken")
    assert reasons == outcome.reasons("broken.tar") == outcome.reasons("broken.zip") == outcome.reasons("broken.tar.gz")
    lines = (shared_data / "broken" / "metadata.jsonl").read_text().splitlines()
    facts = {fact["audio"]: fact for fact in map(json.loads, lines)}
    hopeless = {name for name, fact in facts.items() if not fact.get("decoder") or not fact.get("duration")}
    assert hopeless <= set(reasons)
    assert {reasons[name] for name in hopeless} <= {"undecodable", "empty_audio", "absurd_header", "too_short"}
    assert reasons["gitlink_text.wav"] == Reason.UNDECODABLE
    assert reasons["aeneas_mono.zero.wav"] == Reason.EMPTY_AUDIO


def test_absurd_recordings_have_their_reasons(outcome: Outcome) -> None:
    assert outcome.reasons("absurd.tar") == ABSURD_REASONS
    assert outcome.reasons("absurd.zip") == ABSURD_REASONS


def test_links_devices_and_unsafe_paths(outcome: Outcome, good: Members) -> None:
    first, last = good
    assert outcome.published["special.tar"] == {first, last}
    assert Counter(reason for _, reason in outcome.rejects["special.tar"]) == {
        Reason.NOT_A_FILE: 5,
        Reason.UNSAFE_PATH: 3,
        Reason.DUPLICATE_MEMBER: 1,
    }
    assert outcome.reasons("encrypted.zip") == {"secret.wav": Reason.ENCRYPTED}


def test_names_in_any_script(outcome: Outcome, good: Members) -> None:
    assert outcome.published["scripts.zip"] == {*SCRIPTS, *good}


def test_archives_that_are_none(outcome: Outcome, good: Members) -> None:
    first, _ = good
    whole = {name: dict(rejects).get("") for name, rejects in outcome.rejects.items()}
    assert outcome.published["truncated.tar"] == outcome.published["truncated.tar.gz"] == {first, "cut.wav"}
    assert whole["truncated.tar"] == whole["truncated.tar.gz"] == Reason.ARCHIVE_TRUNCATED
    assert whole["truncated.zip"] == whole["text.zip"] == Reason.ARCHIVE_UNREADABLE
    assert whole["empty.tar"] == whole["empty.zip"] == whole["nothing here"] == Reason.ARCHIVE_EMPTY
    assert whole["zero.tar.gz"] in (Reason.ARCHIVE_EMPTY, Reason.ARCHIVE_UNREADABLE, Reason.ARCHIVE_TRUNCATED)
    assert whole["missing.tar"] == Reason.SOURCE_MISSING


def test_what_was_rejected_is_not_tried_again(outcome: Outcome, mill: Mill) -> None:
    """Rejects are known by their identity: the same sources give nothing new, bad members included."""
    root = Path(outcome.lake.url).parent
    sources = [
        root / name for name in ("broken.tar", "absurd.zip", "special.tar", "truncated.tar", "text.zip", "broken")
    ]
    assert mill.run(sources, outcome.lake.url) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 kB; skips where this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode:
        pytest.skip("only root may mount the small filesystem that this fills")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_space(
    mill: Mill, small_disk: Path, good: Members, tmp_path: Path
) -> None:
    (tmp_path / "good.tar").write_bytes(tar_bytes(good))
    with pytest.raises(VoxmillError, match=r"no space is left.*Free some, or name another destination") as told:
        mill.run([tmp_path / "good.tar"], small_disk / "lake")
    assert "\n" not in str(told.value)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    manifest = mill.run([tmp_path / "good.tar"], small_disk / "lake")
    assert manifest is not None
    assert manifest.members_published == 2
