"""The first sentence of the verdict says what the figures beside it say."""

from __future__ import annotations

import json

import pytest

from tunewell.report.verdict import verdict


@pytest.mark.parametrize(
    ("baseline", "better", "said", "on_page"),
    [
        (0.6, True, "better than every baseline beyond chance", "明显好于所有基线"),
        (
            0.7,
            None,
            "that it is better than baseline word (0.700) cannot be told from chance",
            "是否好于 baseline word",
        ),
        (
            0.9,
            None,
            "less than baseline word (0.900), but so many rows do not tell which",
            "低于 baseline word（0.900）",
        ),
        (0.9, False, "beyond chance worse than baseline word (0.900)", "明显差于 baseline word"),
    ],
)
def test_the_tuned_model_beside_the_best_baseline(make_records, tmp_path, baseline, better, said, on_page):
    """The tuned model of the records reaches 0.75."""
    run = make_records(tmp_path / "run")
    records = json.loads((run / "baselines.json").read_text(encoding="utf-8"))
    (record,) = records["baselines"]
    record["evaluation"]["metrics"][record["evaluation"]["metric"]]["value"] = baseline
    record["comparison"]["better"] = better
    (run / "baselines.json").write_text(json.dumps(records), encoding="utf-8")
    english, chinese = verdict(run)[0], verdict(run, "zh")[0]
    assert "f1_macro 0.750" in english and said in english
    assert "0.750" in chinese and on_page in chinese
