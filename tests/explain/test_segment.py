"""Words of a text and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewell.errors import DataError
from tunewell.explain.segment import joined, spans_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Don't go -- it's well-known, 3.5 stars!!",
            ["Don't", "go", "--", "it's", "well-known", ",", "3.5", "stars", "!!"],
        ),
        ("naïve café", ["naïve", "café"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("مَرْحَبًا بك", ["مَرْحَبًا", "بك"]),
        ("good😀bad", ["good", "😀", "bad"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in spans_of(text)] == words


def test_chinese_is_cut_where_tokens_start() -> None:
    text = "房间很干净。"
    assert [text[a:b] for a, b in spans_of(text, [0, 2, 3, 5])] == ["房间", "很", "干净", "。"]


@given(st.text(max_size=60))
def test_spans_are_in_order_and_hold_everything_but_spaces(text: str) -> None:
    spans = spans_of(text)
    assert all(a < b for a, b in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(not c.isalnum() or i in covered for i, c in enumerate(text))


def test_words_that_share_a_token_are_one() -> None:
    spans, groups = joined([(0, 4), (4, 6), (7, 9)], [(0, 6), (7, 8), (8, 9), (6, 7)])
    assert spans == [(0, 6), (7, 9)]
    assert groups == [0, 1, 1, -1]


def test_every_token_has_its_word(make_items: Callable) -> None:
    (item,) = make_items(["the crew was great!"])
    assert item.words == ("the", "crew", "was", "great", "!")
    assert item.word_of[0] == item.word_of[-1] == -1
    assert sorted(set(item.word_of[1:-1])) == [0, 1, 2, 3, 4]
    assert item.to_words(np.ones(len(item.ids))).sum() == len(item.ids) - 2


def test_pairs_know_their_side(make_items: Callable) -> None:
    (item,) = make_items(["good seat"], ["bad meal today"])
    assert item.words == ("good", "seat", "bad", "meal", "today")
    assert item.part == (0, 0, 1, 1, 1)
    assert item.spans[2] == (0, 3)


def test_words_beyond_the_window_are_counted(make_items: Callable) -> None:
    (item,) = make_items(["seat " * 50], max_length=12)
    assert len(item.words) + item.cut == 50
    assert item.cut > 0


def test_a_text_that_the_tokenizer_drops_is_named(make_items: Callable) -> None:
    with pytest.raises(DataError, match=r"text 2: no word of this text reaches the model"):
        make_items(["fine", "\x00\x01"])
