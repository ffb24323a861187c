"""From the contract's types to Prefect's form: descriptions stand once, beside the types, in :mod:`schemas.config`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Function = TypeVar("Function", bound=Callable[..., Any])

# fields of the form that are short for one of the recipe's: its group and its name there
SHORT = {"transcribers": ("asr", "transcribers"), "language": ("asr", "language"), "tts": ("tts", "synthesizer")}


def description_of(annotation: Any) -> str:
    """The description of an ``Annotated`` type, or the first sentence of a settings group's docstring."""
    for metadata in getattr(annotation, "__metadata__", ()):
        if isinstance(metadata, FieldInfo) and metadata.description:
            return metadata.description
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (inspect.getdoc(annotation) or "").partition("\n")[0]
    return ""


def described(function: Function) -> Function:
    """Write the descriptions of ``function``'s annotated parameters into its docstring, where Prefect reads them."""
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    lines = [f"    {name}: {text}" for name, hint in hints.items() if (text := description_of(hint))]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
    return function


_WORDS = {
    "Value error, ": "",
    "Extra inputs are not permitted": "no setting has this name",
    "Input should be a valid tuple": 'must be a list, such as ["a", "b"]',
}


def _reworded(line: str) -> str:
    """A line of pydantic's for people who know neither Python nor pydantic."""
    field, _, message = line.partition(": ")
    for said, better in _WORDS.items():
        message = message.replace(said, better)
    return f"{field}: {message}"


def problems(message: str) -> list[str]:
    """One line per field from the message of Prefect's ``ParameterTypeError``.

    >>> problems("Flow run received invalid parameters:\\n - sources.0: Value error, nothing here")
    ['sources.0: nothing here']
    """
    lines = [line.removeprefix(" - ").strip() for line in message.splitlines() if line.startswith(" - ")]
    fields = [line.partition(": ")[0] for line in lines]
    # A list whose items are refused is reported as too short as well: the items say what is wrong.
    outer = {field for field in fields if any(other.startswith(f"{field}.") for other in fields)}
    kept = [_reworded(line) for line, field in zip(lines, fields, strict=True) if field not in outer]
    return kept or [" ".join(message.split())]
