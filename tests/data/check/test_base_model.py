"""A base model that does not know the language of the texts is named, with the flag that mends it."""

from __future__ import annotations

import pytest

from tunewell.data.check.base_model import unknown_language
from tunewell.results import CheckReport


def report(languages: dict[str, float]) -> CheckReport:
    return CheckReport(findings=(), accounts=(), task="text-classification", columns={}, languages=languages, rows=200)


def test_chinese_under_an_english_model() -> None:
    finding = unknown_language(report({"zh": 0.9, "en": 0.1}), "sentence-transformers/all-MiniLM-L6-v2")
    assert finding is not None
    assert (finding.code, finding.severity, finding.count) == ("unknown-language", "warning", 180)
    assert "90% of the texts are not in English (most are in zh)" in finding.message
    assert "--model multilingual-e5-small" in finding.remedy


@pytest.mark.parametrize(
    ("languages", "model"),
    [
        ({"en": 0.6, "zh": 0.4}, "all-MiniLM-L6-v2"),
        ({}, "all-MiniLM-L6-v2"),  # no text was long enough to tell
        ({"zh": 1.0}, "multilingual-e5-small"),
        ({"zh": 1.0}, "bert-base-chinese"),  # not ours to judge
    ],
)
def test_nothing_to_say(languages: dict[str, float], model: str) -> None:
    assert unknown_language(report(languages), model) is None
