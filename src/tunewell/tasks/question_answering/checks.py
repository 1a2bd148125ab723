"""What can be wrong with questions and answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewell.data.split import text_key
from tunewell.results import Finding
from tunewell.tasks.checking import SHOWN, example

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.results import Example


def findings(splits: dict[str, Dataset], unreachable: dict[str, list[int]], longest: int) -> list[Finding]:
    """Answers cut away or not at their offset, contradicting answers to one question, contexts in two splits, how many
    questions have no answer.

    Args:
        unreachable: split -> rows whose answer lies whole in no window, or is longer than `longest` tokens.
    """
    return [
        *_repeated(splits),
        *_moved(splits),
        *_shared(splits),
        *_cut_away(splits, unreachable, longest),
        *_unanswerable(splits),
    ]


def _repeated(splits: dict[str, Dataset]) -> Iterator[Finding]:
    """The same question on the same context twice in a split, with an answer here and none there."""
    for name, rows in splits.items():
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, (question, context) in enumerate(zip(rows["text"], rows["text_pair"], strict=True)):
            groups[text_key(question), context].append(i)
        labels = rows["label"]
        torn = [g for g in groups.values() if len(g) > 1 and len({bool(labels[i]) for i in g}) > 1]
        if torn:
            shown: list[Example] = []
            for g in torn[:SHOWN]:
                row: dict[str, Any] = rows[g[0]]
                answers = ["; ".join(labels[i]) or "no answer" for i in g[:3]]
                shown.append(example(row, row["text"], " / ".join(a[:60] for a in answers)))
            yield Finding(
                code="conflicting-answers",
                severity="warning",
                split=name,
                title="Questions with an answer here and none there",
                count=sum(map(len, torn)),
                message=f"{len(torn):,} questions stand more than once in {name} with the same context, "
                "answered in one row and unanswerable in another: no model can be right on both.",
                examples=tuple(shown),
                remedy="bring the answers of one question together in one row",
            )


def _moved(splits: dict[str, Dataset]) -> Iterator[Finding]:
    for name, rows in splits.items():
        places = [i for i, n in enumerate(rows["moved"]) if n]
        if places:
            share = len(places) / len(rows)
            yield Finding(
                code="answer-offset",
                severity="warning" if share > 0.05 else "notice",
                split=name,
                title="Answers that do not stand at their offset",
                count=len(places),
                message=f"{len(places):,} rows of {name} ({share:.1%}) have answers that do not stand where "
                "answer_start says; the nearest place where they do stand was taken.",
                examples=tuple(
                    example(rows[i], rows[i]["text"], f"{rows[i]['label'][0]!r} taken at {rows[i]['starts'][0]}")
                    for i in places[:SHOWN]
                ),
                remedy="offsets count characters from 0; those of bytes or of a text that was changed later do not fit",
            )


def _shared(splits: dict[str, Dataset]) -> Iterator[Finding]:
    """Other questions on the same text in two splits: the model has seen the text of the test."""
    known = set(splits["train"]["text_pair"])
    for name in ("validation", "test"):
        if name not in splits:
            continue
        rows = splits[name]
        places = [i for i, context in enumerate(rows["text_pair"]) if context in known]
        if places:
            yield Finding(
                code="shared-contexts",
                severity="warning",
                split=f"train/{name}",
                title="Texts that hold answers in two splits",
                count=len(places),
                message=f"{len(places):,} of {len(rows):,} questions of {name} ({len(places) / len(rows):.1%}) are on "
                f"a text that is also in train: scores on {name} say little about new texts.",
                examples=tuple(example(rows[i], rows[i]["text"]) for i in places[:SHOWN]),
                remedy="keep all questions on one text in one split; files split by tunewell do",
            )


def _cut_away(splits: dict[str, Dataset], unreachable: dict[str, list[int]], longest: int) -> Iterator[Finding]:
    for name, places in unreachable.items():
        if places:
            rows = splits[name]
            share = len(places) / len(rows)
            yield Finding(
                code="answer-cut-away",
                severity="warning" if share > 0.01 else "notice",
                split=name,
                title="Answers that the model cannot give",
                count=len(places),
                message=f"{len(places):,} rows of {name} ({share:.1%}) have answers that lie whole in no window "
                f"or are longer than max_answer_length ({longest} tokens).",
                examples=tuple(
                    example(rows[i], (rows[i]["label"] or [""])[0], rows[i]["text"]) for i in places[:SHOWN]
                ),
                remedy="raise max_answer_length, max_length or doc_stride",
            )


def _unanswerable(splits: dict[str, Dataset]) -> Iterator[Finding]:
    shares = {name: sum(not cell for cell in rows["label"]) / len(rows) for name, rows in splits.items()}
    if shares["test"] and not shares["train"]:
        yield Finding(
            code="unanswerable-unseen",
            severity="warning",
            split="train/test",
            title="Unanswerable questions in test alone",
            count=round(shares["test"] * len(splits["test"])),
            message=f"{shares['test']:.1%} of the test questions have no answer, but all training questions have one: "
            "the model does not learn when to say nothing.",
            remedy="add unanswerable questions to the training rows",
        )
