"""Batches of general text that go through the model in training beside the task's own.

Which texts, how many at a time and how often: about a tenth of the task's tokens, in batches of like
length, chosen before tuning, so that a teacher answers only the texts that the planned steps will use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning

SHARE = 0.1  # tokens of the general batch over tokens of the task batch
LONGEST = 64  # tokens of a general text
LEAST = 256  # tokens that a general batch should hold: smaller ones cost a pass through the model for little
RAREST = 4  # steps between two general batches at most


@dataclass(frozen=True)
class GeneralBatches:
    """The plan for one tuning.

    Attributes:
        texts: those that are used; encoded: their token ids, cut at LONGEST.
        batches: places in `texts`; repeated when the steps are more.
        every: steps from one batch to the next; rows: texts of a usual batch.
    """

    texts: list[str]
    encoded: dict[str, list[list[int]]]
    batches: list[list[int]]
    every: int
    rows: int

    @property
    def pace(self) -> str:
        """For people: "about 11 every 4 steps"."""
        return f"about {self.rows} " + ("a step" if self.every == 1 else f"every {self.every} steps")


def plan_batches(tuning: Tuning, source: str | None, samples: int, *, texts: list[str] | None = None) -> GeneralBatches:
    """Choose general texts and cut them into batches for the planned steps.

    Args:
        source, samples: the recipe's `general_text` and `general_samples`.
        texts: other texts to take instead.

    Raises:
        DataError: no such file, or too few texts in it.
    """
    from tunewell.data.general import general_texts
    from tunewell.models.embed import encode
    from tunewell.train.batching import LikeLengthBatches

    texts = general_texts(source, samples, seed=tuning.seed) if texts is None else texts
    encoded: Any = encode(tuning.tokenizer, texts, None, LONGEST)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    every = period(SHARE * tuning.tokens)
    share = SHARE * tuning.tokens * every
    rows = max(2, round(share / lengths.mean()))
    sampler = LikeLengthBatches(lengths, rows=rows, tokens=int(2 * max(share, lengths.max())), seed=tuning.seed)
    plan = list(sampler)[: -(-tuning.steps // every)]
    used = sorted({i for batch in plan for i in batch})
    place = {row: i for i, row in enumerate(used)}
    return GeneralBatches(
        texts=[texts[i] for i in used],
        encoded={k: [encoded[k][i] for i in used] for k in encoded},
        batches=[[place[i] for i in batch] for batch in plan],
        every=every,
        rows=rows,
    )


def period(tokens: float) -> int:
    """Steps between general batches, when a step's share of general text is `tokens` long.

    On short texts that share is two or three sentences, and a pass through the model costs more than it
    teaches. The term is then computed on every k-th step, on k times the text and with k times the weight:
    the same gradient on average (lazy regularisation; Karras et al., 2020, section 3.1).

    >>> period(80), period(200), period(400)
    (4, 2, 1)
    """
    return min(RAREST, max(1, -int(-LEAST // max(tokens, 1.0))))
