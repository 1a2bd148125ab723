"""Pretraining on the task's own texts before tuning, without labels (Gururangan et al., 2020, Don't stop pretraining).

- Where the base model still has its masked language model's head: masked words (BERT; Devlin et al., 2019): 15 % of the
  tokens are asked for, of which 80 % are hidden, 10 % replaced by another and 10 % left.
- Else, for sentence encoders: SimCSE (Gao et al., 2021b). Each text is read twice, with dropout as the only noise, and
  must find itself again among the texts of its batch:

    L_i = −log exp(cos(z_i, z'_i) / τ) / Σ_j exp(cos(z_i, z'_j) / τ),   τ = 0.05

- Where the recipe asks for it (`unlabelled_pretraining: tsdae`): a denoising auto-encoder, see `denoising.py`.

The loop is the one of every tuning, so that a stopped pretraining goes on where it was.

Shapes: B texts, T tokens, H size of an embedding, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tunewell.stages.job import Job

TEMPERATURE = 0.05
MASKED, HIDDEN, OTHER = 0.15, 0.8, 0.1  # of the tokens: asked for; of those: hidden, replaced
ROWS = {"simcse": 64, "mlm": 32, "tsdae": 32}  # of a batch
MAX_LENGTH = 128  # tokens of a text that are read


class Reading:
    """What the loop takes for a strategy: no embedding row may be left out, and which pass over the texts it is.

    Attributes:
        epoch: the pass, from 0. It says how often a text has come, which counting at collation would not: batches are
            collated ahead, so that a checkpoint within a pass would count one that is not learned yet.
    """

    name, title, paper, more_rows = "pretraining", "Pretraining on the task's texts", "Gururangan et al., 2020", True

    def __init__(self) -> None:
        self.epoch = 0

    def rng(self, seed: int, place: int) -> np.random.Generator:
        """What is drawn for a text that comes in this pass."""
        return np.random.default_rng([seed, place, self.epoch + 1])


def passes_of(reading: Reading) -> Any:
    """A callback that tells a reading which pass begins."""
    from transformers import TrainerCallback

    class Passes(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            reading.epoch = int((state.epoch or 0) + 1e-3)  # a resumed pass begins at a fraction

    return Passes()


def simcse_loss(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) SimCSE's loss of each text, in nats.

    Args:
        hidden: (2B, T, H) last states: the first B of one reading, the others of a second one of the same texts.
        mask: (2B, T) tokens that are read; embeddings are the mean over them.
    """
    import torch
    from torch.nn import functional

    from tunewell.models.embed import mean_pool

    first, second = mean_pool(hidden.float(), mask).chunk(2)
    alike = functional.cosine_similarity(first.unsqueeze(1), second.unsqueeze(0), dim=-1) / TEMPERATURE
    return functional.cross_entropy(alike, torch.arange(len(alike), device=alike.device), reduction="none")


def mlm_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) mean cross-entropy of the tokens asked for in each text, 0 where none are; labels (B, T), −100 else."""
    from torch.nn import functional

    losses = functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return losses.sum(1) / (labels != -100).sum(1).clamp(min=1)


def mask_tokens(
    ids: np.ndarray, special: np.ndarray, mask_token: int, entries: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (T,) with some hidden or replaced, and labels (T,): the id where it is asked for, else −100.

    Args:
        special: (T,) tokens that are never asked for. entries: V, of which others are drawn.
    """
    asked = (rng.random(len(ids)) < MASKED) & ~special
    if not asked.any() and (~special).any():
        asked[rng.choice(np.flatnonzero(~special))] = True
    fate = rng.random(len(ids))
    out = np.where(asked & (fate < HIDDEN), mask_token, ids)
    other = asked & (fate >= HIDDEN) & (fate < HIDDEN + OTHER)
    return np.where(other, rng.integers(0, entries, len(ids)), out), np.where(asked, ids, -100)


