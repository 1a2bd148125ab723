"""The page: text from data is escaped, everything is in it, it needs no network, and gaps do no harm."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunewell.errors import RecipeError, RunFolderError
from tunewell.report.build import build
from tunewell.report.words import EN, ZH

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&{{ 7*7 }}"
SECTIONS = ("gained", "kept", "data", "training", "repeat", "glossary")
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Tags and attributes of a page, whether its tags close in order, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_hostile_text_is_shown_and_never_run(make_records, tmp_path, lang: str):
    labels = (f"a{HOSTILE}", f"b{HOSTILE}")
    tame = read(build(make_records(tmp_path / "tame", word="word", labels=("a", "b")), lang))
    page = read(build(make_records(tmp_path / "run", word=HOSTILE, labels=labels), lang))
    lines = ("text", "tspan")  # a longer label of a chart has more lines
    assert [t for t in page.tags if t not in lines] == [t for t in tame.tags if t not in lines]  # all of it is text
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for shown in ("text", "note", "message", "remedy", "mistake", "baseline", "probe", "candidate", "reason"):
        assert f"{shown} {HOSTILE}" in page.text, shown


def test_every_section_and_figure_is_there(make_records, tmp_path):
    page = read(build(make_records(tmp_path / "run")))
    ids = {value for name, value in page.attributes if name == "id"}
    assert set(SECTIONS) <= ids
    assert {value for name, value in page.attributes if name == "href"} == {f"#{s}" for s in SECTIONS}
    for figure in (
        "0.7500",
        "[0.7400, 0.7600]",
        "0.1234",
        "McNemar, exact",
        "= 0.0004",
        "0.9875",
        "1 min 23 s",
        "2.5 %",
    ):
        assert figure in page.text, figure
    assert page.tags.count("svg") >= 7  # baselines, calibration, probes, frontier, classes, loss, rate, score


def test_the_page_needs_nothing_from_outside(make_records, tmp_path):
    path = build(make_records(tmp_path / "run"))
    content = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", content)
    assert not re.search(r"@import|url\(", content)
    assert "default-src 'none'" in content
    for scheme in ("@media (prefers-color-scheme: dark)", ":root[data-theme=dark]", "@media print", "max-width:560px"):
        assert scheme in content, scheme
    assert 'name="viewport"' in content


def test_every_colour_has_a_dark_one(make_records, tmp_path):
    content = build(make_records(tmp_path / "run")).read_text(encoding="utf-8")
    light = set(re.findall(r"--([a-z]+):", re.findall(r":root \{(.*?)\}", content, re.DOTALL)[0]))
    chosen = set(re.findall(r"--([a-z]+):", re.findall(r":root\[data-theme=dark\] \{(.*?)\}", content, re.DOTALL)[0]))
    assert light == chosen
    assert set(re.findall(r"var\(--([a-z]+)\)", content)) <= light
    assert len(light) > 8


def test_in_chinese(make_records, tmp_path):
    page = read(build(make_records(tmp_path / "run"), "zh"))
    assert ("lang", "zh") in page.attributes
    assert set(ZH) == set(EN)
    for key in ("title", *SECTIONS):
        assert ZH[key] in page.text, key
        assert EN[key] not in page.text.replace("Gained", ""), key


def test_a_regression(make_records, tmp_path):
    page = read(build(make_records(tmp_path / "run", labels=())))
    assert EN["scatter"] in page.text
    assert EN["confusion"] not in page.text
    assert "mistake word" in page.text


@pytest.mark.parametrize(
    "gone",
    ["baselines.json", "retention.json", "check.json", "choice.json", "evaluation.json", "train/training.json",
     "environment.json", "predictions.csv", "recipe.yaml", "summary.json"],
)  # fmt: skip
def test_what_a_run_does_not_have_is_left_out(make_records, tmp_path, gone: str):
    folder = make_records(tmp_path / "run")
    (folder / gone).unlink()
    page = read(build(folder))
    assert {value for name, value in page.attributes if name == "id"} >= set(SECTIONS)


def test_undefined_figures_are_dashes(make_records, tmp_path):
    from tunewell.results import Estimate, Evaluation, Retention

    folder = make_records(tmp_path / "run")
    nothing = Estimate(value=None, n=1)
    (folder / "baselines.json").unlink()
    Evaluation(
        split="test", metric="f1_macro", metrics={"f1_macro": nothing}, n=1, labels=("negative", "positive")
    ).write(folder / "evaluation.json")
    known = Retention.load(folder / "retention.json").probes[0]
    probes = (known.model_copy(update={"after": nothing, "retention": nothing}),)
    Retention(half="report", probes=probes, mean=nothing, worst=nothing, worst_probe="own").write(
        folder / "retention.json"
    )
    page = read(build(folder))
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text
    assert "–" in page.text


def test_many_classes_stay_a_small_page(make_records, tmp_path):
    labels = tuple(f"class number {i}" for i in range(300))
    path = build(make_records(tmp_path / "run", labels=labels))
    assert path.stat().st_size < 3_000_000
    assert EN["confusion_note"] not in read(path).text  # 300 columns are no picture; the frequent confusions are listed


def test_refusals(make_records, tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        build(tmp_path)
    with pytest.raises(RecipeError, match="lang: fr"):
        build(make_records(tmp_path / "run"), "fr")
