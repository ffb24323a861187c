"""Which module and class serves a family. The library behind it is imported only when an engine is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from schemas.config import AsrSettings, Storage, TtsSettings
from schemas.errors import VoxmillError
from schemas.spec import EngineSpec
from workers.engines.base import Synthesizer, Transcriber
from workers.engines.checkpoints import check_available, resolve, resolve_parts


@dataclass(frozen=True)
class Family:
    """``target`` is module:Class, ``library`` the import that must be there, ``extra`` what installs it.

    Transcribers are made of (checkpoint, device, settings); synthesizers of (checkpoint, ..., device, settings), where
    there are as many checkpoints as the spec has parts, or, without ``checkpoint``, of (model, settings).
    """

    target: str
    library: str
    extra: str = ""
    checkpoint: bool = True


TRANSCRIBERS = {
    "whisper": Family("workers.engines.whisper:WhisperTranscriber", "whisper"),
    "conformer": Family("workers.engines.conformer:ConformerTranscriber", "nemo"),
    "faster-whisper": Family(
        "workers.engines.faster_whisper:FasterWhisperTranscriber", "ctranslate2", "faster-whisper"
    ),
    "wav2vec2": Family("workers.engines.ctc_transformers:CtcTransformersTranscriber", "transformers", "wav2vec2"),
    "hubert": Family("workers.engines.ctc_transformers:CtcTransformersTranscriber", "transformers", "wav2vec2"),
}
SYNTHESIZERS = {
    "espeak": Family("workers.engines.espeak:EspeakSynthesizer", "espeakng_loader", checkpoint=False),
    "vits": Family("workers.engines.vits:VitsSynthesizer", "transformers", "transformers"),
    "fastpitch": Family("workers.engines.fastpitch:FastPitchSynthesizer", "nemo"),
}


def check_ready(spec: str, storage: Storage | None = None) -> None:
    """Fail now, before any audio is read, where the engine ``spec`` could not be loaded: VoxmillError for a family that
    is not there, a library that is not installed or a checkpoint that cannot be had."""
    _family_of(spec, {**TRANSCRIBERS, **SYNTHESIZERS})
    check_available(spec, storage)


def _family_of(spec: str, families: dict[str, Family]) -> Family:
    name = EngineSpec.parse(spec).family
    family = families.get(name)
    if family is None:
        raise VoxmillError(f"family {name!r} is not in this version", spec, f"There are {', '.join(families)}.")
    if find_spec(family.library) is None:
        package = f"voxmill[{family.extra}]" if family.extra else "voxmill"
        raise VoxmillError(f"the library {family.library!r} is not installed", spec, f"Run: pip install '{package}'")
    return family


def _class_of(spec: str, families: dict[str, Family]) -> Any:
    module, _, attribute = _family_of(spec, families).target.partition(":")
    return getattr(import_module(module), attribute)


def load_transcriber(spec: str, device: str, settings: AsrSettings, storage: Storage | None = None) -> Transcriber:
    """Load ``spec`` onto ``device`` (``cpu``, ``cuda`` or ``cuda:N``); a checkpoint's URL is read with ``storage``.

    Raises VoxmillError for a family that is not there, a library that is not installed, a checkpoint that cannot be
    found, had or read, and ValueError for a malformed spec.
    """
    make = _class_of(spec, TRANSCRIBERS)
    engine: Transcriber = make(resolve(spec, storage), device, settings)
    return engine


def load_synthesizer(
    spec: str, device: str, settings: TtsSettings | None = None, storage: Storage | None = None
) -> Synthesizer:
    """Load the voice ``spec``; raises as :func:`load_transcriber` does, and VoxmillError for a setting that the family
    has no use for."""
    make = _class_of(spec, SYNTHESIZERS)
    family, _, model = spec.partition(":")
    settings = settings or TtsSettings()
    for name, least, families in (("pitch", 0.0, ("fastpitch",)), ("noise_scale", None, ("vits",))):
        if getattr(settings, name) != least and family not in families:
            raise VoxmillError(f"{family} has no {name} to set", f"tts.{name}", f"{' and '.join(families)} has")
    try:
        engine: Synthesizer = (
            make(*resolve_parts(spec, storage), device, settings)
            if SYNTHESIZERS[family].checkpoint
            else make(model, settings)
        )
    except (ValueError, RuntimeError) as error:
        raise VoxmillError(" ".join(str(error).split()), spec, "Choose another voice.") from error
    return engine
