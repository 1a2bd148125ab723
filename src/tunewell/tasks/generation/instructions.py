"""Instruction tuning: what is particular to conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.data.split import text_key
from tunewell.evaluate.answers import Figures, ratio
from tunewell.results import Finding
from tunewell.tasks.checking import SHOWN, example
from tunewell.tasks.generation.score import exact, refuses, repetition, rouge_l, token_f1

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.tasks.generation.writers import Likelihood

HEADLINES = ("token_accuracy", "exact_match", "token_f1", "rouge_l")
LOWER = ("loss", "perplexity", "bits_per_byte")
BOUNDS = {"loss": (0.0, np.inf), "perplexity": (1.0, np.inf), "bits_per_byte": (0.0, np.inf)}


def likelihood_metrics(likelihood: Likelihood | None, n: int) -> dict[str, Any]:
    """loss (nats a token), perplexity, bits_per_byte and token_accuracy of held-out answers."""
    nothing = np.full(n, np.nan)
    nats, tokens, right, size = likelihood if likelihood is not None else (nothing, nothing, nothing, nothing)
    loss = ratio(nats, tokens)
    return {
        "token_accuracy": ratio(right, tokens),
        "loss": loss,
        "perplexity": lambda w: np.exp(loss(w)),
        "bits_per_byte": ratio(nats / np.log(2), size),
    }


def figures(
    rows: Dataset,
    likelihood: Likelihood | None,
    written: Sequence[str] | None,
    ended: np.ndarray | None,
    place: np.ndarray,
    metric: str,
) -> Figures:
    """All metrics of one model; what is written is scored on the rows at `place` alone."""
    n = len(rows)
    references = rows["label"]
    each = {
        name: np.full(n, np.nan) for name in ("exact_match", "token_f1", "rouge_l", "ended", "refusals", "repetition")
    }
    if written is not None:
        for i, text in zip(place, written, strict=True):
            reference = references[int(i)]
            each["exact_match"][i] = exact(text, reference)
            each["token_f1"][i] = token_f1(text, reference)
            each["rouge_l"][i] = rouge_l(text, reference)
            each["refusals"][i] = refuses(text)
            each["repetition"][i] = repetition(text)
        if ended is not None:
            each["ended"][place] = ended
    metrics = likelihood_metrics(likelihood, n) | {name: ratio(values) for name, values in each.items()}
    if metric in each:
        points, about = each[metric], f"{metric} by row"
    else:
        points = likelihood.right / likelihood.tokens if likelihood is not None else np.full(n, np.nan)
        about = "token accuracy by row"
    counts = dict.fromkeys(each, len(place))
    return Figures(lambda w: {name: of(w) for name, of in metrics.items()}, n, points, about, counts, BOUNDS)


def findings(splits: dict[str, Dataset], audit: dict[str, Any]) -> list[Finding]:
    """One prompt with different answers; answers cut; answers that never end."""
    out = []
    for name, rows in splits.items():
        groups: dict[str, list[int]] = defaultdict(list)
        for i, text in enumerate(rows["text"]):
            groups[text_key(text)].append(i)
        labels = rows["label"]
        torn = [g for g in groups.values() if len(g) > 1 and len({labels[i].strip() for i in g}) > 1]
        if torn:
            out.append(
                Finding(
                    code="conflicting-answers",
                    severity="notice",
                    split=name,
                    title="One prompt, several answers",
                    count=sum(map(len, torn)),
                    message=f"{len(torn):,} prompts of {name} stand there more than once with different answers.",
                    examples=tuple(
                        example(rows[g[0]], rows[g[0]]["text"], " / ".join(labels[i][:60] for i in g[:3]))
                        for g in torn[:SHOWN]
                    ),
                    remedy="fine where variety is wanted; else keep the best answer",
                )
            )
    if audit["rows_too_long"]:
        out.append(
            Finding(
                code="overlength",
                severity="warning" if audit["rows_too_long"] > 0.05 * audit["rows"] else "notice",
                split="train",
                title="Rows longer than max_length",
                count=audit["rows_too_long"],
                message=f"{audit['rows_too_long']:,} training rows are longer than {audit['max_length']} tokens "
                f"(overlength: {audit['overlength']}); {audit['tokens_cut']:,} tokens are cut.",
                remedy="raise max_length, or choose what happens to them with `overlength`",
            )
        )
    if audit.get("answers_cut"):
        out.append(
            Finding(
                code="answer-cut",
                severity="warning",
                split="train",
                title="Answers that are cut",
                count=audit["answers_cut"],
                message=f"{audit['answers_cut']:,} training rows are so long that tokens of an answer are left out.",
                remedy="raise max_length, or choose `overlength: drop` or `error`",
            )
        )
    if audit.get("rows_with_marks"):
        out.append(
            Finding(
                code="template-in-text",
                severity="warning",
                split="train",
                title="Marks of a chat template in the text",
                count=audit["rows_with_marks"],
                message=f"{audit['rows_with_marks']:,} of {audit['looked_at']:,} conversations hold "
                + ", ".join(f"`{m}`" for m in audit["marks"][:5])
                + " in a message: rendered by a template once, they would be rendered twice.",
                remedy="give the messages without the marks; the model's own template puts them in",
            )
        )
    if audit.get("rows_not_shown"):
        out.append(
            Finding(
                code="message-not-shown",
                severity="warning",
                split="train",
                title="Messages that the template does not show",
                count=audit["rows_not_shown"],
                message=f"In {audit['rows_not_shown']:,} of {audit['looked_at']:,} conversations a message of "
                f"{' and '.join(audit['roles_not_shown'])} does not reach the model as it stands in the data.",
                remedy="look at the sample in the report; put a system prompt into the first question if need be",
            )
        )
    if audit.get("answers_hidden_by_template"):
        out.append(
            Finding(
                code="answer-hidden",
                severity="notice",
                split="train",
                title="Earlier answers without loss",
                count=audit["answers_hidden_by_template"],
                message=f"{audit['answers_hidden_by_template']:,} earlier answers carry no loss, because the template "
                "shows them otherwise once the conversation goes on.",
                remedy="split such conversations into one row an answer",
            )
        )
    if audit.get("added_by_template"):
        out.append(
            Finding(
                code="system-prompt-added",
                severity="notice",
                split="train",
                title="The template adds a system prompt",
                count=audit["rows"],
                message=f"Conversations without a system message begin with: {audit['added_by_template'][:200]}",
                remedy="give a system message of your own to change it",
            )
        )
    endless = audit["rows_with_loss"] - audit["rows_that_learn_to_end"]
    if endless:
        out.append(
            Finding(
                code="no-end",
                severity="warning",
                split="train",
                title="Answers that do not learn to end",
                count=endless,
                message=f"{endless:,} training rows have no end token that carries loss, because their answer is cut "
                "or the tokenizer has none: the model may go on writing.",
                remedy="raise max_length, or leave such rows out with `overlength: drop`",
            )
        )
    return out
