"""The page of a sequence: made from its summary alone, in both languages, with the figures it was given."""

from __future__ import annotations

import re

import pytest

from tunewell.report.sequence import SEQUENCE_WORDS, build
from tunewell.sequence.records import UNSEEN, SequenceSummary, TaskRow


def summary(**over):
    names = ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting")
    values = {
        "strategy": ("auto",), "tasks": ("a<b", "c"), "matrix": ((0.9, 0.4), (0.85, 0.7)),
        "average_accuracy": 0.775, "backward_transfer": -0.05, "forward_transfer": 0.1, "forgetting": 0.05,
        "intervals": dict.fromkeys(names, (-0.08, 0.01)), "matrix_intervals": (((0.8, 1.0), (0.3, 0.5)),) * 2,
        "unseen": UNSEEN, "base": (0.5, 0.3), "n_test": (100, 100),
        "rows": tuple(TaskRow(task=t, accuracy=(), seconds={"train": 3.0, "total": 4.0}) for t in ("a<b", "c")),
        "memory": {"memory": 0.01, "choice": "balanced", "rows": 7}, "model": "tiny", "seed": 1,
        "seconds": {"train": 6.0, "total": 9.0},
    }  # fmt: skip
    return SequenceSummary(**{**values, **over})


@pytest.mark.parametrize("lang", SEQUENCE_WORDS)
def test_figures_and_escapes(tmp_path, lang):
    page = build(tmp_path, summary(), lang).read_text(encoding="utf-8")
    assert "a&lt;b" in page
    assert "a<b" not in page
    text = re.sub(r"<[^>]+>", " ", page)
    for figure in ("0.775", "-0.050", "0.900", "0.850", "5.0", "[-1.0, 8.0]"):
        assert figure in text, figure
    assert page.count("<svg") == 2  # the lines of the tasks, the end; nothing was measured of retention
    assert 'style="color:var(--main)">●' in page


def test_words_are_the_same_in_both_languages():
    assert SEQUENCE_WORDS["en"].keys() == SEQUENCE_WORDS["zh"].keys()


def test_joint_has_one_row(tmp_path):
    missing = dict.fromkeys(("backward_transfer", "forward_transfer", "forgetting"))
    page = build(
        tmp_path,
        summary(matrix=((0.9, 0.7),), matrix_intervals=(((0.8, 1.0), (0.6, 0.8)),), strategy=("joint",), **missing),
    ).read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert "0.900" in page
