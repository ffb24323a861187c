"""Engines by their specs. The library behind a family is imported only when an engine of it is loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from schemas.config import AsrSettings, Storage, TtsSettings
from schemas.errors import VoxmillError
from schemas.families import FAMILIES, Family, Role, families
from schemas.spec import EngineSpec
from workers.engines.base import Synthesizer, Transcriber
from workers.engines.checkpoints import check_available, resolve, resolve_parts


def check_ready(spec: str, storage: Storage | None = None) -> None:
    """Fail now, before any audio is read, where the engine ``spec`` could not be loaded: VoxmillError for a family that
    is not there, a library that is not installed or a checkpoint that cannot be had."""
    _family_of(spec)
    check_available(spec, storage)


def _family_of(spec: str, role: Role | None = None) -> Family:
    name = EngineSpec.parse(spec).family
    family = FAMILIES[name]
    if role is not None and family.role != role:
        raise VoxmillError(f"family {name!r} is not one that {role}", spec, f"There are {', '.join(families(role))}.")
    if find_spec(family.library) is None:
        package = f"voxmill[{family.extra}]" if family.extra else "voxmill"
        raise VoxmillError(f"the library {family.library!r} is not installed", spec, f"Run: pip install '{package}'")
    return family


def _class_of(spec: str, role: Role) -> Any:
    module, _, attribute = _family_of(spec, role).target.partition(":")
    return getattr(import_module(module), attribute)


def load_transcriber(spec: str, device: str, settings: AsrSettings, storage: Storage | None = None) -> Transcriber:
    """Load ``spec`` onto ``device`` (``cpu``, ``cuda`` or ``cuda:N``); a checkpoint's URL is read with ``storage``.

    Raises VoxmillError for a family that is not there, a library that is not installed, a checkpoint that cannot be
    found, had or read, and ValueError for a malformed spec.
    """
    make = _class_of(spec, "transcribes")
    engine: Transcriber = make(resolve(spec, storage), device, settings)
    return engine


def load_synthesizer(
    spec: str, device: str, settings: TtsSettings | None = None, storage: Storage | None = None
) -> Synthesizer:
    """Load the voice ``spec``; raises as :func:`load_transcriber` does, and VoxmillError for a setting that the family
    has no use for."""
    make = _class_of(spec, "speaks")
    family, _, model = spec.partition(":")
    settings = settings or TtsSettings()
    for name in {name: None for one in FAMILIES.values() for name in one.settings}:
        if name not in FAMILIES[family].settings and getattr(settings, name) != getattr(TtsSettings(), name):
            others = " and ".join(one for one in FAMILIES if name in FAMILIES[one].settings)
            raise VoxmillError(f"{family} has no {name} to set", f"tts.{name}", f"{others} has")
    try:
        engine: Synthesizer = (
            make(*resolve_parts(spec, storage), device, settings)
            if FAMILIES[family].has_checkpoint
            else make(model, settings)
        )
    except (ValueError, RuntimeError) as error:
        raise VoxmillError(" ".join(str(error).split()), spec, "Choose another voice.") from error
    return engine
