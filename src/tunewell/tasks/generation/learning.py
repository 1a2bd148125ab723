"""What a tuning step of answers computes: batches packed or padded, and -log p of the answers' tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError
from tunewell.tasks.base import TokenLoss
from tunewell.tasks.generation.loss import IGNORED, answer_tokens, following

if TYPE_CHECKING:
    import torch

    from tunewell.tasks.generation.writers import Writer


def token_loss(
    model: Any,
    writer: Writer,
    *,
    packing: bool | None,
    whole: bool = False,
    echo: Callable[[str], None] = lambda line: None,
) -> TokenLoss:
    """How a model learns answers.

    Args:
        packing: rows of a batch stand behind one another; None where the model gives the same answers that way.
        whole: the outputs hold the logits of every token, which a strategy reads; then rows are padded.

    Raises:
        ModelError: packing is asked for, and the model answers packed rows otherwise.
    """
    import torch.nn.functional as F

    from tunewell.tasks.generation.head import answer_nats, plain_head
    from tunewell.train import packing as pack

    plain = not whole and plain_head(model)
    packs = False
    if writer.shift and packing is not False and not whole:
        packs = pack.exact(model)
        if packing and not packs:
            raise ModelError(
                f"rows of a {model.config.model_type} model cannot stand behind one another: it would answer otherwise",
                where="packing: true",
                expected="a decoder whose attention goes through Transformers' interface",
                remedy="leave `packing` out; rows of like length are padded to each other then",
            )
    if writer.shift:
        echo("tune: rows of a batch are " + ("packed, without padding" if packs else "padded, like lengths together"))

    def learn(called: Any, bare: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        wanted = following(batch["labels"]) if writer.shift else batch["labels"]

        def run() -> Any:
            if packs:
                return pack.forward(called, inputs)
            return called(**inputs, use_cache=False)

        if whole:
            outputs, keep = run(), wanted != IGNORED
            return outputs, F.cross_entropy(outputs.logits[keep].float(), wanted[keep], reduction="sum")
        return answer_nats(bare, run, wanted, plain=plain)

    def count(labels: torch.Tensor) -> torch.Tensor:
        return answer_tokens(labels, shift=writer.shift)

    return TokenLoss(packed_rows if packs else writer.collate, learn, count, random=packs)


def packed_rows(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of rows behind one another; the first token of each follows nothing and carries no loss."""
    import torch

    from tunewell.train.packing import packed

    labels = [y for row in rows for y in (IGNORED, *row["labels"][1:])]
    batch = packed([row["ids"] if "ids" in row else row["input_ids"] for row in rows])
    return {**batch, "labels": torch.tensor([labels], dtype=torch.long)}
