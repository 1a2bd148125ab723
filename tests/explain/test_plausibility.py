"""Agreement with human highlights: figures by hand, cells in all their forms, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tunewell.errors import DataError
from tunewell.explain.plausibility import agreement, marks


def explanation(text: str, scores: list[float]) -> Any:
    """One whose words stand between spaces."""
    spans, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    return SimpleNamespace(text=text, spans=tuple(spans), scores=tuple(scores), part=(0,) * len(spans))


def test_figures_by_hand() -> None:
    """Highlighted at ranks 1 and 3: AUPRC (1 + 2/3)/2, one of the two top words right; at ranks 1 and 2: 1 and 1."""
    es = [explanation("a b c d", [3.0, 2.0, 1.0, 0.0]), explanation("a b c d", [0.0, 3.0, 2.0, 1.0])]
    found = agreement(es, ["1 0 1 0", [0, 1, 1, 0]])
    assert found.auprc.value == pytest.approx((5 / 6 + 1) / 2) and found.token_f1.value == pytest.approx(0.75)
    assert found.auprc_gain.value == pytest.approx(found.auprc.value - found.random_auprc.value)
    assert (found.texts, found.left_out) == (2, 0)


def test_random_words_agree_as_chance_has_it() -> None:
    """Two of four words at random: F1 is 1/2 on average, and the mean AUPRC over the six orders is 0.6806."""
    es = [explanation("a b c d", [3.0, 2.0, 1.0, 0.0])] * 60
    found = agreement(es, [[1, 1, 0, 0]] * 60)
    assert found.random_token_f1.value == pytest.approx(0.5, abs=0.03)
    assert found.random_auprc.value == pytest.approx((1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6, abs=0.03)


def test_words_that_the_model_never_saw_do_not_count() -> None:
    e = explanation("a b c d", [3.0, 2.0, 1.0, 0.0])
    cut = SimpleNamespace(text=e.text, spans=e.spans[:3], scores=e.scores[:3], part=(0,) * 3)
    assert agreement([cut], ["1 0 0 1"]).auprc.value == 1.0


@pytest.mark.parametrize("cell", ["1 0 2", "yes no", "[1, null]"])
def test_other_values_are_refused(cell: str) -> None:
    with pytest.raises(DataError, match="row 3: highlights"):
        marks(cell, "row 3")


def test_highlights_must_be_as_many_as_words() -> None:
    with pytest.raises(DataError, match="row 1: 2 highlights for 4 words"):
        agreement([explanation("a b c d", [1.0] * 4)], ["1 0"])
    with pytest.raises(DataError, match="no text has some words highlighted"):
        agreement([explanation("a b", [1.0, 0.0])], ["1 1"])


def test_the_command_compares_with_a_column(tiny_classifier: Path, tmp_path: Path) -> None:
    from tunewell.cli import app

    data = tmp_path / "marked.jsonl"
    rows = [{"text": "the crew was great today", "why": "0 0 0 1 0"}, {"text": "awful seat", "why": "1 0"}]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = ["explain", str(tiny_classifier), "--data", str(data), "--method", "occlusion"]
    done = CliRunner().invoke(app, [*asked, "--highlights", "why"])
    assert done.exit_code == 0, done.output
    assert "agreement with people on 2 texts" in done.output and "random words" in done.output
    done = CliRunner().invoke(app, [*asked, "--highlights", "whi"])
    assert done.exit_code == 2 and "no column `whi`" in done.output
