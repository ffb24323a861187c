"""Training manifests: a line per clip, as NeMo, Hugging Face's ``audiofolder`` and Lhotse read them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from workers.export.clip import Clip

FILES = {"nemo": "manifest.json", "huggingface": "metadata.jsonl", "lhotse": "cuts.jsonl.gz"}


def nemo(clip: Clip, folder: str) -> dict[str, Any]:
    """https://docs.nvidia.com/nemo-framework/user-guide: paths are relative to the manifest's folder."""
    line = {
        "audio_filepath": clip.name,
        "duration": clip.duration_s,
        "text": clip.text,
        "normalized_text": clip.spoken_text,
        "lang": clip.language,
        "speaker": clip.speaker,
        **_origin(clip),
    }
    return {name: value for name, value in line.items() if value is not None}


def huggingface(clip: Clip, folder: str) -> dict[str, Any]:
    """``load_dataset("audiofolder", data_dir=folder)``: every line has the same keys."""
    return {
        "file_name": clip.name,
        "text": clip.text,
        "spoken_text": clip.spoken_text,
        "duration_s": clip.duration_s,
        "language": clip.language,
        "speaker": clip.speaker,
        **_origin(clip),
    }


def lhotse(clip: Clip, folder: str) -> dict[str, Any]:
    """A MonoCut of the whole clip with one supervision; ``CutSet.from_file`` reads a file of them. Lhotse resolves no
    relative paths, so they are given in full."""
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    path = f"{folder}/{clip.name}"
    source = AudioSource("url" if "://" in folder else "file", [0], path)
    duration = clip.samples / clip.sample_rate
    supervision = SupervisionSegment(
        clip.id, clip.id, 0.0, duration, 0, text=clip.text, language=clip.language, speaker=clip.speaker,
        custom={name: value for name, value in {"spoken_text": clip.spoken_text, **_origin(clip)}.items() if value},
    )  # fmt: skip
    recording = Recording(clip.id, [source], clip.sample_rate, clip.samples, duration)
    return dict(MonoCut(clip.id, 0.0, duration, 0, [supervision], recording=recording).to_dict())


def _origin(clip: Clip) -> dict[str, str]:
    return {"utterance_id": clip.utterance_id, "archive": clip.archive, "member": clip.member}


_LINES: dict[str, Callable[[Clip, str], dict[str, Any]]] = {"nemo": nemo, "huggingface": huggingface, "lhotse": lhotse}


class Manifests:
    """The manifests of one export as they grow; a few hundred bytes for each clip are held until the end."""

    def __init__(self, formats: tuple[str, ...], folder: str) -> None:
        self.folder = folder
        self.lines: dict[str, list[bytes]] = {name: [] for name in formats}

    def add(self, clip: Clip) -> None:
        for name, lines in self.lines.items():
            line = json.dumps(_LINES[name](clip, self.folder), ensure_ascii=False)
            lines.append(line.encode() + b"\n")

    def files(self) -> dict[str, bytes]:
        """File name -> content."""
        whole = {FILES[name]: b"".join(lines) for name, lines in self.lines.items()}
        return {n: gzip.compress(data, mtime=0) if n.endswith(".gz") else data for n, data in whole.items()}
