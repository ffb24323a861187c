"""Where an engine's checkpoint lies, its digest, and whether it can be had: all without importing a model library."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
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
_SUFFIXES = {"whisper": (".pt",), "conformer": (".nemo",)}
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
    return model.endswith(_SUFFIXES[family]) or model.startswith(("/", "./", "../", "~")) or Path(model).is_file()


def _whisper_cache() -> Path:
    """Where ``whisper.load_model`` keeps what it downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"


def _nemo_cached(name: str) -> Path | None:
    """The .nemo file of a published name in NeMo's cache (NGC names) or the Hugging Face hub's (owner/name)."""
    if "/" in name:
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
        found = (hub / f"models--{name.replace('/', '--')}").glob(f"snapshots/*/{name.rsplit('/', 1)[1]}.nemo")
    else:
        try:
            default = Path.home() / ".cache" / "torch" / "NeMo" / f"NeMo_{version('nemo_toolkit')}"
        except PackageNotFoundError:
            return None
        found = Path(os.environ.get("NEMO_CACHE_DIR") or default).glob(f"{name}/*/{name}.nemo")
    return next(iter(sorted(found)), None)


def _fetch(url: str, spec: str, storage: Storage) -> Path:
    """Copy a remote checkpoint into the cache, once per version of the object; returns the local path."""
    try:
        fs, path = open_filesystem(url, storage)
        info = fs.info(path)
        identity = stable_id("checkpoint", url, info.get("size"), str(info.get("ETag") or info.get("mtime") or ""))
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxmill" / identity
        local = folder / path.rsplit("/", 1)[-1]
        if not local.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{local.name}.{os.getpid()}.tmp"
            fs.get_file(path, str(temporary))
            temporary.replace(local)
    except (OSError, ValueError, ImportError) as error:
        raise VoxmillError(
            f"the checkpoint cannot be read ({' '.join(str(error).split())})", spec, "Check the URL and its access."
        ) from error
    return local


def resolve(spec: str, storage: Storage | None = None) -> Checkpoint:
    """Find the checkpoint that ``spec`` names: a local path, a URL (fetched into the cache), or a published name.

    Raises VoxmillError for a path that is not there, a URL that cannot be read, or an unknown name of whisper.
    """
    parsed = EngineSpec.parse(spec)
    family, model = parsed.family, parsed.model
    if family not in _SUFFIXES:
        return Checkpoint(spec, family, model, is_name=True, path=None)
    if "://" in model:
        return Checkpoint(spec, family, model, False, _fetch(model, spec, storage or Storage()))
    if family == "whisper" and model in WHISPER_NAMES:
        path = _whisper_cache() / f"{_WHISPER_ALIASES.get(model, model)}.pt"
        return Checkpoint(spec, family, model, True, path if path.is_file() else None)
    if _looks_like_path(family, model):
        path = Path(model).expanduser()
        if not path.is_file():
            raise VoxmillError("there is no such checkpoint file", spec, "Check the path on the machine that runs it.")
        return Checkpoint(spec, family, model, False, path.absolute())
    if family == "whisper":
        raise VoxmillError("no model of this name", spec, f"There are {', '.join(WHISPER_NAMES)}, or a path to a .pt.")
    return Checkpoint(spec, family, model, True, _nemo_cached(model))


def file_digest(path: Path) -> str:
    """``blake3:<hex>`` of a file's bytes."""
    return f"blake3:{blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()}"


def checkpoint_digest(spec: str, storage: Storage | None = None) -> str | None:
    """Digest of a checkpoint given by path or URL; None for published names and for engines without a checkpoint.

    Published names are versions of their own: whether one happens to lie in a cache already must not change what a
    run's settings hash to. Raises VoxmillError as :func:`resolve` does.
    """
    checkpoint = resolve(spec, storage)
    return None if checkpoint.is_name or checkpoint.path is None else file_digest(checkpoint.path)


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
    checkpoint = resolve(spec, storage)
    if checkpoint.path is not None or checkpoint.family not in _SUFFIXES:
        return
    if checkpoint.family == "whisper":
        source = _SOURCES["whisper"]
        remedy = f"Put the file into {_whisper_cache()} (XDG_CACHE_HOME moves it), or give a path: whisper:/models/x.pt"
    elif "/" in checkpoint.model:
        source = os.environ.get("HF_ENDPOINT") or _SOURCES["hub"]
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        remedy = "Set HF_ENDPOINT to a mirror or HF_HOME to a filled cache, or give a path: conformer:/models/x.nemo"
        if offline:
            raise VoxmillError("is not in the cache and HF_HUB_OFFLINE forbids the download", spec, remedy)
    else:
        source = _SOURCES["ngc"]
        remedy = "Set NEMO_CACHE_DIR to a filled cache, or give a path: conformer:/models/x.nemo"
    if why := _reachable(source):
        raise VoxmillError(f"must be downloaded, but {source} cannot be reached ({why})", spec, remedy)
