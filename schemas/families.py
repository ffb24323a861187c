"""The engine families. What anything asks of a family it asks of this table: a new one is its file and its entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["transcribes", "speaks", "is a part"]


@dataclass(frozen=True)
class Family:
    """What a family is, told without importing anything of it.

    Transcribers are made of (checkpoint, device, settings); synthesizers of (checkpoint, ..., device, settings), where
    there are as many checkpoints as the spec has parts, or, where the family has none, of (model, settings). A family
    that has neither ``suffix``, ``folder``, ``hub`` nor ``catalogue`` has no checkpoints.
    """

    role: Role
    target: str  # module:Class, imported when an engine is loaded; empty for what is only a part of another family's
    library: str  # the import that must be there
    extra: str = ""  # of voxmill, that installs the library; empty where voxmill itself does
    suffix: str = ""  # of a checkpoint that is a file
    folder: bool = False  # a checkpoint can be a folder, as on the hub
    hub: str = ""  # the file without which owner/name on the hub cannot be loaded; {} stands for the name
    needs: tuple[str, ...] = ()  # patterns of files beside weights that make a hub's folder whole; of "a b" one will do
    catalogue: str = ""  # module:attribute that lists other published names; see workers.engines.published
    runs_code: bool = True  # loading a checkpoint can run code of its maker's; False where only tensors are read
    part: str | None = None  # the family of the second part of a spec, FAMILY:A+PART:B
    translates: bool = False  # into English
    word_by_word: bool = False  # on a CPU an engine fills one core, not several
    gpu: bool = True  # makes use of a GPU
    settings: tuple[str, ...] = ()  # of tts: those that not every voice has a use for

    @property
    def has_checkpoint(self) -> bool:
        return bool(self.suffix or self.folder or self.hub or self.catalogue)


_NEMO_ASR, _NEMO_TTS = "nemo.collections.asr.models", "nemo.collections.tts.models"
_CTC_FOLDER = ("config.json", "*processor_config.json", "vocab.* tokenizer.json")

# fmt: off
FAMILIES: dict[str, Family] = {
    "whisper": Family(
        "transcribes", "workers.engines.whisper:WhisperTranscriber", "whisper",
        suffix=".pt", catalogue="whisper:_MODELS", runs_code=False, translates=True, word_by_word=True),
    "conformer": Family(
        "transcribes", "workers.engines.conformer:ConformerTranscriber", "nemo",
        suffix=".nemo", hub="{}.nemo", catalogue=f"{_NEMO_ASR}:ASRModel"),
    "faster-whisper": Family(
        "transcribes", "workers.engines.faster_whisper:FasterWhisperTranscriber", "ctranslate2", "faster-whisper",
        suffix=".pt", folder=True, hub="model.bin", needs=("config.json", "model.bin", "vocabulary.*"),
        catalogue="whisper:_MODELS", runs_code=False, translates=True, word_by_word=True),
    "wav2vec2": Family(
        "transcribes", "workers.engines.ctc_transformers:CtcTransformersTranscriber", "transformers", "wav2vec2",
        folder=True, hub="config.json", needs=_CTC_FOLDER, runs_code=False),
    "hubert": Family(
        "transcribes", "workers.engines.ctc_transformers:CtcTransformersTranscriber", "transformers", "wav2vec2",
        folder=True, hub="config.json", needs=_CTC_FOLDER, runs_code=False),
    "espeak": Family(
        "speaks", "workers.engines.espeak:EspeakSynthesizer", "espeakng_loader", runs_code=False, gpu=False),
    "vits": Family(
        "speaks", "workers.engines.vits:VitsSynthesizer", "transformers", "transformers",
        folder=True, hub="config.json", needs=("config.json", "vocab.json"), runs_code=False,
        settings=("noise_scale",)),
    "fastpitch": Family(
        "speaks", "workers.engines.fastpitch:FastPitchSynthesizer", "nemo",
        suffix=".nemo", hub="{}.nemo", catalogue=f"{_NEMO_TTS}:FastPitchModel", part="hifigan", settings=("pitch",)),
    "hifigan": Family(
        "is a part", "", "nemo", suffix=".nemo", hub="{}.nemo", catalogue=f"{_NEMO_TTS}:HifiGanModel"),
}
# fmt: on


def families(*roles: Role) -> list[str]:
    """The families of ``roles``, in the table's order."""
    return [name for name, family in FAMILIES.items() if family.role in roles]


def translators() -> list[str]:
    return [name for name, family in FAMILIES.items() if family.translates]
