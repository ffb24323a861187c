"""Options of the command line: file, flags and ``--set`` become parameters; mistakes are told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from flows.options import given, listed, merge, overrides, read_config
from schemas.errors import VoxmillError

names = st.text("abcdef", min_size=1, max_size=3)
values = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3))
trees = st.recursive(
    st.dictionaries(names, values, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(values, inner), max_size=4),
    max_leaves=12,
)


@examples(trees, trees)
def test_the_later_value_wins_and_nothing_else_is_lost(base: dict, over: dict) -> None:
    def leaves(tree: dict, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
        found: dict[tuple[str, ...], object] = {}
        for name, value in tree.items():
            found |= leaves(value, (*at, name)) if isinstance(value, dict) else {(*at, name): value}
        return found

    over = given(over)  # a group without settings lays nothing on
    merged, laid = leaves(merge(base, over)), leaves(over)
    assert merged.items() >= laid.items()
    for path, value in leaves(base).items():
        hidden = any(path[: len(p)] == p or p[: len(path)] == path for p in laid)
        assert hidden or merged[path] == value


@examples(trees)
def test_flags_not_given_leave_no_trace(flags: dict) -> None:
    assert merge({"kept": 1}, given({"kept": None})) == {"kept": 1}

    def holds_none(tree: dict) -> bool:
        return any(v is None or v == {} or (isinstance(v, dict) and holds_none(v)) for v in tree.values())

    assert not holds_none(given(flags))


def test_one_configuration_in_three_formats(tmp_path: Path) -> None:
    expected = {"sources": ["s3://a/*.tar"], "recipe": {"asr": {"beam_size": 5}}}
    texts = {
        "a.json": json.dumps(expected),
        "a.yaml": "sources: ['s3://a/*.tar']\nrecipe:\n  asr: {beam_size: 5}\n",
        "a.toml": "sources = ['s3://a/*.tar']\n[recipe.asr]\nbeam_size = 5\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_config(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "sources: [", "not valid"),
        ("a.toml", "sources = [", "not valid"),
        ("a.json", "[1]", "must hold names and values"),
        ("a.ini", "x", "not .ini"),
        ("missing.yaml", None, "cannot be read"),
    ],
)
def test_a_bad_configuration_is_told_in_one_line(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(VoxmillError, match=words) as caught:
        read_config(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_settings_reach_any_group() -> None:
    assert overrides(["asr.denoised=all", 'cluster.actors={"denoise": 2}', "features.f_max=null", "max_file_mb=9"]) == {
        "recipe": {"asr": {"denoised": "all"}, "features": {"f_max": None}},
        "cluster": {"actors": {"denoise": 2}},
        "max_file_mb": 9,
    }
    assert listed(["a, b", "c"]) == ["a", "b", "c"]
    assert listed(None) is None
    for bad in ("asr.denoised", "=1", "nothing.like.it=1"):
        with pytest.raises(VoxmillError):
            overrides([bad])
