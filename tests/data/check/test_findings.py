"""Every finding by a planted case, with its exact count; rows in which nothing is wrong give none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tunewell.data.check import render


def only(report, code: str, split: str = ""):
    """The one finding of this code."""
    (finding,) = [f for f in report.findings if f.code == code and f.split == split]
    return finding


def test_nothing_wrong_nothing_found(rows, checked):
    report = checked(rows)
    assert report.findings == ()
    assert report.rows == 80
    assert "nothing found" in render(report)


def test_duplicates_count_the_repeats(rows, checked, found):
    rows["train"] += [rows["train"][0], {**rows["train"][0], "text": f"  {rows['train'][0]['text'].upper()} "}]
    report = checked(rows)
    assert found(report) == {("duplicates", "train"): 2}
    assert only(report, "duplicates", "train").examples[0].where == "train.csv:41"


def test_conflicting_labels_count_all_rows_of_the_text(rows, checked, found):
    rows["train"] += [{**rows["train"][0], "label": "good"}]
    report = checked(rows)
    assert found(report) == {("conflicting-labels", "train"): 2}
    finding = only(report, "conflicting-labels", "train")
    assert finding.severity == "warning"  # 2 of 41 rows
    assert [(e.where, e.note) for e in finding.examples] == [("train.csv:1", "bad"), ("train.csv:41", "good")]


def test_many_conflicting_labels_are_an_error(rows, checked):
    rows["train"] += [{**rows["train"][i], "label": rows["train"][i + 1]["label"]} for i in range(4)]
    finding = only(checked(rows), "conflicting-labels", "train")
    assert (finding.severity, finding.count) == ("error", 8)


def test_leakage_names_the_row_it_repeats(rows, checked, found):
    rows["test"][3]["text"] = rows["train"][6]["text"]
    rows["validation"][5]["text"] = rows["test"][7]["text"]
    report = checked(rows)
    assert found(report) == {("leakage", "train/test"): 1, ("leakage", "validation/test"): 1}
    finding = only(report, "leakage", "train/test")
    assert finding.severity == "error"
    assert (finding.examples[0].where, finding.examples[0].note) == ("test.csv:4", "as train.csv:7")


def test_near_duplicates_within_and_across_splits(rows, checked, found):
    rows["train"].append({**rows["train"][0], "text": rows["train"][0]["text"] + " !!"})
    rows["test"][0]["text"] = rows["train"][2]["text"] + " zz"
    report = checked(rows)
    assert found(report) == {("near-duplicates", "train"): 1, ("near-leakage", "train/test"): 1}
    assert only(report, "near-leakage", "train/test").severity == "warning"
    assert only(report, "near-duplicates", "train").examples[0].where == "train.csv:41"


def test_short_texts_are_not_taken_for_near_duplicates(rows, checked):
    rows["train"] += [{"text": "very good seat!", "label": "good"}, {"text": "very good seat", "label": "good"}]
    assert checked(rows).findings == ()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("broken-characters", "the cafÃ© was closed when we came to it"),
        ("broken-characters", "what \ufffd is this supposed to be then"),
        ("html", "a <b>bold</b> claim about the seats"),
        ("html", "fish &amp; chips on the pier at noon"),
        ("email", "write to jane.doe@example.org about it"),
        ("phone", "call +44 20 7946 0958 in the morning"),
        ("card", "my card 4111 1111 1111 1111 was charged"),
    ],
)
def test_patterns(rows, checked, code: str, text: str):
    rows["test"][4]["text"] = text
    finding = only(checked(rows), code)
    assert finding.count == 1
    assert finding.examples[0].where == "test.csv:5"


@pytest.mark.parametrize(("secret", "code"), [("jane.doe@example.org", "email"), ("4111 1111 1111 1111", "card")])
def test_personal_data_is_masked_in_the_evidence(rows, checked, secret: str, code: str):
    rows["train"][0]["text"] = f"so {secret} it is and nothing else"
    report = checked(rows)
    assert secret not in report.model_dump_json()
    assert secret not in render(report)


def test_a_number_with_a_wrong_check_digit_is_no_card(rows, checked, found):
    rows["train"][0]["text"] = "order 4111111111111112 has not come yet"
    assert ("card", "") not in found(checked(rows))


def test_label_variants_are_an_error(rows, checked):
    for i, variant in ((0, "Bad"), (2, "bad "), (4, "BAD")):
        rows["train"][i]["label"] = variant
    finding = only(checked(rows), "label-variants")
    assert (finding.severity, finding.count) == ("error", 3)
    assert finding.remedy == "spell them all 'bad'"


def test_rare_classes_and_imbalance(rows, checked, make_text, found):
    rows["train"] += [{"text": make_text(10, 9_000 + i), "label": "odd"} for i in range(2)]
    report = checked(rows)
    assert found(report) == {("rare-classes", "train"): 1, ("imbalance", "train"): 20}
    assert "odd (2)" in only(report, "rare-classes", "train").message
    assert "10 times fewer" in only(report, "imbalance", "train").message


def test_label_drift(rows, checked, make_text):
    rows["test"] = [{"text": make_text(10, 5_000 + i), "label": "good" if i else "bad"} for i in range(60)]
    finding = only(checked(rows), "label-drift", "train/test")
    assert finding.count == 60
    assert "50% of train but 2% of test" in finding.message


def test_group_leakage(rows, checked):
    for name, part in rows.items():
        for i, row in enumerate(part):
            row["group"] = f"{name}{i}"
    rows["test"][0]["group"] = rows["test"][1]["group"] = "train3"
    finding = only(checked(rows), "group-leakage", "train/test")
    assert (finding.severity, finding.count) == ("error", 1)
    assert "train3" in finding.message


def test_language_mix(rows, checked):
    for i in range(12):
        rows["train"][i]["text"] = f"这家酒店的房间非常干净,服务也很好,第{i}次来"
    report = checked(rows)
    finding = only(report, "language-mix")
    assert finding.severity == "notice"
    assert finding.count >= 12
    assert report.languages["zh"] == pytest.approx(12 / 80, abs=1e-4)


def test_truncation_is_counted_in_rows_and_tokens(rows, checked, tiny_model):
    from tunewell.models.load import load_tokenizer

    tokenizer = load_tokenizer("tiny", str(tiny_model))
    rows["train"] = [{**row, "text": "good seat"} if i else row for i, row in enumerate(rows["train"])]
    rows["train"][0]["text"] = "good " * 30
    report = checked(rows, tokenizer=tokenizer, max_length=10)
    lengths = {n: [len(tokenizer(r["text"])["input_ids"]) for r in part] for n, part in rows.items()}
    over = {n: [max(0, length - 10) for length in part] for n, part in lengths.items()}
    assert over["train"] == [22] + [0] * 39
    for account in report.accounts:
        assert account.tokens == sum(lengths[account.split])
        assert account.tokens_cut == sum(over[account.split])
        assert account.truncated == sum(n > 0 for n in over[account.split])
    assert only(report, "truncated").count == sum(n > 0 for part in over.values() for n in part)
    assert tokenizer("good " * 30, truncation=True, max_length=5)["input_ids"].__len__() == 5  # as before the count


@pytest.mark.parametrize("reason", ["empty text", "no label", "label is not a number"])
def test_dropped_rows_are_findings_and_the_account_adds_up(rows, checked, reason: str):
    report = checked(rows, dropped={"train": {reason: 3}})
    finding = only(report, "dropped-" + reason.replace(" ", "-"), "train")
    assert (finding.count, finding.severity) == (3, "warning")
    for account in report.accounts:
        assert account.read == account.used + sum(account.dropped.values())
    assert f"train: 3 {reason}" in render(report)


def test_an_account_that_does_not_add_up_is_a_fault_of_ours(rows, checked):
    from tunewell.data.check.checker import complete
    from tunewell.results import Account

    with pytest.raises(AssertionError, match="does not add up"):
        complete(Account(split="train", source="x", read=5, used=3), None, None)  # type: ignore[arg-type]


def test_a_planted_wrong_label_is_the_first_suspect(checked, make_text):
    def part(n: int, first: int) -> list[dict]:
        moods = {"bad": "awful broken dirty", "good": "lovely bright superb"}
        labels = [("bad", "good")[i % 2] for i in range(n)]
        return [{"text": f"{moods[la]} {make_text(3, first + i)}", "label": la} for i, la in enumerate(labels)]

    rows = {"train": part(100, 0), "validation": part(20, 1_000), "test": part(20, 2_000)}
    rows["train"][7]["label"] = "bad"
    finding = only(checked(rows), "label-suspects", "train")
    assert finding.count == 1
    assert finding.examples[0].where == "train.csv:8"
    assert "TF-IDF features" in finding.message
    vectors = np.array([[1.0 if "lovely" in row["text"] else -1.0, 0.1 * i] for i, row in enumerate(rows["train"])])
    some = np.arange(0, 80)
    finding = only(checked(rows, embeddings=vectors[some], embedded=some), "label-suspects", "train")
    assert (finding.count, finding.examples[0].where) == (1, "train.csv:8")
    assert "of a sample of 80" in finding.message
    assert "embeddings" in finding.message


def test_scores_far_from_what_was_expected_are_suspects(checked, make_text):
    rng = np.random.default_rng(0)

    def part(n: int, first: int) -> list[dict]:
        return [{"text": make_text(6, first + i), "label": 3.0 + 0.1 * float(rng.normal())} for i in range(n)]

    rows = {"train": part(80, 0), "validation": part(10, 1_000), "test": part(10, 2_000)}
    rows["train"][11]["label"] = 9.0
    report = checked(rows, task="text-regression")
    finding = only(report, "label-suspects", "train")
    assert finding.examples[0].where == "train.csv:12"
    assert report.label_summary["max"] == 9.0
    assert report.class_counts == {}


def test_several_labels_a_row_are_counted_label_by_label(rows, checked):
    for part in rows.values():
        for row in part:
            row["label"] = [row["label"], "both"]
    report = checked(rows)
    assert report.class_counts["train"] == {"both": 40, "bad": 20, "good": 20}


def test_errors_stand_first_and_every_code_is_in_the_docs(rows, checked, root):
    rows["train"] += [rows["train"][0]]
    rows["train"][1]["label"] = "Good"
    rows["train"][2]["text"] = "a <b>bold</b> claim about the seats"
    severities = [f.severity for f in checked(rows).findings]
    rank = ["error", "warning", "notice"]
    assert {"error", "notice"} <= set(severities)
    assert all(rank.index(a) <= rank.index(b) for a, b in pairwise(severities))
    page = (root / "docs" / "concepts" / "check.md").read_text(encoding="utf-8")
    assert all(f"`{f.code}`" in page for f in checked(rows).findings)


def test_progress_is_told_of_every_row(rows, checked):
    done: list[int] = []
    tell: Callable[[int], None] = done.append
    checked(rows, progress=tell)
    assert sum(done) == 2 * 80


def test_one_row_is_told_in_the_singular(rows, checked):
    rows["train"] += [rows["train"][0]]
    rows["test"][3]["text"] = rows["train"][6]["text"]
    rows["test"][4]["text"] = "a <b>bold</b> claim about the seats"
    report = checked(rows)
    assert only(report, "duplicates", "train").message.startswith("1 row of train repeats an earlier row with")
    assert only(report, "leakage", "train/test").message.startswith("1 of 20 rows of test (5.0%) has a text that")
    assert only(report, "html").message == "1 row holds HTML tags or entities."
