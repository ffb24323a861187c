"""The report as a document: what it says, what it never lets through, what it is built from. CPU: about 25 s."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.config import Storage
from schemas.manifest import RunManifest
from tests.workers import report_corpus
from workers.quality.bootstrap import Interval
from workers.report import build_report, content, write_report
from workers.report.compare import Comparison, two_runs
from workers.report.cost import cost
from workers.report.data import Reader, last_comparable
from workers.report.verdict import verdict
from workers.report.wording import judged
from workers.report.words import confusions, difference

STORAGE = Storage()
Publish = Callable[..., tuple[RunManifest, str]]


class Page(HTMLParser):
    """Tags with their attributes and the text outside of scripts and styles, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture(scope="module")
def publish(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Publish:
    speech = report_corpus.clips(shared_data, digits=20)

    def make(run_id: str = "20260301T020000-aaaa", into: str = "", **how: object) -> tuple[RunManifest, str]:
        destination = into or str(tmp_path_factory.mktemp("published"))
        return report_corpus.publish(report_corpus.rows_of(speech, **how), destination, run_id), destination  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def run(publish: Publish) -> tuple[RunManifest, str, str]:
    manifest, destination = publish()
    return manifest, destination, build_report(manifest, destination, STORAGE)


def test_the_first_screen_says_what_was_measured(run: tuple[RunManifest, str, str]) -> None:
    manifest, _, html = run
    text = Page(html).text
    chosen = next(one for one in manifest.word_errors if one.engine == "chosen")
    assert f"{chosen.wer:.1%} of the words wrong" in text
    assert f"{100 * chosen.wer_low:.1f} to {100 * chosen.wer_high:.1f}" in text  # type: ignore[operator]
    assert f"of {manifest.members_in} published" in text
    assert "No earlier run published here can be compared with this one" in text
    for one in manifest.word_errors:
        assert f"{one.wer:.1%}" in text
    for reason in manifest.reject_reasons:
        assert reason.replace("_", " ") in text


def test_the_page_is_self_contained_and_runs_its_own_script_only(run: tuple[RunManifest, str, str]) -> None:
    html = run[2]
    page = Page(html)
    policy = next(tag["content"] for name, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy")
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for name, tag in page.tags:
        for attribute in ("src", "href", "xlink:href", "srcset", "action"):
            value = tag.get(attribute)
            assert value is None or value.startswith(("data:", "#")), (name, attribute, value)
        assert not any(attribute.startswith("on") for attribute in tag), (name, tag)
    players = [tag for name, tag in page.tags if name == "audio"]
    heard = [(tag["alt"] or "").rpartition(", ")[2] for name, tag in page.tags if name == "img"]
    assert heard == ["raw", "denoised"] * (len(players) // 2)
    assert len(players) // 2 + page.text.count("No audio here") == 12  # the page has room for most of the worst twelve
    assert len(players) >= 16


def test_hostile_texts_stay_text(publish: Publish) -> None:
    manifest, destination = publish(hostile=True)
    html = build_report(manifest, destination, STORAGE)
    page = Page(html)
    assert report_corpus.HOSTILE[0] in page.text  # it is there to be read
    assert html.count("<script") == 1
    assert not [tag for name, tag in page.tags if tag.get("src") == "x" or name == "iframe"]
    assert len([name for name, _ in page.tags if name == "style"]) == html.count("<style")
    assert not [tag for name, tag in page.tags if (tag.get("href") or "").startswith("javascript")]


def test_without_references_the_first_screen_says_what_it_rests_on(publish: Publish) -> None:
    manifest, destination = publish(references=False)
    assert not manifest.word_errors
    text = Page(build_report(manifest, destination, STORAGE)).text
    assert "No utterance has a reference, so no word error rate can be measured" in text
    assert "rests on the agreement of two engines and the decoder's confidence" in text
    assert "Those on which the engines differ most" in text
    assert "Word error rate" not in text


def test_two_runs_are_compared_by_speaker(publish: Publish) -> None:
    before, destination = publish("20260228T020000-aaaa", rate=0.4)
    now, _ = publish("20260301T020000-bbbb", into=destination, rate=2.0)
    publish("20260302T020000-cccc", into=destination, rate=1.0)  # later: no past of this run
    found = last_comparable(now, destination, STORAGE)
    assert found is not None
    assert found.run_id == before.run_id
    text = Page(build_report(now, destination, STORAGE)).text
    assert "WER rose since the last run: +" in text
    assert f"Against run {before.run_id}" in text
    assert "Where WER changed" in text
    reader = Reader(now, destination, STORAGE)
    same = two_runs(reader.tables(), reader.tables()).change()
    assert same is not None
    assert (same.difference.value, same.shown) == (0.0, "none")


def test_the_cost_follows_the_price_list(run: tuple[RunManifest, str, str]) -> None:
    manifest, _, html = run
    assert cost(manifest) is None
    assert "per hour of speech" not in Page(html).text
    stages = {
        "decode": {"wall_s": 60.0, "cpu_s": 90.0},
        "whisper:x": {"wall_s": 1800.0, "cpu_s": 1800.0, "gpu_s": 900.0},
    }
    priced = manifest.parameters | {"prices": {"cpu_hour": 0.04, "gpu_hour": 2.0, "currency": "EUR"}}
    found = cost(manifest.model_copy(update={"stages": stages, "parameters": priced, "hours": 10.0}))
    assert found is not None
    assert found.stages == {"decode": pytest.approx(0.001), "whisper:x": pytest.approx(0.52)}
    assert (found.total, found.per_hour, found.currency) == (pytest.approx(0.521), pytest.approx(0.0521), "EUR")
    half = manifest.parameters | {"prices": {"cpu_hour": 0.04}}  # the GPU's price is not known: no half a figure
    assert cost(manifest.model_copy(update={"stages": stages, "parameters": half})) is None


def test_any_two_runs_are_compared_on_demand(publish: Publish) -> None:
    before, destination = publish("20260228T020000-aaaa", rate=0.4)
    publish("20260301T020000-bbbb", into=destination, rate=1.0)
    now, _ = publish("20260302T020000-cccc", into=destination, rate=2.0)
    page = write_report(now, destination, STORAGE, before)
    assert page == f"{destination}/reports/{now.run_id}/since-{before.run_id}.html"
    text = Page(Path(page).read_text()).text
    assert f"Since run {before.run_id}" in text
    two = two_runs(Reader(now, destination, STORAGE).tables(), Reader(before, destination, STORAGE).tables())
    change = two.change()
    assert change is not None
    assert judged(change) in text
    for name in ("archive", "snr"):  # the slices' errors are all there are
        parts = [one for _, one in two.by_slice(name)]
        assert sum(one.utterances for one in parts) == change.utterances
    backwards = two_runs(Reader(before, destination, STORAGE).tables(), Reader(now, destination, STORAGE).tables())
    assert backwards.change().difference.value == pytest.approx(-change.difference.value)  # type: ignore[union-attr]


def test_a_report_is_rebuilt_from_the_parquet_alone(run: tuple[RunManifest, str, str], tmp_path: Path) -> None:
    """Also from another place, and from an object store: the same page but for the place it names."""
    manifest, destination, html = run
    moved = tmp_path / "elsewhere"
    shutil.copytree(destination, moved)
    shutil.rmtree(moved / "_runs")
    assert build_report(manifest, str(moved), STORAGE).replace(str(moved), destination) == html
    memory = fsspec.filesystem("memory")
    for path in moved.rglob("*.parquet"):
        memory.pipe_file(f"/lake/{path.relative_to(moved)}", path.read_bytes())
    page = write_report(manifest, "memory://lake", STORAGE)
    assert page == f"memory://lake/reports/{manifest.run_id}/index.html"
    assert (
        memory.cat_file(f"/lake/reports/{manifest.run_id}/index.html").decode().replace("memory://lake", destination)
        == html
    )
    memory.rm("/lake", recursive=True)


def test_nothing_to_look_at_is_said_too(run: tuple[RunManifest, str, str]) -> None:
    manifest = run[0].model_copy(update={"members_rejected": 0, "reject_reasons": {}})
    row = {"slice": "all", "engine": "chosen", "wer": 0.03}
    assert verdict(manifest, [row], {}, 0.05, None).level == "good"
    many = manifest.model_copy(update={"members_rejected": manifest.members_in // 2, "reject_reasons": {"silent": 80}})
    bad = verdict(many, [row], {"clipped": 1, "wrong_language": 1}, 0.05, None)
    assert bad.level == "bad"
    assert [one.level for one in bad.needs] == ["bad", "look"]  # one clipped utterance is no news
    assert "silent (80)" in bad.needs[0].text


def test_what_is_better_than_the_chosen_is_said(run: tuple[RunManifest, str, str]) -> None:
    manifest = run[0].model_copy(update={"members_rejected": 0, "reject_reasons": {}})
    row = {"slice": "all", "engine": "chosen", "wer": 0.05}
    one = Comparison("denoised audio", "raw audio", 0.04, 0.05, Interval(-0.01, -0.02, -0.005, 9), 80, "speaker")
    [found] = verdict(manifest, [row], {}, None, None, [one]).needs
    assert found.text == "Shown to be better than raw audio, which was chosen: denoised audio, WER 4.0% against 5.0%."
    back = one.reversed()
    assert (back.first, back.difference.low, back.shown) == ("raw audio", 0.005, "higher")
    assert verdict(manifest, [row], {}, None, None, [back]).level == "good"


@pytest.mark.parametrize(("chosen", "found"), [("raw", ["b"]), ("denoised", [])])
def test_engines_compared_on_raw_audio_are_no_better_than_denoised_audio_that_was_chosen(
    chosen: str, found: list[str]
) -> None:
    utterances = pa.table({"transcript_engine": ["a", "a"], "transcript_input": [chosen, chosen]})
    other = Comparison("b", "a", 0.2, 0.4, Interval(-0.2, -0.3, -0.1, 9), 80, "speaker")
    assert [one.first for one in content._better([other], {}, utterances, {"a": "a", "b": "b"})] == found


def test_the_page_tells_what_all_signs_together_predict(run: tuple[RunManifest, str, str]) -> None:
    text = Page(run[2]).text
    assert "all signs together" in text
    assert "Measured against estimated word error rate" in run[2]
    assert "WER of every engine and input" in text


def test_audio_of_a_run_from_before_raw_was_kept_is_denoised_alone(
    run: tuple[RunManifest, str, str], tmp_path: Path
) -> None:
    manifest, destination, _ = run
    shutil.copytree(destination, tmp_path / "old")
    [file] = [tmp_path / "old" / one.path for one in manifest.files if one.table == "audio"]
    pq.write_table(pq.read_table(file).drop_columns(["raw"]), file)
    found = Reader(manifest, str(tmp_path / "old"), STORAGE)
    [some] = found.read("audio", ["utterance_id"]).slice(0, 1).to_pylist()
    assert list(found.audio([some["utterance_id"]])[some["utterance_id"]]) == ["denoised"]


def test_a_run_that_published_nothing_has_a_report(tmp_path: Path, run: tuple[RunManifest, str, str]) -> None:
    counts = {"members_published": 0, "members_rejected": 0, "members_in": 0, "utterances": 0, "hours": 0.0}
    empty = {"files": [], "word_errors": [], "archives": [], "reject_reasons": {}, "stages": {}}
    manifest = run[0].model_copy(update=counts | empty)
    text = Page(build_report(manifest, str(tmp_path), STORAGE)).text
    assert "Not to be used before someone has looked" in text
    assert "Nothing was published" in text


def test_differences_and_confusions() -> None:
    pieces = difference("the cat sat on the mat", "a cat sat on mat yes")
    assert [(one.kind, one.reference, one.hypothesis) for one in pieces][:2] == [
        ("substitute", "the", "a"),
        ("equal", "cat sat on", "cat sat on"),
    ]
    found = confusions([("a b c", "a x c"), ("b d", "x"), ("e", "e f"), ("g", "g f"), ("d h", "h")])
    assert found.substitutions == [("b", "x", 2)]
    assert found.deletions == [("d", 2)]
    assert found.insertions == [("f", 2)]
