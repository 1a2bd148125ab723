"""The report's section and the model card, from records alone."""

from __future__ import annotations

import pytest

from tunewell.export.card import write_card
from tunewell.report.build import build
from tunewell.report.words import WORDS
from tunewell.results import Comparison, Estimate
from tunewell.unlabelled.records import MethodResult, Unlabelled

EVIL = '<script>alert("x")</script>'


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=40)


def method(name: str, gain: float, half: float = 0.02, **more) -> MethodResult:
    comparison = Comparison(
        metric="f1_macro", difference=estimate(gain, half), test="McNemar, exact", p_value=0.0313, better=None
    )
    return MethodResult(method=name, score=estimate(0.7 + gain), comparison=comparison, **{"helps": gain > 0, **more})


def written(folder, **more) -> str:
    record = Unlabelled(
        source=f"some/where/{EVIL}.csv", read=1234, pool=1200, left_out={"empty": 30, "a training row": 4},
        judged="validation", n=40, metric="f1_macro", rule="likely", without=estimate(0.7), **more,
    )  # fmt: skip
    record.write(folder / "unlabelled.json")
    return "unlabelled.json"


GUESSED = {
    "rows": 611, "classes": {EVIL: 300, "fine": 311}, "confidence": estimate(0.9137), "least": 0.8123,
    "temperature": 1.77, "rounds": 2, "seconds": 83.0,
}  # fmt: skip
METHODS = (
    method("self_training", 0.0456, chosen=True, **GUESSED),
    method("propagation", 0.0123),
    method("consistency", -0.0211, about={"counted": 0.42, "threshold": 0.613}),
    method(
        "pretraining", -0.0321,
        about={"objective": "mlm", "texts": 1240, "steps": 39, "seconds": 9.0, "loss_first": 5.125, "loss_last": 4.25},
    ),
)  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_section_has_all_figures(make_records, tmp_path, lang):
    run = make_records(tmp_path / "run")
    written(run, methods=METHODS, chosen="self_training")
    page, w = build(run, lang).read_text(encoding="utf-8"), WORDS[lang]
    figures = ("1,200", "1,234", "0.7456", "0.7000", "0.0456", "[0.0256, 0.0656]", "611", "0.914 (≥ 0.812)",
               "p = 0.0313", "1,240", "5.125 → 4.250")  # fmt: skip
    told = (
        w["ul_title"],
        w["ul_helps"],
        w["ul_no_help"],
        w["ul_mlm"],
        w["ul_self_training"] + " × 2",
        w["ul_temperature"].format(t="1.77"),
        w["ul_tells"].format(n="40", error="0.010"),
        w["ul_counted"].format(share="42%", threshold="0.613"),
    )
    for words in (*figures, *told):
        assert words in page, words
    assert w["ul_chance"] not in page
    assert EVIL not in page


def test_a_gain_that_may_be_chance_is_called_so(make_records, tmp_path):
    run = make_records(tmp_path / "run")
    written(run, methods=(method("propagation", 0.03, half=0.05, chosen=True),), chosen="propagation")
    assert WORDS["en"]["ul_chance"] in build(run).read_text(encoding="utf-8")


def test_nothing_used(make_records, tmp_path):
    run = make_records(tmp_path / "run")
    written(run, methods=(method("propagation", -0.03),), skipped={"pretraining": f"no {EVIL}"}, chosen=None)
    page, w = build(run).read_text(encoding="utf-8"), WORDS["en"]
    assert w["ul_unused"].format(metric="f1_macro", without="0.7000") in page
    assert w["ul_budget"] not in page
    assert f"{w['ul_pretraining']}: {w['ul_skipped']}" in page
    assert EVIL not in page
    assert "without labels" not in write_card(run).read_text(encoding="utf-8")


def test_what_helps_may_be_outside_the_budget(make_records, tmp_path):
    run = make_records(tmp_path / "run")
    written(run, methods=(method("propagation", 0.05),), chosen=None)
    assert WORDS["en"]["ul_budget"] in build(run).read_text(encoding="utf-8")


def test_the_card_says_what_it_learned_from(make_records, tmp_path):
    run = make_records(tmp_path / "run")
    written(run, methods=METHODS, chosen="self_training")
    card = write_card(run).read_text(encoding="utf-8")
    assert "1,200 texts, self_training): f1_macro on validation 0.7456 with them, 0.7000 without." in card


def test_every_method_has_words():
    from tunewell.unlabelled import METHODS as NAMES

    for lang in ("en", "zh"):
        assert all(f"ul_{name}" in WORDS[lang] for name in (*NAMES, "simcse", "mlm", "rule_likely", "rule_sure"))
    assert {k for k in WORDS["en"] if k.startswith("ul_")} == {k for k in WORDS["zh"] if k.startswith("ul_")}
