"""Engine specs: ``family:model``, such as ``whisper:large-v3`` or ``conformer:/models/x.nemo``."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator

TRANSCRIBER_FAMILIES = ("whisper", "conformer", "faster-whisper", "wav2vec2", "hubert")
TRANSLATOR_FAMILIES = ("whisper", "faster-whisper")
SYNTHESIZER_FAMILIES = ("espeak", "vits", "fastpitch")


@dataclass(frozen=True)
class EngineSpec:
    """A parsed spec. ``vocoder`` is set for two-part voices: ``fastpitch:A+hifigan:B``.

    >>> EngineSpec.parse("whisper:large-v3")
    EngineSpec(family='whisper', model='large-v3', vocoder=None)
    >>> EngineSpec.parse("fastpitch:a.nemo+hifigan:b.nemo").vocoder
    'b.nemo'
    """

    family: str
    model: str
    vocoder: str | None = None

    @classmethod
    def parse(cls, text: str) -> EngineSpec:
        """Parse ``family:model``; raises ValueError that says what is wrong and which families exist."""
        family, colon, model = text.partition(":")
        if not colon or not model:
            raise ValueError(f"engine {text!r} is not of the form family:model, such as whisper:large-v3")
        if family not in TRANSCRIBER_FAMILIES + SYNTHESIZER_FAMILIES:
            known = ", ".join(TRANSCRIBER_FAMILIES + SYNTHESIZER_FAMILIES)
            raise ValueError(f"engine {text!r}: no family {family!r}; there are {known}")
        if family == "fastpitch":
            model, plus, vocoder = model.partition("+hifigan:")
            if not plus or not model or not vocoder:
                raise ValueError(f"engine {text!r} needs a vocoder: fastpitch:MODEL+hifigan:MODEL")
            return cls(family, model, vocoder)
        return cls(family, model)

    def __str__(self) -> str:
        return f"{self.family}:{self.model}" + (f"+hifigan:{self.vocoder}" if self.vocoder else "")


def short_names(specs: Iterable[str]) -> dict[str, str]:
    """What people read of each spec: paths and URLs by their last part. Two that are then alike keep their whole name.

    >>> list(short_names(["whisper:/models/tiny.pt", "whisper:large-v3", "chosen"]).values())
    ['whisper:tiny.pt', 'whisper:large-v3', 'chosen']
    """
    short = {spec: _short(spec) for spec in specs}
    alike = Counter(short.values())
    return {spec: name if alike[name] == 1 else spec for spec, name in short.items()}


def _short(spec: str) -> str:
    if ":" not in spec:
        return spec
    parsed = EngineSpec.parse(spec)
    return str(replace(parsed, model=_last(parsed.model), vocoder=parsed.vocoder and _last(parsed.vocoder)))


def _last(model: str) -> str:
    is_path = "://" in model or model.startswith(("/", ".", "~")) or model.endswith((".pt", ".nemo"))
    return posixpath.basename(model.rstrip("/")) if is_path else model


def _transcriber(text: str) -> str:
    if EngineSpec.parse(text).family not in TRANSCRIBER_FAMILIES:
        raise ValueError(f"engine {text!r} does not transcribe; choose one of {', '.join(TRANSCRIBER_FAMILIES)}")
    return text


def _synthesizer(text: str) -> str:
    if EngineSpec.parse(text).family not in SYNTHESIZER_FAMILIES:
        raise ValueError(f"engine {text!r} does not speak; choose one of {', '.join(SYNTHESIZER_FAMILIES)}")
    return text


TranscriberSpec = Annotated[str, AfterValidator(_transcriber)]
SynthesizerSpec = Annotated[str, AfterValidator(_synthesizer)]