class Twice:
    """Collates texts for SimCSE: each stands in the batch twice, `labels` is the mask that pooling needs."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collate([*rows, *rows])
        return {**batch, "labels": batch["attention_mask"]}


class Hidden:
    """Collates texts for masked words; what is hidden of a text is drawn anew in each pass, by the seed, its place and
    the pass: a resumed run goes on as an uninterrupted one would.
    """

    def __init__(self, collate: Any, tokenizer: Any, seed: int, reading: Reading) -> None:
        self.collate, self.tokenizer, self.seed, self.reading = collate, tokenizer, seed, reading
        self.special = np.array(sorted(tokenizer.all_special_ids))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        made, labels = [], []
        for row in rows:
            rng = self.reading.rng(self.seed, int(row["place"]))
            ids = np.asarray(row["input_ids"])
            special = np.isin(ids, self.special)
            ids, asked = mask_tokens(ids, special, self.tokenizer.mask_token_id, len(self.tokenizer), rng)
            made.append({**{k: v for k, v in row.items() if k != "place"}, "input_ids": ids.tolist()})
            labels.append(asked)
        batch = self.collate(made)
        out = torch.full(batch["input_ids"].shape, -100)
        for i, asked in enumerate(labels):
            n = len(asked)
            at = slice(0, n) if self.collate.padding_side == "right" else slice(out.shape[1] - n, out.shape[1])
            out[i, at] = torch.from_numpy(asked)
        return {**batch, "labels": out}


def has_mlm_head(config: Any, tokenizer: Any) -> bool:
    """Whether a model says that it has a masked language model's head, and its tokenizer a mask."""
    named = any(a.endswith("ForMaskedLM") for a in config.architectures or ())
    return named and tokenizer.mask_token_id is not None


def no_head(name: str) -> ModelError:
    return ModelError(
        "has no head for masked words",
        where=name,
        expected="a masked language model with its head",
        remedy="take `unlabelled_pretraining: simcse` or `tsdae`, or leave it out",
    )


def load_base(job: Job) -> tuple[Any, str]:
    """The base model as it is pretrained, and by what: as the recipe asks, by default "mlm" with its head where it has
    one, else "simcse".

    Raises:
        ModelError: no head for masked words; no dropout, the only noise of SimCSE; or no decoder can be made of it.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    from tunewell.models.load import load_encoder, load_part

    recipe, wanted = job.recipe, job.recipe.unlabelled_pretraining
    about = (recipe.model, job.model_path)
    options: dict[str, Any] = {"revision": recipe.revision, "trust_remote_code": recipe.trust_remote_code}
    config = config_of(job)
    if wanted in ("auto", "mlm"):
        if has_mlm_head(config, job.tokenizer):
            model, found = load_part(
                AutoModelForMaskedLM.from_pretrained, *about, "weights", use_safetensors=True, dtype=torch.float32,
                output_loading_info=True, **options,
            )  # fmt: skip
            if not found["missing_keys"]:
                model.accepts_loss_kwargs = False
                return model, "mlm"
        if wanted == "mlm":
            raise no_head(recipe.model)
    model = load_encoder(*about[:1], recipe.revision, recipe.trust_remote_code).model
    if wanted == "tsdae":
        return denoiser(model, about, config, options), "tsdae"
    if not any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()):
        raise ModelError(
            "has no dropout, which is the only noise that SimCSE learns from"
            + (", and no head for masked words" if wanted == "auto" else ""),
            where=recipe.model,
            expected="an encoder with dropout, or with its masked language model's head",
            remedy="leave `pretraining` out of unlabelled_methods",
        )
    return model, "simcse"


def config_of(job: Job) -> Any:
    """The base model's config."""
    from transformers import AutoConfig

    from tunewell.models.load import load_part

    recipe = job.recipe
    options = {"revision": recipe.revision, "trust_remote_code": recipe.trust_remote_code}
    return load_part(AutoConfig.from_pretrained, recipe.model, job.model_path, "config", **options)


