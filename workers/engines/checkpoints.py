"""Where an engine's checkpoint lies, its digest, and whether it can be had: all without importing a model library."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blake3 import blake3

from schemas.config import Storage
from schemas.errors import VoxmillError
from schemas.ids import stable_id
from schemas.spec import EngineSpec
from workers.storage import open_filesystem

# openai-whisper's published names (whisper.available_models()) to the file each is kept in
_WHISPER_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
WHISPER_NAMES = (
    *(f"{size}{suffix}" for size in ("tiny", "base", "small", "medium") for suffix in (".en", "")),
    *("large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo"),
)
_NEMO = ("conformer", "fastpitch", "hifigan")
_SUFFIXES = {"whisper": (".pt",), "faster-whisper": (".pt",), **dict.fromkeys(_NEMO, (".nemo",))}
_FOLDERS = ("wav2vec2", "hubert", "vits", "faster-whisper")  # families whose checkpoint is a folder, as on the hub
_FAMILIES = {*_SUFFIXES, *_FOLDERS}
_WHISPERS = ("whisper", "faster-whisper")
_PARTS = (".json", ".txt", ".safetensors", ".bin")  # what of a folder a model is made of
_WEIGHTS = (".safetensors", ".bin")
_SOURCES = {
    "whisper": "https://openaipublic.azureedge.net",
    "ngc": "https://api.ngc.nvidia.com",
    "hub": "https://huggingface.co",
}
_PROBE_S = 10.0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as a spec names it: ``path`` is where it lies on this machine, None for a name not in the cache."""

    spec: str
    family: str
    model: str
    is_name: bool
    path: Path | None


def _looks_like_path(family: str, model: str) -> bool:
    path = Path(model)
    return (
        model.endswith(_SUFFIXES.get(family, ()))
        or model.startswith(("/", "./", "../", "~"))
        or path.is_file()
        or (family in _FOLDERS and path.is_dir())
    )


def _whisper_cache() -> Path:
    """Where ``whisper.load_model`` keeps what it downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"


def _hub_cache(name: str) -> Path:
    """Where the Hugging Face hub's library keeps what it downloads of ``owner/name``."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"


def _hub_folder(name: str) -> Path | None:
    """The cached folder of a hub name's main version; None where it is not there or holds no weights."""
    main = _hub_cache(name) / "refs" / "main"
    if not main.is_file():
        return None
    folder = _hub_cache(name) / "snapshots" / main.read_text(encoding="utf-8").strip()
    return folder if any(part.suffix in _WEIGHTS for part in _parts(folder)) else None


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in _PARTS and path.is_file())


def _nemo_cached(name: str) -> Path | None:
    """The .nemo file of a published name in NeMo's cache (NGC names) or the Hugging Face hub's (owner/name)."""
    if "/" in name:
        found = _hub_cache(name).glob(f"snapshots/*/{name.rsplit('/', 1)[1]}.nemo")
    else:
        try:
            default = Path.home() / ".cache" / "torch" / "NeMo" / f"NeMo_{version('nemo_toolkit')}"
        except PackageNotFoundError:
            return None
        found = Path(os.environ.get("NEMO_CACHE_DIR") or default).glob(f"{name}/*/{name}.nemo")
    return next(iter(sorted(found)), None)


def _fetch(url: str, spec: str, storage: Storage) -> Path:
    """Copy a remote checkpoint, a file or a folder, into the cache, once per version of it; returns the local path."""
    try:
        fs, path = open_filesystem(url.rstrip("/"), storage)
        info = fs.info(path)
        is_file = info["type"] == "file"
        infos = {path: info} if is_file else fs.find(path, maxdepth=1, detail=True)
        versions = [(name, one.get("size"), str(one.get("ETag") or one.get("mtime"))) for name, one in infos.items()]
        local = cache_folder() / stable_id("checkpoint", url, sorted(versions)) / path.rsplit("/", 1)[-1]
        if not local.exists():
            temporary = local.with_name(f"{local.name}.{os.getpid()}.tmp")
            (local.parent if is_file else temporary).mkdir(parents=True, exist_ok=True)
            for name in infos:
                fs.get_file(name, str(temporary if is_file else temporary / name.rsplit("/", 1)[-1]))
            try:
                temporary.replace(local)
            except OSError:
                if not local.exists():  # else another process was first
                    raise
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
    return (first,) if parsed.vocoder is None else (first, _resolve(spec, "hifigan", parsed.vocoder, storage))


