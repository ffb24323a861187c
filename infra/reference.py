"""The configuration reference of the README, written from the pydantic settings.

``python -m infra.reference`` prints it; ``python -m infra.reference README.md`` replaces it in that file, between the
markers that stand around it.
"""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.config import CorpusParameters

BEGIN, END = "<!-- configuration reference: begin -->", "<!-- configuration reference: end -->"
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def reference(model: type[BaseModel] = CorpusParameters) -> str:
    """The settings of ``model`` as Markdown: its own fields first, then a section per group."""
    top = [_line(name, field) for name, field in model.model_fields.items() if not _is_group(field)]
    parts = [_table(top)]
    for path, group in _groups(model):
        lines = [_line(f"{path}.{name}", field) for name, field in group.model_fields.items() if not _is_group(field)]
        if lines:
            parts.append(f"**`{path}`**: {_first_sentence(group).replace('``', '`')}\n\n{_table(lines)}")
    return "\n\n".join(parts)


def _groups(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if _is_group(field):
            group = typing.cast(type[BaseModel], field.annotation)
            yield f"{path}{name}", group
            yield from _groups(group, f"{path}{name}.")


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _first_sentence(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _table(lines: list[tuple[str, ...]]) -> str:
    rows = ["| setting | type | default | what it is |", "|---|---|---|---|"]
    return "\n".join(rows + ["| " + " | ".join(line) + " |" for line in lines])


def _line(path: str, field: FieldInfo) -> tuple[str, ...]:
    kind = _kind(field.annotation) + _bounds(field)
    return f"`{path}`", kind, _default(field), (field.description or "").replace("|", "\\|")


def _kind(annotation: Any) -> str:
    """A type as a person would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, UnionType):
        return " or ".join(_kind(one) for one in arguments if one is not NoneType)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"{_kind(arguments[0])} → {_kind(arguments[1])}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "yes or no"}.get(annotation.__name__, "")


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(one, name)}"
        for one in field.metadata
        for name, sign in _BOUNDS.items()
        if getattr(one, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def replace_in(text: str) -> str:
    """``text`` with what stands between the markers replaced by the reference. Raises ValueError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the configuration reference.")
    parser.add_argument("file", type=Path, nargs="?")
    file = parser.parse_args().file
    if file is None:
        print(reference())
    else:
        file.write_text(replace_in(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