def denoiser(encoder: Any, about: tuple[str, str], config: Any, options: dict[str, Any]) -> Any:
    """An encoder under the decoder of TSDAE; the layer that names words is the base model's where it has one.

    Raises:
        ModelError: no decoder can be made of it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tunewell.models.load import load_part
    from tunewell.unlabelled.denoising import Denoiser, decoder_config

    options = {**options, "config": decoder_config(config), "use_safetensors": True, "dtype": torch.float32}
    return Denoiser(encoder, load_part(AutoModelForCausalLM.from_pretrained, *about, "weights", **options))


def pretrain(job: Job, texts: list[str], folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Pretrain the job's base model on texts.

    Args:
        folder: for checkpoints; a whole one found there is continued.

    Returns:
        The encoder's weights by name, and about it: objective, texts, steps, seconds, loss_first and loss_last.
    """
    from datasets import Dataset
    from transformers import set_seed

    from tunewell.models.load import window
    from tunewell.tasks.base import Inputs
    from tunewell.train.batching import Collator
    from tunewell.train.tune import encode_rows, tune

    recipe, tokenizer = job.recipe, job.tokenizer
    set_seed(recipe.seed)
    model, objective = load_base(job)
    length = min(MAX_LENGTH, window(model, tokenizer))
    rows = Dataset.from_dict({"text": texts})
    encoded = encode_rows(rows, job.spec, tokenizer, length, None)
    collate: Any = Collator(tokenizer.pad_token_id or 0, float_labels=False, padding_side=tokenizer.padding_side)
    loss: Callable[[Any, Any], Any]
    reading = Reading()
    if objective == "mlm":
        encoded = encoded.add_column("place", list(range(len(encoded))))
        collate, loss = Hidden(collate, tokenizer, recipe.seed, reading), _of_logits
    elif objective == "tsdae":
        from tunewell.unlabelled.denoising import Shortened

        encoded = encoded.add_column("place", list(range(len(encoded))))
        collate, loss = Shortened(collate, tokenizer, recipe.seed, reading), _of_words
    else:
        collate, loss = Twice(collate), _of_states
    own = {
        "strategy": ["plain"], "num_train_epochs": recipe.unlabelled_epochs, "max_steps": -1,
        "per_device_train_batch_size": ROWS[objective], "gradient_accumulation_steps": 1, "report_to": ["none"],
        "evals_per_epoch": 1, "monitor": "off", "keep": None, "keep_worst": None,
    }  # fmt: skip
    job.echo(f"pretraining: {objective} on {len(texts):,} texts, {recipe.unlabelled_epochs:g} ×")
    training = tune(
        model,
        tokenizer,
        job.spec,
        rows,
        recipe=recipe.model_copy(update=own),
        max_length=length,
        targets=np.empty(0),
        validate=None,
        strategies=[reading],
        callbacks=(passes_of(reading),),
        folder=folder,
        echo=job.echo,
        progress=job.progress,
        inputs=Inputs(rows=encoded, collate=collate, loss=loss, tokens_a_row=length),
    )
    losses = [float(e["loss"]) for e in training.history if "loss" in e]
    weights = {k: v.detach().contiguous().clone() for k, v in model.base_model.state_dict().items()}
    about = {
        "objective": objective, "texts": len(texts), "steps": training.steps, "seconds": round(training.seconds, 2),
        "loss_first": losses[0] if losses else None, "loss_last": losses[-1] if losses else None,
    }  # fmt: skip
    return weights, about


def _of_states(outputs: Any, mask: torch.Tensor) -> torch.Tensor:
    return simcse_loss(outputs.last_hidden_state, mask)


def _of_logits(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return mlm_loss(outputs.logits, labels)


def _of_words(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    from tunewell.unlabelled.denoising import tsdae_loss

    return tsdae_loss(outputs.logits, labels)


def put(model: Any, path: Path) -> None:
    """Pretrained weights of an encoder into a model with a head; a pooler that pretraining did not know stays.

    Raises:
        ModelError: they are those of another model.
    """
    from safetensors.torch import load_file

    weights, own = load_file(str(path)), model.base_model.state_dict()
    found = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k not in found and "pooler" not in k]
    if missing:
        raise ModelError(
            f"does not take the pretrained weights: {missing[0]} is not among them", where=model.config.model_type
        )
    model.base_model.load_state_dict({**own, **found})
