"""The README says what is: the reference is the settings', every reason, table and family is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.reference import replace_in
from schemas.families import FAMILIES
from schemas.reasons import Reason
from schemas.tables import TABLES
from tests.e2e.readme import recipes
from workers.quality.bins import SLICES
from workers.quality.flags import FLAGS

README = Path(__file__).resolve().parents[2] / "README.md"


def test_reference_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert replace_in(text) == text, "run: python -m infra.reference README.md"
    with pytest.raises(ValueError, match="lacks the markers"):
        replace_in("nothing here")


def test_every_name_of_the_contract_is_told() -> None:
    text = README.read_text(encoding="utf-8")
    names = [*Reason, *TABLES, *(name for name, family in FAMILIES.items() if family.role != "is a part")]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_flag_is_explained_as_it_is_in_the_report() -> None:
    text = README.read_text(encoding="utf-8")
    assert [name for name, meaning in FLAGS.items() if f"| `{name}` | {meaning} |" not in text] == []


def test_every_slice_has_a_query() -> None:
    _, slices = recipes("sql", "/lake")
    assert [name for name in SLICES if f"slice = '{name}'" not in slices] == []
