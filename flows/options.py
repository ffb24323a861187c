"""The command line's options become the flows' parameters: a file, then flags, then ``--set``, later ones winning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flows.form import SHORT
from schemas.config import CorpusParameters, Recipe
from schemas.errors import VoxmillError


def read_config(path: Path) -> dict[str, Any]:
    """Parameters from a YAML, TOML or JSON file, by its suffix; raises VoxmillError that says what is wrong where."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VoxmillError(f"the configuration cannot be read ({error})", str(path)) from None
    try:
        values = _parse(path.suffix.lower(), text)
    except ValueError as error:  # all three parsers' errors are ValueErrors, YAML's made one below
        raise VoxmillError(f"not valid: {error}", str(path)) from None
    if not isinstance(values, dict):
        raise VoxmillError("must hold names and values at its top level", str(path), "Such as: sources: [...]")
    return values


def _parse(suffix: str, text: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    raise ValueError(f"a configuration ends in .yaml, .yml, .toml or .json, not {suffix or 'without a suffix'}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, group by group.

    >>> merge({"asr": {"a": 1, "b": 2}}, {"asr": {"b": 3}})
    {'asr': {'a': 1, 'b': 3}}
    """
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = (
            merge(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return merged


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """``flags`` without those that were not given (None), and without groups that this leaves empty.

    >>> given({"language": None, "storage": {"profile": None}, "cluster": {"address": "auto"}})
    {'cluster': {'address': 'auto'}}
    """
    kept = {name: given(value) if isinstance(value, Mapping) else value for name, value in flags.items()}
    return {name: value for name, value in kept.items() if value is not None and value != {}}


def overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Nested parameters from ``group.name=value`` settings; the recipe's groups need no ``recipe.`` before them.

    Values are JSON where they parse as such, else text.

    >>> overrides(["asr.denoised=all", "cluster.cpus=2"])
    {'recipe': {'asr': {'denoised': 'all'}}, 'cluster': {'cpus': 2}}
    """
    result: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise VoxmillError(f"{setting!r} is not of the form group.name=value", "--set", "Such as asr.denoised=all")
        if names[0] in Recipe.model_fields:
            names = ["recipe", *names]
        if names[0] not in CorpusParameters.model_fields:
            groups = ", ".join((*Recipe.model_fields, *list(CorpusParameters.model_fields)[3:]))
            raise VoxmillError(f"no setting begins with {names[0]!r}", "--set", f"There are {groups}")
        value: Any = _value(text)
        for name in reversed(names):
            value = {name: value}
        result = merge(result, value)
    return result


def settled(form: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """``form`` with the settings of ``--set`` laid on it, also on those that the form has under a short name.

    >>> settled({"language": "en"}, {"recipe": {"asr": {"language": "de"}}})
    {'recipe': {'asr': {'language': 'de'}}}
    """
    recipe = later.get("recipe", {})
    kept = {name: value for name, value in form.items() if name not in SHORT or not _holds(recipe, *SHORT[name])}
    return merge(kept, later)


def _holds(recipe: Any, group: str, name: str) -> bool:
    return isinstance(recipe, Mapping) and isinstance(recipe.get(group), Mapping) and name in recipe[group]


def speech(settings: Iterable[str]) -> dict[str, Any]:
    """The regenerate flow's parameters from ``name=value`` settings: the ``speech``'s, with ``tts.`` before the name or
    without, and those of ``cluster`` and ``storage``.

    >>> speech(["loudness_lufs=-23", "tts.codec=opus", "cluster.cpus=8"])
    {'cluster': {'cpus': 8}, 'speech': {'loudness_lufs': -23, 'codec': 'opus'}}
    """
    settings = [setting.strip() for setting in settings]
    apart = [setting for setting in settings if setting.startswith(("cluster.", "storage."))]
    named = [f"tts.{setting.removeprefix('tts.')}" for setting in settings if setting not in apart]
    spoken = dict(overrides(named).get("recipe", {}).get("tts", {}))
    return overrides(apart) | ({"speech": spoken} if spoken else {})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def listed(values: Iterable[str] | None) -> list[str] | None:
    """Values of an option that may be repeated or hold commas; None where it was not given."""
    parts = [part.strip() for value in values or () for part in value.split(",")]
    return [part for part in parts if part] or None
