"""Names that models are published under: where they are downloaded from, where they are cached, whether they exist.

No model library is imported for it, which can take many seconds: what a library lists is read from its source.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import urllib.error
import urllib.request
from fnmatch import fnmatch
from functools import cache, lru_cache
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from schemas.errors import VoxmillError
from schemas.families import FAMILIES

_HUB = "https://huggingface.co"
# of transformers, in its order, and of CTranslate2
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.bin",
)
_PROBE_S = 10.0


@cache
def listed(catalogue: str) -> dict[str, str]:
    """Names to the URLs of their files, as ``catalogue`` has them; empty where its library is not installed.

    It is ``module:attribute``: a dictionary of the module's, or a class of NeMo's whose ``list_available_models``, and
    that of the classes derived from it, names them.
    """
    module, _, attribute = catalogue.partition(":")
    library, *inner = module.split(".")
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return {}
    if not inner:
        return _dictionary(Path(spec.origin), attribute)
    return _of_class(Path(spec.origin).parent.joinpath(*inner), attribute)


def _dictionary(source: Path, attribute: str) -> dict[str, str]:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(to, "id", "") == attribute for to in node.targets):
            return dict(ast.literal_eval(node.value))
    return {}


def _of_class(package: Path, root: str) -> dict[str, str]:
    classes: dict[str, tuple[list[str], dict[str, str]]] = {}  # name to names of bases, and what it lists itself
    for source in sorted(package.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        if "pretrained_model_name=" not in text and f"class {root}(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                bases = [getattr(base, "id", "") for base in node.bases]
                classes[node.name] = bases, _models_of(node)
    found: dict[str, str] = {}
    todo, seen = [root], {root}
    while todo:
        name = todo.pop()
        found |= classes.get(name, ([], {}))[1]
        below = {one for one, (bases, _) in classes.items() if name in bases} - seen
        seen |= below
        todo += sorted(below)
    return found


def _models_of(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
            if "pretrained_model_name" in given and "location" in given:
                found[str(given["pretrained_model_name"])] = str(given["location"])
    return found


def cached(family: str, name: str) -> Path | None:
    """The file or folder of a published name in the cache of its library; None where it is not there as a whole."""
    if "/" in name:
        of = FAMILIES[family]
        return _hub_folder(name, of.needs) if of.folder else _hub_file(name, of.hub)
    catalogue = FAMILIES[family].catalogue
    url = listed(catalogue).get(name)
    if catalogue.startswith("nemo."):
        return _nemo_file(name) or (_nemo_file(_stem(url)) if url else None)
    path = _whisper_cache() / url.rsplit("/", 1)[-1] if url else None
    return path if url and path and path.is_file() and _is_whole(path, url) else None


def _is_whole(path: Path, url: str) -> bool:
    """Whether the file has the SHA-256 that openai-whisper's URLs tell; a download that broke off has another.

    Its library would download the file again.
    """
    told, stat = url.rsplit("/", 2)[-2], path.stat()
    return len(told) != 64 or _sha256(path, stat.st_size, stat.st_mtime_ns) == told


@lru_cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of a file as it was of this size and time: asked several times in a process, and read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stem(url: str) -> str:
    return url.rsplit("/", 1)[-1].removesuffix(".nemo")


def _nemo_file(stem: str) -> Path | None:
    """NeMo keeps what it downloads under the name of the file, which is not always that of the model."""
    try:
        default = Path.home() / ".cache" / "torch" / "NeMo" / f"NeMo_{version('nemo_toolkit')}"
    except PackageNotFoundError:
        return None
    folder = Path(os.environ.get("NEMO_CACHE_DIR") or default)
    return next(iter(sorted(folder.glob(f"{stem}/*/{stem}.nemo"))), None)


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _whisper_cache() -> Path:
    """Where ``whisper.load_model`` keeps what it downloads."""
    return _cache_home() / "whisper"


def _hub_cache(name: str) -> Path:
    """Where the Hugging Face hub's library keeps what it downloads of ``owner/name``."""
    home = Path(os.environ.get("HF_HOME") or _cache_home() / "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return Path(hub) / f"models--{name.replace('/', '--')}"


def _main_version(name: str) -> Path | None:
    """The cached folder of a hub name's main version, which need not be whole; None where there is none."""
    main = _hub_cache(name) / "refs" / "main"
    return _hub_cache(name) / "snapshots" / main.read_text(encoding="utf-8").strip() if main.is_file() else None


def _hub_folder(name: str, needs: tuple[str, ...]) -> Path | None:
    """The cached folder of a hub name's main version; None where it is not there or lacks weights or what it needs."""
    folder = _main_version(name)
    if folder is None or not weights_of(folder):
        return None
    there = [path.name for path in folder.glob("*") if path.is_file()]
    return folder if all(any(fnmatch(one, way) for one in there for way in need.split()) for need in needs) else None


def weights_of(folder: Path) -> list[Path]:
    """The files that a model's weights are read from, of all that lie in ``folder``; empty where some are missing."""
    for path in (folder / name for name in _WEIGHTS):
        if path.is_file() and path.suffix != ".json":
            return [path]
        if path.is_file():
            shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
            parts = [path, *sorted({folder / shard for shard in shards})]
            if all(part.is_file() for part in parts):
                return parts
    return []


def _hub_file(name: str, file: str) -> Path | None:
    """The cached ``file`` of a hub name's main version; None where it is not there."""
    folder = _main_version(name)
    path = folder / file.format(name.rsplit("/", 1)[1]) if folder else None
    return path if path and path.is_file() else None


def check_published(spec: str, family: str, name: str) -> None:
    """Fail now where the published ``name``, which is not in the cache, cannot be downloaded.

    Its own file is asked for, as its library would. Raises VoxmillError that says whether there is no such name, access
    is needed, or nothing answers; and what to do. An answer that may pass, such as 503, is left to the library.
    """
    example = f"give a path: {family}:/models/x{FAMILIES[family].suffix}"
    if "/" in name:
        _check_hub(spec, family, name, f"set HF_ENDPOINT to a mirror or HF_HOME to a filled cache, or {example}")
        return
    catalogue = FAMILIES[family].catalogue
    url = listed(catalogue).get(name)
    if url is None:
        return
    site = "://".join(urlsplit(url)[:2])
    if catalogue.startswith("nemo."):
        remedy = f"Set NEMO_CACHE_DIR to a filled cache, or {example}"
    else:
        remedy = f"Put the file into {_whisper_cache()} (XDG_CACHE_HOME moves it), or {example}"
    status, _ = _ask(url, {}, spec, site, remedy)
    if status in (401, 403):
        raise VoxmillError(f"{site} gives it only with access (HTTP {status})", spec, remedy)
    if status == 404:
        raise VoxmillError(f"{site} has no such file (HTTP 404)", spec, remedy)


def _check_hub(spec: str, family: str, name: str, remedy: str) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            do = remedy[0].upper() + remedy[1:]
            raise VoxmillError(f"is not in the cache and {variable} forbids the download", spec, do)
    from huggingface_hub.utils import build_hf_headers

    site = (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    file = FAMILIES[family].hub.format(name.rsplit("/", 1)[1])
    url = f"{site}/{quote(name)}/resolve/main/{quote(file)}"
    status, code = _ask(url, build_hf_headers(), spec, site, remedy[0].upper() + remedy[1:])
    if code == "EntryNotFound":
        raise VoxmillError(
            f"{site} has this name, but no {file} in it", spec, f"Choose one that {family} can load, or {remedy}"
        )
    if code == "RepoNotFound" or status == 404:
        private = ", or keeps it private" if status == 401 else ""
        do = f"Check the name (a private one needs HF_TOKEN), {remedy}"
        raise VoxmillError(f"{site} has no model of this name{private} (HTTP {status})", spec, do)
    if status in (401, 403):
        do = f"Ask for access at {site}/{name} and set HF_TOKEN, {remedy}"
        raise VoxmillError(f"{site} gives it only with access (HTTP {status})", spec, do)


class _AtHome(urllib.request.HTTPRedirectHandler):
    """Redirects to another site, where large files lie, are answer enough: no token is taken there."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.hostname != old.hostname or (new.scheme, new.port) not in ((old.scheme, old.port), ("https", None)):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _ask(url: str, headers: dict[str, str], spec: str, site: str, remedy: str) -> tuple[int, str]:
    """Status and the hub's error code for the first byte of ``url``. Proxies of the environment are used.

    GET rather than HEAD: not every store that has a file answers HEAD. Raises VoxmillError where nothing answers.
    """
    try:
        request = urllib.request.Request(url, headers={**headers, "Range": "bytes=0-0"})
        with urllib.request.build_opener(_AtHome).open(request, timeout=_PROBE_S) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("X-Error-Code", "")
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise VoxmillError(f"must be downloaded, but {site} cannot be reached ({why})", spec, remedy) from error
