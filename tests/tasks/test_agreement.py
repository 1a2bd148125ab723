"""Whether a rewritten answer may stand in its reference's place: every rule on cases worked by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunewell.report.words_sdft import EN, ZH
from tunewell.strategies.sdft import TEMPLATE, check_template, filled
from tunewell.tasks.generation.agreement import (
    REASONS,
    TAKEN,
    Rules,
    about,
    final_answer,
    numbers,
    numbers_kept,
    reason,
)
from tunewell.tasks.generation.score import token_f1

RULES = Rules(0.6, 2.0, TEMPLATE)
ASKED, REFERENCE = "Where is the key?", "The key is in the red box."


def why(written: str, reference: str = REFERENCE, asked: str = ASKED, *, ended: bool = True, rules: Rules = RULES):
    return reason(asked, reference, written, ended=ended, rules=rules)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("The key is inside the red box.", TAKEN),
        ("", "empty"),
        (" \n", "empty"),
        ("I'm sorry, but I can't tell where the red key box is.", "refusal"),
        ("Your own response: the key is in the red box.", "about"),
        ("### Response:\nThe key is in the red box.", "about"),
        ("As the reference answer says, the key is in the red box.", "about"),
        ("The key  is in the red box.", "same"),  # but for spaces
        ("Where is the key", "question"),
        ("The key is in the red box, " * 3, "length"),  # 81 characters, more than 2 · 26 + 20
        ("Red box 7 is where the key is.", "numbers"),
        ("Nobody knows.", "similarity"),
    ],
)
def test_the_first_rule_that_is_broken_is_named(written, expected):
    assert why(written) == expected


def test_an_answer_that_was_cut_off_is_not_taken():
    assert why("The key is inside the red box.", ended=False) == "cut"


def test_the_threshold_is_token_f1():
    """5 words in common of 7 and 5: F1 = 2 · 5 / 12."""
    written = "key is in red box"
    assert token_f1(written, REFERENCE) == pytest.approx(10 / 12)
    assert why(written, rules=Rules(10 / 12, 2.0, TEMPLATE)) == TAKEN
    assert why(written, rules=Rules(0.84, 2.0, TEMPLATE)) == "similarity"


def test_bounds_of_the_length():
    reference = "one two three four five six seven eight nine ten"  # 48 characters
    long, short = " ".join(reference.split() + ["ten"] * 18), "one two"
    assert len(long) == 48 + 18 * 4 == 120
    assert why(long, reference, rules=Rules(0.0, 2.0, TEMPLATE)) == "length"  # 120 > 2 · 48 + 20
    assert why(long, reference, rules=Rules(0.0, 2.1, TEMPLATE)) == TAKEN  # 120 ≤ 2.1 · 48 + 20 = 120.8
    assert why(short, reference, rules=Rules(0.0, 2.0, TEMPLATE)) == "length"  # 7 · 2 + 20 < 48
    assert why(short, reference, rules=Rules(0.0, 4.0, TEMPLATE)) == TAKEN  # 7 · 4 + 20 = 48


def test_a_refusal_that_was_one_may_stay_one():
    assert why("I can't tell you, I'm sorry.", "I'm sorry, I can't tell you that.") == TAKEN


def test_what_stands_in_the_data_is_no_talk_about_the_request():
    assert not about("The reference answer is yes.", ("Compare with the reference answer.",), [])
    assert about("The reference answer is yes.", ("Compare.",), [])
    assert about("参考答案是红色", ("颜色？",), [])
    assert about("Task: say it", ("say it",), ["Task:"]) and not about("say it", ("say it",), ["Task:"])


# ---------------------------------------------------------------- numbers


def test_numbers_are_compared_by_value():
    assert numbers("1,234 and 3.50 and 2,5") == {Decimal(1234), Decimal("3.5"), Decimal("2.5")}
    assert numbers("2021.03.04") == {Decimal(2021), Decimal(3), Decimal(4)}
    assert numbers("1. first\n2) second") == set()


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Born in 1986, he scored 1000 points.", True),
        ("Born in 1986, he scored many points.", False),  # lost
        ("Born in 1986 in 2 parts, he scored 1,000 points.", False),  # gained
        ("Born in 1986, he scored 1,000 points in 12 games.", True),  # the instruction has it
        ("1. Born in 1986\n2. Scored 1,000 points", True),
    ],
)
def test_no_number_is_lost_or_gained(written, kept):
    assert numbers_kept("Tell me of his 12 games", "He was born in 1986 and scored 1,000 points.", written) is kept


# ---------------------------------------------------------------- final answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She has 6 * 7 = 42 apples.\n#### 42", "42"),
        ("#### 1,250.00", "1250"),
        ("#### -3", "-3"),
        (r"so it is \boxed{\frac{1}{2}}", None),  # nested braces are not read
        (r"so it is \boxed{x + 1}", "1"),
        ("The answer is 7. No: the answer is 8", "8"),  # the last one counts
        ("Therefore, the final answer is (B).", "b"),
        ("Answer: yes", "yes"),
        ("答案是 12 个", "12"),
        ("The answer is that nobody has ever been there at all.", None),  # a sentence
        ("Paris.", None),
    ],
)
def test_final_answers_by_hand(text, expected):
    assert final_answer(text) == expected


def test_reasoning_is_judged_by_its_final_answer_alone():
    """Yang et al. (2024): y' = ỹ if Extract(ỹ) = y, else y. Other steps and few words in common do not matter."""
    reference = "Half of 48 is 48 / 2 = 24. Altogether 48 + 24 = 72 clips.\n#### 72"
    other = "She sold 24 in May, as many as half of April's. In sum that makes 72.\n#### 72.0"
    strict = Rules(1.0, 2.0, TEMPLATE)
    assert why(other, reference, "How many clips, if 48 in April?", rules=strict) == TAKEN
    assert why(other.replace("72", "70"), reference, rules=strict) == "final"
    assert why(other.split("#")[0], reference, rules=strict) == "final"  # it comes to none


# ---------------------------------------------------------------- the template


def test_places_are_filled_once():
    assert filled("{instruction}|{response}", "a {answer}", "b {instruction}") == "a {answer}|b {instruction}"
    assert filled(TEMPLATE, "say one", "one").count("say one") == 1
    assert filled('{instruction} {"json": {answer}}', "a", "b") == 'a {"json": b}'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{answer}", "has no {instruction}"),
        ("{instruction}", "has no {answer}"),
        ("{instructions} {answer}", "did you mean `instruction`?"),
        ("{instruction} {answer} {context}", "has {context}, which nothing is put into"),
        ("", "has no {instruction}"),
    ],
)
def test_templates_that_cannot_be_filled(template, message):
    assert message in " ".join(check_template(template))


def test_every_reason_has_words():
    for words in (EN, ZH):
        assert {f"sd_r_{code}" for code in REASONS} == {key for key in words if key.startswith("sd_r_")}
    assert set(EN) == set(ZH)
