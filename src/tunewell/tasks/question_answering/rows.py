"""Files to rows of questions: SQuAD 1.1 and 2.0 JSON, flat rows, CSV.

Canonical rows have `text` (the question), `text_pair` (the context), `label` (the reference answers, none for
an unanswerable question), `starts` (their character offsets), `moved` (how many of them did not stand where the
file said), `id`, `group`, `row` and `source`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, nearest
from tunewell.tasks.rows import opened

if TYPE_CHECKING:
    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe

QUESTIONS, CONTEXTS = ("question", "query", "问题"), ("context", "passage", "paragraph", "document", "文章")
ANSWERS, STARTS, IDS = ("answers", "answer", "answer_text", "答案"), ("answer_start", "start", "answer_starts"), ("id",)


@dataclass(frozen=True)
class Roles:
    """Which column is what; `squad` for nested JSON, whose names are fixed."""

    question: str
    context: str
    answers: str
    start: str | None = None
    id: str | None = None
    group: str | None = None
    squad: bool = False


def resolve(recipe: Recipe, loaded: Loaded) -> Roles:
    """The roles of a file's columns.

    Raises:
        DataError: a column that was named is missing, or a role that nothing fits.
    """
    names = loaded.dataset.column_names
    if "paragraphs" in names and not recipe.question:
        return Roles("question", "context", "answers", "answer_start", "id", recipe.group, squad=True)
    lower = {n.lower(): n for n in names}

    def role(name: str, asked: str | None, usual: tuple[str, ...], needed: bool = True) -> str | None:
        if asked is not None and asked not in names:
            hint = nearest(asked, names)
            raise DataError(
                f"no column `{asked}`", where=loaded.source, expected="one of " + ", ".join(names), remedy=hint
            )
        found = asked or next((lower[u] for u in usual if u in lower), None)
        if found is None and needed:
            raise DataError(
                f"cannot tell which column holds the {name}",
                where=loaded.source,
                expected="SQuAD JSON, or columns question, context and answers",
                remedy=f"name it: --{name} COLUMN (the file has {', '.join(names[:10])})",
            )
        return found

    return Roles(
        role("question", recipe.question, QUESTIONS) or "",
        role("context", recipe.context, CONTEXTS) or "",
        role("answers", recipe.answers, ANSWERS) or "",
        role("answer_start", None, STARTS, needed=False),
        role("id", None, IDS, needed=False),
        role("group", recipe.group, (), needed=False),
    )


def canonical(loaded: Loaded, roles: Roles) -> tuple[list[dict[str, Any]], dict[str, int], Counter[str]]:
    """Rows, the number of dropped ones by reason, and what was mended.

    An answer that does not stand at its offset is taken to be the nearest place where it does stand; an
    answer that stands nowhere in the context is left out, and with it the row if it was the only one.
    """
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    mended: Counter[str] = Counter()
    questions = _squad(loaded) if roles.squad else _flat(loaded, roles)
    for number, q in enumerate(questions, 1):
        where = f"{loaded.source}:{q.get('row', number)}"
        question, context = q["question"], q["context"]
        if not isinstance(question, str) or not question.strip():
            dropped["no question"] += 1
            continue
        if not isinstance(context, str) or not context.strip():
            dropped["no context"] += 1
            continue
        texts, starts, lost, elsewhere = [], [], 0, 0
        for text, start in answers_of(q["answers"], q.get("start"), where):
            if start is not None:  # an answer is the same without the spaces around it
                start += len(text) - len(text.lstrip())
            text = text.strip()
            place, moved = locate(context, text, start)
            if place is None:
                lost += 1
                continue
            mended["answer not at its offset"] += moved
            elsewhere += moved
            texts.append(text)
            starts.append(place)
        if lost and not texts:
            dropped["answer not in the context"] += 1
            continue
        mended["answer not in the context"] += lost
        rows.append(
            {
                "text": question.strip(),
                "text_pair": context,
                "label": texts,
                "starts": starts,
                "moved": elsewhere,
                "id": str(q["id"]) if q.get("id") is not None else str(number),
                "group": str(q["group"]) if q.get("group") is not None else _key(context),
                "row": int(q.get("row", number)),
                "source": loaded.source,
            }
        )
    return rows, dict(dropped), mended


def _key(context: str) -> str:
    """Rows on one context stay in one split; the hash is shorter than the context."""
    return hashlib.blake2b(context.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _flat(loaded: Loaded, roles: Roles) -> Iterator[dict[str, Any]]:
    for i, row in enumerate(loaded.dataset, 1):
        yield {
            "question": row[roles.question],
            "context": row[roles.context],
            "answers": row[roles.answers],
            "start": row[roles.start] if roles.start else None,
            "id": row[roles.id] if roles.id else None,
            "group": row[roles.group] if roles.group else None,
            "row": i,
        }


def _squad(loaded: Loaded) -> Iterator[dict[str, Any]]:
    """The questions of nested JSON, numbered through; an impossible one has no answers."""
    number = 0
    for article_number, article in enumerate(loaded.dataset, 1):
        for paragraph in _nested(article.get("paragraphs"), loaded.source, article_number):
            for qa in _nested(paragraph.get("qas"), loaded.source, article_number):
                number += 1
                impossible = bool(qa.get("is_impossible"))
                yield {
                    "question": qa.get("question"),
                    "context": paragraph.get("context"),
                    "answers": [] if impossible else qa.get("answers") or [],
                    "id": qa.get("id"),
                    "row": number,
                }


def _nested(value: Any, source: str, row: int) -> list[dict[str, Any]]:
    value = opened(value)
    if value is None:
        return []
    if not isinstance(value, list) or any(not isinstance(v, dict) for v in value):
        raise DataError(
            "is not SQuAD JSON", where=f"{source}:{row}", expected="articles with paragraphs, paragraphs with qas"
        )
    return value


def answers_of(value: Any, start: Any, where: str) -> list[tuple[str, int | None]]:
    """(text, offset or None) of each reference answer; empty for an unanswerable question.

    Args:
        value: {"text": [...], "answer_start": [...]}, a list of {"text", "answer_start"}, a list of texts, one
            text, JSON of any of these, or None.
        start: the offset in a column of its own, if any.

    Raises:
        DataError: offsets that are no numbers, or not as many as texts.
    """
    value = opened(value)
    if value is None or value != value or value == "":
        return []
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else list(texts or [])
        starts = [starts] if isinstance(starts, int) else list(starts or [])
    elif isinstance(value, list):
        texts = [v.get("text") if isinstance(v, dict) else v for v in value]
        starts = [v.get("answer_start") if isinstance(v, dict) else None for v in value]
    else:
        texts, starts = [str(value)], [start]
    if starts and len(starts) != len(texts):
        raise DataError(
            f"{len(texts)} answers but {len(starts)} offsets", where=where, expected="one answer_start for each answer"
        )
    out: list[tuple[str, int | None]] = []
    for text, offset in zip(texts, starts or [None] * len(texts), strict=True):
        if text is None or not str(text).strip():
            continue
        try:
            number = None if offset is None or offset == "" or offset != offset else int(float(offset))
        except (TypeError, ValueError):
            raise DataError(
                f"answer_start {offset!r} is not a number", where=where, expected="the answer's first character"
            ) from None
        out.append((str(text), None if number is None or number < 0 else number))
    return out


def locate(context: str, text: str, start: int | None) -> tuple[int | None, bool]:
    """Where an answer stands, and whether that is another place than was said.

    >>> locate("a cat, a cat", "cat", 2), locate("a cat, a cat", "cat", 8), locate("a cat", "dog", 0)
    ((2, False), (9, True), (None, False))
    """
    if start is not None and context.startswith(text, start):
        return start, False
    places: list[int] = []
    at = context.find(text)
    while at >= 0 and len(places) < 1000:
        places.append(at)
        at = context.find(text, at + 1)
    if not places:
        return None, False
    return min(places, key=lambda p: abs(p - (start or 0))), start is not None
