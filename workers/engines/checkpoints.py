"""Where an engine's checkpoint lies, its digest, and whether it can be had: all without importing a model library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from blake3 import blake3

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.families import FAMILIES, Family
from schemas.ids import stable_id
from schemas.spec import EngineSpec
from workers.engines import published
from workers.sources.store import version_of
from workers.storage import open_filesystem

# what of a folder is read beside a model's weights, by transformers and CTranslate2
_SIDES = (
    "config.json",
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "vocab*.txt",
    "model.bin",  # CTranslate2's weights: a folder may hold those that they were converted from as well
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as a spec names it: ``path`` is where it lies on this machine, None for a name not in the cache."""

    spec: str
    family: str
    model: str
    is_name: bool
    path: Path | None


def _reads_as_path(family: Family, model: str) -> bool:
    return bool(family.suffix and model.endswith(family.suffix)) or model.startswith(("/", "./", "../", "~"))


def _looks_like_path(family: Family, model: str) -> bool:
    path = Path(model)
    return _reads_as_path(family, model) or path.is_file() or (family.folder and path.is_dir())


def _parts(folder: Path) -> list[Path]:
    """What of ``folder`` a model is read from. Other files, and other forms of its weights, may lie in one cache and
    not in another."""
    sides = (path for pattern in _SIDES for path in folder.glob(pattern) if path.is_file())
    return sorted({*sides, *published.weights_of(folder)})


def _fetch(url: str, spec: str, storage: Storage) -> Path:
    """Copy a remote checkpoint, a file or a folder, into the cache; returns the local path.

    Once per version of it; where the store tells no versions every time, and what is copied is known by its bytes.
    """
    try:
        fs, path = open_filesystem(url.rstrip("/"), storage)
        info = fs.info(path)
        is_file = info["type"] == "file"
        infos = {path: info} if is_file else fs.find(path, maxdepth=1, detail=True)
        versions = sorted((name, one.get("size"), version_of(one)) for name, one in infos.items())
        name = path.rsplit("/", 1)[-1]
        local = cache_folder() / stable_id("checkpoint", url, versions) / name
        is_told = all(version for *_, version in versions)
        if is_told and local.exists():
            return local
        temporary = cache_folder() / f"{uuid4().hex}.tmp" / name
        try:
            (temporary.parent if is_file else temporary).mkdir(parents=True)
            for one in infos:
                fs.get_file(one, str(temporary if is_file else temporary / one.rsplit("/", 1)[-1]))
            if not is_told:
                local = cache_folder() / stable_id("checkpoint", url, digest_of(temporary)) / name
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.replace(local)
            except OSError:
                if not local.exists():  # else another process was first
                    raise
        finally:
            shutil.rmtree(temporary.parent, ignore_errors=True)
    except (OSError, ValueError, ImportError) as error:
        raise VoxmillError(
            f"the checkpoint cannot be read ({' '.join(str(error).split())})", spec, "Check the URL and its access."
        ) from error
    return local


