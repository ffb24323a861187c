"""Engine specs: ``family:model``, such as ``whisper:large-v3`` or ``conformer:/models/x.nemo``."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator

from schemas.families import FAMILIES, Role, families


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
        known = families("transcribes", "speaks")
        if family not in known:
            raise ValueError(f"engine {text!r}: no family {family!r}; there are {', '.join(known)}")
        if part := FAMILIES[family].part:
            model, plus, vocoder = model.partition(f"+{part}:")
            if not plus or not model or not vocoder:
                raise ValueError(f"engine {text!r} needs a vocoder: {family}:MODEL+{part}:MODEL")
            return cls(family, model, vocoder)
        return cls(family, model)

    def __str__(self) -> str:
        return f"{self.family}:{self.model}" + (f"+{FAMILIES[self.family].part}:{self.vocoder}" if self.vocoder else "")


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
    suffixes = tuple(family.suffix for family in FAMILIES.values() if family.suffix)
    is_path = "://" in model or model.startswith(("/", ".", "~")) or model.endswith(suffixes)
    return posixpath.basename(model.rstrip("/")) if is_path else model


def _checked(text: str, role: Role, verb: str) -> str:
    if EngineSpec.parse(text).family not in families(role):
        raise ValueError(f"engine {text!r} does not {verb}; choose one of {', '.join(families(role))}")
    return text


def _transcriber(text: str) -> str:
    return _checked(text, "transcribes", "transcribe")


def _synthesizer(text: str) -> str:
    return _checked(text, "speaks", "speak")


TranscriberSpec = Annotated[str, AfterValidator(_transcriber)]
SynthesizerSpec = Annotated[str, AfterValidator(_synthesizer)]