def _resolve(spec: str, family: str, model: str, storage: Storage | None) -> Checkpoint:
    if family not in _FAMILIES:
        return Checkpoint(spec, family, model, is_name=True, path=None)
    if "://" in model:
        return Checkpoint(spec, family, model, False, _fetch(model, spec, storage or Storage()))
    if family in _WHISPERS and model in WHISPER_NAMES:
        path = _whisper_cache() / f"{_WHISPER_ALIASES.get(model, model)}.pt"
        return Checkpoint(spec, family, model, True, path if path.is_file() else None)
    if _looks_like_path(family, model):
        path = Path(model).expanduser()
        if not (family in _FOLDERS and path.is_dir()) and not (family in _SUFFIXES and path.is_file()):
            what = f"there is no such checkpoint {'file' if family in _SUFFIXES else 'folder'}"
            raise VoxmillError(what, spec, "Check the path on the machine that runs it.")
        return Checkpoint(spec, family, model, False, path.absolute())
    if family == "whisper":
        raise VoxmillError("no model of this name", spec, f"There are {', '.join(WHISPER_NAMES)}, or a path to a .pt.")
    if family in _NEMO:
        return Checkpoint(spec, family, model, True, _nemo_cached(model))
    if model.count("/") != 1:
        raise VoxmillError("is neither a path nor a published name", spec, "Give a path, or owner/name on the hub.")
    return Checkpoint(spec, family, model, True, _hub_folder(model))


def check_trusted(spec: str, trusted: Sequence[str]) -> None:
    """Refuse, before anything is fetched or read, a checkpoint that can run code and lies nowhere that is ``trusted``.

    A .nemo is such a checkpoint: NeMo unpickles parts of it. Of the other formats only tensors are read. ``trusted``
    holds files and folders, URLs of either, and published names or their owners (``owner/``); NVIDIA's published names
    need not stand there. Raises VoxmillError that says how to allow it.
    """
    parsed = EngineSpec.parse(spec)
    for family, model in ((parsed.family, parsed.model), ("hifigan", parsed.vocoder)):
        if family not in _NEMO or model is None or _is_trusted(family, model, trusted):
            continue
        raise VoxmillError(
            f"{model} can run code as it is loaded, and is not among what is trusted",
            spec,
            f"If you know who made it, allow it: --trust {model}, or trusted in the parameters; a folder will do",
        )


def _is_trusted(family: str, model: str, trusted: Sequence[str]) -> bool:
    if "://" in model:
        return ".." not in model.split("/") and any(_lies_in(model, one) for one in trusted)
    if _looks_like_path(family, model):
        path = os.path.abspath(Path(model).expanduser())
        return any(_lies_in(path, os.path.abspath(Path(one).expanduser())) for one in trusted if "://" not in one)
    return "/" not in model or any(_lies_in(model, one) for one in ("nvidia", *trusted))


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


def _reachable(url: str) -> str:
    """Empty where ``url`` answers at all (any HTTP status), else why not. Proxies of the environment are used."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_S).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""


def check_available(spec: str, storage: Storage | None = None) -> None:
    """Fail now, before any audio is read, where ``spec`` needs a download that cannot be had.

    Raises VoxmillError with what to do: a local path, the cache that would be looked in, or a mirror.
    """
    for checkpoint in resolve_parts(spec, storage):
        _check_available(checkpoint)


def _check_available(checkpoint: Checkpoint) -> None:
    family, spec = checkpoint.family, checkpoint.spec
    if checkpoint.path is not None or family not in _FAMILIES:
        return
    example = f"{family}:/models/x{''.join(_SUFFIXES.get(family, ()))}"
    if checkpoint.model in WHISPER_NAMES:
        source = _SOURCES["whisper"]
        remedy = f"Put the file into {_whisper_cache()} (XDG_CACHE_HOME moves it), or give a path: {example}"
    elif "/" in checkpoint.model:
        source = os.environ.get("HF_ENDPOINT") or _SOURCES["hub"]
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        remedy = f"Set HF_ENDPOINT to a mirror or HF_HOME to a filled cache, or give a path: {example}"
        if offline:
            raise VoxmillError("is not in the cache and HF_HUB_OFFLINE forbids the download", spec, remedy)
    else:
        source = _SOURCES["ngc"]
        remedy = f"Set NEMO_CACHE_DIR to a filled cache, or give a path: {example}"
    if why := _reachable(source):
        raise VoxmillError(f"must be downloaded, but {source} cannot be reached ({why})", spec, remedy)