def cache_folder() -> Path:
    """Where voxmill keeps checkpoints that it fetched or converted."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxmill"


def resolve(spec: str, storage: Storage | None = None) -> Checkpoint:
    """Find the checkpoint that ``spec`` names: a local path, a URL (fetched into the cache), or a published name.

    Of a voice in two parts it is the first; :func:`resolve_parts` finds both. Raises VoxmillError for a path that is
    not there, a URL that cannot be read, or a name that cannot be one.
    """
    return resolve_parts(spec, storage)[0]


def resolve_parts(spec: str, storage: Storage | None = None) -> tuple[Checkpoint, ...]:
    """The checkpoints of ``spec``, as :func:`resolve` finds them: one, or two of ``fastpitch:A+hifigan:B``."""
    parsed = EngineSpec.parse(spec)
    first = _resolve(spec, parsed.family, parsed.model, storage)
    return (first,) if parsed.vocoder is None else (first, _resolve(spec, _part(parsed), parsed.vocoder, storage))


def _part(parsed: EngineSpec) -> str:
    return FAMILIES[parsed.family].part or ""


def _resolve(spec: str, name: str, model: str, storage: Storage | None) -> Checkpoint:
    family = FAMILIES[name]
    if not family.has_checkpoint:
        return Checkpoint(spec, name, model, is_name=True, path=None)
    if "://" in model:
        return Checkpoint(spec, name, model, False, _fetch(model, spec, storage or Storage()))
    is_bare = bool(family.catalogue) and "/" not in model and not _reads_as_path(family, model)
    if is_bare and model in published.listed(family.catalogue):
        return Checkpoint(spec, name, model, True, published.cached(name, model))
    if _looks_like_path(family, model):
        path = Path(model).expanduser()
        if not (family.folder and path.is_dir()) and not (family.suffix and path.is_file()):
            what = f"there is no such checkpoint {'file' if family.suffix else 'folder'}"
            raise VoxmillError(what, spec, "Check the path on the machine that runs it.")
        return Checkpoint(spec, name, model, False, Path(os.path.abspath(path)))  # what was checked is opened
    if is_bare:
        return Checkpoint(spec, name, model, True, _unlisted(spec, name, model))
    if not family.hub or model.count("/") != 1:
        or_name = ", or owner/name on the hub" if family.hub else ""
        raise VoxmillError("is neither a path nor a published name", spec, f"Give a path{or_name}.")
    return Checkpoint(spec, name, model, True, published.cached(name, model))


def _unlisted(spec: str, family: str, model: str) -> Path | None:
    """What the cache has of a name that its library does not list (any more). Raises VoxmillError where it has nothing.

    None where nothing is known of the library's names: it is not installed, which is told by whoever loads with it.
    """
    names = published.listed(FAMILIES[family].catalogue)
    path = published.cached(family, model)
    if path is None and names:
        close = get_close_matches(model, names, n=5)
        there = f"Like it are {', '.join(close)}" if close else f"There are {', '.join(sorted(names)[:20])}"
        raise VoxmillError("no model of this name", spec, f"{there}; or give a path to a {FAMILIES[family].suffix}.")
    return path


def check_trusted(spec: str, trusted: Sequence[str]) -> None:
    """Refuse, before anything is fetched or read, a checkpoint that can run code and lies nowhere that is ``trusted``.

    A .nemo is such a checkpoint: NeMo unpickles parts of it. Of the other formats only tensors are read. ``trusted``
    holds files and folders, URLs of either, and published names or their owners (``owner/``); NVIDIA's published names
    need not stand there. Raises VoxmillError that says how to allow it.
    """
    parsed = EngineSpec.parse(spec)
    for family, model in ((parsed.family, parsed.model), (_part(parsed), parsed.vocoder)):
        if model is None or not FAMILIES[family].runs_code or _is_trusted(FAMILIES[family], model, trusted):
            continue
        raise VoxmillError(
            f"{model} can run code as it is loaded, and is not among what is trusted",
            spec,
            f"If you know who made it, allow it: --trust {model}, or trusted in the parameters; a folder will do",
        )


def _is_trusted(family: Family, model: str, trusted: Sequence[str]) -> bool:
    if "://" in model:
        return model in trusted or (_is_plain(model) and any(_lies_in(model, one) for one in trusted))
    if _looks_like_path(family, model):
        path = os.path.abspath(Path(model).expanduser())
        return any(_lies_in(path, os.path.abspath(Path(one).expanduser())) for one in trusted if "://" not in one)
    is_bare = "/" not in model and family.catalogue.startswith("nemo.")  # NVIDIA's own
    return is_bare or any(_lies_in(model, one) for one in ("nvidia", *trusted))


def _is_plain(url: str) -> bool:
    """Whether ``url`` means the place that it reads as: it has no way up, query, fragment or chain, encoded or not."""
    while (read := unquote(url)) != url:
        url = read
    return ".." not in url.split("/") and not any(sign in url for sign in ("\\", "?", "#", "::"))


def _lies_in(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def digest_of(path: Path) -> str:
    """``blake3:<hex>`` of a checkpoint: of a file's bytes, or of the names and bytes of a folder's parts."""
    if path.is_dir():
        return f"blake3:{stable_id('folder', [(part.name, digest_of(part)) for part in _parts(path)], length=64)}"
    return f"blake3:{blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()}"


def checkpoint_digest(spec: str, storage: Storage | None = None) -> str | None:
    """Digest of a checkpoint given by path or URL; None for published names and for engines without a checkpoint.

    Published names are versions of their own: whether one happens to lie in a cache already must not change what a
    run's settings hash to. Raises VoxmillError as :func:`resolve` does.
    """
    parts = resolve_parts(spec, storage)
    digests = [digest_of(part.path) for part in parts if part.path is not None and not part.is_name]
    return joint_digest(digests) if digests else None


def joint_digest(digests: Sequence[str]) -> str:
    """One digest for an engine of several checkpoints; of a single one its own."""
    return digests[0] if len(digests) == 1 else f"blake3:{stable_id('parts', list(digests), length=64)}"


def check_available(spec: str, storage: Storage | None = None) -> None:
    """Fail now, before any audio is read, where ``spec`` needs a download that cannot be had.

    Raises VoxmillError with what to do: a local path, the cache that would be looked in, or a mirror.
    """
    for checkpoint in resolve_parts(spec, storage):
        if checkpoint.path is None and FAMILIES[checkpoint.family].has_checkpoint:
            published.check_published(spec, checkpoint.family, checkpoint.model)
