"""What goes on inside an encoder, layer by layer, for texts: pooled states, attention's entropy, early answers.

Shapes: n texts, L layers (L + 1 with the embeddings below them), H hidden size, T tokens, C outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.tokens.rollout import attention
from tunewell.models.embed import encode, like_length, mean_pool, pad


@dataclass(frozen=True)
class Inside:
    """Attributes:
    pooled: (L + 1, n, H) mean over the tokens of each layer's states, the embeddings first.
    entropy: (L, n) mean entropy of attention in nats, over heads and tokens; None where attention is not shown.
    early: (L + 1, n, C) what the head answers when it reads that layer; None without a head.
    """

    pooled: np.ndarray
    entropy: np.ndarray | None
    early: np.ndarray | None


def look_inside(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    head: bool = False,
    batch_size: int = 32,
) -> Inside:
    """Run texts through a model and keep what `Inside` holds.

    Args:
        head: read every layer with the model's own head too (the logit lens; nostalgebraist, 2020): the answer that
            the model would give if it stopped there.
    """
    import torch

    base, training = model.base_model, model.training
    model.eval()
    encoded = encode(tokenizer, texts, pairs, max_length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=len(texts))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]] = []
    try:
        with _showing(model) as shown, torch.inference_mode():
            for index in like_length(lengths, batch_size):
                batch = {k: v.to(base.device) for k, v in pad(tokenizer, encoded, index).items()}
                out = base(**batch, output_hidden_states=True, output_attentions=shown)
                mask = batch["attention_mask"]
                pooled = np.stack([mean_pool(h.float(), mask).cpu().numpy() for h in out.hidden_states])
                entropy = None
                if shown and out.attentions:
                    entropy = np.stack([_entropy(a.float(), mask).cpu().numpy() for a in out.attentions])
                early = None
                if head:
                    early = np.stack([_read(model, batch, out, h).cpu().numpy() for h in out.hidden_states])
                parts.append((index, pooled, entropy, early))
    finally:
        model.train(training)
    order = np.argsort(np.concatenate([p[0] for p in parts]), kind="stable")

    def joined(k: int) -> np.ndarray | None:
        found = [p[k] for p in parts]
        return None if any(f is None for f in found) else np.concatenate(found, axis=1)[:, order]  # type: ignore[arg-type]

    return Inside(np.asarray(joined(1)), joined(2), joined(3))


@contextlib.contextmanager
def _showing(model: Any) -> Iterator[bool]:
    """A context in which a model shows its attention, where it can; gives whether it does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(attention(model, "eager"))
            shown = True
        except ModelError:
            shown = False
        yield shown


def _entropy(weights: Any, mask: Any) -> Any:
    """Mean entropy (B,) of attention (B, heads, T, T) over heads and the tokens that `mask` keeps."""
    each = -(weights * weights.clamp(min=1e-12).log()).sum(dim=-1).mean(dim=1)  # (B, T)
    kept = mask.to(each.dtype)
    return (each * kept).sum(dim=1) / kept.sum(dim=1)


def _read(model: Any, batch: dict[str, Any], out: Any, hidden: Any) -> Any:
    """Logits (B, C) of the model's head on the states (B, T, H) of one layer."""
    changed = type(out)(**{**out, "last_hidden_state": hidden})
    if out.get("pooler_output") is not None:
        changed["pooler_output"] = model.base_model.pooler(hidden)
    base = model.base_model
    base.forward = lambda *args, **options: changed  # what it would compute is known
    try:
        return model(**batch).logits.float()
    finally:
        del base.forward
