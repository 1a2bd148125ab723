"""A linear probe first, then tuning (LP-FT; Kumar et al., 2022).

A head drawn at random sends large gradients into the encoder at first, which distort its features
before the head has learned anything. So the last linear layer is fitted on the frozen features of the
training rows, and tuning starts from there. The fit is convex and solved by L-BFGS: the mean loss over
rows plus ‖W‖² / 2n, the penalty of scikit-learn's logistic regression at C = 1.

Where a model has more than one layer in its head, the layers before the last stay as they were drawn
or loaded while the probe is fitted. At most 20,000 rows are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

ROWS = 20_000
ITERATIONS = 500


class LinearProbeFirst:
    name = "lpft"
    title = "A linear probe first, then tuning"
    fits_head = True  # tuning starts from a head that has learned, which needs no faster rate
    paper = "Kumar et al., 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution"

    def __init__(self, options: dict[str, Any]) -> None:
        self.batch_size = int(options["per_device_eval_batch_size"])

    def prepare(self, tuning: Tuning) -> None:
        import torch

        from tunewell.strategies.quadratic import cached

        head = last_linear(tuning.model)

        def measure() -> Weights:
            rows = tuning.train
            if len(rows) > ROWS:
                rows = rows.select(np.sort(np.random.default_rng(tuning.seed).permutation(len(rows))[:ROWS]))
            tuning.echo(f"lpft: fitting the head on {len(rows):,} frozen rows")
            features = frozen_features(tuning, head, rows, self.batch_size)
            kind = torch.float32 if tuning.float_labels else torch.int64
            labels = torch.tensor(np.asarray(rows["labels"]), dtype=kind)
            weight, bias = fit(features, labels, tuning.row_loss, head.out_features)
            return {"weight": weight, "bias": bias}

        fitted = cached(tuning, self.name, measure)
        with torch.no_grad():
            head.weight.copy_(fitted["weight"])
            if head.bias is not None:
                head.bias.copy_(fitted["bias"])


def last_linear(model: Any) -> Any:
    """The layer that gives the model's answers: the last linear one with as many outputs as labels."""
    import torch

    fitting = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels
    ]
    return fitting[-1]


def frozen_features(tuning: Tuning, head: Any, rows: Any, batch_size: int) -> torch.Tensor:
    """(n, F) what the last layer is given for each row, dropout off."""
    import torch

    from tunewell.models.embed import like_length, logits_of, tokens_for

    seen: list[torch.Tensor] = []
    encoded = {k: list(rows[k]) for k in rows.column_names if k != "labels"}
    encoded.setdefault("attention_mask", [[1] * len(ids) for ids in encoded["input_ids"]])
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    order = list(like_length(lengths, batch_size, tokens_for(tuning.model.device)))  # the batches of logits_of
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().float().cpu()))
    try:
        logits_of(tuning.model, tuning.tokenizer, encoded, batch_size=batch_size, bf16=tuning.bf16)
    finally:
        handle.remove()
    out = torch.empty(len(lengths), seen[0].shape[-1])
    for index, part in zip(order, seen, strict=True):
        out[torch.from_numpy(index)] = part
    return out


def fit(
    features: torch.Tensor, labels: torch.Tensor, row_loss: Any, outputs: int, penalty: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (C, F) and bias (C,) that minimise mean(row_loss) + penalty · ‖W‖² / 2n.

    Args:
        features: (n, F); labels: as `row_loss` takes them.
    """
    import torch

    n = len(features)
    weight = torch.zeros(outputs, features.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = row_loss(features @ weight.T + bias, labels).mean() + penalty * weight.square().sum() / (2 * n)
        loss.backward()
        return loss

    solver.step(closure)
    return weight.detach(), bias.detach()
