"""One task of a sequence as a `Job`: the ordinary stages, on the body that earlier tasks left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.folder import fingerprint
from tunewell.recipe import Recipe
from tunewell.results import write_with
from tunewell.sequence.heads import Head, attach, features, last_linear
from tunewell.stages.job import Job
from tunewell.stages.keys import Keys

if TYPE_CHECKING:
    from tunewell.stages.job import Echo
    from tunewell.stages.prepare import Prepared


class TaskJob(Job):
    """A job whose model begins where earlier tasks ended.

    Args:
        inputs: fingerprint of what the task begins with, beyond its recipe and rows.
        body: shared weights, None for the base model's; head: the head to go on with, None for a new one.
        others: heads to be trained along, by name.
        head_first: fit the new head on the frozen body first (LP-FT; Kumar et al., 2022).
    """

    watched = False  # a task is measured against the base model after it is tuned

    def __init__(
        self,
        recipe: Recipe,
        *,
        output_dir: Path,
        prepared: Prepared,
        inputs: str,
        body: Head | None,
        head: Head | None,
        others: dict[str, Head],
        head_first: bool,
        echo: Echo,
        progress: bool,
    ) -> None:
        super().__init__(recipe, output_dir=output_dir, echo=echo, progress=progress, prepared=prepared)
        self.inputs, self.body, self.head, self.others, self.head_first = inputs, body, head, others, head_first
        self.companions: Sequence[tuple[str, Prepared]] = ()  # tasks learned at the same time, under their heads' names

    @cached_property
    def keys(self) -> Keys:
        own = super().keys
        tune = fingerprint(own.tune, self.inputs)
        return Keys(own.data, own.probe, tune, fingerprint(own.choice, tune))

    def fresh_model(self) -> Any:
        """The body so far under a new head (or the one to go on with), other heads beside it."""
        model = super().fresh_model()
        if self.body is not None:
            model.load_state_dict(self.body, strict=False)
        if self.head is not None:
            model.load_state_dict(self.head, strict=False)
        elif self.head_first:
            self._begin_with_head(model)
        if self.head is not None or self.head_first:
            model.drawn_parameters = frozenset()  # a head that has learned needs no faster rate
        if self.others:
            attach(model, self.others)
        return model

    def _begin_with_head(self, model: Any) -> None:
        """Fit the last layer on the frozen body; kept on disk, so that a resumed task begins with the same."""
        import torch
        from safetensors.torch import load_file, save_file

        path, name = self.folder / "head.safetensors", last_linear(model)[0]
        layer = last_linear(model)[1]
        if not self.folder.done("head", self.keys.tune, ["head.safetensors"]):
            weights, bias = fit_last_layer(self, model)
            tensors = {"weight": torch.from_numpy(weights), "bias": torch.from_numpy(bias)}
            write_with(path, lambda temporary: save_file(tensors, str(temporary)))
            self.folder.mark("head", self.keys.tune, ["head.safetensors"])
        tensors = load_file(str(path))
        with torch.no_grad():
            layer.weight.copy_(tensors["weight"])
            if layer.bias is None:
                raise RuntimeError(f"{name} has no bias, so that a fitted head does not fit")
            layer.bias.copy_(tensors["bias"])

    def validate(self, model: Any) -> dict[str, float]:
        """With companions, the mean accuracy over all tasks' validation rows."""
        own = super().validate(model)
        if not self.companions:
            return own
        from tunewell.models.embed import encode
        from tunewell.sequence.heads import run_heads
        from tunewell.sequence.replay import live_head
        from tunewell.tasks import targets

        values = [own[self.spec.metric]]
        for head, prepared in self.companions:
            rows = prepared.splits["validation"]
            pairs = list(rows["text_pair"]) if prepared.spec.pair else None
            encoded = encode(self.tokenizer, list(rows["text"]), pairs, self.max_length)
            logits, _ = run_heads(
                model, self.tokenizer, encoded, {"": live_head(model, head)},
                batch_size=self.recipe.per_device_eval_batch_size, bf16=self.bf16,
            )  # fmt: skip
            values.append(float((logits[""].argmax(1) == targets(prepared.spec, rows)).mean()))
        return {self.spec.metric: float(np.mean(values))}


def fit_last_layer(job: Job, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, F) and bias (C,) of the last layer, fitted on training rows with the rest frozen.

    Logistic regression on standardised features, its regularisation chosen on validation, folded back
    into a plain linear layer.
    """
    from tunewell.evaluate.linear import fit_linear_probe

    x = {name: features_of(job, model, name) for name in ("train", "validation")}
    probe = fit_linear_probe(
        x["train"], job.targets("train"), x["validation"], job.targets("validation"),
        seed=job.recipe.seed, n_classes=len(job.spec.labels),
    )  # fmt: skip
    return fold(probe)


def fold(probe: Any) -> tuple[np.ndarray, np.ndarray]:
    """A linear probe on standardised features as weights (C, F) and bias (C,) on the features themselves."""
    weights = probe.model.weights / probe.scale[:, None]
    bias = probe.model.bias - probe.mean @ weights
    return np.ascontiguousarray(weights.T.astype(np.float32)), bias.astype(np.float32)


def features_of(job: Job, model: Any, split: str) -> np.ndarray:
    """(n, F) what goes into the head's last layer, for the rows of a split."""
    from tunewell.models.embed import encode, like_length, logits_of

    rows = job.splits[split]
    pairs = list(rows["text_pair"]) if job.spec.pair else None
    encoded = encode(job.tokenizer, list(rows["text"]), pairs, job.max_length)
    size = job.recipe.per_device_eval_batch_size
    with features(model) as seen:
        logits_of(model, job.tokenizer, encoded, batch_size=size, bf16=job.bf16)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    order = np.concatenate(list(like_length(lengths, size)))
    values = np.concatenate([s.float().cpu().numpy() for s in seen])
    out = np.empty_like(values)
    out[order] = values
    return out
